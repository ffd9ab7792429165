#include "comm/mesh.h"

#include <numeric>
#include <vector>

namespace sluice {

namespace {

// "nearest that do: 32, 64": the divisors of n just below and above `value`.
std::string nearest_divisors(int64_t value, int64_t n) {
  int64_t below = 0;
  int64_t above = 0;
  for (int64_t d = 1; d <= n; ++d) {
    if (n % d != 0) continue;
    if (d <= value) below = d;
    if (d >= value && above == 0) above = d;
  }
  std::string text = "nearest that do: ";
  if (below > 0) text += std::to_string(below);
  if (above > 0 && above != below) text += (below > 0 ? ", " : "") + std::to_string(above);
  return text;
}

std::string degrees(const MeshSpec& s) {
  return fmt::format("{} ranks, pp_size {}, dp_replicate_size {}, cp_size {}, tp_size {}, ep_size {}", s.world, s.pp,
                     s.dp_replicate, s.cp, s.tp, s.ep);
}

[[noreturn]] void refuse(const MeshSpec& spec, const std::string& reason, std::string hint) {
  throw user_error("{} ({})", reason, degrees(spec)).advise(std::move(hint));
}

}  // namespace

void MeshSpec::validate(int64_t num_experts) const {
  const struct {
    const char* name;
    int value;
  } all[] = {{"the number of ranks", world},
             {"pp_size", pp},
             {"dp_replicate_size", dp_replicate},
             {"cp_size", cp},
             {"tp_size", tp},
             {"ep_size", ep}};
  for (const auto& degree : all) {
    if (degree.value < 1) refuse(*this, fmt::format("{} is {}", degree.name, degree.value), "at least 1 is needed");
  }

  const int64_t model = int64_t{pp} * tp * cp;
  if (world % model != 0) {
    const int64_t others = int64_t{tp} * cp;
    const int64_t fewer = world / model * model;
    const std::string ranks = fewer > 0 ? fmt::format("{} or {}", fewer, fewer + model) : std::to_string(model);
    refuse(*this, fmt::format("pp_size {} x tp_size {} x cp_size {} does not divide {} ranks", pp, tp, cp, world),
           world % others == 0
               ? fmt::format("pp_size: {}; or run {} ranks", nearest_divisors(pp, world / others), ranks)
               : fmt::format("run {} ranks", ranks));
  }
  if (dp() % dp_replicate != 0) {
    refuse(*this, fmt::format("dp_replicate_size {} does not divide the data-parallel degree {}", dp_replicate, dp()),
           nearest_divisors(dp_replicate, dp()));
  }
  if (num_experts == 0 && ep > 1) refuse(*this, fmt::format("ep_size {} but the model has no experts", ep), "use 1");
  const int64_t possible = num_experts > 0 ? std::gcd(num_experts, int64_t{stage_ranks()}) : stage_ranks();
  if (num_experts % ep != 0) {
    refuse(*this, fmt::format("ep_size {} does not divide num_experts {}", ep, num_experts),
           nearest_divisors(ep, possible));
  }
  if (stage_ranks() % ep != 0) {
    refuse(*this, fmt::format("ep_size {} does not divide the {} ranks of a pipeline stage", ep, stage_ranks()),
           nearest_divisors(ep, possible));
  }
}

MeshCoordinates coordinates(const MeshSpec& spec, int rank) {
  require(rank >= 0 && rank < spec.world, "rank {} of a mesh of {}", rank, spec.world);
  MeshCoordinates at;
  at.pp = rank / spec.stage_ranks();
  at.stage = rank % spec.stage_ranks();
  at.tp = at.stage % spec.tp;
  at.cp = at.stage / spec.tp % spec.cp;
  at.dp = at.stage / (spec.tp * spec.cp);
  at.dp_shard = at.dp % spec.dp_shard();
  at.dp_replicate = at.dp / spec.dp_shard();
  at.ep = at.stage % spec.ep;
  at.ep_shard = at.stage / spec.ep;
  return at;
}

Mesh::Mesh(const MeshSpec& mesh_spec, Communicator& world_group)
    : spec(mesh_spec), at(coordinates(mesh_spec, world_group.rank())), world(world_group) {
  require(world.size() == spec.world, "a mesh of {} ranks in a world of {}", spec.world, world.size());
  // Ranks with equal coordinates on all axes but those of the group form one: the colour counts the others.
  const auto group = [&](const char* axis, auto color) {
    return world.split(axis, [this, color](int rank) { return color(coordinates(spec, rank)); });
  };
  using At = const MeshCoordinates&;
  pp = group("pp", [](At c) { return c.stage; });
  stage = group("stage", [](At c) { return c.pp; });
  dp = group("dp", [this](At c) { return (c.pp * spec.cp + c.cp) * spec.tp + c.tp; });
  fsdp = group("fsdp", [this](At c) { return (c.pp * spec.dp_replicate + c.dp_replicate) * spec.tp + c.tp; });
  replicate = group("dp_replicate",
                    [this](At c) { return ((c.pp * spec.dp_shard() + c.dp_shard) * spec.cp + c.cp) * spec.tp + c.tp; });
  ep = group("ep", [this](At c) { return c.pp * spec.ep_shard() + c.ep_shard; });
  ep_shard = group("ep_shard", [this](At c) { return c.pp * spec.ep + c.ep; });
}

}  // namespace sluice
