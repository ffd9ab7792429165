#include "comm/processes/run_processes.h"

#include <gtest/gtest.h>

#include <thread>

namespace sluice::test {

namespace {

void rethrow_first(const std::vector<std::exception_ptr>& thrown) {
  for (const std::exception_ptr& each : thrown) {
    if (each) std::rethrow_exception(each);
  }
}

}  // namespace

std::vector<std::exception_ptr> run_couriers(const ProcessCase& test, const std::function<void(Courier&)>& body) {
  const auto count = static_cast<int>(test.ranks.size());
  std::vector<Member> members;
  int ranks = 0;
  for (int process = 0; process < count; ++process) {
    const int here = test.ranks[static_cast<size_t>(process)];
    members.push_back({.process = process,
                       .host = std::string(1, static_cast<char>('a' + process)),
                       .first_rank = ranks,
                       .ranks = here});
    ranks += here;
  }
  MemoryWires wires(count);
  if (test.wires) test.wires(wires);
  std::vector<std::exception_ptr> thrown(test.ranks.size());
  std::vector<std::thread> threads;
  for (int process = 0; process < count; ++process) {
    threads.emplace_back([&, process] {
      try {
        Courier courier(test.wire ? test.wire(process) : wires.wire(process), members, test.timeout_s);
        body(courier);
      } catch (...) {
        thrown[static_cast<size_t>(process)] = std::current_exception();
      }
    });
  }
  for (std::thread& each : threads) each.join();
  return thrown;
}

std::vector<std::exception_ptr> run_processes(const ProcessCase& test,
                                              const std::function<void(Communicator& world)>& body) {
  return run_couriers(
      test, [&](Courier& courier) { run_ranks(courier, {.timeout_s = test.timeout_s, .async = test.async}, body); });
}

void expect_couriers(const ProcessCase& test, const std::function<void(Courier&)>& body) {
  rethrow_first(run_couriers(test, body));
}

void expect_processes(const ProcessCase& test, const std::function<void(Communicator& world)>& body) {
  rethrow_first(run_processes(test, body));
}

}  // namespace sluice::test
