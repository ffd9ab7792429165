// What a file of NeMo AutoModel leaves out has NeMo's value, a class of torch brings torch's, and sluice's recipes have
// sluice's: each with its origin.
#include "config/defaults.h"

#include <fmt/format.h>

#include "config/support.h"

namespace sluice::config {
namespace {

const std::string nemo_train = "recipe: TrainFinetuneRecipeForNextTokenPrediction\n";
const std::string nemo_bench =
    "recipe: nemo_automodel.recipes.llm.benchmark.BenchmarkingRecipeForNextTokenPrediction\n";

Config nemo(const std::string& more = {}) {
  return parse(nemo_train + more, "my.yaml");
}

std::string origin_of(const Config& config, std::string_view key) {
  const Origin origin = config.origin(key);
  EXPECT_EQ(origin.kind, Origin::Kind::program) << key;
  return origin.text;
}

TEST(Defaults, OurRecipesHaveOurs) {
  for (const char* recipe : {"", "recipe: train\n", "recipe: benchmark\n"}) {
    const Config config = parse(std::string(recipe) + "lr_scheduler: {min_lr: 1e-6}\nseed: 5\n", "my.yaml");
    EXPECT_EQ(config.program, Program::sluice);
    EXPECT_FALSE(config.clip_grad_norm.max_norm);
    EXPECT_EQ(config.lr_scheduler.lr_decay_style, LrDecay::constant);
    EXPECT_EQ(config.lr_scheduler.lr_warmup_steps, 0);
    EXPECT_EQ(config.optimizer.weight_decay, 0);
    EXPECT_EQ(config.optimizer.decay_parameters, DecayedParams::matrices);
    EXPECT_EQ(config.step_scheduler.num_epochs, 1);
    EXPECT_EQ(config.step_scheduler.max_steps, 100);
    for (const auto& [key, origin] : config.origins) EXPECT_NE(origin.kind, Origin::Kind::program) << key;
  }
}

TEST(Defaults, NemosTrainingRecipe) {
  const Config config = nemo("step_scheduler: {max_steps: 250}\n");
  EXPECT_EQ(config.program, Program::nemo);
  EXPECT_EQ(config.recipe, Recipe::train);
  EXPECT_EQ(config.seed, 42);
  EXPECT_EQ(config.step_scheduler.global_batch_size, 32);
  EXPECT_EQ(config.step_scheduler.local_batch_size, 1);
  EXPECT_FALSE(config.step_scheduler.num_epochs);
  EXPECT_EQ(config.clip_grad_norm.max_norm, 1);
  EXPECT_EQ(config.dist_env.timeout_minutes, 1);
  EXPECT_EQ(config.optimizer.decay_parameters, DecayedParams::all);
  EXPECT_EQ(config.optimizer.lr, 1e-4);
  EXPECT_EQ(config.optimizer.weight_decay, 0.01);
  EXPECT_EQ(config.optimizer.state_dtype, StateDtype::weights);
  EXPECT_TRUE(config.model.aux_loss_of_config);
  // Without an lr_scheduler there is no schedule.
  EXPECT_EQ(config.lr_scheduler.lr_decay_style, LrDecay::constant);
  EXPECT_EQ(config.lr_scheduler.lr_warmup_steps, 0);
  EXPECT_EQ(origin_of(config, "clip_grad_norm.max_norm"), "NeMo's default");
  EXPECT_EQ(origin_of(config, "seed"), "NeMo's default");
  // What is given stays, wherever it was given.
  Config given = nemo("seed: 7\nclip_grad_norm: {max_norm: 0.5}\noptimizer: {weight_decay: 0}\n");
  override_with(given, {"--step_scheduler.num_epochs", "3"});
  EXPECT_EQ(given.seed, 7);
  EXPECT_EQ(given.clip_grad_norm.max_norm, 0.5);
  EXPECT_EQ(given.optimizer.weight_decay, 0);
  EXPECT_EQ(given.step_scheduler.num_epochs, 3);
}

TEST(Defaults, AnLrSchedulerBringsNemosSchedule) {
  Config config =
      nemo("step_scheduler: {max_steps: 250}\noptimizer: {_target_: torch.optim.AdamW, lr: 2e-3}\nlr_scheduler: {}\n");
  EXPECT_EQ(config.lr_scheduler.lr_decay_style, LrDecay::cosine);
  EXPECT_EQ(config.lr_scheduler.lr_warmup_steps, 25);
  EXPECT_DOUBLE_EQ(config.lr_scheduler.init_lr.value(), 2e-4);
  EXPECT_DOUBLE_EQ(config.lr_scheduler.min_lr, 2e-5);
  EXPECT_EQ(origin_of(config, "lr_scheduler.min_lr"), "NeMo's default: 0.01 lr");
  // They follow what they are made of.
  override_with(config, {"--optimizer.lr", "1e-3", "--step_scheduler.max_steps", "30000"});
  EXPECT_EQ(config.lr_scheduler.lr_warmup_steps, 1000);
  EXPECT_DOUBLE_EQ(config.lr_scheduler.init_lr.value(), 1e-4);
  EXPECT_DOUBLE_EQ(config.lr_scheduler.min_lr, 1e-5);
  EXPECT_EQ(warmup_steps(config, 57), 5);  // of a run that the data ends
  override_with(config, {"--lr_scheduler.lr_warmup_steps", "7"});
  EXPECT_EQ(warmup_steps(config, 57), 7);
  override_with(config, {"--lr_scheduler", "null"});
  EXPECT_EQ(config.lr_scheduler.lr_decay_style, LrDecay::constant);
  EXPECT_EQ(config.lr_scheduler.lr_warmup_steps, 0);
  EXPECT_FALSE(config.lr_scheduler.init_lr);
  // A key of the command line makes a section too.
  Config made = nemo();
  override_with(made, {"--lr_scheduler.min_lr", "0"});
  EXPECT_EQ(made.lr_scheduler.lr_decay_style, LrDecay::cosine);
  EXPECT_EQ(nemo("lr_scheduler: null\n").lr_scheduler.lr_decay_style, LrDecay::constant);
}

TEST(Defaults, LengthOfNemosRuns) {
  const auto length = [](const std::string& steps, const std::string& data = "mock") {
    const Config config = nemo("step_scheduler: {" + steps + "}\ndataset: {_target_: " + data + "}\n");
    const auto text = [](std::optional<int64_t> n) { return n ? std::to_string(*n) : "null"; };
    return text(config.step_scheduler.max_steps) + " " + text(config.step_scheduler.num_epochs);
  };
  const std::string iterable = "nemo_automodel.components.datasets.llm.mock_iterable_dataset.MockIterableDataset";
  EXPECT_EQ(length("max_steps: 9"), "9 null");  // ceil(max_steps / epoch length)
  EXPECT_EQ(length("max_steps: 9", iterable), "9 10");
  EXPECT_EQ(length("max_steps: 9, num_epochs: 2"), "9 2");
  EXPECT_EQ(length("max_steps: 9, num_epochs: null"), "9 null");
  EXPECT_EQ(length("num_epochs: 2"), "null 2");
  EXPECT_EQ(length("local_batch_size: 1"), "null 10");
}

struct OptimizerCase {
  const char* written;  // of optimizer
  double lr, weight_decay;
  StateDtype state;
  OptimizerKind kind;
  const char* origin;  // of the weight decay
};

TEST(Defaults, TheOptimizersClassGovernsItsSection) {
  using enum StateDtype;
  using enum OptimizerKind;
  constexpr const char* torch = "torch's default";
  constexpr const char* of_nemo = "NeMo's default";
  for (const char* recipe : {"recipe: train\n", nemo_train.c_str()}) {
    for (const OptimizerCase& each : {
             OptimizerCase{"_target_: torch.optim.AdamW", 1e-3, 0.01, weights, adamw, torch},
             {"_target_: torch.optim.adamw.AdamW", 1e-3, 0.01, weights, adamw, torch},
             {"_target_: torch.optim.Adam", 1e-3, 0, weights, adam, torch},
             {"_target_: torch.optim.AdamW, lr: 0.5", 0.5, 0.01, weights, adamw, torch},
             {"_target_: nemo_automodel.components.optim.optimizer.AdamWConfig", 1e-4, 0.01, weights, adamw, of_nemo},
             {"_target_: nemo_automodel.components.optim.optimizer.AdamConfig", 1e-4, 0.01, weights, adam, of_nemo},
             {"_target_: nemo_automodel.components.optim.optimizer.FusedAdamConfig", 1e-4, 0.01, fp32, adamw, of_nemo},
             {"_target_: transformer_engine.pytorch.optimizers.fused_adam.FusedAdam", 1e-4, 0.01, fp32, adamw, of_nemo},
             {"_target_: AdamW", 1e-4, 0, fp32, adamw, ""},
             {"_target_: Adam", 1e-4, 0, fp32, adam, ""},
         }) {
      SCOPED_TRACE(each.written);
      const Config config = parse(recipe + fmt::format("optimizer: {{{}}}\n", each.written), "my.yaml");
      EXPECT_EQ(config.optimizer.lr, each.lr);
      EXPECT_EQ(config.optimizer.weight_decay, each.weight_decay);
      EXPECT_EQ(config.optimizer.state_dtype, each.state);
      EXPECT_EQ(config.optimizer.target, each.kind);
      EXPECT_EQ(config.origin("optimizer.weight_decay").text, each.origin);
      EXPECT_EQ(config.optimizer.decay_parameters, *each.origin == 0 ? DecayedParams::matrices : DecayedParams::all);
    }
  }
  // Short names are NeMo's under its recipe alone.
  for (const auto& [name, kind] : {std::pair{"adam", adam}, {"adamw", adamw}, {"fused_adam", adamw}}) {
    const std::string section = fmt::format("optimizer: {{_target_: {}}}\n", name);
    EXPECT_EQ(nemo(section).optimizer.weight_decay, 0.01) << name;
    EXPECT_EQ(nemo(section).optimizer.target, kind) << name;
    EXPECT_EQ(parse("recipe: train\n" + section, "my.yaml").optimizer.weight_decay, 0) << name;
  }
  // Masters are fp32 where NeMo's weights are.
  EXPECT_EQ(nemo("model: {torch_dtype: float32}\noptimizer: {_target_: torch.optim.AdamW}\n").optimizer.state_dtype,
            fp32);
  EXPECT_EQ(nemo("optimizer: {_target_: torch.optim.AdamW, state_dtype: fp32}\n").optimizer.state_dtype, fp32);
}

// On every device; a GPU has it without being told.
TEST(Defaults, WeightsThatAFileWantsInBf16AreSo) {
  for (const char* word : {"bf16", "bfloat16"}) {
    const Config config =
        nemo(fmt::format("model: {{torch_dtype: {}}}\noptimizer: {{_target_: torch.optim.AdamW}}\n", word));
    EXPECT_EQ(config.runtime.dtype, DType::bf16);
    EXPECT_EQ(config.origin("runtime.dtype").text, std::string("model.torch_dtype ") + word);
    EXPECT_EQ(config.optimizer.state_dtype, StateDtype::weights);
  }
  for (const char* word : {"auto", "float32", "fp32"}) {
    EXPECT_EQ(nemo(fmt::format("model: {{torch_dtype: {}}}\n", word)).runtime.dtype, DType::f32) << word;
  }
  EXPECT_EQ(nemo("").runtime.dtype, DType::f32);
  Config given = nemo("model: {torch_dtype: bf16}\nruntime: {dtype: fp32}\n");
  EXPECT_EQ(given.runtime.dtype, DType::f32) << "what is given holds";
  config::set(given, "model.torch_dtype", "auto", {Origin::Kind::command_line, "--model.torch_dtype"});
  EXPECT_EQ(given.runtime.dtype, DType::f32);
  Config taken_back = nemo("model: {torch_dtype: bf16}\n");
  config::set(taken_back, "model.torch_dtype", "auto", {Origin::Kind::command_line, "--model.torch_dtype"});
  EXPECT_EQ(taken_back.runtime.dtype, DType::f32);
}

TEST(Defaults, NemosBenchmarkDoesNoneOfThese) {
  const std::string file =
      "step_scheduler: {max_steps: 12}\nclip_grad_norm: {max_norm: 1.0}\nlr_scheduler: {lr_decay_style: cosine}\n";
  for (const std::string& head : {nemo_bench, std::string("benchmark: {warmup_steps: 2}\n")}) {
    Config config = parse(head + file, "my.yaml");
    EXPECT_EQ(config.recipe, Recipe::benchmark);
    EXPECT_FALSE(config.clip_grad_norm.max_norm);
    EXPECT_EQ(config.lr_scheduler.lr_decay_style, LrDecay::constant);
    EXPECT_EQ(config.model.gate_bias_update_factor, 0);
    ASSERT_EQ(config.ignored.size(), 2U);
    EXPECT_EQ(config.ignored[0].key, "lr_scheduler.lr_decay_style");
    EXPECT_EQ(config.ignored[0].where, head == nemo_bench ? "my.yaml:4" : "my.yaml:4");
    EXPECT_EQ(config.ignored[1].key, "clip_grad_norm.max_norm");
    EXPECT_EQ(config.ignored[1].reason, "NeMo's benchmark does not clip");
    EXPECT_EQ(overruled(config).size(), 2U);
    // The command line is no file of NeMo's.
    override_with(config, {"--clip_grad_norm.max_norm", "2"});
    EXPECT_EQ(config.clip_grad_norm.max_norm, 2);
    EXPECT_EQ(config.ignored.size(), 1U);
    EXPECT_EQ(warmup_steps(config, 1000), 0);
  }
  const Config ours = parse("recipe: benchmark\n" + file, "my.yaml");
  EXPECT_EQ(ours.clip_grad_norm.max_norm, 1);
  EXPECT_EQ(ours.lr_scheduler.lr_decay_style, LrDecay::cosine);
  EXPECT_FALSE(ours.model.gate_bias_update_factor);
  EXPECT_TRUE(ours.ignored.empty());
}

TEST(Defaults, MockDataOfNemo) {
  const std::string path = "nemo_automodel.components.datasets.llm.";
  const Config iterable = nemo("dataset: {_target_: " + path + "mock_iterable_dataset.MockIterableDataset}\n");
  EXPECT_EQ(iterable.dataset.seq_len, 1024);
  EXPECT_EQ(iterable.dataset.vocab_size, 1024);
  EXPECT_EQ(iterable.dataset.num_samples, 1000000);
  EXPECT_EQ(iterable.dataset.num_samples_are, SampleUnit::batches);
  const Config documents = nemo("dataset: {_target_: " + path +
                                "mock_pretraining.MockPretrainingDatasetConfig, tokenizer: null, seq_length: 99}\n");
  EXPECT_EQ(documents.dataset.seq_len, 99);
  EXPECT_EQ(documents.dataset.vocab_size, 32000);
  const Config small = nemo("model: {config: {vocab_size: 96}}\ndataset: {_target_: " + path +
                            "mock_iterable_dataset.MockIterableDataset}\n");
  EXPECT_FALSE(small.dataset.vocab_size);
  EXPECT_EQ(documents.dataset.num_samples, 100000);
  EXPECT_EQ(documents.dataset.num_samples_are, SampleUnit::sequences);
  EXPECT_EQ(nemo("dataset: {_target_: mock}\n").dataset.seq_len, 4096);
}

TEST(Defaults, ADumpReadsBackAsTheSameRun) {
  const Config config =
      nemo("step_scheduler: {max_steps: 250}\noptimizer: {_target_: torch.optim.Adam}\nlr_scheduler: {}\n");
  const Config again = parse(to_yaml(config), "dump.yaml");
  EXPECT_TRUE(differences(config, again).empty());
  EXPECT_EQ(again.program, Program::sluice);
  EXPECT_TRUE(differences(config, parse(to_yaml(config, Show::given), "dump.yaml")).empty());
}

TEST(Defaults, NullIsTheDefaultAndClearsASection) {
  EXPECT_EQ(parse("recipe: train\ndistributed: {ep_size: null}\n", "my.yaml").distributed.ep_size, 1);
  EXPECT_EQ(nemo("seed: null\n").seed, 42);
  Config config = parse(valid_yaml, "my.yaml");
  for (const char* section : {"clip_grad_norm", "lr_scheduler", "memory", "optimizer", "model.backend",
                              "distributed.pipeline", "validation_dataset", "benchmark", "logging", "checkpoint"}) {
    override_with(config, {std::string("--") + section, "null"});
  }
  const Config presets;
  EXPECT_EQ(config.lr_scheduler.lr_decay_style, presets.lr_scheduler.lr_decay_style);
  EXPECT_EQ(config.lr_scheduler.min_lr, 0);
  EXPECT_EQ(config.optimizer.lr, presets.optimizer.lr);
  EXPECT_FALSE(config.memory.recompute);
  EXPECT_FALSE(config.model.backend.fake_balanced_gate);
  EXPECT_FALSE(config.distributed.pipeline.virtual_stages);
  EXPECT_FALSE(config.is_set("optimizer.lr"));
  override_with(config, {"--model.config", "null"});
  EXPECT_TRUE(config.model.config.overrides.fields.empty());
  // Of a file of NeMo's too, whose default would clip.
  Config clipped = nemo();
  override_with(clipped, {"--clip_grad_norm", "null"});
  EXPECT_FALSE(clipped.clip_grad_norm.max_norm);
  override_with(clipped, {"--seed", "3"});
  EXPECT_FALSE(clipped.clip_grad_norm.max_norm);
  override_with(clipped, {"--clip_grad_norm.max_norm", "2"});
  EXPECT_EQ(clipped.clip_grad_norm.max_norm, 2);
  // What goes leaves the program's own defaults.
  Config emptied = nemo("rng: {seed: 7}\noptimizer: {_target_: AdamW, lr: 1}\nlr_scheduler: {init_lr: null}\n");
  EXPECT_EQ(emptied.lr_scheduler.init_lr, 0.1) << "null in the file is no value";
  override_with(emptied, {"--rng", "null", "--optimizer", "null"});
  EXPECT_EQ(emptied.seed, 42);
  EXPECT_EQ(emptied.optimizer.lr, 1e-4);
  EXPECT_EQ(emptied.optimizer.weight_decay, 0.01);
  override_with(emptied, {"--logging.jsonl", ""});
  EXPECT_EQ(emptied.logging.jsonl, "") << "a name that is empty, not none";
}

// A default that the length of the run decides is written down only where that is known.
TEST(Defaults, WarmUpIsANumberWhereTheDataCannotEndTheRun) {
  const auto warm_up = [](const std::string& steps, const std::string& data) {
    return nemo("step_scheduler: {global_batch_size: 8, local_batch_size: 2, " + steps + "}\ndataset: {" + data +
                "}\nlr_scheduler: {}\n")
        .lr_scheduler.lr_warmup_steps;
  };
  EXPECT_EQ(warm_up("max_steps: 200", "_target_: mock"), 20);
  EXPECT_EQ(warm_up("max_steps: 200, num_epochs: 1", "_target_: mock"), 20);
  EXPECT_EQ(warm_up("max_steps: 200, num_epochs: 1", "_target_: mock, num_samples: 1600"), 20);
  EXPECT_EQ(warm_up("max_steps: 200, num_epochs: 1", "_target_: mock, num_samples: 1599"), std::nullopt);
  EXPECT_EQ(warm_up("max_steps: 200, num_epochs: 1", "_target_: mock, num_samples: 800, num_samples_are: batches"), 20);
  EXPECT_EQ(warm_up("max_steps: 200, num_epochs: 1", "_target_: bytes, path: x"), std::nullopt);
  EXPECT_EQ(warm_up("max_steps: 200", "_target_: bytes, path: x"), 20);
  EXPECT_EQ(warm_up("num_epochs: 2", "_target_: mock"), std::nullopt);
  // An empty section is no key without effect there.
  EXPECT_TRUE(nemo("lr_scheduler: {}\n").ignored.empty());
}

TEST(Defaults, ParamGroupOverrides) {
  const Config config = parse(
      "optimizer:\n  param_group_overrides:\n  - {pattern: 'mlp\\.gate', lr_mult: 0.5}\n  - {pattern: lm_head, "
      "wd_mult: 0}\n",
      "my.yaml");
  const auto& overrides = config.optimizer.param_group_overrides;
  ASSERT_EQ(overrides.size(), 2U);
  EXPECT_EQ(overrides[0].pattern, "mlp\\.gate");
  EXPECT_EQ(overrides[0].lr_mult, 0.5);
  EXPECT_EQ(overrides[0].wd_mult, 1);
  EXPECT_EQ(overrides[1].wd_mult, 0);
  EXPECT_TRUE(differences(config, parse(to_yaml(config), "dump.yaml")).empty());
  EXPECT_NE(parse_error("optimizer: {param_group_overrides: [{pattern: 'a('}]}\n")
                .find("param_group_overrides: pattern \"a(\" is no ECMAScript regular expression: "),
            std::string::npos);
  EXPECT_EQ(parse_error("optimizer: {param_group_overrides: [{lr_mult: 2}]}\n"),
            "my.yaml:1: optimizer.param_group_overrides: an override needs a pattern");
  EXPECT_EQ(parse_error("optimizer: {param_group_overrides: [{pattern: a, lr: 2}]}\n"),
            "my.yaml:1: optimizer.param_group_overrides: lr is none of pattern, lr_mult, wd_mult");
}

}  // namespace
}  // namespace sluice::config
