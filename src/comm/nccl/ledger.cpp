#include "comm/nccl/ledger.h"

#include <algorithm>

#include "comm/job.h"

namespace sluice::nccl {

namespace {

bool is_message(const Entry& entry) {
  return entry.call.kind == Collective::send || entry.call.kind == Collective::recv;
}

// The two sides of a message have names of their own.
bool fit(const Entry& a, const Entry& b) {
  return a.terms == b.terms && (is_message(a) ? is_message(b) : a.call == b.call);
}

}  // namespace

std::string Entry::str() const {
  return fmt::format("{} of {}{}{}", name_of(call.kind), call.what, terms.empty() ? "" : ", ", terms);
}

Ledger::BookPtr Ledger::book(const std::string& name, const std::vector<int>& members) {
  const std::lock_guard guard(mutex_);
  BookPtr& book = books_[name];
  if (!book) {
    book = std::make_shared<Book>();
    book->members = members;
    book->here = static_cast<size_t>(std::count_if(members.begin(), members.end(), [&](int r) { return here(r); }));
    book->issued.assign(members.size(), 0);
  }
  return book;
}

int64_t Ledger::post(Book& book, int member, Entry entry) {
  const std::lock_guard guard(mutex_);
  const auto self = static_cast<size_t>(member);
  const int64_t number = book.issued[self]++;
  while (book.first_open + std::ssize(book.open) <= number) {
    book.open.emplace_back().entries.resize(book.members.size());
  }
  Book::Round& round = book.open[static_cast<size_t>(number - book.first_open)];
  for (size_t m = 0; m < round.entries.size(); ++m) {
    if (!round.entries[m]) continue;
    const Entry& other = *round.entries[m];
    const int rank = book.members[self];
    const int peer = book.members[m];
    if (!fit(entry, other)) {
      throw Error(ErrorKind::internal,
                  fmt::format("rank {} and rank {} do not agree on axis {}: rank {} is in {}, rank {} in {}{}", peer,
                              rank, entry.call.axis, peer, other.str(), rank, entry.str(),
                              is_message(entry) ? "; on NCCL messages arrive in the order they were sent" : ""));
    }
    const auto agree = [&](int sender, const Entry& sent, size_t to, int receiver, const Entry& received, size_t from) {
      if (sent.in_counts.empty() || sent.in_counts[to] == received.out_counts[from]) return;
      throw Error(
          ErrorKind::internal,
          fmt::format("rank {} and rank {} do not agree in {}: rank {} sends {} rows, rank {} expects {}", sender,
                      receiver, entry.call.str(), sender, sent.in_counts[to], receiver, received.out_counts[from]));
    };
    agree(peer, other, self, rank, entry, m);
    agree(rank, entry, m, peer, other, self);
  }
  last_[book.members[self]] = entry.call;
  round.entries[self] = std::move(entry);
  ++round.posted;
  while (!book.open.empty() && book.open.front().posted == book.here) {
    book.open.pop_front();
    ++book.first_open;
  }
  return number;
}

void Ledger::leave(int rank) {
  const std::lock_guard guard(mutex_);
  left_.push_back(rank);
}

std::vector<int> Ledger::missing(const Book& book, int64_t number) const {
  std::vector<int> ranks;
  for (size_t m = 0; m < book.members.size(); ++m) {
    if (here(book.members[m]) && book.issued[m] <= number) ranks.push_back(book.members[m]);
  }
  return ranks;
}

std::vector<int> Ledger::elsewhere(const Book& book) const {
  std::vector<int> ranks = book.members;
  std::erase_if(ranks, [&](int rank) { return here(rank); });
  return ranks;
}

bool Ledger::has_left(int rank) const {
  return std::find(left_.begin(), left_.end(), rank) != left_.end();
}

std::string Ledger::account(const Book& book, int64_t number) const {
  const std::lock_guard guard(mutex_);
  const std::vector<int> ranks = missing(book, number);
  if (ranks.empty()) return {};
  std::vector<int> gone;
  std::vector<int> late;
  for (const int rank : ranks) (has_left(rank) ? gone : late).push_back(rank);
  std::string text;
  if (!gone.empty()) text = format_ranks(gone) + (gone.size() == 1 ? " has left" : " have left");
  if (!late.empty()) {
    text += fmt::format("{}{} {} not issued it", text.empty() ? "" : ", ", format_ranks(late),
                        late.size() == 1 ? "has" : "have");
  }
  for (const int rank : late) {
    const auto last = last_.find(rank);
    if (last != last_.end()) text += fmt::format("; rank {} was last in {}", rank, last->second.str());
  }
  return text;
}

bool Ledger::hopeless(const Book& book, int64_t number) const {
  const std::lock_guard guard(mutex_);
  const std::vector<int> ranks = missing(book, number);
  return std::any_of(ranks.begin(), ranks.end(), [&](int rank) { return has_left(rank); });
}

}  // namespace sluice::nccl
