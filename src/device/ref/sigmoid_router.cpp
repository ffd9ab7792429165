#include <algorithm>
#include <cmath>
#include <vector>

#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

namespace {

// Indices of the `count` largest values, descending, lower index first among equals.
std::vector<int64_t> largest(const std::vector<double>& values, int64_t count) {
  std::vector<int64_t> order;
  std::vector<bool> taken(values.size());
  for (int64_t k = 0; k < count; ++k) {
    size_t best = values.size();
    for (size_t i = 0; i < values.size(); ++i) {
      if (!taken[i] && (best == values.size() || values[i] > values[best])) best = i;
    }
    taken[best] = true;
    order.push_back(static_cast<int64_t>(best));
  }
  return order;
}

// Takes the experts of all but the best groups out of the running.
void keep_best_groups(std::vector<double>& choice, const SigmoidRouterSpec& spec) {
  const int64_t size = std::ssize(choice) / spec.groups;
  std::vector<double> group_score(static_cast<size_t>(spec.groups));
  for (int64_t g = 0; g < spec.groups; ++g) {
    std::vector<double> members(choice.begin() + g * size, choice.begin() + (g + 1) * size);
    std::sort(members.begin(), members.end(), std::greater<>());
    group_score[static_cast<size_t>(g)] = members[0] + (size > 1 ? members[1] : 0);
  }
  std::vector<bool> kept(static_cast<size_t>(spec.groups));
  for (const int64_t g : largest(group_score, spec.top_groups)) kept[static_cast<size_t>(g)] = true;
  for (int64_t e = 0; e < std::ssize(choice); ++e) {
    if (!kept[static_cast<size_t>(e / size)]) choice[static_cast<size_t>(e)] = -INFINITY;
  }
}

constexpr double kTiny = 1e-20;

}  // namespace

void RefBackend::execute(const SigmoidTopKForward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.logits.dtype(), [&]<class T>(T) {
    const int64_t num_experts = op.logits.dim(1), top_k = op.experts.dim(1);
    std::vector<double> choice(static_cast<size_t>(num_experts));
    for (int64_t t = 0; t < op.logits.dim(0); ++t) {
      T* scores = row<T>(op.scores, t);
      for (int64_t e = 0; e < num_experts; ++e) {
        store(scores[e], 1 / (1 + std::exp(-load(row<T>(op.logits, t)[e]))));
        choice[static_cast<size_t>(e)] = load(scores[e]) + load(op.bias.data<T>()[e]);
      }
      keep_best_groups(choice, op.spec);
      const std::vector<int64_t> chosen = largest(choice, top_k);
      double sum = 0;
      for (const int64_t e : chosen) sum += load(scores[e]);
      for (int64_t j = 0; j < top_k; ++j) {
        const int64_t e = chosen[static_cast<size_t>(j)];
        op.experts.data<int32_t>()[t * top_k + j] = static_cast<int32_t>(e);
        store(row<T>(op.weights, t)[j], op.spec.scale * load(scores[e]) / (op.spec.normalize ? sum + kTiny : 1));
      }
    }
  });
}

void RefBackend::execute(const SigmoidTopKBackward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.dlogits.dtype(), [&]<class T>(T) {
    const int64_t num_experts = op.dlogits.dim(1), top_k = op.experts.dim(1);
    for (int64_t t = 0; t < op.dlogits.dim(0); ++t) {
      const int32_t* experts = op.experts.data<int32_t>() + t * top_k;
      const T* scores = row<T>(op.scores, t);
      const T* dweights = row<T>(op.dweights, t);
      double sum = kTiny, inner = 0;
      for (int64_t j = 0; j < top_k; ++j) {
        sum += load(scores[checked("expert", experts[j], num_experts)]);
        inner += load(dweights[j]) * load(row<T>(op.weights, t)[j]);
      }
      T* dlogits = row<T>(op.dlogits, t);
      for (int64_t e = 0; e < num_experts; ++e) store(dlogits[e], 0);
      for (int64_t j = 0; j < top_k; ++j) {
        const double s = load(scores[experts[j]]), dw = op.spec.scale * load(dweights[j]);
        const double ds = op.spec.normalize ? (dw - inner) / sum : dw;
        store(dlogits[experts[j]], ds * s * (1 - s));
      }
    }
  });
}

}  // namespace sluice
