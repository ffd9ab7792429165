#include "checkpoint/rank_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <map>
#include <utility>

#include "base/error.h"

namespace sluice {
namespace {

constexpr std::string_view kFrom = " from ";

}  // namespace

std::string rank_file_name(int rank) {
  return fmt::format("rank-{:05}.safetensors", rank);
}

std::string slice_name(StateKind kind, std::string_view parameter) {
  return fmt::format("{}/{}", name_of(kind), parameter);
}

std::string slice_place_text(const SlicePlace& place) {
  return fmt::format("{}{}{}", fmt::join(place.shape, "x"), kFrom, place.first);
}

SlicePlace parse_slice_place(std::string_view text, std::string_view source) {
  const auto wrong = [&] {
    return user_error("{}: no place in a parameter: {}", source, safetensors::in_quotes(text));
  };
  // From `least` on, in 63 bits.
  const auto number = [&](std::string_view digits, int64_t least) {
    int64_t value = 0;
    const char* const end = digits.data() + digits.size();
    const auto [stop, failure] = std::from_chars(digits.data(), end, value);
    if (failure != std::errc() || stop != end || value < least) throw wrong();
    return value;
  };
  const size_t from = text.find(kFrom);
  if (from == std::string_view::npos) throw wrong();
  // Bytes of elements of any type can be counted in 63 bits.
  constexpr int64_t kMostElements = std::numeric_limits<int64_t>::max() / static_cast<int64_t>(sizeof(double));
  SlicePlace place;
  int64_t elements = 1;
  for (std::string_view shape = text.substr(0, from); !shape.empty();) {
    const std::string_view digits = shape.substr(0, shape.find('x'));
    place.shape.push_back(number(digits, 1));
    if (place.shape.back() > kMostElements / elements || place.shape.size() > Shape::kMaxRank) throw wrong();
    elements *= place.shape.back();
    shape.remove_prefix(std::min(digits.size() + 1, shape.size()));
  }
  place.first = number(text.substr(from + kFrom.size()), 0);
  if (place.first >= elements) throw wrong();
  return place;
}

uint64_t block_bytes_of(uint64_t file_bytes) {
  constexpr uint64_t kLeast = uint64_t{1} << 20, kMostBlocks = 4096;
  uint64_t block = kLeast;
  while (file_bytes > block * kMostBlocks) block *= 2;
  return block;
}

RankFile::RankFile(const std::vector<StateSlice>& slices) {
  std::vector<safetensors::TensorSpec> specs;
  safetensors::Metadata metadata;
  std::map<std::string, Tensor, std::less<>> values;
  for (const StateSlice& slice : slices) {
    const Shape& whole = slice.param->shape;
    safetensors::Extents extents;
    for (int i = 0; i < whole.rank(); ++i) extents.push_back(whole[i]);
    const auto [place, is_new] = metadata.emplace(slice.param->name, slice_place_text({extents, slice.first}));
    require(is_new || place->second == slice_place_text({extents, slice.first}), "states of {} that begin elsewhere",
            slice.param->name);
    const bool all = slice.values.numel() == whole.numel();
    const std::string name = slice_name(slice.kind, slice.param->name);
    specs.push_back(
        {name, safetensors::type_of(slice.values.dtype()), all ? extents : safetensors::Extents{slice.values.numel()}});
    const bool added = values.emplace(name, slice.values.view({slice.values.numel()})).second;
    require(added, "a second slice {}", name);
  }
  const safetensors::Header header = safetensors::lay_out(std::move(specs), std::move(metadata));
  header_ = safetensors::header_text(header);
  uint64_t end = header_.size();
  for (const safetensors::Entry& entry : header.entries) {
    placed_.push_back({entry.begin, values.at(entry.spec.name)});
    end = entry.begin + entry.bytes;
  }
  bytes_ = end;
  block_bytes_ = block_bytes_of(end);
}

uint64_t RankFile::bytes_of_block(size_t block) const {
  return std::min(block_bytes_, bytes_ - block * block_bytes_);
}

std::vector<RankFile::Part> RankFile::parts(size_t block) const {
  const uint64_t begin = block * block_bytes_, end = begin + bytes_of_block(block);
  std::vector<Part> parts;
  if (begin < header_.size()) {
    parts.push_back(
        {.header = std::as_bytes(std::span(header_)).subspan(begin, std::min<uint64_t>(end, header_.size()) - begin)});
  }
  auto at = std::ranges::upper_bound(placed_, begin, {}, &Placed::begin);
  if (at != placed_.begin()) --at;
  for (; at != placed_.end() && at->begin < end; ++at) {
    // Blocks and tensors begin at multiples of an element's size.
    const uint64_t from = std::max(begin, at->begin), to = std::min(end, at->begin + at->values.bytes());
    if (from >= to) continue;
    const uint64_t element = size_of(at->values.dtype());
    parts.push_back({.values = at->values.rows(static_cast<int64_t>((from - at->begin) / element),
                                               static_cast<int64_t>((to - from) / element))});
  }
  return parts;
}

}  // namespace sluice
