// FlatGroup: the parameters of one unit (a block's dense ones, its experts, the embedding, the head) as one flat array,
// sharded equally over a group of ranks (FSDP) and kept equal over another (HSDP).
//
//   weights    this rank's shard, and the gathered array while the unit computes
//   gradients  the whole array, accumulated over micro-batches and reduce-scattered once per optimizer step in place:
//              afterwards this rank's part of it is the gradient of its shard
// With one rank the shard is the array. Parameters start at multiples of 64 elements; padding is zero and stays zero.
#pragma once

#include <string>
#include <vector>

#include "comm/communicator.h"
#include "device/context.h"
#include "nn/param.h"

namespace sluice {

// Buffers that groups with resharding take turns in: one computes while the next is being gathered.
class GatherBuffers {
 public:
  static constexpr int kBuffers = 2;
  explicit GatherBuffers(Memory& memory);
  void require_bytes(size_t bytes) { bytes_ = bytes > bytes_ ? bytes : bytes_; }
  void* take();
  void give_back(void* buffer);

 private:
  Arena arena_;
  size_t bytes_ = 0;
  std::vector<void*> free_;
  bool reserved_ = false;
};

struct FlatGroupOptions {
  DType dtype = DType::f32;
  bool reshard_after_use = false;  // gathered weights are given back after each use
  bool gradients = true;           // false: there is no memory for them, and nothing that asks for them may be called
};

class FlatGroup {
 public:
  // `replicate` may be null. `buffers` is needed only with resharding. All referenced objects outlive the group.
  FlatGroup(std::string name, std::vector<Param*> params, Communicator& shard, Communicator* replicate,
            const FlatGroupOptions& options, Memory& memory, GatherBuffers* buffers);
  FlatGroup(const FlatGroup&) = delete;
  FlatGroup& operator=(const FlatGroup&) = delete;
  FlatGroup(FlatGroup&&) = delete;
  FlatGroup& operator=(FlatGroup&&) = delete;
  ~FlatGroup() = default;

  // Writes this rank's part of every parameter's initial value: a function of (seed, name, global index) alone. With a
  // `master`, as large as the shard, the values go there and the shard is its rounding.
  void initialize(Context& ctx, uint64_t seed, const Tensor& master = {});

  // Starts gathering, unless it is gathered or under way.
  void begin_gather(Context& ctx);
  // Parameters' values are valid from here until release().
  void end_gather(Context& ctx);
  // Gives the gathered array back if the group reshards; else it stays until invalidate().
  void release();
  // The shard has changed: the next use gathers again.
  void invalidate();

  void zero_gradients(Context& ctx);
  // Sums gradients over the ranks that hold the same parameters.
  void begin_reduce(Context& ctx);
  void end_reduce(Context& ctx);

  const std::string& name() const { return name_; }
  const Tensor& shard() const { return shard_; }  // [N / ranks]
  Tensor gradient_shard() const;                  // [N / ranks], valid after end_reduce
  const std::vector<Param*>& params() const { return params_; }
  // Whether gradients train it. If not, they train none of its parameters (ParamSpec::balanced_top_k).
  bool trained() const { return params_.front()->spec.balanced_top_k == 0; }
  // Of the gradient shards, one copy in the world counts for the norm.
  bool counts_for_norm() const { return trained() && !copy_ && (replicate_ == nullptr || replicate_->rank() == 0); }
  // What it holds is another stage's too, and that one counts.
  void mark_as_copy() { copy_ = true; }
  // This rank's part of a parameter: elements [first, first + value.numel()) of it, and where they are in the shard.
  struct Piece {
    const Param* param;
    int64_t first;   // in the parameter's local piece
    int64_t offset;  // in the shard
    Tensor value;
  };
  std::vector<Piece> pieces() const;
  // The part of pieces() that this rank keeps in a checkpoint: over all ranks of the world each element is there once.
  std::vector<Piece> kept_pieces() const;

 private:
  void lay_out(int64_t ranks);
  void bind_values(const Tensor& full);

  std::string name_;
  std::vector<Param*> params_;
  std::vector<int64_t> offsets_;
  int64_t total_ = 0;  // padded to a multiple of the ranks
  Communicator& shard_group_;
  Communicator* replicate_;
  FlatGroupOptions options_;
  GatherBuffers* buffers_;
  Arena weights_;
  Arena gradients_;
  Tensor full_;
  Tensor shard_;
  Tensor gradient_;
  bool gathered_ = false;
  bool copy_ = false;
  Work gathering_;
  Work reducing_;
};

}  // namespace sluice
