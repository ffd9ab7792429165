// The vocabulary of the configuration: choices written as words, bounds of numbers, fields that only the model knows.
#pragma once

#include <array>
#include <cstdint>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "data/text_split.h"
#include "device/device_kind.h"
#include "nn/recompute.h"
#include "ops/balance.h"
#include "optim/decayed_params.h"
#include "optim/lr_schedule.h"
#include "parallel/schedule_kind.h"
#include "tensor/dtype.h"

namespace sluice::config {

// Bounds of a number, both ends included unless `above` is set.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool above = false;  // the low end itself is excluded
};
inline constexpr double max_count = 2147483647.0;
inline constexpr Range count{1, max_count};          // of things there is at least one of
inline constexpr Range count_or_0{0, max_count};     // of things there may be none of
inline constexpr Range step_or_none{-1, max_count};  // of a step, counted from 0
inline constexpr Range positive{.low = 0, .above = true};
inline constexpr Range non_negative{.low = 0};

// A choice and the words it goes by: the first word of a value is the one sluice writes, the others are NeMo's or
// customary. A class also matches as the tail of a dotted path ("torch.optim.AdamW" is "AdamW"); a word that begins
// in lower case does not, for "Classifier.from_config" is not every "from_config". Case does not matter.
template <class Enum>
struct Spelling {
  std::string_view word;
  Enum value;
};

enum class Recipe { train, benchmark };
constexpr auto spellings(Recipe) {
  return std::to_array<Spelling<Recipe>>({{"train", Recipe::train},
                                          {"TrainFinetuneRecipeForNextTokenPrediction", Recipe::train},
                                          {"benchmark", Recipe::benchmark},
                                          {"BenchmarkingRecipeForNextTokenPrediction", Recipe::benchmark}});
}

enum class Strategy { fsdp2 };
constexpr auto spellings(Strategy) {
  return std::to_array<Spelling<Strategy>>({{"fsdp2", Strategy::fsdp2}, {"FSDP2Manager", Strategy::fsdp2}});
}

constexpr auto spellings(ScheduleKind) {
  return std::to_array<Spelling<ScheduleKind>>({{"1f1b", ScheduleKind::one_f_one_b},
                                                {"interleaved1f1b", ScheduleKind::interleaved},
                                                {"interleaved_1f1b", ScheduleKind::interleaved},
                                                {"zb_h1", ScheduleKind::zero_bubble},
                                                {"zb-h1", ScheduleKind::zero_bubble},
                                                {"zbh1", ScheduleKind::zero_bubble}});
}

enum class Rounding { up, down };
constexpr auto spellings(Rounding) {
  return std::to_array<Spelling<Rounding>>({{"up", Rounding::up}, {"down", Rounding::down}});
}

enum class ActivationCheckpointing { none, selective, full };
constexpr auto spellings(ActivationCheckpointing) {
  using A = ActivationCheckpointing;
  return std::to_array<Spelling<A>>(
      {{"false", A::none}, {"true", A::full}, {"selective", A::selective}, {"full", A::full}});
}

enum class ModelSource { from_config, from_pretrained };
constexpr auto spellings(ModelSource) {
  // NeMo's models of one family stand for the same: model.config says which.
  return std::to_array<Spelling<ModelSource>>(
      {{"from_config", ModelSource::from_config},
       {"NeMoAutoModelForCausalLM.from_config", ModelSource::from_config},
       {"DeepseekV3ForCausalLM.from_config", ModelSource::from_config},
       {"Qwen3MoeForCausalLM.from_config", ModelSource::from_config},
       {"GptOssForCausalLM.from_config", ModelSource::from_config},
       {"from_pretrained", ModelSource::from_pretrained},
       {"NeMoAutoModelForCausalLM.from_pretrained", ModelSource::from_pretrained}});
}

enum class ConfigSource { from_pretrained, fields };
constexpr auto spellings(ConfigSource) {
  // A class of transformers has its fields beside it, and says which family they are of (defaults.cpp).
  return std::to_array<Spelling<ConfigSource>>({{"from_pretrained", ConfigSource::from_pretrained},
                                                {"AutoConfig.from_pretrained", ConfigSource::from_pretrained},
                                                {"NeMoAutoConfig.from_pretrained", ConfigSource::from_pretrained},
                                                {"fields", ConfigSource::fields},
                                                {"LlamaConfig", ConfigSource::fields},
                                                {"Qwen3Config", ConfigSource::fields},
                                                {"Qwen3MoeConfig", ConfigSource::fields},
                                                {"DeepseekV3Config", ConfigSource::fields},
                                                {"GptOssConfig", ConfigSource::fields}});
}

