#include "comm/mesh.h"

#include <gtest/gtest.h>

#include <set>
#include <tuple>

#include "comm/inproc/inproc.h"

namespace sluice {
namespace {

template <class F>
void for_each_mesh(int max_world, F&& f) {
  int meshes = 0;
  for (int world = 1; world <= max_world; ++world) {
    for (int pp = 1; pp <= world; ++pp) {
      for (int tp = 1; tp <= world; ++tp) {
        for (int cp = 1; cp <= world; ++cp) {
          if (world % (pp * tp * cp) != 0) continue;
          for (int replicate = 1; replicate <= world; ++replicate) {
            if (world / (pp * tp * cp) % replicate != 0) continue;
            for (int ep = 1; ep <= world; ++ep) {
              if (world / pp % ep != 0) continue;
              f(MeshSpec{.world = world, .pp = pp, .dp_replicate = replicate, .cp = cp, .tp = tp, .ep = ep});
              ++meshes;
            }
          }
        }
      }
    }
  }
  ASSERT_GT(meshes, 100);
}

TEST(Mesh, CoordinatesAreABijectionWithTpFastest) {
  for_each_mesh(16, [](const MeshSpec& spec) {
    spec.validate(spec.ep);
    EXPECT_EQ(spec.fsdp() * spec.dp_replicate * spec.tp * spec.pp, spec.world);
    EXPECT_EQ(spec.ep * spec.ep_shard() * spec.pp, spec.world);
    std::set<std::tuple<int, int, int, int, int>> dense;
    std::set<std::tuple<int, int, int>> experts;
    for (int rank = 0; rank < spec.world; ++rank) {
      const MeshCoordinates at = coordinates(spec, rank);
      dense.emplace(at.pp, at.dp_replicate, at.dp_shard, at.cp, at.tp);
      experts.emplace(at.pp, at.ep_shard, at.ep);
      const int from_dense =
          (((at.pp * spec.dp_replicate + at.dp_replicate) * spec.dp_shard() + at.dp_shard) * spec.cp + at.cp) *
              spec.tp +
          at.tp;
      EXPECT_EQ(from_dense, rank);
      EXPECT_EQ((at.pp * spec.ep_shard() + at.ep_shard) * spec.ep + at.ep, rank);
      EXPECT_EQ(at.dp, at.dp_replicate * spec.dp_shard() + at.dp_shard);
      EXPECT_EQ(at.stage, rank - at.pp * spec.stage_ranks());
    }
    EXPECT_EQ(static_cast<int>(dense.size()), spec.world);
    EXPECT_EQ(static_cast<int>(experts.size()), spec.world);
  });
}

// The ranks whose coordinates satisfy `same`.
template <class Same>
std::vector<int> ranks_where(const MeshSpec& spec, Same&& same) {
  std::vector<int> ranks;
  for (int rank = 0; rank < spec.world; ++rank) {
    if (same(coordinates(spec, rank))) ranks.push_back(rank);
  }
  return ranks;
}

TEST(Mesh, GroupsHoldTheRanksThatDifferOnTheirAxisOnly) {
  for_each_mesh(8, [](const MeshSpec& spec) {
    InprocWorld world(spec.world);
    for (int rank = 0; rank < spec.world; ++rank) {
      const auto communicator = world.communicator(rank);
      const Mesh mesh(spec, *communicator);
      const MeshCoordinates at = mesh.at;
      using At = const MeshCoordinates&;
      EXPECT_EQ(mesh.pp->members(), ranks_where(spec, [&](At c) { return c.stage == at.stage; }));
      EXPECT_EQ(mesh.stage->members(), ranks_where(spec, [&](At c) { return c.pp == at.pp; }));
      EXPECT_EQ(mesh.dp->members(),
                ranks_where(spec, [&](At c) { return c.pp == at.pp && c.cp == at.cp && c.tp == at.tp; }));
      EXPECT_EQ(mesh.fsdp->members(), ranks_where(spec, [&](At c) {
                  return c.pp == at.pp && c.dp_replicate == at.dp_replicate && c.tp == at.tp;
                }));
      EXPECT_EQ(mesh.replicate->members(), ranks_where(spec, [&](At c) {
                  return c.pp == at.pp && c.dp_shard == at.dp_shard && c.cp == at.cp && c.tp == at.tp;
                }));
      EXPECT_EQ(mesh.ep->members(),
                ranks_where(spec, [&](At c) { return c.pp == at.pp && c.ep_shard == at.ep_shard; }));
      EXPECT_EQ(mesh.ep_shard->members(), ranks_where(spec, [&](At c) { return c.pp == at.pp && c.ep == at.ep; }));
      EXPECT_EQ(mesh.pp->rank(), at.pp);
      EXPECT_EQ(mesh.stage->rank(), at.stage);
      EXPECT_EQ(mesh.dp->rank(), at.dp);
      EXPECT_EQ(mesh.fsdp->rank(), at.dp_shard * spec.cp + at.cp);
      EXPECT_EQ(mesh.replicate->rank(), at.dp_replicate);
      EXPECT_EQ(mesh.ep->rank(), at.ep);
      EXPECT_EQ(mesh.ep_shard->rank(), at.ep_shard);
      EXPECT_EQ(mesh.ep->axis(), "ep");
      EXPECT_EQ(mesh.fsdp->size(), spec.fsdp());
      EXPECT_EQ(mesh.ep_shard->size(), spec.ep_shard());
    }
  });
}

void expect_refused(const MeshSpec& spec, int64_t num_experts, const std::string& message, const std::string& hint) {
  try {
    spec.validate(num_experts);
    ADD_FAILURE() << "accepted: " << message;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::user);
    EXPECT_EQ(error.what(), message + fmt::format(" ({} ranks, pp_size {}, dp_replicate_size {}, cp_size {}, "
                                                  "tp_size {}, ep_size {})",
                                                  spec.world, spec.pp, spec.dp_replicate, spec.cp, spec.tp, spec.ep));
    EXPECT_EQ(error.hint(), hint);
  }
}

TEST(Mesh, ImpossibleDegreesAreNamedWithTheNearestPossible) {
  expect_refused({.world = 8, .pp = 0}, 0, "pp_size is 0", "at least 1 is needed");
  expect_refused({.world = 8, .pp = 3, .tp = 2}, 0, "pp_size 3 x tp_size 2 x cp_size 1 does not divide 8 ranks",
                 "pp_size: nearest that do: 2, 4; or run 6 or 12 ranks");
  expect_refused({.world = 8, .cp = 2, .tp = 6}, 0, "pp_size 1 x tp_size 6 x cp_size 2 does not divide 8 ranks",
                 "run 12 ranks");
  expect_refused({.world = 16, .pp = 2, .dp_replicate = 3}, 0,
                 "dp_replicate_size 3 does not divide the data-parallel degree 8", "nearest that do: 2, 4");
  expect_refused({.world = 192, .ep = 48}, 128, "ep_size 48 does not divide num_experts 128",
                 "nearest that do: 32, 64");
  expect_refused({.world = 8, .pp = 2, .ep = 8}, 128, "ep_size 8 does not divide the 4 ranks of a pipeline stage",
                 "nearest that do: 4");
  expect_refused({.world = 12, .ep = 8}, 16, "ep_size 8 does not divide the 12 ranks of a pipeline stage",
                 "nearest that do: 4");
  expect_refused({.world = 4, .ep = 2}, 0, "ep_size 2 but the model has no experts", "use 1");
  EXPECT_NO_THROW((MeshSpec{.world = 8, .pp = 2, .cp = 2, .tp = 2, .ep = 4}.validate(8)));
}

}  // namespace
}  // namespace sluice
