// Ledger: what the ranks of this process have issued, so that calls that do not fit together are named when the second
// comes, and a wait can say whom it waits for. NCCL itself would hang or move the wrong bytes. Of members in other
// processes it only knows that they are there.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
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
  // `here`: whether a rank of the world is of this process; null: all are.
  explicit Ledger(std::function<bool(int rank)> here = {}) : here_(std::move(here)) {}
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

  // Whom of this process the call waits for: "rank 2 has not issued it; rank 2 was last in send of x (axis pp)". Empty:
  // nobody.
  std::string account(const Book& book, int64_t number) const;
  // Members in other processes.
  std::vector<int> elsewhere(const Book& book) const;
  // Whether one of those has left.
  bool hopeless(const Book& book, int64_t number) const;

 private:
  std::vector<int> missing(const Book& book, int64_t number) const;
  bool has_left(int rank) const;

  bool here(int rank) const { return !here_ || here_(rank); }

  std::function<bool(int rank)> here_;
  mutable std::mutex mutex_;
  std::map<std::string, BookPtr> books_;
  std::map<int, CallName> last_;  // of each rank of the world
  std::vector<int> left_;
};

struct Ledger::Book {
  // A call until all members of this process have issued it.
  struct Round {
    std::vector<std::optional<Entry>> entries;
    size_t posted = 0;
  };
  std::vector<int> members;
  size_t here = 0;              // how many of them are of this process
  std::vector<int64_t> issued;  // calls of each member
  std::deque<Round> open;
  int64_t first_open = 0;  // the number of open.front()
};

}  // namespace sluice::nccl
