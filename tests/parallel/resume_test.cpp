// A run that is saved and goes on, in the same layout or another one, is the run that was never interrupted.
#include "training/resume.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <mutex>
#include <set>

#include "checkpoint/checkpoint.h"
#include "data/mock.h"
#include "support/temporary_folder.h"
#include "support/training.h"
#include "training/training.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kSteps = 6, kSavedAt = 3;

// Remembers which samples were asked for.
class WatchedDataset final : public Dataset {
 public:
  explicit WatchedDataset(int64_t vocab) : data_(7, vocab) {}
  void sample(std::int64_t id, std::span<std::int32_t> tokens) const override {
    {
      const std::scoped_lock lock(mutex_);
      seen_.insert(id);
    }
    data_.sample(id, tokens);
  }
  std::int64_t size() const override { return data_.size(); }
  std::int64_t vocab_size() const override { return data_.vocab_size(); }
  std::string identity() const override { return data_.identity(); }
  std::multiset<int64_t> seen() const { return seen_; }

 private:
  MockDataset data_;
  mutable std::mutex mutex_;
  mutable std::multiset<int64_t> seen_;
};

struct Trained {
  std::map<int64_t, double> losses;
  std::map<std::string, std::vector<double>> values;  // by "KIND/PARAMETER", at the end
  std::multiset<int64_t> samples;
  TrainingResult result;
};

// All that a checkpoint holds, as f64.
std::map<std::string, std::vector<double>> contents(const fs::path& path) {
  const Checkpoint checkpoint(path);
  std::map<std::string, std::vector<double>> all;
  for (const auto& [name, parameter] : checkpoint.parameters()) {
    for (const auto& [kind, type] : parameter.kinds) {
      std::vector<double>& values = all[fmt::format("{}/{}", name_of(kind), name)];
      values.resize(static_cast<size_t>(parameter.numel()));
      checkpoint.read(std::array{Checkpoint::Wanted{kind, name, 0, tensor_of(values.data(), {parameter.numel()})}},
                      nullptr);
    }
  }
  return all;
}

// Trains until `steps`, from the newest checkpoint in the folder if there is one; saves at kSavedAt and at the end.
Trained run(const Layout& layout, const fs::path& folder_path, int64_t steps, const Hardware& hardware = {}) {
  const Config config = tiny_config(layout.overrides, layout.family);
  RunSpec spec = resolve(config, layout.ranks, Purpose::train);
  const WatchedDataset dataset(spec.model.vocab_size);
  TrainingJob job = training_job(config, spec, dataset, nullptr);
  job.steps = steps;
  job.schedule = {.every = kSavedAt};
  const CheckpointFolder folder(folder_path);
  std::optional<Checkpoint> from;
  if (const auto found = find_checkpoints(folder_path); !found.empty()) from.emplace(found.back().path);
  const SaveOptions saving{.folder = &folder, .manifest = describe_run(config, dataset, "test")};
  job.saving = &saving;
  job.resumed = from ? &*from : nullptr;
  spec = with_steps(std::move(spec), config, steps, {.steps = kSteps});
  Trained run;
  TrainingEvents events;
  events.recorded = [&](const TrainRecord& record) { run.losses[record.step] = record.result->loss; };
  LaunchOptions session{.device = DeviceKind::ref};
  session.comm.timeout_s = 120;
  session.hardware = hardware;
  run.result = run_training(job, spec, session, events);
  run.samples = dataset.seen();
  run.values = contents(folder.of_step(steps));
  return run;
}

// The largest difference of a value over the largest value of its array.
double worst_difference(const Trained& one, const Trained& other) {
  EXPECT_EQ(one.values.size(), other.values.size());
  double worst = 0;
  for (const auto& [name, values] : one.values) {
    const auto found = other.values.find(name);
    if (found == other.values.end() || found->second.size() != values.size()) return 1;
    double largest = 0, error = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      largest = std::max(largest, std::abs(values[i]));
      error = std::max(error, std::abs(values[i] - found->second[i]));
    }
    if (error > 0) worst = std::max(worst, error / largest);
  }
  return worst;
}

const Trained& uninterrupted(const std::string& family) {
  static std::map<std::string, Trained> known;
  const auto found = known.find(family);
  if (found != known.end()) return found->second;
  const Folder folder;
  return known[family] = run({"one", 1, {}, family}, folder.path(), kSteps);
}

struct Pair {
  Layout before;
  Layout after;
  friend std::ostream& operator<<(std::ostream& out, const Pair& pair) {
    return out << pair.before.name << "_then_" << pair.after.name;
  }
};

std::string flag(const std::string& key, const std::string& value) {
  return "--" + key + "=" + value;
}

std::vector<Pair> pairs() {
  const std::string pp = "distributed.pp_size", ep = "distributed.ep_size", local = "step_scheduler.local_batch_size";
  const std::string full = "memory.recompute";
  const Layout one{"one", 1, {}}, fsdp8{"fsdp8", 8, {}};
  const Layout fsdp4{"fsdp4", 4, {}}, hsdp{"hsdp2x2", 4, {flag("distributed.dp_replicate_size", "2")}};
  const Layout ep4{"ep4_shard2", 8, {flag(ep, "4"), flag("distributed.moe.reshard_after_forward", "true")}};
  const Layout pp_vp{"pp2_vp2",
                     2,
                     {flag(pp, "2"), flag(local, "8"), flag("distributed.pipeline.pp_schedule", "interleaved1f1b"),
                      flag("distributed.pipeline.virtual_stages", "2")}};
  const Layout pp_ep{"pp2_ep2", 4, {flag(pp, "2"), flag(ep, "2"), flag(local, "4")}};
  const Layout recomputing{"recompute_fsdp2", 2, {flag(full, "full")}};
  return {{one, fsdp8},  {fsdp8, one}, {fsdp4, pp_ep},       {pp_vp, ep4},
          {hsdp, pp_vp}, {ep4, hsdp},  {pp_ep, recomputing}, {recomputing, fsdp8}};
}

