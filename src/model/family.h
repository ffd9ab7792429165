// A model family: everything that is particular to one `model_type` of Hugging Face, in one file, as one table of pure
// functions. A new family is that file and one line in family.cpp.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/hf_config.h"
#include "model/model_config.h"
#include "nn/block_config.h"
#include "tensor/tensor.h"

namespace sluice {

// One tensor of the hub's layout and the part of one of our parameters that it is: rows [row, row + rows) of the
// parameter's view as a matrix [numel / cols, cols], cols its last dimension (a vector is a column). The part is
// contiguous here: numel elements from `first`; and on the hub in the same order, unless `order` says otherwise.
struct HubTensor {
  // Of the matrices a tensor is, or is a stack of.
  enum class Order : uint8_t {
    same,
    transposed,             // the hub's columns are our rows
    interleaved,            // our halves, gates then ups, alternate on the hub; of vectors
    interleaved_transposed  // our rows' halves alternate in the hub's columns
  };
  static constexpr int64_t kNoExpert = -1, kAllExperts = -2;

  std::string hub_name;  // "model.layers.3.mlp.experts.5.up_proj.weight"
  Shape hub_shape;
  std::string parameter;  // "layers.3.moe.experts.gate_up"
  Shape parameter_shape;  // global
  int64_t row = 0;
  int64_t rows = 0;
  int64_t expert = kNoExpert;  // the routed expert it belongs to, or that it is a stack of all
  Order order = Order::same;
  bool repeated = false;  // another tensor of the list has the same values; the hub may leave this one out
  bool exported = true;   // written into files for the hub

  int64_t cols() const { return parameter_shape.rank() == 1 ? 1 : parameter_shape[parameter_shape.rank() - 1]; }
  int64_t first() const { return row * cols(); }
  // Where element `i` of the part stands in the hub's tensor.
  int64_t hub_index(int64_t i) const;
};

// A field of config.json that is known and has no effect here, and why.
struct IgnoredField {
  std::string_view key;
  std::string_view reason;
};

struct Family {
  std::string_view model_type;
  std::string_view experts_key;           // how config.json spells the number of experts; empty: none
  std::string_view expert_width_key;      // and the width of one
  std::span<const IgnoredField> ignores;  // beside those that every family ignores
  ModelConfig (*parse)(const HfConfig&);  // user errors for what the family cannot be
  BlockConfig (*block)(const ModelConfig&, int64_t layer, int64_t seq_len);
  double (*flops_per_sequence)(const ModelConfig&, int64_t seq_len);  // forward and backward, by the published formula
  // Every parameter of the model in the order of the network, each covered exactly once but for repeated tensors.
  std::vector<HubTensor> (*tensors)(const ModelConfig&);
};

// User error listing the families when there is none of this name.
const Family& find_family(std::string_view model_type, std::string_view where = {});
const Family& family_of(const ModelConfig& model);
// The pieces of `policy` that the model's blocks have.
RecomputePolicy pieces_of(const ModelConfig& model, const RecomputePolicy& policy);
std::vector<std::string> family_names();

// The model a configuration describes: its family is found by `model_type`, overrides of fields that the family does
// not know are refused with the nearest match, values are checked.
ModelConfig make_model(const HfConfig& config);

// A field of a configuration that has no effect, with the reason.
struct IgnoredHfField {
  std::string key;
  std::string where;
  std::string value;
  std::string reason;
};
// All of them, of a configuration that makes a model.
std::vector<IgnoredHfField> ignored_fields(const HfConfig& config);
// Of these the ones whose value says that the authors' network is another than the one built here: fields that nobody
// reads and that are not null, false or 0, and switches known by name whose value is not what the family does. Fields
// below one key are told by the first.
std::vector<IgnoredHfField> unread_fields(const HfConfig& config);

// FLOPs of one sequence, forward and backward (3 x forward): matrix products and attention, the causal half counted; no
// recomputation, router, norms.
double model_flops_per_sequence(const ModelConfig& model, int64_t seq_len);

struct ParamCount {
  int64_t total = 0;
  int64_t active = 0;     // that one token uses: K of the E routed experts of each layer
  int64_t embedding = 0;  // embedding and head
};
ParamCount param_count(const ModelConfig& model);

}  // namespace sluice
