#include "config/support.h"

namespace sluice::config {
namespace {

// The error of the valid configuration after the given overrides.
std::string invalid(const std::vector<std::string>& arguments) {
  Config config = parse(valid_yaml, "my.yaml");
  override_with(config, arguments);
  return error_of([&] { validate(config); });
}

TEST(Validate, TheValidOnePasses) {
  EXPECT_NO_THROW(validate(parse(valid_yaml, "my.yaml")));
}

TEST(Validate, EachRuleCanFail) {
  EXPECT_EQ(invalid({"--step_scheduler.local_batch_size", "6"}),
            "my.yaml:4: global_batch_size 64 is not a multiple of local_batch_size 6\n"
            "       global_batch_size = local_batch_size x data-parallel ranks x accumulation steps");
  EXPECT_EQ(invalid({"--distributed.pipeline.pp_microbatch_size", "3"}),
            "command line: pp_microbatch_size 3 does not divide local_batch_size 4");
  EXPECT_EQ(invalid({"--distributed.pipeline.pp_schedule", "1f1b"}),
            "my.yaml:14: virtual_stages 2 needs an interleaved schedule, pp_schedule is 1f1b\n"
            "       pp_schedule: interleaved1f1b");
  EXPECT_EQ(invalid({"--benchmark.warmup_steps", "12"}),
            "command line: warmup_steps 12 leaves none of max_steps 12 to time");
  EXPECT_EQ(invalid({"--benchmark.nsys_start", "3", "--benchmark.nsys_end", "2", "--benchmark.nsys_ranks", "[0]"}),
            "command line: nsys_end 2 is before nsys_start 3");
  EXPECT_EQ(invalid({"--benchmark.nsys_start", "3"}),
            "command line: nsys_start 3 is of no rank\n       nsys_ranks: [0]");
  EXPECT_EQ(invalid({"--optimizer.betas", "[0.9]"}).substr(0, 36), "command line: optimizer.betas are tw");
  EXPECT_EQ(invalid({"--optimizer.betas", "[0.9, 1]"}).substr(0, 36), "command line: optimizer.betas are tw");
  EXPECT_EQ(invalid({"--lr_scheduler.init_lr", "1"}), "command line: init_lr 1 is above lr 0.0003");
  EXPECT_EQ(invalid({"--lr_scheduler.max_lr", "1e-6"}), "my.yaml:28: min_lr 1e-05 is above max_lr 1e-06");
  EXPECT_EQ(invalid({"--lr_scheduler.lr_decay_style", "WSD"}),
            "command line: lr_decay_style wsd needs wsd_decay_steps\n       wsd_decay_steps: 100");
  EXPECT_EQ(invalid({"--lr_scheduler.lr_decay_style", "WSD", "--lr_scheduler.wsd_decay_steps", "3"}),
            "command line: lr_decay_style wsd needs lr_wsd_decay_style\n       lr_wsd_decay_style: linear");
  EXPECT_EQ(invalid({"--lr_scheduler.end_wd", "0.01"}),
            "command line: weight decay starts at 0.1 and ends at 0.01: it can only rise");
  EXPECT_EQ(invalid({"--lr_scheduler.end_wd", "0.2"}),
            "wd_incr_style constant, and weight decay goes from 0.1 to 0.2\n       wd_incr_style: linear");
  EXPECT_EQ(invalid({"--step_scheduler.max_steps", "null"}),
            "command line: a benchmark needs step_scheduler.max_steps\n       max_steps: 10");
  EXPECT_EQ(invalid({"--step_scheduler.max_steps", "null", "--step_scheduler.num_epochs", "null"}),
            "command line: neither step_scheduler.max_steps nor num_epochs says when the run ends\n"
            "       max_steps: 1000");
  EXPECT_EQ(invalid({"--lr_scheduler.min_lr", "1"}), "command line: min_lr 1 is above lr 0.0003");
  EXPECT_EQ(invalid({"--lr_scheduler.lr_warmup_steps", "20"}),
            "command line: lr_warmup_steps 20 leaves none of the 12 steps to decay over\n"
            "       fewer of them, or a longer run (step_scheduler.max_steps, num_epochs) or decay "
            "(lr_scheduler.lr_decay_steps)");
  EXPECT_EQ(invalid({"--dataset._target_", "bytes"}), "command line: dataset._target_ bytes needs dataset.path");
  EXPECT_EQ(invalid({"--dataset.path", "x"}), "command line: dataset.path goes with _target_ bytes, which is mock");
  EXPECT_EQ(invalid({"--dataset._target_", "bytes", "--dataset.path", "x", "--dataset.vocab_size", "100"}),
            "command line: vocab_size 100 is too small for bytes, which need 256");
  EXPECT_EQ(invalid({"--dataset._target_", "none"}),
            "command line: dataset._target_ names no data\n       mock draws random tokens, bytes reads files");
  EXPECT_EQ(invalid({"--model.config.pretrained_model_name_or_path", "null"}).substr(0, 39),
            "my.yaml:16: model.config names no model");
  EXPECT_EQ(invalid({"--model.backend.fake_gate_noise", "0.5", "--benchmark.balance", "router"}),
            "command line: fake_gate_noise belongs to the published gate, and tokens are routed by router\n"
            "       fake_balanced_gate: true");
}

TEST(Validate, RulesOfAPipelineRestWithoutOne) {
  Config config = parse(valid_yaml, "my.yaml");
  override_with(config, {"--distributed.pp_size", "1", "--distributed.pipeline.pp_microbatch_size", "3"});
  EXPECT_NO_THROW(validate(config));
}

}  // namespace
}  // namespace sluice::config
