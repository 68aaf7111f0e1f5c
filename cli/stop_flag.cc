#include "cli/stop_flag.h"

#include <csignal>

namespace expertmesh::cli {
namespace {

volatile std::sig_atomic_t is_set = 0;
struct sigaction old_interrupt {};
struct sigaction old_terminate {};

void Raise(int) { is_set = 1; }

}  // namespace

StopFlag::StopFlag() {
  is_set = 0;
  struct sigaction action {};
  action.sa_handler = Raise;
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  sigaction(SIGINT, &action, &old_interrupt);
  sigaction(SIGTERM, &action, &old_terminate);
}

StopFlag::~StopFlag() {
  sigaction(SIGINT, &old_interrupt, nullptr);
  sigaction(SIGTERM, &old_terminate, nullptr);
  is_set = 0;
}

bool StopFlag::IsSet() { return is_set != 0; }

}  // namespace expertmesh::cli
