#include "comm/meta/meta.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/clock.h"
#include "comm/mesh.h"

namespace sluice {
namespace {

const NetworkModel kNetwork{
    .ranks_per_node = 8,
    .intra = {.latency_s = 0, .bandwidth_bytes_per_s = 100},
    .inter = {.latency_s = 0, .bandwidth_bytes_per_s = 10},
};

// An address nobody may follow.
Tensor fake(Shape shape) {
  return {reinterpret_cast<void*>(uintptr_t{1} << 46), shape, DType::f32};
}

TEST(Meta, ACollectiveStartsAfterItsStreamAndTheOneBefore) {
  MetaWorld network(kNetwork, 8);
  const auto world = network.communicator(3);
  Stream compute;
  compute.advance(10);
  // 3 of 4 bytes over the links of 8: 800 * 7/8 / 100 = 7 s each.
  Work first = world->all_gather(compute, fake({200}), fake({25}), "first");
  Work second = world->reduce_scatter(compute, fake({25}), fake({200}), "second");
  first.wait(compute);
  EXPECT_DOUBLE_EQ(compute.now(), 17);
  second.wait(compute);
  EXPECT_DOUBLE_EQ(compute.now(), 24);
  world->all_reduce(compute, fake({200}), ReduceOp::sum, "third").wait(compute);
  EXPECT_DOUBLE_EQ(compute.now(), 38);
}

TEST(Meta, WhatIsIssuedEarlyIsHidden) {
  MetaWorld network(kNetwork, 8);
  const auto world = network.communicator(0);
  Stream compute;
  Work prefetch = world->all_gather(compute, fake({200}), fake({25}), "weights");
  compute.advance(5);
  prefetch.wait(compute);
  EXPECT_DOUBLE_EQ(compute.now(), 7);
  Work hidden = world->all_gather(compute, fake({200}), fake({25}), "weights");
  compute.advance(9);
  hidden.wait(compute);
  EXPECT_DOUBLE_EQ(compute.now(), 16);
  const TrafficTotals totals = network.traffic(0).of("world", Collective::all_gather);
  EXPECT_EQ(totals.calls, 2);
  EXPECT_DOUBLE_EQ(totals.bytes, 1400);
  EXPECT_DOUBLE_EQ(totals.seconds, 14);
  EXPECT_DOUBLE_EQ(totals.exposed_s, 2);
  EXPECT_DOUBLE_EQ(totals.idle_s, 0);
}

TEST(Meta, AxesRunAtTheSameTime) {
  MetaWorld network(kNetwork, 16);
  const auto world = network.communicator(0);
  const auto node = world->split("node", [](int rank) { return rank / 8; });
  const auto pair = world->split("pair", [](int rank) { return rank % 8; });
  Stream compute;
  Work a = node->all_gather(compute, fake({200}), fake({25}), "a");
  Work b = pair->all_gather(compute, fake({10}), fake({5}), "b");  // 20 bytes from the other node: 2 s
  b.wait(compute);
  EXPECT_DOUBLE_EQ(compute.now(), 2);
  a.wait(compute);
  EXPECT_DOUBLE_EQ(compute.now(), 7);
  EXPECT_DOUBLE_EQ(network.traffic(0).total("node").seconds, 7);
  EXPECT_DOUBLE_EQ(network.traffic(0).total("pair").exposed_s, 2);
  EXPECT_DOUBLE_EQ(network.traffic(0).total().exposed_s, 7);
  EXPECT_EQ(network.traffic(0).total("fsdp").calls, 0);
  network.traffic(0).reset();
  EXPECT_EQ(network.traffic(0).total().calls, 0);
}

TEST(Meta, AllToAllIsChargedByItsCounts) {
  MetaWorld network(kNetwork, 4);
  const auto world = network.communicator(1);
  Stream compute;
  const std::vector<int64_t> in_counts = {5, 100, 0, 0};
  const std::vector<int64_t> out_counts = {1, 100, 0, 9};
  world->all_to_all_v(compute, fake({110, 10}), out_counts, fake({105, 10}), in_counts, "dispatch").wait(compute);
  EXPECT_DOUBLE_EQ(compute.now(), 10 * 10 * 4 / 100.0);
  EXPECT_DOUBLE_EQ(network.traffic(1).of("world", Collective::all_to_all_v).bytes, 400);
}

TEST(Meta, AGroupOfOneTouchesNothing) {
  MetaWorld network(kNetwork, 4);
  const auto self = network.communicator(2)->split("ep", [](int rank) { return rank; });
  ASSERT_EQ(self->size(), 1);
  Stream compute;
  const Tensor other(reinterpret_cast<void*>(uintptr_t{1} << 45), {25}, DType::f32);
  self->all_gather(compute, other, fake({25}), "weights").wait(compute);
  self->reduce_scatter(compute, other, fake({25}), "gradients").wait(compute);
  const std::vector<int64_t> counts = {25};
  self->all_to_all_v(compute, other, counts, fake({25}), counts, "dispatch").wait(compute);
  EXPECT_EQ(compute.now(), 0);
  EXPECT_FALSE(self->real());
}

TEST(Meta, AMeshOfOneRankOfManyIsBuiltAlone) {
  const MeshSpec spec{.world = 1024, .pp = 4, .ep = 64};
  const Stopwatch watch;
  MetaWorld network(kNetwork, spec.world);
  const auto world = network.communicator(777);
  const Mesh mesh(spec, *world);
  EXPECT_EQ(mesh.pp->size(), 4);
  EXPECT_EQ(mesh.pp->rank(), 3);
  EXPECT_EQ(mesh.ep->size(), 64);
  EXPECT_EQ(mesh.fsdp->size(), 256);
  EXPECT_EQ(mesh.ep_shard->members(), (std::vector<int>{777, 841, 905, 969}));
  Stream compute;
  mesh.ep->barrier(compute, "start");
  EXPECT_LT(watch.seconds(), 5);
}

TEST(Meta, UnlinkedMessagesAreThereAtOnce) {
  MetaWorld network(kNetwork, 16);
  const auto world = network.communicator(0);
  Stream compute;
  compute.advance(3);
  world->recv(compute, fake({25}), 8, 0, "activations").wait(compute);
  EXPECT_DOUBLE_EQ(compute.now(), 3);
  Work sent = world->send(compute, fake({25}), 8, 0, "activations");
  Work also_sent = world->send(compute, fake({25}), 1, 0, "activations");
  sent.wait(compute);
  EXPECT_DOUBLE_EQ(compute.now(), 13);
  also_sent.wait(compute);
  EXPECT_DOUBLE_EQ(compute.now(), 14);
}

TEST(Meta, ADroppedWorkFailsTheRank) {
  MetaWorld network(kNetwork, 8);
  const auto world = network.communicator(0);
  Stream compute;
  {
    const Work lost = world->all_gather(compute, fake({200}), fake({25}), "weights");
  }
  EXPECT_THROW(world->barrier(compute, "end"), Error);
}

// 1F1B on `stages` linked stages: `warm_up` forwards, then one forward and one backward in turn, then the rest.
double pipeline_seconds(MetaWorld& network, int stages, int micro_batches, double forward_s, double backward_s,
                        int64_t activation) {
  std::vector<double> ends(static_cast<size_t>(stages));
  network.run([&](Communicator& world) {
    const auto pp = world.split("pp", [&](int rank) { return rank % (world.size() / stages); });
    const int stage = pp->rank();
    Stream compute;
    std::vector<Work> sends;
    const Tensor t = fake({activation});
    const auto forward = [&](int) {
      if (stage > 0) pp->recv(compute, t, stage - 1, 0, "activations").wait(compute);
      compute.advance(forward_s);
      if (stage + 1 < stages) sends.push_back(pp->send(compute, t, stage + 1, 0, "activations"));
    };
    const auto backward = [&](int) {
      if (stage + 1 < stages) pp->recv(compute, t, stage + 1, 1, "gradients").wait(compute);
      compute.advance(backward_s);
      if (stage > 0) sends.push_back(pp->send(compute, t, stage - 1, 1, "gradients"));
    };
    const int warm_up = std::min(micro_batches, stages - 1 - stage);
    for (int i = 0; i < warm_up; ++i) forward(i);
    for (int i = warm_up; i < micro_batches; ++i) {
      forward(i);
      backward(i - warm_up);
    }
    for (int i = micro_batches - warm_up; i < micro_batches; ++i) backward(i);
    for (Work& send : sends) send.wait(compute);
    ends[static_cast<size_t>(stage)] = compute.now();
  });
  return *std::max_element(ends.begin(), ends.end());
}

TEST(MetaPipeline, HasTheTextbookBubbleOf1F1B) {
  NetworkModel free;
  for (const int micro_batches : {4, 8, 16}) {
    MetaWorld network(free, 16, {0, 4, 8, 12}, 60);
    const double seconds = pipeline_seconds(network, 4, micro_batches, 1, 2, 8);
    EXPECT_DOUBLE_EQ(seconds, (micro_batches + 4 - 1) * 3);
    // A rank idles for (p - 1) forwards and backwards; the first waits for it all in its receives.
    EXPECT_DOUBLE_EQ(network.traffic(0).of("pp", Collective::recv).idle_s, (4 - 1) * 3);
    EXPECT_DOUBLE_EQ(network.traffic(0).total("pp").exposed_s, 0);
    EXPECT_EQ(network.traffic(4).of("pp", Collective::recv).calls, 2 * micro_batches);
  }
}

TEST(MetaPipeline, TransfersDelayTheReceiver) {
  // 40 bytes over 10 B/s between nodes: 4 s there, 4 s back; one micro-batch on two stages.
  MetaWorld network(kNetwork, 16, {0, 8}, 60);
  EXPECT_DOUBLE_EQ(pipeline_seconds(network, 2, 1, 1, 2, 10), 2 * (1 + 2) + 2 * 4);
  EXPECT_DOUBLE_EQ(network.traffic(8).of("pp", Collective::recv).exposed_s, 4);
  EXPECT_DOUBLE_EQ(network.traffic(8).of("pp", Collective::recv).idle_s, 1);
}

TEST(MetaPipeline, TimesDoNotDependOnTheThreads) {
  for (int i = 0; i < 10; ++i) {
    MetaWorld network(kNetwork, 32, {0, 8, 16, 24}, 60);
    const double seconds = pipeline_seconds(network, 4, 8, 3, 5, 10);
    MetaWorld again(kNetwork, 32, {0, 8, 16, 24}, 60);
    EXPECT_EQ(pipeline_seconds(again, 4, 8, 3, 5, 10), seconds);
  }
}

TEST(MetaLinked, ACollectiveStartsWithItsLastMemberAndLastsAsLongAsTheSlowest) {
  MetaWorld network(kNetwork, 16, {0, 1, 12}, 60);
  std::vector<double> ends(16);
  network.run([&](Communicator& world) {
    const auto node = world.split("node", [](int rank) { return rank / 8; });
    Stream compute;
    compute.advance(world.rank());
    // Rank 12 is alone on its node.
    Work weights = node->all_gather(compute, fake({200}), fake({25}), "weights");
    Work more = node->all_gather(compute, fake({200}), fake({25}), "more");
    compute.advance(0.5);
    weights.wait(compute);
    EXPECT_DOUBLE_EQ(compute.now(), world.rank() == 12 ? 19 : 8);
    more.wait(compute);
    EXPECT_DOUBLE_EQ(compute.now(), world.rank() == 12 ? 26 : 15);
    std::vector<int64_t> counts(16);
    counts[15] = world.rank() + 1;  // rank 12 sends most: 13 rows of 10 bytes within its node
    world
        .all_to_all_v(compute, Tensor(fake({0, 10}).raw(), {0, 10}, DType::u8), std::vector<int64_t>(16),
                      Tensor(fake({0, 10}).raw(), {counts[15], 10}, DType::u8), counts, "dispatch")
        .wait(compute);
    world.barrier(compute, "end");
    ends[static_cast<size_t>(world.rank())] = compute.now();
  });
  // Ranks 0 and 1 send 10 and 20 bytes between the nodes, 1 and 2 s; rank 12 130 bytes in 1.3 s.
  for (const int rank : {0, 1, 12}) EXPECT_DOUBLE_EQ(ends[static_cast<size_t>(rank)], 26 + 2);
  const TrafficTotals totals = network.traffic(0).of("node", Collective::all_gather);
  EXPECT_DOUBLE_EQ(totals.seconds, 14);
  EXPECT_DOUBLE_EQ(totals.exposed_s, 14);
  EXPECT_DOUBLE_EQ(totals.idle_s, 0.5);
}

std::string error_of(MetaWorld& network, const std::function<void(Communicator&, Stream&)>& body) {
  const Stopwatch watch;
  std::string message;
  try {
    network.run([&](Communicator& world) {
      Stream compute;
      body(world, compute);
    });
  } catch (const Error& error) {
    message = error.what();
  }
  EXPECT_LT(watch.seconds(), 20);
  return message;
}

TEST(MetaFailure, NamesRanksAndCall) {
  MetaWorld throws(kNetwork, 16, {0, 8}, 100);
  EXPECT_EQ(error_of(throws,
                     [](Communicator& world, Stream& compute) {
                       if (world.rank() == 8) throw runtime_failure("does not fit");
                       world.recv(compute, fake({4}), 8, 0, "gradients").wait(compute);
                     }),
            "rank 8: does not fit");
  MetaWorld leaves(kNetwork, 16, {0, 8}, 100);
  EXPECT_EQ(error_of(leaves,
                     [](Communicator& world, Stream& compute) {
                       if (world.rank() == 0) world.recv(compute, fake({4}), 8, 0, "gradients").wait(compute);
                     }),
            "rank 0 waits in recv of gradients (axis world): rank 8 has left");
  MetaWorld deadlock(kNetwork, 16, {0, 8}, 0.4);
  const std::string message = error_of(deadlock, [](Communicator& world, Stream& compute) {
    world.recv(compute, fake({4}), 8 - world.rank(), 0, "gradients").wait(compute);
  });
  EXPECT_NE(message.find("has not sent; rank"), std::string::npos) << message;
  EXPECT_NE(message.find("is waiting in recv of gradients (axis world)"), std::string::npos) << message;
  MetaWorld sizes(kNetwork, 16, {0, 8}, 100);
  EXPECT_EQ(error_of(sizes,
                     [](Communicator& world, Stream& compute) {
                       if (world.rank() == 8) {
                         world.send(compute, fake({5}), 0, 0, "gradients").wait(compute);
                       } else {
                         world.recv(compute, fake({4}), 8, 0, "gradients").wait(compute);
                       }
                     }),
            "rank 8 and rank 0 do not agree in recv of gradients (axis world): f32[5] was sent, f32[4] is expected");
  MetaWorld mismatch(kNetwork, 16, {0, 8}, 100);
  const std::string calls = error_of(mismatch, [](Communicator& world, Stream& compute) {
    world.barrier(compute, world.rank() == 0 ? "step 1" : "step 2");
  });
  EXPECT_NE(calls.find("do not agree on axis world"), std::string::npos) << calls;
  EXPECT_NE(calls.find("barrier of step 1 (axis world)"), std::string::npos) << calls;
  EXPECT_NE(calls.find("barrier of step 2 (axis world)"), std::string::npos) << calls;
  MetaWorld missing(kNetwork, 16, {0, 8}, 100);
  EXPECT_EQ(error_of(missing,
                     [](Communicator& world, Stream& compute) {
                       if (world.rank() == 0) world.barrier(compute, "step 1");
                     }),
            "rank 0 waits in barrier of step 1 (axis world): rank 8 has left");
  MetaWorld absent(kNetwork, 16, {0, 8}, 100);
  EXPECT_EQ(error_of(absent,
                     [](Communicator& world, Stream& compute) {
                       if (world.rank() == 0) world.recv(compute, fake({4}), 1, 0, "gradients").wait(compute);
                     }),
            "rank 0 waits in recv of gradients (axis world) for rank 1, which is not simulated");
}

}  // namespace
}  // namespace sluice
