// A parameter: what it is (ParamSpec) and where its gathered value and its gradient are right now.
// Initialisation, names, clipping, checkpoints and optimizers read only specs.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace sluice {

enum class InitKind : uint8_t { normal, ones, zeros };

// Which ranks hold it: dense parameters are whole on every rank of a stage (before FSDP), expert parameters are split
// over ep along dimension 0. Gradients are partial over the ranks that hold the same piece.
enum class ParamMesh : uint8_t { dense, expert };

// A logical matrix inside a fused or stacked parameter: rows [row, row + rows) of its 2-D view [numel / cols, cols].
struct LogicalMatrix {
  std::string name;
  int64_t row = 0;
  int64_t rows = 0;
};

struct ParamSpec {
  std::string name;  // "layers.3.attention.qkv"
  Shape shape;       // global
  ParamMesh mesh = ParamMesh::dense;
  InitKind init = InitKind::normal;
  double init_std = 0;
  bool decay = true;                    // weight decay applies
  std::vector<LogicalMatrix> matrices;  // empty: not a matrix, or one whole
  // K > 0: no gradient trains it. It is kept in the accumulator type, and its gradient is the number of slots each
  // expert got, of K per token. A step moves it towards an equal share for all: a router's selection bias. With
  // holds_shares a step makes it each expert's share of the slots instead.
  int64_t balanced_top_k = 0;
  bool holds_shares = false;
};

struct Param {
  ParamSpec spec;
  Shape local_shape;  // this rank's piece before FSDP: dim 0 divided by ep for expert parameters
  int64_t first = 0;  // global index of its first element
  Tensor value;       // bound while gathered
  Tensor grad;        // bound during a step, accumulator type

  // Splits dimension 0 of an expert parameter over `ep` ranks; dense parameters are whole.
  Param(ParamSpec param_spec, int ep_rank, int ep_size);
};

using ParamVisitor = std::function<void(Param&)>;

}  // namespace sluice
