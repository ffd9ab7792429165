#include "plan/memory_peak.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace sluice {

namespace {

struct Word {
  std::string_view op;  // a prefix of the operation's name
  std::string_view tensor;
  std::string_view name;
};

// What a person calls the tensor an operation writes.
constexpr auto kWords = std::to_array<Word>({
    {"embedding_forward", "y", "block inputs"},
    {"sum_rows", "y", "block inputs"},
    {"residual_rmsnorm_forward", "sum", "residual stream"},
    {"residual_rmsnorm_forward", "y", "normed inputs"},
    {"rmsnorm_forward", "y", "normed inputs"},
    {"rmsnorm_backward", "dx", "gradients of block inputs"},
    {"gemm", "c", "projections"},
    {"attention_forward", "o", "attention output"},
    {"attention_backward", "", "attention gradients"},
    {"gather_rows", "y", "experts' input"},
    {"grouped_gemm", "y", "experts' products"},
    {"swiglu_forward", "h", "experts' activation"},
    {"swiglu_backward", "dgate_up", "gradients of experts' products"},
    {"head_loss", "", "head"},
});

std::string_view word_for(std::string_view op, std::string_view tensor, const Tensor& t) {
  if (tensor == "y" && op == "rmsnorm_forward" && t.rank() == 3) return "q and k";
  for (const Word& word : kWords) {
    if (op == word.op && (word.tensor.empty() || word.tensor == tensor)) return word.name;
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
    held_[begin] = {written.tensor.bytes(), word_for(record.name, written.name, written.tensor)};
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
  std::stable_sort(peak_.largest.begin(), peak_.largest.end(),
                   [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
}

}  // namespace sluice
