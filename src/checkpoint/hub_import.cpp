#include "checkpoint/hub_import.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
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

// What of a tensor that was read is no number.
struct NotFinite {
  int64_t nans = 0;
  int64_t infinities = 0;
  int64_t first = 0;  // in the hub's tensor
};

// Collects it over pieces, which several threads may read. That values are bad is seen while they are in the cache.
class FiniteCheck {
 public:
  // `values` are those of the piece.
  template <class T>
  void add(const ImportPiece& piece, std::span<const T> values) {
    bool finite = true;
    for (const T value : values) finite &= std::abs(widened(value)) <= std::numeric_limits<accumulator_t<T>>::max();
    if (finite) return;
    NotFinite found;
    for (size_t i = values.size(); i-- > 0;) {
      const auto value = static_cast<double>(widened(values[i]));
      if (std::isfinite(value)) continue;
      ++(std::isnan(value) ? found.nans : found.infinities);
      found.first = piece.from->tensor.hub_index(piece.begin + static_cast<int64_t>(i));
    }
    const std::lock_guard lock(mutex_);
    const auto [entry, is_new] = tensors_.emplace(piece.from, found);
    if (is_new) return;
    entry->second.nans += found.nans;
    entry->second.infinities += found.infinities;
    entry->second.first = std::min(entry->second.first, found.first);
  }

  void add(const ImportPiece& piece, const Tensor& values) {
    dispatch_float(values.dtype(), [&](auto type) {
      using T = decltype(type);
      add(piece, std::span<const T>(values.data<T>(), static_cast<size_t>(values.numel())));
    });
  }

  // User error for NaNs, a warning for infinities.
  void report() const {
    std::vector<std::string> nans, infinities;
    for (const auto& [item, found] : tensors_) {
      const safetensors::StoredTensor& stored = item->weight.values;
      const int64_t count = found.nans > 0 ? found.nans : found.infinities;
      (found.nans > 0 ? nans : infinities)
          .push_back(fmt::format("{}: {} has {} {} value{}, the first is element {}",
                                 stored.file == nullptr ? "weights" : *stored.file, item->tensor.hub_name, count,
                                 found.nans > 0 ? "NaN" : "infinite", count == 1 ? "" : "s", found.first));
    }
    std::ranges::sort(nans);
    std::ranges::sort(infinities);
    const auto more = [](const std::vector<std::string>& list) {
      return list.size() > 1 ? fmt::format("; so have {} more tensors", list.size() - 1) : "";
    };
    if (!infinities.empty()) {
      log::warn("{}{}: stored so, or too large for runtime.dtype", infinities.front(), more(infinities));
    }
    if (nans.empty()) return;
    throw user_error("{}{}", nans.front(), more(nans))
        .advise(
            "the file is damaged, or was written by a run that had gone bad: fetch it again, or take an earlier one");
  }

 private:
  template <class T>
  static auto widened(T value) {
    return static_cast<accumulator_t<T>>(value);
  }

  std::mutex mutex_;
  std::map<const HubMatch::Item*, NotFinite> tensors_;
};

// Where the host cannot write: through an array of the piece's size.
void decode_and_upload(const Context& ctx, const ImportPiece& piece, const Tensor& to, FiniteCheck* check) {
  dispatch_float(to.dtype(), [&](auto type) {
    using T = decltype(type);
    std::vector<T> staged(static_cast<size_t>(to.numel()));
    decode(piece, tensor_of(staged.data(), {to.numel()}));
    if (check != nullptr) check->add(piece, std::span<const T>(staged));
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
      if (piece.param->spec.holds_shares) continue;  // no hub layout has them: a run begins without
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

void import_pieces(const Context& ctx, std::span<const ImportPiece> pieces, const ImportOptions& options,
                   FiniteCheck& check) {
  const auto import_one = [&](const ImportPiece& piece) {
    const auto import_into = [&](const Tensor& to, FiniteCheck* checked) {
      if (!options.host_visible) return decode_and_upload(ctx, piece, to, checked);
      decode(piece, to);
      if (checked != nullptr) checked->add(piece, to);
    };
    import_into(piece.to, &check);
    if (piece.master) import_into(piece.master, nullptr);
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
  FiniteCheck check;
  while (!left.empty()) {
    const auto now = left.first(std::min(kPiecesAtOnce, left.size()));
    import_pieces(ctx, now, options, check);
    for (const ImportPiece& piece : now) done += piece.to.numel();
    if (options.progress) options.progress(done, count.elements);
    left = left.subspan(now.size());
  }
  check.report();
  for (const GroupShard& shard : shards) shard.group->invalidate();
  return count;
}

}  // namespace sluice
