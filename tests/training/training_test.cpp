#include "training/training.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>

#include "config/load.h"
#include "data/mock.h"
#include "trainer/make_dataset.h"
#include "training/evaluation.h"
#include "training/records.h"

namespace sluice {
namespace {

Config small(const std::vector<std::string>& overrides = {}) {
  Config config = config::parse(R"(
step_scheduler: {global_batch_size: 4, local_batch_size: 1, max_steps: 4, val_every_steps: 2}
model:
  config: {model_type: qwen3_moe, vocab_size: 32, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2,
           num_key_value_heads: 1, head_dim: 8, num_experts: 4, num_experts_per_tok: 2, norm_topk_prob: true, moe_intermediate_size: 8,
           max_position_embeddings: 16, rope_theta: 10000.0, rms_norm_eps: 1.0e-6}
dataset: {_target_: mock, seq_len: 8}
validation_dataset: {_target_: mock, num_samples: 9}
)",
                                "small.yaml");
  config::apply_overrides(config, overrides);
  return config;
}

struct Trained {
  TrainingResult result;
  std::vector<TrainRecord> records;
};

Trained train(const Config& config, int ranks, const std::function<bool(int64_t)>& stop_after = {}) {
  const RunSpec spec = resolve(config, ranks);
  const auto dataset = make_dataset(config, config.dataset, "dataset", spec);
  const auto validation = make_dataset(config, config.validation_dataset, "validation_dataset", spec);
  Trained run;
  const TrainingEvents events{.recorded = [&](const TrainRecord& record) { run.records.push_back(record); },
                              .stop = [&] { return stop_after && stop_after(run.records.back().step); }};
  run.result = run_training(training_job(config, spec, *dataset, validation.get()), spec, {}, events);
  return run;
}

TEST(Training, StepsAndValidatesAsConfigured) {
  const Trained run = train(small(), 1);
  EXPECT_EQ(run.result.steps, 4);
  EXPECT_EQ(run.result.tokens, 4 * 4 * 8);
  EXPECT_FALSE(run.result.stopped);
  ASSERT_EQ(run.records.size(), 6U) << "four steps, one validation on the way, one at the end";
  EXPECT_EQ(run.records[2].step, 2);
  EXPECT_TRUE(run.records[2].validation_loss);
  EXPECT_TRUE(run.records[5].validation_loss);
  EXPECT_EQ(run.result.validation_loss, run.records[5].validation_loss);
  EXPECT_EQ(run.result.first_loss, run.records[0].result->loss);
}

TEST(Training, RecordsSayWhatWasDone) {
  const Config config = small({"--dataset.num_samples", "6", "--step_scheduler.num_epochs", "9",
                               "--lr_scheduler.lr_warmup_steps", "2", "--distributed.ep_size", "2"});
  const Trained run = train(config, 2);
  const RunSpec spec = resolve(config, 2);
  ASSERT_EQ(run.records.size(), 6U);
  for (const TrainRecord& record : run.records) {
    SCOPED_TRACE(record.step);
    EXPECT_EQ(record.epoch, (record.step - 1) * 4 / 6) << "of the sample that the step began with";
    EXPECT_EQ(record.learning_rate, spec.lr.at(record.step - 1));
    EXPECT_EQ(record.result.has_value(), !record.validation_loss.has_value());
    if (record.validation_loss) {
      EXPECT_EQ(record.validation_label_tokens, 9 * 8);
      continue;
    }
    EXPECT_EQ(record.tokens, 4 * 8);
    EXPECT_EQ(record.ranks, 2);
    EXPECT_GT(record.seconds, 0);
    EXPECT_DOUBLE_EQ(record.tokens_per_s * record.seconds, 4 * 8);
    EXPECT_EQ(record.gradient_norm, record.result->gradient_norm);
    EXPECT_GT(record.gradient_norm.value(), 0);
  }
  EXPECT_NE(run.records[0].learning_rate, run.records[1].learning_rate);
  const Trained unclipped = train(small({"--recipe", "benchmark", "--clip_grad_norm.max_norm", "null"}), 1);
  EXPECT_EQ(unclipped.records[0].gradient_norm, std::nullopt) << "not computed, so not zero";
}

// Stages of a pipeline hold different amounts: the record's is the fullest rank's, whichever that is.
TEST(Training, MemoryIsOfTheFullestRank) {
  const Config config = small({"--distributed.pp_size", "2", "--model.config.num_hidden_layers", "3"});
  const RunSpec spec = resolve(config, 2);
  const auto dataset = make_dataset(config, config.dataset, "dataset", spec);
  std::vector<TrainRecord> records;
  const auto planned = [&](int rank) {
    return plan_rank(spec, rank, {.target = target_of(DeviceKind::cpu, 1)}, {}).ledger.peak();
  };
  const TrainingEvents events{.recorded = [&](const TrainRecord& record) { records.push_back(record); }};
  run_training(training_job(config, spec, *dataset, nullptr), spec, {}, events);
  ASSERT_NE(planned(0), planned(1));
  ASSERT_EQ(records.size(), 4U);
  for (const TrainRecord& record : records) EXPECT_EQ(record.memory_bytes, std::max(planned(0), planned(1)));
}

TEST(Training, AllRanksEndAtTheStepWhereOneIsAskedTo) {
  const Trained run = train(small({"--distributed.ep_size", "2"}), 2, [](int64_t step) { return step == 3; });
  EXPECT_TRUE(run.result.stopped);
  EXPECT_EQ(run.result.steps, 3);
}

TEST(Training, EndsWithTheEpochs) {
  const Trained run = train(small({"--dataset.num_samples", "8", "--step_scheduler.num_epochs", "1"}), 1);
  EXPECT_EQ(run.result.steps, 2);
}

TEST(Training, ValidatesOnEachSampleOnce) {
  const Config config = small();
  const RunSpec spec = resolve(config, 1);
  const MockDataset nine(1, 32, 9), endless(1, 32);
  EXPECT_EQ(training_job(config, spec, endless, &nine).validation_samples, 9);
  EXPECT_EQ(training_job(config, spec, endless, &endless).validation_samples, 4);
  EXPECT_EQ(training_job(config, spec, endless, nullptr).validate_every, std::nullopt);
  EXPECT_EQ(evaluation_samples(spec, nine, 2), 8);
  EXPECT_EQ(evaluation_samples(spec, nine, 3), 9);
  EXPECT_EQ(evaluation_samples(spec, nine, int64_t{1} << 60), 9);
  EXPECT_EQ(evaluation_samples(spec, endless, 3), 12);
  EXPECT_EQ(evaluation_samples(spec, MockDataset(1, 32, 1)), 1);
}

// Of the dataset's samples, in the batches of a layout.
Evaluated evaluate(int ranks, const std::vector<std::string>& overrides, int64_t samples) {
  const RunSpec spec = resolve(small(overrides), ranks);
  const MockDataset dataset(1, 32, 64);
  Evaluated result;
  run_session(spec, {.device = DeviceKind::ref}, dataset, [&](Trainer& trainer) {
    const Evaluated mine = trainer.evaluate(dataset, samples);
    if (trainer.mesh().world.world_rank() == 0) result = mine;
  });
  return result;
}

// A batch of one sample each is the plain mean: every other way to cut the samples must give the same.
TEST(Evaluation, IsTheMeanOverEachLabelOnce) {
  const std::vector<std::string> alone{"--step_scheduler.global_batch_size=1", "--runtime.device=ref",
                                       "--runtime.dtype=f64"};
  for (const int64_t samples : {1, 3, 9, 16}) {
    const Evaluated direct = evaluate(1, alone, samples);
    EXPECT_EQ(direct.label_tokens, samples * 8);
    EXPECT_TRUE(direct.complete);
    const auto expect_same = [&](int ranks, std::vector<std::string> overrides) {
      overrides.insert(overrides.end(), {"--runtime.device=ref", "--runtime.dtype=f64"});
      const Evaluated other = evaluate(ranks, overrides, samples);
      EXPECT_EQ(other.label_tokens, direct.label_tokens);
      EXPECT_NEAR(other.loss, direct.loss, 1e-12) << samples << " samples, " << overrides.front();
    };
    expect_same(1, {"--step_scheduler.global_batch_size=4"});
    expect_same(1, {"--step_scheduler.global_batch_size=16", "--step_scheduler.local_batch_size=8"});
    expect_same(2, {"--distributed.ep_size=2"});
    expect_same(4, {"--step_scheduler.global_batch_size=8"});
    expect_same(2, {"--distributed.pp_size=2"});
    expect_same(4, {"--distributed.pp_size=2", "--distributed.ep_size=2", "--step_scheduler.local_batch_size=2"});
  }
  EXPECT_NE(evaluate(1, alone, 3).loss, evaluate(1, alone, 4).loss);
}

TEST(Training, AValidationEndsWhereOneRankIsAskedTo) {
  const Config config = small({"--validation_dataset.num_samples", "400", "--distributed.ep_size", "2"});
  const RunSpec spec = resolve(config, 2);
  const auto dataset = make_dataset(config, config.dataset, "dataset", spec);
  const auto validation = make_dataset(config, config.validation_dataset, "validation_dataset", spec);
  int64_t batches = 0, all = 0, records = 0;
  const TrainingEvents events{.recorded = [&](const TrainRecord&) { ++records; },
                              .stop = [&] { return batches == 3; },
                              .validating =
                                  [&](int64_t done, int64_t of) {
                                    batches = done + 1;
                                    all = of;
                                  }};
  const TrainingResult result = run_training(training_job(config, spec, *dataset, validation.get()), spec, {}, events);
  EXPECT_TRUE(result.stopped);
  EXPECT_EQ(result.steps, 2) << "the first validation is after two";
  EXPECT_EQ(records, 2) << "a part of a validation is no record";
  EXPECT_EQ(batches, 3);
  EXPECT_EQ(all, 100);
  EXPECT_EQ(result.validation_loss, std::nullopt);
}

TEST(Evaluation, IsWrittenWithAllDigits) {
  EvaluationRecord record{.config = "a.yaml", .dataset = "dataset", .model = "m", .parameters = 7};
  record.evaluation = {.evaluated = {.loss = 1.0 / 3, .label_tokens = 640}, .samples = 10, .seconds = 0.5};
  auto json = nlohmann::json::parse(evaluation_json(record));
  EXPECT_EQ(json.at("loss").get<double>(), 1.0 / 3);
  EXPECT_EQ(json.at("perplexity").get<double>(), std::exp(1.0 / 3));
  EXPECT_EQ(json.at("tokens"), 640);
  EXPECT_EQ(json.at("samples"), 10);
  EXPECT_EQ(json.at("tokens_per_s"), 1280);
  EXPECT_TRUE(json.at("weights").is_null());
  record.bytes = true;
  record.weights = "dir";
  json = nlohmann::json::parse(evaluation_json(record));
  EXPECT_EQ(json.at("bits_per_byte").get<double>(), 1.0 / 3 / std::log(2.0));
  EXPECT_EQ(json.at("unit"), "nats/byte");
  EXPECT_EQ(json.at("weights"), "dir");
}

TEST(MakeDataset, RefusesTokensTheModelDoesNotKnow) {
  const Config config = small({"--dataset.vocab_size", "33"});
  const RunSpec spec = resolve(config, 1);
  try {
    make_dataset(config, config.dataset, "dataset", spec);
    FAIL() << "33 tokens, 32 known";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::user);
    EXPECT_STREQ(error.what(), "dataset has tokens up to 32, the model's vocabulary is 32");
  }
  EXPECT_EQ(make_dataset(config, config::Dataset{}, "validation_dataset", spec), nullptr);
}

}  // namespace
}  // namespace sluice