enum class OptimizerKind { adamw, adam };
constexpr auto spellings(OptimizerKind) {
  return std::to_array<Spelling<OptimizerKind>>({{"AdamW", OptimizerKind::adamw},
                                                 {"AdamWConfig", OptimizerKind::adamw},
                                                 {"Adam", OptimizerKind::adam},
                                                 {"AdamConfig", OptimizerKind::adam},
                                                 {"FusedAdam", OptimizerKind::adamw},
                                                 {"FusedAdamConfig", OptimizerKind::adamw},
                                                 {"fused_adam", OptimizerKind::adamw}});
}

enum class StateDtype { fp32, bf16, weights };
constexpr auto spellings(StateDtype) {
  return std::to_array<Spelling<StateDtype>>({{"fp32", StateDtype::fp32},
                                              {"f32", StateDtype::fp32},
                                              {"float32", StateDtype::fp32},
                                              {"bf16", StateDtype::bf16},
                                              {"bfloat16", StateDtype::bf16},
                                              {"weights", StateDtype::weights}});
}

constexpr auto spellings(LrDecay) {
  return std::to_array<Spelling<LrDecay>>({{"constant", LrDecay::constant},
                                           {"linear", LrDecay::linear},
                                           {"cosine", LrDecay::cosine},
                                           {"inverse-square-root", LrDecay::inverse_square_root},
                                           {"inverse_square_root", LrDecay::inverse_square_root},
                                           {"wsd", LrDecay::wsd}});
}

constexpr auto spellings(WsdDecay) {
  return std::to_array<Spelling<WsdDecay>>({{"linear", WsdDecay::linear},
                                            {"cosine", WsdDecay::cosine},
                                            {"exponential", WsdDecay::exponential},
                                            {"minus_sqrt", WsdDecay::minus_sqrt}});
}

constexpr auto spellings(WeightDecayRamp) {
  return std::to_array<Spelling<WeightDecayRamp>>({{"constant", WeightDecayRamp::constant},
                                                   {"linear", WeightDecayRamp::linear},
                                                   {"cosine", WeightDecayRamp::cosine}});
}

constexpr auto spellings(DecayedParams) {
  return std::to_array<Spelling<DecayedParams>>({{"matrices", DecayedParams::matrices}, {"all", DecayedParams::all}});
}

// Of what dataset.num_samples is the number. A batch is a rank's local batch.
enum class SampleUnit { sequences, batches };
constexpr auto spellings(SampleUnit) {
  return std::to_array<Spelling<SampleUnit>>({{"sequences", SampleUnit::sequences}, {"batches", SampleUnit::batches}});
}

// Which checkpoints have their weights in the hub's layout as well.
enum class Consolidated { no, final, every };
constexpr auto spellings(Consolidated) {
  using C = Consolidated;
  return std::to_array<Spelling<C>>(
      {{"false", C::no}, {"final", C::final}, {"every", C::every}, {"true", C::every}, {"none", C::no}});
}

enum class SaveFailure { go_on, stop };
constexpr auto spellings(SaveFailure) {
  return std::to_array<Spelling<SaveFailure>>({{"go_on", SaveFailure::go_on}, {"stop", SaveFailure::stop}});
}

// What follows a step whose loss or gradient norm is not finite.
enum class NonFinite { stop, skip, roll_back };
constexpr auto spellings(NonFinite) {
  using N = NonFinite;
  return std::to_array<Spelling<N>>({{"stop", N::stop}, {"skip", N::skip}, {"roll_back", N::roll_back}});
}

// What follows a step whose loss is far above those before.
enum class Spike { off, skip, roll_back };
constexpr auto spellings(Spike) {
  return std::to_array<Spelling<Spike>>({{"off", Spike::off}, {"skip", Spike::skip}, {"roll_back", Spike::roll_back}});
}

// Signals another program sends to have a run end.
enum class Signal { term, interrupt, hang_up, usr1, usr2 };
constexpr auto spellings(Signal) {
  return std::to_array<Spelling<Signal>>({{"SIGTERM", Signal::term},
                                          {"SIGINT", Signal::interrupt},
                                          {"SIGHUP", Signal::hang_up},
                                          {"SIGUSR1", Signal::usr1},
                                          {"SIGUSR2", Signal::usr2},
                                          {"TERM", Signal::term},
                                          {"USR1", Signal::usr1},
                                          {"15", Signal::term},
                                          {"10", Signal::usr1}});
}

// Every one of NeMo's names for the same number; sluice's head is always fused and chunked.
enum class Loss { cross_entropy };
constexpr auto spellings(Loss) {
  return std::to_array<Spelling<Loss>>({{"cross_entropy", Loss::cross_entropy},
                                        {"torch.nn.functional.cross_entropy", Loss::cross_entropy},
                                        {"MaskedCrossEntropy", Loss::cross_entropy},
                                        {"FusedLinearCrossEntropy", Loss::cross_entropy},
                                        {"ChunkedCrossEntropy", Loss::cross_entropy},
                                        {"TEParallelCrossEntropy", Loss::cross_entropy}});
}

