// Eight ranks, two stages of four that shard parameters and pairs of which share the experts, in as many processes as
// there are ways to start them: the losses of all steps, weights and moments are those of threads, bit for bit.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "e2e/program.h"

namespace sluice::test {
namespace {

using Family = std::tuple<const char*, const char*>;  // of the goldens, and its dtype

class ProcessSweep : public testing::TestWithParam<Family> {};

INSTANTIATE_TEST_SUITE_P(Families, ProcessSweep,
                         testing::Combine(testing::Values("qwen3_moe", "gpt_oss", "deepseek_v3"),
                                          testing::Values("f32", "f64", "bf16")),
                         [](const auto& test) {
                           return fmt::format("{}_{}", std::get<0>(test.param), std::get<1>(test.param));
                         });

TEST_P(ProcessSweep, HasTheBitsOfThreads) {
  const auto& [golden, dtype] = GetParam();
  const Folder folder;
  const std::string model = hub_directory(folder, golden);
  const std::string file = folder.file(
      "run.yaml", fmt::format("step_scheduler: {{global_batch_size: 8, local_batch_size: 1, max_steps: 4}}\n"
                              "model: {{config: {{pretrained_model_name_or_path: {}}}}}\n"
                              "dataset: {{_target_: mock, seq_len: 16}}\n"
                              "distributed: {{pp_size: 2, ep_size: 2}}\n"
                              "optimizer: {{lr: 0.003}}\n"
                              "runtime: {{dtype: {}}}\n",
                              model, dtype));
  const auto train = [&](const std::string& launcher, const std::string& name) {
    const Outcome outcome = shell(
        fmt::format("{} train '{}' --ranks 8 --checkpoint.checkpoint_dir '{}'", launcher, file, folder.path(name)));
    EXPECT_EQ(outcome.code, 0) << launcher << outcome.err;
  };
  train("$SLUICE", "threads");
  const auto compare = [&](const std::string& launcher, const std::string& name) {
    train(launcher, name);
    const Outcome same = shell(fmt::format(
        "cd '{}'; for run in threads {}; do grep -o '\"loss\":[^,]*' $run/training.jsonl > $run.losses; done; "
        "[ $(wc -l < threads.losses) = 4 ] && cmp threads.losses {}.losses && [ $(ls threads/step-4/rank-* | wc -l) = "
        "8 ] && for file in threads/step-4/rank-*; do cmp $file {}/step-4/${{file##*/}} || exit 1; done",
        folder.path(""), name, name, name));
    EXPECT_EQ(same.code, 0) << launcher << same.out << same.err;
  };
  compare("$SLUICE launch --nproc 8 --", "each");
  compare("$SLUICE launch --nproc 2 --", "two");
  if (shell("$SLUICE doctor | grep -q mpirun && command -v mpirun").code == 0) {
    compare("OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun --oversubscribe -n 8 $SLUICE", "mpi");
  }
}

}  // namespace
}  // namespace sluice::test
