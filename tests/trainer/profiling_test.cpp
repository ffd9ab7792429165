// What an attached profiler is told of a training run: names that nest, and when to record.
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "config/load.h"
#include "data/mock.h"
#include "emulation/profiler.h"
#include "support/training.h"
#include "trainer/profiler_window.h"

namespace sluice::test {
namespace {

using emulation::ProfilingTool;

using Told = std::vector<std::string>;

const LaunchOptions kGpu{.comm = {.timeout_s = 60}, .hardware = emulated_gpu().hardware};

// What a rank's thread told after `body` began; `body` may throw.
Told told_by_rank(int wanted, const std::vector<std::string>& overrides, int ranks,
                  const std::function<void(Trainer&)>& body, const LaunchOptions& options = kGpu) {
  const ProfilingTool tool;
  Config config = tiny_config({"--dataset.seq_len=4"});
  config::apply_overrides(config, overrides);
  const RunSpec spec = resolve(config, ranks);
  const MockDataset dataset(spec.seed, spec.model.vocab_size);
  Told told;
  run_session(spec, options, dataset, [&](Trainer& trainer) {
    const size_t before = tool.told_by(std::this_thread::get_id()).size();
    body(trainer);
    if (trainer.mesh().world.rank() != wanted) return;
    const Told all = tool.told_by(std::this_thread::get_id());
    told.assign(all.begin() + static_cast<std::ptrdiff_t>(before), all.end());
  });
  return told;
}

// The ranges as paths, "step 1 / F micro-batch 0 / layers.0 attention / gemm", in the order they were opened. Closing
// one that is not open, or leaving one open, fails the test.
std::vector<std::string> paths_of(const Told& told) {
  std::vector<std::string> paths, open;
  for (const std::string& what : told) {
    if (what.starts_with("> ")) {
      open.push_back((open.empty() ? "" : open.back() + " / ") + what.substr(2));
      paths.push_back(open.back());
    } else if (what == "<") {
      if (open.empty()) {
        ADD_FAILURE() << "closed more ranges than it opened";
        return paths;
      }
      open.pop_back();
    }
  }
  EXPECT_TRUE(open.empty()) << open.back() << " is still open";
  return paths;
}

bool has(const std::vector<std::string>& paths, const std::string& path) {
  return std::ranges::find(paths, path) != paths.end();
}

TEST(Profiling, RangesNestFromStepToOperation) {
  const Told told = told_by_rank(0, {"--distributed.activation_checkpointing=true", "--benchmark.balance=router"}, 1,
                                 [](Trainer& trainer) {
                                   trainer.step(0);
                                   trainer.step(1);
                                 });
  const std::vector<std::string> paths = paths_of(told);
  for (const char* path :
       {"step 1", "step 2", "step 1 / F micro-batch 0", "step 1 / F micro-batch 1", "step 2 / BW micro-batch 1",
        "step 1 / F micro-batch 0 / embedding / embedding_forward",
        "step 1 / F micro-batch 0 / layers.0 attention / attention_forward",
        "step 1 / F micro-batch 0 / layers.0 attention / softmax_topk_forward",
        "step 1 / F micro-batch 0 / layers.0 dispatch", "step 1 / F micro-batch 0 / layers.3 experts / grouped_gemm",
        "step 1 / F micro-batch 0 / layers.0 combine / sum_rows", "step 1 / F micro-batch 0 / head / head_loss",
        "step 1 / BW micro-batch 0 / layers.0 recompute / gemm",
        "step 1 / BW micro-batch 0 / layers.0 experts / grouped_gemm",
        "step 1 / BW micro-batch 0 / layers.0 attention / attention_backward",
        "step 1 / BW micro-batch 0 / layers.0 weight gradients / grouped_gemm_weight",
        "step 1 / BW micro-batch 0 / embedding / embedding_backward", "step 1 / optimizer / adamw"}) {
    EXPECT_TRUE(has(paths, path)) << path;
  }
  for (const std::string& path : paths) EXPECT_TRUE(path.starts_with("step ")) << path;
}

TEST(Profiling, SchedulesNameTheirChunksAndWeightGradients) {
  const auto step = [](Trainer& trainer) { trainer.step(0); };
  const std::vector<std::string> interleaved = paths_of(
      told_by_rank(1,
                   {"--distributed.pp_size=2", "--step_scheduler.local_batch_size=4",
                    "--distributed.pipeline.pp_schedule=interleaved1f1b", "--distributed.pipeline.virtual_stages=2"},
                   2, step));
  EXPECT_TRUE(has(interleaved, "step 1 / F micro-batch 2 chunk 1"));
  EXPECT_TRUE(has(interleaved, "step 1 / F micro-batch 2 chunk 1 / layers.3 experts / grouped_gemm"));
  const std::vector<std::string> deferred = paths_of(told_by_rank(
      1, {"--distributed.pp_size=2", "--step_scheduler.local_batch_size=4", "--distributed.pipeline.pp_schedule=zb_h1"},
      2, step));
  EXPECT_TRUE(has(deferred, "step 1 / B micro-batch 0 / layers.2 attention / attention_backward"));
  EXPECT_TRUE(has(deferred, "step 1 / W micro-batch 0 / layers.2 weight gradients / gemm"));
}

TEST(Profiling, RangesCloseWhenAnExceptionEndsThem) {
  struct Thrower final : OpObserver {
    void before(const OpRecord& record) override {
      if (record.name == GroupedGemm::name) throw std::runtime_error("in the middle");
    }
  };
  const std::vector<std::string> paths = paths_of(told_by_rank(0, {}, 1, [](Trainer& trainer) {
    Thrower thrower;
    trainer.context().add_observer(&thrower);
    EXPECT_THROW(trainer.step(0), std::runtime_error);
    trainer.context().remove_observer(&thrower);
  }));
  EXPECT_EQ(paths.back(), "step 1 / F micro-batch 0 / layers.0 experts / gather_rows");
}

TEST(Profiling, WithoutAToolNothingIsNamed) {
  const RunSpec spec = resolve(tiny_config({}), 1);
  const MockDataset dataset(spec.seed, spec.model.vocab_size);
  for (const LaunchOptions& options : {kGpu, LaunchOptions{.device = DeviceKind::ref}}) {
    run_session(spec, options, dataset,
                [&](Trainer& trainer) { EXPECT_EQ(trainer.context().ranges(), nullptr) << "nobody listens"; });
  }
  const RangeScope silent(nullptr, []() -> std::string { throw std::runtime_error("a name is made"); });
}

config::Benchmark recorded(int64_t first, int64_t last, const std::vector<int64_t>& ranks) {
  config::Benchmark keys;
  keys.nsys_start = first;
  keys.nsys_end = last;
  keys.nsys_ranks = ranks;
  return keys;
}

// What a profiler sees on a rank of two in a run of 4 steps that ends after `steps`: each as a range named by its
// number.
std::string switched(int rank, const config::Benchmark& keys, int64_t steps = 4) {
  const Told told = told_by_rank(rank, {"--step_scheduler.max_steps=4"}, 2, [&](Trainer& trainer) {
    ProfilerWindow window(trainer, keys);
    for (int64_t step = 0; step < steps; ++step) {
      window.before(step);
      {
        const RangeScope range(trainer.context().ranges(), [&] { return std::to_string(step); });
      }
      window.after(step);
    }
  });
  std::string text;
  for (const std::string& what : told) {
    if (what != "<") text += what.substr(what.starts_with("> ") ? 2 : 0) + " ";
  }
  return text;
}

TEST(Profiling, RecordsTheNamedStepsOnTheNamedRanks) {
  EXPECT_EQ(switched(1, recorded(1, 2, {1})), "0 start 1 2 stop 3 ");
  EXPECT_EQ(switched(0, recorded(1, 2, {1})), "0 1 2 3 ");
  EXPECT_EQ(switched(0, recorded(2, 2, {0, 1})), "0 1 start 2 stop 3 ");
  EXPECT_EQ(switched(0, recorded(-1, 2, {0})), "0 1 2 3 ") << "it never starts";
  EXPECT_EQ(switched(0, config::Benchmark()), "0 1 2 3 ");
}

TEST(Profiling, WhatIsRecordedIsStoppedAtTheEnd) {
  EXPECT_EQ(switched(0, recorded(2, -1, {0})), "0 1 start 2 3 stop ");
  // told_by_rank looks when the body has ended: the window has gone.
  EXPECT_EQ(switched(0, recorded(0, 3, {0}), 2), "start 0 1 stop ") << "an end that does not come";
}

TEST(Profiling, RefusesStepsAndRanksThatAreNotThere) {
  const auto refusal = [](const config::Benchmark& keys) -> std::string {
    try {
      switched(0, keys);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::user);
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(refusal(recorded(4, -1, {0})), "benchmark.nsys_start 4 is not one of the 4 steps of this run");
  EXPECT_EQ(refusal(recorded(0, 4, {0})), "benchmark.nsys_end 4 is not one of the 4 steps of this run");
  EXPECT_EQ(refusal(recorded(0, 1, {0, 2})), "benchmark.nsys_ranks names rank 2, and this run has 2");
  EXPECT_EQ(refusal(recorded(-1, -1, {7})), "accepted");
}

TEST(Profiling, OtherDevicesSayThatTheKeysHaveNoEffect) {
  testing::internal::CaptureStderr();
  const RunSpec spec = resolve(tiny_config({}), 2);
  const MockDataset dataset(spec.seed, spec.model.vocab_size);
  run_session(spec, {.device = DeviceKind::ref}, dataset, [&](Trainer& trainer) {
    ProfilerWindow window(trainer, recorded(0, 99, {7}));
    window.before(0);
    window.after(0);
  });
  const std::string said = testing::internal::GetCapturedStderr();
  const std::string expected = "benchmark.nsys_start, nsys_end and nsys_ranks have no effect on ref";
  const size_t at = said.find(expected);
  ASSERT_NE(at, std::string::npos) << said;
  EXPECT_EQ(said.find(expected, at + 1), std::string::npos) << "said twice";
}

}  // namespace
}  // namespace sluice::test
