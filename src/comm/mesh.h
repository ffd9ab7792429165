// Mesh: all parallel degrees in one validated object. Order (pp, dp_replicate, dp_shard, cp, tp), tp fastest; inside a
// pipeline stage the expert mesh is (ep_shard, ep), ep fastest, over all dp x cp x tp ranks, so attention's layout and
// the experts' are independent.
#pragma once

#include <memory>

#include "comm/communicator.h"

namespace sluice {

struct MeshSpec {
  int world = 1;
  int pp = 1;
  int dp_replicate = 1;
  int cp = 1;
  int tp = 1;
  int ep = 1;

  int stage_ranks() const { return world / pp; }  // ranks of one pipeline stage
  int dp() const { return world / (pp * cp * tp); }
  int dp_shard() const { return dp() / dp_replicate; }
  int fsdp() const { return dp_shard() * cp; }         // ranks that shard a dense parameter
  int ep_shard() const { return stage_ranks() / ep; }  // ranks that shard an expert's parameter

  // Throws a user error that names the degrees and the nearest possible ones. `num_experts` 0 for a dense model.
  void validate(int64_t num_experts) const;
};

// Where a rank stands.
struct MeshCoordinates {
  int pp = 0;
  int dp_replicate = 0;
  int dp_shard = 0;
  int cp = 0;
  int tp = 0;
  int ep = 0;
  int ep_shard = 0;
  int dp = 0;     // dp_replicate * spec.dp_shard() + dp_shard: which samples it reads
  int stage = 0;  // rank inside its pipeline stage
};
MeshCoordinates coordinates(const MeshSpec& spec, int rank);

// The communicators of one rank; each axis has its own. `world` must outlive it. All ranks make theirs; nothing is
// communicated.
struct Mesh {
  Mesh(const MeshSpec& mesh_spec, Communicator& world_group);

  MeshSpec spec;
  MeshCoordinates at;
  Communicator& world;
  std::unique_ptr<Communicator> pp;         // stages of one column
  std::unique_ptr<Communicator> stage;      // all ranks of one stage
  std::unique_ptr<Communicator> dp;         // ranks with different samples of one stage (dp_replicate x dp_shard)
  std::unique_ptr<Communicator> fsdp;       // dp_shard x cp
  std::unique_ptr<Communicator> replicate;  // dp_replicate
  std::unique_ptr<Communicator> ep;
  std::unique_ptr<Communicator> ep_shard;
};

}  // namespace sluice
