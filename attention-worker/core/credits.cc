#include "attention-worker/core/credits.h"

#include <algorithm>

namespace expertmesh::attention_worker {

void Credits::SetUp(const std::string& worker, bool up) {
  Account& account = accounts_[worker];
  if (up && !account.up) account.limit = kInitialRows;
  account.up = up;
}

bool Credits::up(const std::string& worker) const {
  const auto it = accounts_.find(worker);
  return it != accounts_.end() && it->second.up;
}

bool Credits::CanSend(const std::string& worker, size_t rows) const {
  const auto it = accounts_.find(worker);
  if (it == accounts_.end()) return false;
  return it->second.in_flight == 0 || it->second.in_flight + rows <= it->second.limit;
}

void Credits::Sent(const std::string& worker, size_t rows) { accounts_[worker].in_flight += rows; }

void Credits::Ended(const std::string& worker, size_t rows) {
  Account& account = accounts_[worker];
  account.in_flight -= std::min(rows, account.in_flight);
}

void Credits::Answered(const std::string& worker, size_t rows, size_t credit_rows) {
  Ended(worker, rows);
  accounts_[worker].limit = credit_rows + accounts_[worker].in_flight;
}

size_t Credits::in_flight(const std::string& worker) const {
  const auto it = accounts_.find(worker);
  return it == accounts_.end() ? 0 : it->second.in_flight;
}

}  // namespace expertmesh::attention_worker
