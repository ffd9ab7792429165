#include "plan/memory_peak.h"

#include <algorithm>
#include <iterator>

namespace sluice {

namespace {

// What a person calls a tensor that an operation of this kind writes. Gradients are named d*.
std::string_view word_for(OpKind kind, std::string_view tensor, const Tensor& t) {
  const bool gradient = tensor.starts_with('d');
  switch (kind) {
    case OpKind::linear:
      return "projections";
    case OpKind::experts:
      return "experts' products";
    case OpKind::attention:
      return gradient ? "attention gradients" : "attention output";
    case OpKind::head:
      return "head";
    case OpKind::norm:
      if (gradient) return "gradients of block inputs";
      return tensor == "sum" ? "residual stream" : t.rank() == 3 ? "q and k" : "normed inputs";
    case OpKind::activation:
      return gradient ? "gradients of experts' products" : "experts' activation";
    case OpKind::position:
      return gradient ? "attention gradients" : "keys and values";
    case OpKind::embedding:
    case OpKind::combine:
      return "block inputs";
    case OpKind::dispatch:
      return "experts' input";
    case OpKind::routing:
      return "routing";
    case OpKind::elementwise:
    case OpKind::optimizer:
      break;
  }
  return "other";
}

std::string describe(const Action& action, int chunks) {
  const char* letter = action.kind == ActionKind::forward ? "F" : action.kind == ActionKind::weight ? "W" : "B";
  std::string text = fmt::format("{} of micro-batch {}", letter, action.micro_batch);
  if (chunks > 1) text += fmt::format(" in chunk {}", action.chunk);
  return text;
}

}  // namespace

void MemoryPeakWatch::before(const OpRecord& /*record*/) {
  const size_t bytes = trainer_.runtime().in_use();
  if (bytes <= peak_.bytes) return;
  peak_.bytes = bytes;
  const Action* action = trainer_.runtime().running();
  peak_.action = action != nullptr ? describe(*action, trainer_.runtime().schedule().chunks) : "the optimizer";
  peak_.place = trainer_.context().place();
  // Looking up who holds what at every new maximum would take longer than the step.
  constexpr double kStride = 1.01;
  if (static_cast<double>(bytes) >= kStride * static_cast<double>(remembered_)) remember_holders();
}

void MemoryPeakWatch::after(const OpRecord& record) {
  for (const OpTensor& written : record.tensors) {
    if (written.access != Access::out || !written.tensor.dense() || !trainer_.runtime().holds(written.tensor.raw())) {
      continue;
    }
    const auto begin = reinterpret_cast<uintptr_t>(written.tensor.raw());
    const uintptr_t end = begin + written.tensor.bytes();
    auto next = held_.lower_bound(begin);
    if (next != held_.begin()) {
      const auto previous = std::prev(next);
      if (previous->first + previous->second.bytes > begin) held_.erase(previous);
    }
    while (next != held_.end() && next->first < end) next = held_.erase(next);
    held_[begin] = {written.tensor.bytes(), word_for(record.kind, written.name, written.tensor)};
  }
}

void MemoryPeakWatch::remember_holders() {
  remembered_ = peak_.bytes;
  std::map<std::string_view, size_t> sums;
  for (auto entry = held_.begin(); entry != held_.end();) {
    const void* address = reinterpret_cast<const void*>(entry->first);  // NOLINT(performance-no-int-to-ptr)
    if (trainer_.runtime().holds(address)) {
      sums[entry->second.name] += entry->second.bytes;
      ++entry;
    } else {
      entry = held_.erase(entry);
    }
  }
  peak_.largest.clear();
  for (const auto& [name, bytes] : sums) peak_.largest.push_back({std::string(name), bytes});
  std::sort(peak_.largest.begin(), peak_.largest.end(),
            [](const auto& a, const auto& b) { return a.bytes != b.bytes ? a.bytes > b.bytes : a.name < b.name; });
}

}  // namespace sluice
