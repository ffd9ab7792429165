#include <filesystem>
#include <fstream>

#include "config/support.h"

namespace sluice::config {
namespace {

TEST(Load, TypesEveryValue) {
  const Config config = parse(valid_yaml, "my.yaml");
  EXPECT_EQ(config.recipe, Recipe::benchmark);
  EXPECT_EQ(config.seed, 7);
  EXPECT_EQ(config.step_scheduler.global_batch_size, 64);
  EXPECT_EQ(config.distributed.pipeline.pp_schedule, ScheduleKind::interleaved);
  EXPECT_EQ(config.distributed.pipeline.virtual_stages, 2);
  EXPECT_EQ(config.distributed.activation_checkpointing, ActivationCheckpointing::selective);
  EXPECT_EQ(config.model.config.pretrained_model_name_or_path, "Qwen/Qwen3-30B-A3B");
  EXPECT_TRUE(config.model.backend.fake_balanced_gate);
  EXPECT_EQ(config.optimizer.target, OptimizerKind::adamw);
  EXPECT_EQ(config.optimizer.lr, 3e-4);
  EXPECT_EQ(config.optimizer.betas, (std::vector<double>{0.9, 0.95}));
  EXPECT_EQ(config.lr_scheduler.lr_decay_style, LrDecay::cosine);
  EXPECT_EQ(config.dataset.target, DatasetKind::mock);
  EXPECT_EQ(config.dataset.seq_len, 512);
  EXPECT_EQ(config.validation_dataset.target, DatasetKind::none);
  ASSERT_TRUE(config.memory.recompute.has_value());
  EXPECT_EQ(config.memory.recompute->pieces, (std::vector<RecomputePart>{RecomputePart::norm, RecomputePart::act}));
  ASSERT_EQ(config.ignored.size(), 1U);
  EXPECT_EQ(config.ignored[0].key, "ci");
  EXPECT_EQ(config.ignored[0].where, "my.yaml:34");
}

TEST(Load, ModelFieldsAreFreeAndKeepTheirType) {
  const Config config = parse(valid_yaml, "my.yaml");
  const HubFields& fields = config.model.config.overrides;
  ASSERT_EQ(fields.fields.size(), 4U);
  EXPECT_EQ(fields.fields[0].key, "num_hidden_layers");
  EXPECT_EQ(fields.fields[0].json, "8");
  EXPECT_EQ(fields.find("rope_scaling.type")->json, "\"yarn\"");
  EXPECT_EQ(fields.find("rope_scaling.factor")->json, "40");
  EXPECT_EQ(fields.find("layer_types")->json, R"(["full", "sliding", 3])");
  EXPECT_EQ(fields.find("hidden_size"), nullptr);
  EXPECT_EQ(config.origin("model.config.rope_scaling.factor").text, "my.yaml:19");
  EXPECT_EQ(parse_error("model:\n  config:\n    pretrained_model_name: x\n"),
            "my.yaml:3: model.config.pretrained_model_name is not a key\n"
            "       did you mean model.config.pretrained_model_name_or_path?   "
            "(keys of this section: sluice config --keys model.config)");
}

TEST(Load, RulesBetweenSections) {
  Config config;
  EXPECT_EQ(config.recompute(), Recompute{});
  config.distributed.activation_checkpointing = ActivationCheckpointing::full;
  EXPECT_TRUE(config.recompute().full);
  config.memory.recompute = Recompute{};
  EXPECT_EQ(config.recompute(), Recompute{});
  EXPECT_EQ(config.balance(), Balance::router);
  config.model.backend.fake_balanced_gate = true;
  EXPECT_EQ(config.balance(), Balance::published);
  config.benchmark.balance = Balance::skewed;
  EXPECT_EQ(config.balance(), Balance::skewed);
  EXPECT_EQ(config.watchdog_seconds(), 600);
  config.runtime.watchdog_seconds = 3;
  EXPECT_EQ(config.watchdog_seconds(), 3);
}

TEST(Load, UnknownKeysAreNamedWithWhatWasMeant) {
  EXPECT_LT(parse_error(std::string(1 << 19, 'k') + ": 4\n").size(), 400U);
  EXPECT_EQ(parse_error("seed: 1\ndistributed:\n  ep_sise: 4\n"),
            "my.yaml:3: distributed.ep_sise is not a key\n"
            "       did you mean distributed.ep_size?   (keys of this section: sluice config --keys distributed)");
  EXPECT_EQ(parse_error("step_scheduler:\n  ep_size: 4\n"),
            "my.yaml:2: step_scheduler.ep_size is not a key\n"
            "       did you mean distributed.ep_size?   (keys of this section: sluice config --keys distributed)");
  EXPECT_EQ(parse_error("distribted:\n  ep_size: 4\n"),
            "my.yaml:1: distribted is not a key\n"
            "       did you mean distributed?   (all keys: sluice config --keys)");
  EXPECT_EQ(parse_error("runtime:\n  xyzzyplugh: 4\n"),
            "my.yaml:2: runtime.xyzzyplugh is not a key\n"
            "       keys of this section: sluice config --keys runtime");
  EXPECT_EQ(parse_error("distributed.ep_size: 4\n").substr(0, 49),
            "my.yaml:1: distributed.ep_size is not a key\n     ");
}

TEST(Load, WrongTypesAreNamedWithWhatWasExpected) {
  EXPECT_EQ(parse_error("seed: 1\ndistributed:\n  ep_size: four\n"),
            "my.yaml:3: distributed.ep_size: expected integer >= 1, got \"four\"");
  EXPECT_EQ(parse_error("distributed: {ep_size: 0}\n"),
            "my.yaml:1: distributed.ep_size: expected integer >= 1, got \"0\"");
  EXPECT_EQ(parse_error("distributed: {ep_size: 4.5}\n"),
            "my.yaml:1: distributed.ep_size: expected integer >= 1, got \"4.5\"");
  EXPECT_EQ(parse_error("distributed: {ep_size: 99999999999999999999}\n"),
            "my.yaml:1: distributed.ep_size: expected integer from 1 to 2147483647, got \"99999999999999999999\"");
  EXPECT_EQ(parse_error("distributed: {ep_size: [1]}\n"),
            "my.yaml:1: distributed.ep_size: expected integer >= 1, got a list");
  EXPECT_EQ(parse_error("distributed: {sequence_parallel: 2}\n"),
            "my.yaml:1: distributed.sequence_parallel: expected true or false, got \"2\"");
  EXPECT_EQ(parse_error("distributed: 4\n"),
            "my.yaml:1: distributed is a section: its keys stand indented below it\n"
            "       keys of this section: sluice config --keys distributed");
  EXPECT_EQ(parse_error("optimizer: {lr: nan}\n"), "my.yaml:1: optimizer.lr: expected number > 0, got \"nan\"");
  EXPECT_EQ(parse_error("optimizer: {betas: 0.9}\n"),
            "my.yaml:1: optimizer.betas: expected list of number from 0 to 1, got \"0.9\"");
  EXPECT_EQ(parse_error("optimizer: {_target_: torch.optim.SGD}\n"),
            "my.yaml:1: optimizer._target_: torch.optim.SGD: this optimizer is not available; AdamW and Adam are");
  EXPECT_EQ(parse_error("model: {backend: {attn: flx}}\n"),
            "my.yaml:1: model.backend.attn: expected one of te, sdpa, flex, eager, tilelang, cudnn, magi, got \"flx\"\n"
            "       did you mean flex?");
  EXPECT_EQ(parse_error("memory: {recompute: [norm, rope]}\n").substr(0, 60),
            "my.yaml:1: memory.recompute: expected one of norm, mla_up, q");
}

TEST(Load, FilesThatAreNone) {
  EXPECT_EQ(parse_error(""),
            "my.yaml: the file is empty\n"
            "       a configuration needs at least model.config; examples/ has runnable ones");
  EXPECT_EQ(parse_error("# nothing\n"), parse_error(""));
  EXPECT_EQ(parse_error("- a\n- b\n"),
            "my.yaml:1: not a configuration: expected keys such as `model:` at the left margin");
  EXPECT_EQ(parse_error("hello"), "my.yaml:1: not a configuration: expected keys such as `model:` at the left margin");
  EXPECT_EQ(error_of([] { load("no/such.yaml"); }), "cannot open no/such.yaml: No such file or directory");
  EXPECT_EQ(error_of([] { load("/tmp"); }), "cannot read /tmp: it is a directory\n       name a YAML file");
}

TEST(Load, ReadsAFile) {
  const std::filesystem::path file = std::filesystem::path(::testing::TempDir()) / "sluice_config_load_test.yaml";
  std::ofstream(file) << "\xEF\xBB\xBFseed: 3\r\nmodel:\r\n";
  const Config config = load(file);
  EXPECT_EQ(config.seed, 3);
  EXPECT_EQ(config.origin("seed").text, file.string() + ":1");
  std::filesystem::remove(file);
}

TEST(Overrides, EveryForm) {
  Config config = parse(valid_yaml, "my.yaml");
  override_with(config, {"--model.config.num_hidden_layers", "4", "--distributed.ep_size=8", "--runtime.async_comm",
                         "--optimizer.betas", "[0.8, 0.9]", "--memory.recompute=none", "--step_scheduler",
                         "{local_batch_size: 2, max_steps: 5}", "--distributed.dp_size", "none",
                         "--loss_fn.fp32_upcast", "true", "--model.config.rope_scaling", "null"});
  EXPECT_EQ(config.model.config.overrides.find("num_hidden_layers")->json, "4");
  EXPECT_EQ(config.model.config.overrides.find("rope_scaling")->json, "null");
  EXPECT_EQ(config.model.config.overrides.find("rope_scaling.factor"), nullptr);
  EXPECT_EQ(config.distributed.ep_size, 8);
  EXPECT_TRUE(config.runtime.async_comm);
  EXPECT_EQ(config.optimizer.betas, (std::vector<double>{0.8, 0.9}));
  EXPECT_EQ(config.recompute(), Recompute{});
  EXPECT_EQ(config.step_scheduler.local_batch_size, 2);
  EXPECT_EQ(config.step_scheduler.max_steps, 5);
  EXPECT_EQ(config.distributed.dp_size, std::nullopt);
  EXPECT_EQ(config.origin("distributed.ep_size").text, "--distributed.ep_size");
  EXPECT_EQ(config.origin("step_scheduler.max_steps").text, "--step_scheduler.max_steps");
  EXPECT_EQ(config.ignored.back().where, "--loss_fn.fp32_upcast");
}

TEST(Overrides, Mistakes) {
  EXPECT_EQ(override_error({"--distributed.ep_sise", "4"}),
            "command line: distributed.ep_sise is not a key\n"
            "       did you mean distributed.ep_size?   (keys of this section: sluice config --keys distributed)");
  EXPECT_EQ(override_error({"--distributed.ep_size=x"}),
            "command line: distributed.ep_size: expected integer >= 1, got \"x\"");
  EXPECT_EQ(override_error({"--distributed.ep_size"}),
            "command line: distributed.ep_size: expected integer >= 1, got \"true\"");
  EXPECT_EQ(override_error({"--seed", "1", "2"}),
            "command line: \"2\" is neither a key nor a value\n       settings are written --section.key value");
  EXPECT_EQ(override_error({"--optimizer.betas", "[0.9"}),
            "command line: optimizer.betas: not a list, a map or quoted text: \"[0.9\"");
}

TEST(Overrides, AFailedOneChangesNothing) {
  Config config;
  EXPECT_NE(error_of([&] { override_with(config, {"--distributed", "{tp_size: 2, ep_size: x}"}); }), "");
  EXPECT_EQ(config.distributed.tp_size, 1);
  EXPECT_FALSE(config.is_set("distributed.tp_size"));
}

TEST(Set, ByARule) {
  Config config = parse(valid_yaml, "my.yaml");
  set(config, "distributed.ep_size", "2", Origin::rule("scale laptop"));
  set(config, "model.config.num_hidden_layers", "2", Origin::rule("scale laptop"));
  EXPECT_EQ(config.distributed.ep_size, 2);
  EXPECT_EQ(config.origin("distributed.ep_size").kind, Origin::Kind::rule);
  EXPECT_EQ(config.origin("model.config.num_hidden_layers").text, "scale laptop");
  EXPECT_EQ(error_of([&] { set(config, "distributed.ep_size", "-1", Origin::rule("scale laptop")); }),
            "scale laptop: distributed.ep_size: expected integer >= 1, got \"-1\"");
}

}  // namespace
}  // namespace sluice::config
