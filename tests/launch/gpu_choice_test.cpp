// Which GPU each rank of several processes has, and what is said where there are not enough.
#include "launch/gpu_choice.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace sluice::launch {
namespace {

using Chosen = std::vector<int>;

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::user);
    EXPECT_NE(error.hint(), "");
    return error.what();
  }
  return "";
}

TEST(GpuChoice, IsByLocalRank) {
  for (int process = 0; process < 8; ++process) {
    EXPECT_EQ(choose_gpus(8, {.process = process, .processes = 8, .ranks = 1}), Chosen{process});
  }
  EXPECT_EQ(choose_gpus(8, {.process = 1, .processes = 2, .ranks = 4}), (Chosen{4, 5, 6, 7}));
  EXPECT_EQ(choose_gpus(8, {.process = 0, .processes = 1, .ranks = 8}), (Chosen{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(choose_gpus(8, {.process = 2, .processes = 3, .ranks = 2}), (Chosen{4, 5}));
}

TEST(GpuChoice, OfAProcessThatSeesItsOwnAloneIsTheFirstOnes) {
  EXPECT_EQ(choose_gpus(1, {.process = 5, .processes = 8, .ranks = 1}), Chosen{0});
  EXPECT_EQ(choose_gpus(2, {.process = 3, .processes = 4, .ranks = 2}), (Chosen{0, 1}));
}

TEST(GpuChoice, WithFewerGpusThanRanksSaysBothNumbers) {
  EXPECT_EQ(error_of([] { choose_gpus(3, {.process = 1, .processes = 2, .ranks = 4}); }),
            "this host has 3 GPUs for 8 ranks, which need one each");
  EXPECT_EQ(error_of([] { choose_gpus(1, {.process = 0, .processes = 1, .ranks = 2}); }),
            "this host has 1 GPU for 2 ranks, which need one each");
}

// Two hosts of the same kind: PCI addresses are the same there, and the GPUs are not.
std::vector<Member> members() {
  return {{.process = 0, .host = "a", .first_rank = 0, .ranks = 1},
          {.process = 1, .host = "a", .first_rank = 1, .ranks = 1},
          {.process = 2, .host = "b", .first_rank = 2, .ranks = 2}};
}

ProcessGpus with(int seen, const std::vector<std::string>& uuids) {
  ProcessGpus gpus{.nccl = "NCCL 2.28.9", .seen = seen};
  for (const std::string& uuid : uuids) gpus.own.push_back({.uuid = uuid, .pci = "0000:3b:00.0"});
  return gpus;
}

TEST(GpuChoice, RanksWithTheSameGpuAreNamed) {
  EXPECT_EQ(error_of([] { check_apart(members(), {with(1, {"a0"}), with(1, {"a1"}), with(2, {"b0", "b1"})}); }), "");
  EXPECT_EQ(error_of([] { check_apart(members(), {with(1, {"a0"}), with(1, {"a0"}), with(2, {"b0", "b1"})}); }),
            "ranks 0 and 1 have the same GPU (0000:3b:00.0): host a has 1 GPU for 2 ranks");
  EXPECT_EQ(error_of([] { check_apart(members(), {with(1, {"a0"}), with(1, {"a1"}), with(3, {"b0", "b0"})}); }),
            "ranks 2 and 3 have the same GPU (0000:3b:00.0): host b has 3 GPUs for 2 ranks");
}

TEST(GpuChoice, VersionsOfNcclAreTheSame) {
  std::vector<ProcessGpus> gpus = {with(1, {"a0"}), with(1, {"a1"}), with(2, {"b0", "b1"})};
  EXPECT_EQ(error_of([&] { check_same_nccl(members(), gpus); }), "");
  gpus[2].nccl = "NCCL 2.27.3";
  EXPECT_EQ(error_of([&] { check_same_nccl(members(), gpus); }),
            "the processes have different versions of NCCL: NCCL 2.28.9 (rank 0 on host a), NCCL 2.27.3 (ranks 2-3 on "
            "host b)");
}

TEST(GpuChoice, TravelsAsText) {
  const ProcessGpus gpus = from_text(to_text(with(4, {"00ff", "01ff"})));
  EXPECT_EQ(gpus.nccl, "NCCL 2.28.9");
  EXPECT_EQ(gpus.seen, 4);
  ASSERT_EQ(gpus.own.size(), 2U);
  EXPECT_EQ(gpus.own[1].uuid, "01ff");
  EXPECT_EQ(gpus.own[1].pci, "0000:3b:00.0");
  EXPECT_TRUE(from_text(to_text({})).own.empty());
}

}  // namespace
}  // namespace sluice::launch