enum class DatasetKind { none, mock, bytes };
constexpr auto spellings(DatasetKind) {
  return std::to_array<Spelling<DatasetKind>>({{"none", DatasetKind::none},
                                               {"mock", DatasetKind::mock},
                                               {"MockIterableDataset", DatasetKind::mock},
                                               {"MockIterableDatasetConfig", DatasetKind::mock},
                                               {"MockPretrainingDatasetConfig", DatasetKind::mock},
                                               {"MockBenchmarkDataset", DatasetKind::mock},
                                               {"bytes", DatasetKind::bytes}});
}

constexpr auto spellings(TextSplit) {
  return std::to_array<Spelling<TextSplit>>(
      {{"all", TextSplit::all}, {"train", TextSplit::train}, {"validation", TextSplit::validation}});
}

// How NeMo would scale 8-bit products.
enum class Fp8Recipe { current, block, mxfp8 };
constexpr auto spellings(Fp8Recipe) {
  return std::to_array<Spelling<Fp8Recipe>>({{"current", Fp8Recipe::current},
                                             {"Float8CurrentScaling", Fp8Recipe::current},
                                             {"block", Fp8Recipe::block},
                                             {"Float8BlockScaling", Fp8Recipe::block},
                                             {"mxfp8", Fp8Recipe::mxfp8},
                                             {"MXFP8BlockScaling", Fp8Recipe::mxfp8}});
}

enum class Balance { published, spread, skewed, router };
constexpr auto spellings(Balance) {
  return std::to_array<Spelling<Balance>>({{"published", Balance::published},
                                           {"spread", Balance::spread},
                                           {"skewed", Balance::skewed},
                                           {"router", Balance::router}});
}

constexpr auto spellings(BalanceOver) {
  return std::to_array<Spelling<BalanceOver>>({{"micro_batch", BalanceOver::micro_batch},
                                               {"sequence", BalanceOver::sequence},
                                               {"global_batch", BalanceOver::global_batch}});
}

// By their names in nn/recompute.h.
constexpr auto spellings(RecomputePart) {
  std::array<Spelling<RecomputePart>, std::size(kRecomputePieces)> list{};
  for (std::size_t i = 0; i < list.size(); ++i) list[i] = {kRecomputePieces[i].name, kRecomputePieces[i].part};
  return list;
}

constexpr auto spellings(DType) {
  return std::to_array<Spelling<DType>>({{"f32", DType::f32},
                                         {"fp32", DType::f32},
                                         {"float32", DType::f32},
                                         {"bf16", DType::bf16},
                                         {"bfloat16", DType::bf16},
                                         {"f64", DType::f64},
                                         {"fp64", DType::f64},
                                         {"float64", DType::f64}});
}

constexpr auto spellings(DeviceKind) {
  return std::to_array<Spelling<DeviceKind>>(
      {{"cpu", DeviceKind::cpu}, {"ref", DeviceKind::ref}, {"cuda", DeviceKind::cuda}, {"meta", DeviceKind::meta}});
}

// The first word a value goes by.
template <class Enum>
constexpr std::string_view word(Enum value) {
  for (const auto& spelling : spellings(Enum{})) {
    if (spelling.value == value) return spelling.word;
  }
  return {};
}

// What backward computes again instead of keeping: nothing, the named pieces, or the whole block from its input.
// The word `selective` stands for the pieces that cost little: norm, mla_up, qk_rope, act.
struct Recompute {
  bool full = false;
  std::vector<RecomputePart> pieces;  // empty when full

  static Recompute selective() {
    return {false, {RecomputePart::norm, RecomputePart::mla_up, RecomputePart::qk_rope, RecomputePart::act}};
  }
  bool operator==(const Recompute&) const = default;
};

// Hugging Face fields written under model.config: sluice's schema does not know them, the model's family does. Nested
// maps are flattened ("rope_scaling.factor"); values are JSON text, so a consumer can lay them over a config.json.
struct HubField {
  std::string key;
  std::string json;
};
// Parameters whose name in the hub's layout `pattern` is found in (an ECMAScript regular expression), and what their
// learning rate and weight decay are multiplied by.
struct ParamGroupOverride {
  std::string pattern;
  double lr_mult = 1;
  double wd_mult = 1;
};

struct HubFields {
  std::vector<HubField> fields;  // in the order first written

  const HubField* find(std::string_view key) const;
  // A field replaces what it lies under and what lies under it.
  void set(std::string_view key, std::string json);
};

}  // namespace sluice::config
