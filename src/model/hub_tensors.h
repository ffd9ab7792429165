// The tensors of a model in the hub's layout, collected in the order of the network. What is common is here; a family
// says which parts its layers have.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model/family.h"

namespace sluice {

class HubTensorList {
 public:
  explicit HubTensorList(const ModelConfig& model) : model_(model) {}

  void embedding();
  void attention(int64_t layer, bool sinks = false);  // with the norms before and after it
  void latent_attention(int64_t layer);               // likewise
  // An MLP of this width whose projections are below `hub` (within the layer): "mlp.".
  void mlp(int64_t layer, const std::string& hub, int64_t width);
  // The router's matrix, `hub` (within the layer) being its name without ".weight", and what is beside it.
  void router(int64_t layer, const std::string& hub, bool bias = false, bool selection_bias = false);
  void experts(int64_t layer);          // each with three matrices of its own
  void stacked_experts(int64_t layer);  // two stacks [E, in, out] with gate and up interleaved, and their biases
  void head();
  // What a layer that predicts further has beside the others' parts; the hub repeats embedding and head in it.
  void extra_layer(int64_t layer);
  std::vector<HubTensor> take() { return std::move(list_); }

 private:
  static std::string hub_layer(int64_t layer) { return fmt::format("model.layers.{}.", layer); }
  static std::string our_layer(int64_t layer) { return fmt::format("layers.{}.", layer); }
  void whole(std::string hub, std::string ours, Shape shape);
  // Rows [row, row + rows) of a matrix [.., cols], or of a vector (cols 0).
  void part(std::string hub, const std::string& ours, const Shape& shape, int64_t row, int64_t rows);
  void stack(std::string hub, std::string ours, Shape shape, Shape hub_shape, HubTensor::Order order);
  void norm_before(int64_t layer);
  void norm_after(int64_t layer);

  const ModelConfig& model_;
  std::vector<HubTensor> list_;
};

}  // namespace sluice
