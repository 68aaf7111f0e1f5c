// Credits: rows in flight per expert worker stay within what it said it would take. Also remembers
// which workers are connected. Pure, one owner.
#pragma once

#include <cstddef>
#include <map>
#include <string>

namespace expertmesh::attention_worker {

class Credits {
 public:
  /// What a worker is trusted with before its first answer.
  static constexpr size_t kInitialRows = 4096;

  void SetUp(const std::string& worker, bool up);
  bool up(const std::string& worker) const;

  /// True if `rows` more may be sent now. An idle worker takes a call of any size, so that one
  /// larger than the credit cannot wait for ever.
  bool CanSend(const std::string& worker, size_t rows) const;
  void Sent(const std::string& worker, size_t rows);
  /// The call ended without an answer.
  void Ended(const std::string& worker, size_t rows);
  /// The call was answered; the worker would take `credit_rows` beyond what it holds.
  void Answered(const std::string& worker, size_t rows, size_t credit_rows);

  size_t in_flight(const std::string& worker) const;

 private:
  struct Account {
    bool up = false;
    size_t in_flight = 0;
    size_t limit = kInitialRows;
  };
  std::map<std::string, Account> accounts_;
};

}  // namespace expertmesh::attention_worker
