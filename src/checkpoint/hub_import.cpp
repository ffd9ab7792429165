#include "checkpoint/hub_import.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "checkpoint/hub_layout.h"

namespace sluice {
namespace {

// Elements a worker decodes at a time, and pieces between two reports of progress.
constexpr int64_t kPieceElements = 1 << 18;
constexpr size_t kPiecesAtOnce = 1024;

// Elements [begin, begin + to.numel()) of the part of a parameter that a hub tensor is.
struct ImportPiece {
  const HubMatch::Item* from = nullptr;
  int64_t begin = 0;
  Tensor to;
  Tensor master;  // undefined: none
};

void decode(const ImportPiece& piece, const Tensor& to) {
  for_each_line(piece.from->tensor, piece.begin, piece.begin + to.numel(), [&](int64_t at, const HubLine& line) {
    read_line(piece.from->weight, line.first, line.stride, to.rows(at - piece.begin, line.count));
  });
}

// Where the host cannot write: through an array of the piece's size.
void decode_and_upload(const Context& ctx, const ImportPiece& piece, const Tensor& to) {
  dispatch_float(to.dtype(), [&](auto type) {
    using T = decltype(type);
    std::vector<T> staged(static_cast<size_t>(to.numel()));
    decode(piece, tensor_of(staged.data(), {to.numel()}));
    ctx.upload(to, std::span<const T>(staged));
  });
}

class PieceList {
 public:
  explicit PieceList(const HubMatch& match) {
    for (const HubMatch::Item& item : match.items) by_parameter_[item.tensor.parameter].push_back(&item);
  }

  void add(const GroupShard& shard) {
    for (const FlatGroup::Piece& piece : shard.group->pieces()) {
      const Tensor master = shard.master ? shard.master.rows(piece.offset, piece.value.numel()) : Tensor();
      const int64_t first = piece.param->first + piece.first, end = first + piece.value.numel();
      int64_t covered = 0;
      for (const HubMatch::Item* item : by_parameter_[piece.param->spec.name]) {
        require(item->tensor.parameter_shape == piece.param->spec.shape, "{} is {} for the family and {} here",
                piece.param->spec.name, item->tensor.parameter_shape.str(), piece.param->spec.shape.str());
        const int64_t from = std::max(item->tensor.first(), first);
        const int64_t to = std::min(item->tensor.first() + item->tensor.hub_shape.numel(), end);
        if (from >= to) continue;
        tensors_.insert(item);
        covered += to - from;
        for (int64_t at = from; at < to; at += kPieceElements) {
          const int64_t count = std::min(kPieceElements, to - at);
          pieces_.push_back({item, at - item->tensor.first(), piece.value.rows(at - first, count),
                             master ? master.rows(at - first, count) : Tensor()});
        }
      }
      require(covered == piece.value.numel(), "{} of {} elements of {} are in hub tensors", covered,
              piece.value.numel(), piece.param->spec.name);
      elements_ += covered;
    }
  }

  const std::vector<ImportPiece>& pieces() const { return pieces_; }
  ImportCount count() const { return {std::ssize(tensors_), elements_}; }

 private:
  std::map<std::string_view, std::vector<const HubMatch::Item*>> by_parameter_;
  std::vector<ImportPiece> pieces_;
  std::set<const HubMatch::Item*> tensors_;
  int64_t elements_ = 0;
};

void import_pieces(const Context& ctx, std::span<const ImportPiece> pieces, const ImportOptions& options) {
  const auto import_one = [&](const ImportPiece& piece) {
    for (const Tensor& to : {piece.to, piece.master}) {
      if (!to) continue;
      if (options.host_visible) {
        decode(piece, to);
      } else {
        decode_and_upload(ctx, piece, to);
      }
    }
  };
  // Uploads are one thread's affair.
  if (options.pool == nullptr || !options.host_visible) {
    for (const ImportPiece& piece : pieces) import_one(piece);
  } else {
    options.pool->run(std::ssize(pieces), [&](int64_t i, int) { import_one(pieces[static_cast<size_t>(i)]); });
  }
}

}  // namespace

ImportCount import_weights(const Context& ctx, const HubMatch& match, std::span<const GroupShard> shards,
                           const ImportOptions& options) {
  PieceList list(match);
  for (const GroupShard& shard : shards) list.add(shard);
  const ImportCount count = list.count();
  if (!ctx.real()) return count;
  std::span<const ImportPiece> left = list.pieces();
  int64_t done = 0;
  while (!left.empty()) {
    const auto now = left.first(std::min(kPiecesAtOnce, left.size()));
    import_pieces(ctx, now, options);
    for (const ImportPiece& piece : now) done += piece.to.numel();
    if (options.progress) options.progress(done, count.elements);
    left = left.subspan(now.size());
  }
  for (const GroupShard& shard : shards) shard.group->invalidate();
  return count;
}

}  // namespace sluice
