// What plans count of NCCL's communicators, held to what the emulation is asked to make.
#include <gtest/gtest.h>

#include <mutex>
#include <set>

#include "comm/meta/meta.h"
#include "comm/nccl_groups.h"
#include "emulation/nccl/emulated_nccl.h"

namespace sluice::test {
namespace {

NcclGroups of_rank(const MeshSpec& spec, int rank) {
  MetaWorld meta({}, spec.world);
  const auto world = meta.communicator(rank);
  return nccl_groups(Mesh(spec, *world));
}

// A step makes no communicator: that takes memory, and waits for other ranks.
void use_as_a_step_does(const Mesh& mesh) {
  const auto backend = emulation::make_queued_backend();
  Stream stream(backend->compute_stream());
  for (Communicator* group : {&mesh.world, mesh.stage.get(), mesh.dp.get(), mesh.fsdp.get(), mesh.replicate.get(),
                              mesh.ep.get(), mesh.ep_shard.get()}) {
    std::vector<float> all(static_cast<size_t>(group->size()), 1.0F), part(1, 1.0F);
    const int64_t n = group->size();
    group->all_gather(stream, tensor_of(all.data(), {n}), tensor_of(part.data(), {1}), "weights").wait(stream);
    group->reduce_scatter(stream, tensor_of(part.data(), {1}), tensor_of(all.data(), {n}), "gradients").wait(stream);
    group->all_reduce(stream, tensor_of(part.data(), {1}), ReduceOp::sum, "norm").wait(stream);
    backend->synchronize();
  }
  const std::vector<int64_t> counts(static_cast<size_t>(mesh.ep->size()), 1);
  std::vector<float> sent(counts.size()), received(counts.size());
  const auto rows = [&](std::vector<float>& v) { return tensor_of(v.data(), {std::ssize(v), 1}); };
  mesh.ep->all_to_all_v(stream, rows(received), counts, rows(sent), counts, "dispatch").wait(stream);
  std::vector<float> activations(2);
  if (mesh.pp->size() > 1) {
    const int next = (mesh.pp->rank() + 1) % mesh.pp->size();
    const int previous = (mesh.pp->rank() + mesh.pp->size() - 1) % mesh.pp->size();
    Work work = mesh.pp->send(stream, tensor_of(activations.data(), {1}), next, 0, "activations");
    mesh.pp->recv(stream, tensor_of(activations.data() + 1, {1}), previous, 0, "activations").wait(stream);
    work.wait(stream);
  }
  mesh.world.barrier(stream, "the end of the step");
  backend->synchronize();
}

TEST(NcclGroups, AreAsManyAsTheTransportMakes) {
  for (const MeshSpec& spec :
       {MeshSpec{.world = 1}, MeshSpec{.world = 2, .pp = 2}, MeshSpec{.world = 4, .ep = 4},
        MeshSpec{.world = 4, .ep = 2}, MeshSpec{.world = 4, .dp_replicate = 2, .ep = 2},
        MeshSpec{.world = 8, .pp = 4, .ep = 2}, MeshSpec{.world = 6, .pp = 3, .dp_replicate = 2}}) {
    std::set<std::pair<std::vector<int>, bool>> groups;
    size_t messages = 0;
    for (int rank = 0; rank < spec.world; ++rank) {
      const NcclGroups counted = of_rank(spec, rank);
      for (const auto& group : counted.groups) groups.emplace(group.members, group.urgent);
      messages += counted.receivers.size();
      EXPECT_EQ(counted.receivers.size(), counted.senders.size());
    }
    const int64_t before = emulation::nccl_identities();
    emulation::run_nccl_ranks(spec.world, nullptr, 60, [&](Communicator& world) {
      const Mesh mesh(spec, world);
      use_as_a_step_does(mesh);
    });
    EXPECT_EQ(emulation::nccl_identities() - before, static_cast<int64_t>(groups.size() + messages))
        << spec.world << " ranks, pp " << spec.pp << ", ep " << spec.ep << ", " << spec.dp_replicate << " replicas";
  }
}

TEST(NcclGroups, TheWorldAndTheDataAxesThatSpanItAreOne) {
  const NcclGroups groups = of_rank({.world = 8, .ep = 8}, 3);
  ASSERT_EQ(groups.groups.size(), 2U);
  EXPECT_FALSE(groups.groups[0].urgent);
  EXPECT_FALSE(groups.groups[0].exchanges);
  EXPECT_TRUE(groups.groups[1].urgent);
  EXPECT_TRUE(groups.groups[1].exchanges);
  for (const auto& group : groups.groups) EXPECT_EQ(group.members.size(), 8U);
  EXPECT_TRUE(groups.receivers.empty());
}

TEST(NcclGroups, MessagesGoToBothNeighbours) {
  const NcclGroups groups = of_rank({.world = 1024, .pp = 4, .ep = 64}, 300);
  EXPECT_EQ(groups.groups.size(), 4U);  // world; stage, dp and fsdp; ep; ep_shard
  EXPECT_EQ(groups.receivers, (std::vector<int>{556, 556, 44, 44}));
  EXPECT_EQ(of_rank({.world = 2, .pp = 2}, 1).receivers, (std::vector<int>{0, 0}));
}

}  // namespace
}  // namespace sluice::test
