#include "checkpoint/slice_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "checkpoint/rank_file.h"

namespace sluice {
namespace {

bool holds_numbers(safetensors::Type type) {
  using safetensors::Type;
  return type == Type::f64 || type == Type::f32 || type == Type::f16 || type == Type::bf16;
}

}  // namespace

int64_t StoredParameter::numel() const {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

void SliceTable::add_file(const safetensors::Header& header, std::string_view source) {
  for (const safetensors::Entry& entry : header.entries) add_slice(entry, header.metadata, source);
  ++files_;
}

void SliceTable::add_slice(const safetensors::Entry& entry, const safetensors::Metadata& metadata,
                           std::string_view source) {
  const std::string& name = entry.spec.name;
  const auto kind =
      std::ranges::find_if(kStateKinds, [&](StateKind each) { return name.starts_with(slice_name(each, "")); });
  const std::string parameter = kind == kStateKinds.end() ? "" : name.substr(slice_name(*kind, "").size());
  const auto text = metadata.find(parameter);
  if (kind == kStateKinds.end() || text == metadata.end() || !holds_numbers(entry.spec.type)) {
    throw user_error("{}: tensor {} of {} is no slice of a parameter", source, safetensors::in_quotes(name),
                     safetensors::name_of(entry.spec.type));
  }
  const SlicePlace place = parse_slice_place(text->second, source);
  const StoredParameter& known =
      parameters_.emplace(parameter, StoredParameter{.shape = place.shape, .kinds = {}}).first->second;
  const safetensors::Type type =
      parameters_.find(parameter)->second.kinds.emplace(*kind, entry.spec.type).first->second;
  const uint64_t element = safetensors::size_of(entry.spec.type);
  const auto count = static_cast<int64_t>(entry.bytes / element);
  if (known.shape != place.shape || type != entry.spec.type || count < 1 || count > known.numel() - place.first ||
      entry.begin % element != 0) {
    throw user_error("{}: {} {} {} from element {} of {} is no slice of {} {}", source, safetensors::in_quotes(name),
                     safetensors::name_of(entry.spec.type), safetensors::to_text(entry.spec.shape), place.first,
                     safetensors::to_text(place.shape), safetensors::name_of(type), safetensors::to_text(known.shape));
  }
  stored_[{parameter, *kind}].push_back({place.first, count, files_, entry.begin});
}

std::optional<std::string> SliceTable::find_fault() {
  for (auto& [key, pieces] : stored_) {
    const auto& [name, kind] = key;
    std::ranges::sort(pieces, {}, &StoredRun::first);
    int64_t end = 0;
    const auto fault = [&](const char* what, int64_t from, int64_t to) {
      return fmt::format("elements {} to {} of {} are {}", from, to, safetensors::in_quotes(slice_name(kind, name)),
                         what);
    };
    for (const StoredRun& piece : pieces) {
      if (piece.first > end) return fault("in none of its files", end, piece.first);
      if (piece.first < end) return fault("in two of its files", piece.first, end);
      end = piece.first + piece.count;
    }
    if (const int64_t all = parameters_.find(name)->second.numel(); end < all) {
      return fault("in none of its files", end, all);
    }
  }
  return {};
}

std::vector<StoredRun> SliceTable::runs(StateKind kind, std::string_view parameter, int64_t first,
                                        int64_t count) const {
  const auto found = stored_.find({std::string(parameter), kind});
  if (found == stored_.end() || first < 0 || count < 1) return {};
  const int64_t all = parameters_.find(parameter)->second.numel();
  if (first >= all || count > all - first) return {};
  const auto element = static_cast<int64_t>(safetensors::size_of(parameters_.find(parameter)->second.kinds.at(kind)));
  const std::vector<StoredRun>& pieces = found->second;
  std::vector<StoredRun> runs;
  for (auto piece = std::ranges::upper_bound(pieces, first, {}, &StoredRun::first) - 1;
       piece != pieces.end() && piece->first < first + count; ++piece) {
    const int64_t from = std::max(first, piece->first), to = std::min(first + count, piece->first + piece->count);
    runs.push_back(
        {from, to - from, piece->file, piece->begin + static_cast<uint64_t>((from - piece->first) * element)});
  }
  return runs;
}

}  // namespace sluice
