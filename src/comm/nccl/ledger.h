// Ledger: what the ranks of one process have issued, so that calls that do not fit together are named when the second
// comes, and a wait can say whom it waits for. NCCL itself would hang or move the wrong bytes.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace sluice::nccl {

// One rank's part of a call, as far as the others must agree.
struct Entry {
  CallName call;
  std::string terms;  // "f32 x 16, sum"; equal on all ranks
  std::vector<int64_t> in_counts;
  std::vector<int64_t> out_counts;

  std::string str() const;  // "all_reduce of block 3, f32 x 16, sum"
};

class Ledger {
 public:
  Ledger() = default;
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  // The calls on one communicator of NCCL. `name` is equal on its ranks and no other's; `members` are of the world.
  struct Book;
  using BookPtr = std::shared_ptr<Book>;
  BookPtr book(const std::string& name, const std::vector<int>& members);

  // Member `member` issues its next call; returns its number. Throws if it does not fit the others' of that number.
  int64_t post(Book& book, int member, Entry entry);
  // A rank of the world will issue nothing more.
  void leave(int rank);

  // Whom the call waits for: "rank 2 has not issued it; rank 2 was last in send of x (axis pp)".
  std::string account(const Book& book, int64_t number) const;
  // Whether one of those has left.
  bool hopeless(const Book& book, int64_t number) const;

 private:
  std::vector<int> missing(const Book& book, int64_t number) const;
  bool has_left(int rank) const;

  mutable std::mutex mutex_;
  std::map<std::string, BookPtr> books_;
  std::map<int, CallName> last_;  // of each rank of the world
  std::vector<int> left_;
};

struct Ledger::Book {
  // A call until all have issued it.
  struct Round {
    std::vector<std::optional<Entry>> entries;
    size_t posted = 0;
  };
  std::vector<int> members;
  std::vector<int64_t> issued;  // calls of each member
  std::deque<Round> open;
  int64_t first_open = 0;  // the number of open.front()
};

}  // namespace sluice::nccl