class ResumeInAnotherLayout : public testing::TestWithParam<Pair> {};

TEST_P(ResumeInAnotherLayout, IsTheUninterruptedRunOfOneRank) {
  const Folder folder;
  Trained first = run(GetParam().before, folder.path(), kSavedAt);
  const Trained second = run(GetParam().after, folder.path(), kSteps);
  const Trained& whole = uninterrupted("qwen3_moe");
  EXPECT_EQ(second.result.own_steps, kSteps - kSavedAt);
  EXPECT_EQ(second.result.first_loss, first.result.first_loss);
  first.losses.insert(second.losses.begin(), second.losses.end());
  ASSERT_EQ(first.losses.size(), static_cast<size_t>(kSteps));
  for (const auto& [step, loss] : whole.losses) EXPECT_NEAR(first.losses.at(step) / loss, 1, 1e-10) << step;
  EXPECT_LT(worst_difference(whole, second), 1e-9);
  // Pipeline stages and replicas may read a sample more than once in a run; none is read in both, and none is left out.
  std::set<int64_t> before(first.samples.begin(), first.samples.end()), all(whole.samples.begin(), whole.samples.end());
  std::set<int64_t> after(second.samples.begin(), second.samples.end());
  for (const int64_t sample : after) EXPECT_FALSE(before.contains(sample)) << sample;
  before.merge(after);
  EXPECT_EQ(before, all);
}

INSTANTIATE_TEST_SUITE_P(Pairs, ResumeInAnotherLayout, testing::ValuesIn(pairs()), testing::PrintToStringParamName());

// Selection biases and the extra layer, whose copy of the embedding is on another stage.
TEST(Resume, KeepsWhatOtherFamiliesHave) {
  const Layout pp{"pp2_ep2",
                  4,
                  {"--distributed.pp_size=2", "--distributed.ep_size=2", "--step_scheduler.local_batch_size=4"},
                  "deepseek_v3_mtp"};
  const Folder folder;
  run(pp, folder.path(), kSavedAt);
  const Trained second = run({"one", 1, {}, "deepseek_v3_mtp"}, folder.path(), kSteps);
  EXPECT_LT(worst_difference(uninterrupted("deepseek_v3_mtp"), second), 1e-9);
  bool biases = false;
  for (const auto& [name, values] : second.values) biases = biases || name.find("selection_bias") != std::string::npos;
  EXPECT_TRUE(biases);
}

struct SameBits {
  std::string name;
  std::vector<std::string> overrides;
  std::string family = "qwen3_moe";
  friend std::ostream& operator<<(std::ostream& out, const SameBits& c) { return out << c.name; }
};

class ResumeInTheSameLayout : public testing::TestWithParam<SameBits> {};

// With masters in fp32 beside bf16 weights; without, where weights are rounded at random.
TEST_P(ResumeInTheSameLayout, HasTheSameBits) {
  const Layout layout{"fsdp2", 2, GetParam().overrides, GetParam().family};
  const Hardware cpu = hardware_of(DeviceKind::cpu, 2, 2);
  const Folder interrupted, whole;
  run(layout, interrupted.path(), kSavedAt, cpu);
  const Trained second = run(layout, interrupted.path(), kSteps, cpu);
  const Trained first = run(layout, whole.path(), kSteps, cpu);
  EXPECT_EQ(second.values, first.values);
  ASSERT_EQ(second.losses.size(), static_cast<size_t>(kSteps - kSavedAt));
  for (const auto& [step, loss] : second.losses) EXPECT_EQ(loss, first.losses.at(step));
}

INSTANTIATE_TEST_SUITE_P(
    Types, ResumeInTheSameLayout,
    testing::Values(SameBits{"f32", {"--runtime.dtype=f32"}}, SameBits{"bf16", {"--runtime.dtype=bf16"}},
                    SameBits{"bf16_state", {"--runtime.dtype=bf16", "--optimizer.state_dtype=bf16"}},
                    SameBits{"bf16_biases", {"--runtime.dtype=bf16"}, "deepseek_v3"}),
    testing::PrintToStringParamName());

// By way of the host, whose threads cannot read the device.
TEST(GpuStorage, ARunIsSavedAndGoesOn) {
  const Layout layout{"one", 1, {"--runtime.dtype=f32", "--runtime.device=cuda"}};
  const Hardware gpu = emulated_gpu().hardware;
  const Folder interrupted, whole;
  run(layout, interrupted.path(), kSavedAt, gpu);
  const Trained second = run(layout, interrupted.path(), kSteps, gpu), first = run(layout, whole.path(), kSteps, gpu);
  EXPECT_EQ(second.values, first.values);
}

}  // namespace
}  // namespace sluice::test
