#include "comm/inproc/moves.h"

#include <numeric>

namespace sluice::moves {

namespace {

char* advance(void* data, int64_t elements, DType dtype) {
  return static_cast<char*>(data) + elements * static_cast<int64_t>(size_of(dtype));
}

const char* advance(const void* data, int64_t elements, DType dtype) {
  return static_cast<const char*>(data) + elements * static_cast<int64_t>(size_of(dtype));
}

std::vector<const void*> inputs(const Group::Posts& posts, int64_t first, DType dtype) {
  std::vector<const void*> in;
  for (const Post* post : posts) in.push_back(advance(post->in, first, dtype));
  return in;
}

void copy(Mover& mover, void* to, const void* from, int64_t elements, DType dtype) {
  mover.copy(to, from, static_cast<size_t>(elements) * size_of(dtype));
}

}  // namespace

void gather(const Group& /*group*/, const Group::Posts& posts, int first, int last, Mover& mover) {
  for (int rank = first; rank < last; ++rank) {
    void* target = posts[static_cast<size_t>(rank)]->out;
    for (const Post* p : posts) {
      copy(mover, target, p->in, p->elements, p->dtype);
      target = advance(target, p->elements, p->dtype);
    }
  }
}

void reduce_parts(const Group& /*group*/, const Group::Posts& posts, int first, int last, Mover& mover) {
  for (int rank = first; rank < last; ++rank) {
    const Post& mine = *posts[static_cast<size_t>(rank)];
    mover.reduce(mine.dtype, ReduceOp::sum, std::span(&mine.out, 1), inputs(posts, rank * mine.elements, mine.dtype),
                 mine.elements);
  }
}

void reduce_all(const Group& /*group*/, const Group::Posts& posts, int first, int last, Mover& mover) {
  const auto n = static_cast<int64_t>(posts.size());
  const Post& any = *posts.front();
  const int64_t begin = any.elements * first / n;
  const int64_t end = any.elements * last / n;
  std::vector<void*> out;
  for (const Post* post : posts) out.push_back(advance(post->out, begin, any.dtype));
  mover.reduce(any.dtype, static_cast<ReduceOp>(any.variant), out, inputs(posts, begin, any.dtype), end - begin);
}

void exchange_rows(const Group& group, const Group::Posts& posts, int first, int last, Mover& mover) {
  std::vector<char*> targets;
  for (int rank = first; rank < last; ++rank) {
    targets.push_back(static_cast<char*>(posts[static_cast<size_t>(rank)]->out));
  }
  for (size_t r = 0; r < posts.size(); ++r) {
    const Post& from = *posts[r];
    const int64_t skipped = std::accumulate(from.in_counts.begin(), from.in_counts.begin() + first, int64_t{0});
    const char* source = advance(from.in, skipped * from.elements, from.dtype);
    for (int rank = first; rank < last; ++rank) {
      const int64_t rows = from.in_counts[static_cast<size_t>(rank)];
      const int64_t expected = posts[static_cast<size_t>(rank)]->out_counts[r];
      if (rows != expected) {
        const int sender = group.world_rank(static_cast<int>(r));
        throw Error(
            ErrorKind::internal,
            fmt::format("rank {} and rank {} do not agree in {}: rank {} sends {} rows, rank {} expects {}", sender,
                        group.world_rank(rank), from.call.str(), sender, rows, group.world_rank(rank), expected));
      }
      char*& target = targets[static_cast<size_t>(rank - first)];
      copy(mover, target, source, rows * from.elements, from.dtype);
      target = advance(target, rows * from.elements, from.dtype);
      source = advance(source, rows * from.elements, from.dtype);
    }
  }
}

void spread(const Group& /*group*/, const Group::Posts& posts, int first, int last, Mover& mover) {
  const void* source = posts[static_cast<size_t>(posts.front()->variant)]->in;
  for (int rank = first; rank < last; ++rank) {
    const Post& mine = *posts[static_cast<size_t>(rank)];
    copy(mover, mine.out, source, mine.elements, mine.dtype);
  }
}

void nothing(const Group& /*group*/, const Group::Posts& /*posts*/, int /*first*/, int /*last*/, Mover& /*mover*/) {}

}  // namespace sluice::moves
