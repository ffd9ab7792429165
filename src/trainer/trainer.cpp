#include "trainer/trainer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <string>

#include "checkpoint/rank_file.h"
#include "optim/gradient_norm.h"
#include "optim/router_balance.h"
#include "trainer/non_finite.h"

namespace sluice {

Trainer::Trainer(const RunSpec& spec, const Machine& machine, const Dataset* dataset, const ArenaSizes* sizes)
    : spec_(spec),
      memory_(*machine.memory),
      ctx_(*machine.backend, spec.dtype),
      mesh_(spec.mesh, *machine.world),
      forecast_(spec.gate_counts(), spec.mesh, mesh_.at, spec.sampling, spec.load_varies() ? spec.load_factor : 1),
      batches_(dataset, spec.sampling, mesh_.at.dp, spec.seq_len, ctx_.real() ? nullptr : &forecast_),
      stage_(spec.stage(), mesh_, memory_),
      runtime_(ctx_, mesh_, stage_, spec.make_schedule(),
               {.micro_batch_size = spec.sampling.micro_batch, .recompute = spec.recompute}, memory_, sizes),
      optimizer_(ctx_, spec.optimize ? stage_.groups() : std::vector<FlatGroup*>{}, spec.optimizer, memory_),
      step_arena_(memory_, MemoryKind::optimizer, "step state") {
  const Shape loads{spec.model.num_layers + (spec.model.mtp ? 1 : 0), spec.model.num_experts};
  step_arena_.reserve(4 * Arena::footprint(kStepSlots * sizeof(double)) +
                      (spec.expert_load ? Arena::footprint(static_cast<size_t>(loads.numel()) * sizeof(double)) : 0));
  step_tensors_.state = step_arena_.empty({kStepSlots}, DType::f64);
  step_tensors_.loss = step_arena_.empty({2}, DType::f64);
  if (spec.expert_load) step_tensors_.load = step_arena_.empty(loads, DType::f64);
  sum_squares_ = step_arena_.empty({1}, DType::f64);
  counts_ = step_arena_.empty({3}, DType::i64);
  const std::vector<FlatGroup*> groups = stage_.groups();
  for (size_t i = 0; i < groups.size(); ++i) {
    groups[i]->initialize(ctx_, spec.seed, spec.optimize ? optimizer_.master(i) : Tensor());
  }
  reserve_staging();
}

// In whole blocks of the file. A plan for a GPU leaves it out: it is not the GPU's memory.
void Trainer::reserve_staging() {
  if (spec_.staging_bytes == 0 || !spec_.optimize) return;
  const RankFile file(kept_slices(state()));
  const uint64_t all = file.blocks() * file.block_bytes();
  const uint64_t bytes = std::min(all, spec_.staging_bytes / file.block_bytes() * file.block_bytes());
  const bool gpu = ctx_.backend().target().platform == Platform::gpu;
  if (bytes == 0 || (gpu && !ctx_.real())) return;
  if (!memory_.host_visible() && ctx_.real()) host_memory_ = std::make_unique<HostMemory>();
  staging_arena_ = std::make_unique<Arena>(host_memory_ ? *host_memory_ : memory_, MemoryKind::checkpoint, "staging");
  staging_arena_->reserve(Arena::footprint(bytes));
  const Tensor room = staging_arena_->empty({static_cast<int64_t>(bytes)}, DType::u8);
  if (!ctx_.real()) return;
  staging_ = {static_cast<std::byte*>(room.raw()), bytes};
  // No save shall wait for pages.
  std::ranges::fill(staging_, std::byte{0});
}

ImportCount Trainer::load(const HubMatch& weights, const std::function<void(int64_t done, int64_t all)>& progress) {
  std::vector<GroupShard> shards;
  for (FlatGroup* group : stage_.groups()) {
    shards.push_back({group, spec_.optimize ? optimizer_.master(shards.size()) : Tensor()});
  }
  // This rank's share of the threads: all ranks load at the same time.
  Pool pool(std::max(1, ctx_.backend().target().workers / mesh_.world.size()));
  return import_weights(ctx_, weights, shards,
                        {.pool = &pool, .host_visible = memory_.host_visible(), .progress = progress});
}

void Trainer::load(const Checkpoint& checkpoint, const std::function<void(uint64_t done, uint64_t all)>& progress) {
  Pool pool(std::max(1, ctx_.backend().target().workers / mesh_.world.size()));
  load_state(ctx_, checkpoint, state(), memory_.host_visible(), &pool, progress);
}

void Trainer::write_state(const StepPosition& at, int64_t label_tokens) {
  std::array<double, kStepSlots> state{};
  const auto n = static_cast<double>(at.update + 1);
  state[kLearningRate] = spec_.lr.at(at.update);
  const bool corrected = spec_.optimizer.bias_correction;
  state[kBiasCorrection1] = corrected ? 1 - std::pow(spec_.optimizer.beta1, n) : 1;
  state[kBiasCorrection2] = corrected ? 1 - std::pow(spec_.optimizer.beta2, n) : 1;
  state[kWeightDecay] = spec_.weight_decay.at(at.update);
  state[kClipFactor] = 1;
  state[kStep] = static_cast<double>(at.update);
  state[kGradScale] = label_tokens > 0 ? 1 / static_cast<double>(label_tokens) : 0;
  state[kMtpGradScale] = spec_.mtp_loss_weight * state[kGradScale];
  ctx_.upload<double>(step_tensors_.state, state);
}

std::vector<int64_t> Trainer::sum_over(Communicator& ranks, std::span<const int64_t> values, std::string_view what) {
  const Tensor counts = counts_.rows(0, std::ssize(values));
  ctx_.upload<int64_t>(counts, values);
  ranks.all_reduce(ctx_.compute(), counts, ReduceOp::sum, what).wait(ctx_.compute());
  return ctx_.read<int64_t>(counts, [&] {
    std::vector<int64_t> sums;
    for (const int64_t value : values) sums.push_back(value * ranks.size());
    return sums;
  });
}

LabelTokens Trainer::sum_labels(const LabelTokens& mine) {
  const std::vector<int64_t> sums = sum_over(*mesh_.dp, std::array{mine.own, mine.next}, "label tokens");
  return {sums.at(0), sums.at(1)};
}

std::vector<int64_t> Trainer::max_over(Communicator& ranks, std::span<const int64_t> values, std::string_view what) {
  const Tensor counts = counts_.rows(0, std::ssize(values));
  ctx_.upload<int64_t>(counts, values);
  ranks.all_reduce(ctx_.compute(), counts, ReduceOp::max, what).wait(ctx_.compute());
  return ctx_.read<int64_t>(counts, [&] { return std::vector(values.begin(), values.end()); });
}

Trainer::Losses Trainer::sum_losses(const LabelTokens& labels) {
  // Only the last stage has losses; a rank's share of cp and tp would be partial too, so all ranks add theirs.
  mesh_.world.all_reduce(ctx_.compute(), step_tensors_.loss, ReduceOp::sum, "loss").wait(ctx_.compute());
  const std::vector<double> sums = ctx_.read<double>(step_tensors_.loss, [] { return std::vector{0.0, 0.0}; });
  const auto mean = [](double sum, int64_t tokens) { return sum / static_cast<double>(std::max<int64_t>(tokens, 1)); };
  return {mean(sums.at(0), labels.own), mean(sums.at(1), labels.next)};
}

std::vector<LayerLoad> Trainer::sum_loads() {
  // Each rank has counted its own tokens, in the layers of its stages.
  const Tensor& load = step_tensors_.load;
  mesh_.world.all_reduce(ctx_.compute(), load, ReduceOp::sum, "expert load").wait(ctx_.compute());
  const std::vector<double> slots =
      ctx_.read<double>(load, [&] { return std::vector<double>(static_cast<size_t>(load.numel())); });
  const auto num_experts = static_cast<size_t>(load.dim(1));
  std::vector<LayerLoad> loads;
  const auto add = [&](size_t layer, const BlockConfig& block) {
    if (block.moe.num_experts == 0) return;
    const std::span<const double> all = slots;
    loads.push_back(layer_load("layers." + std::to_string(layer), all.subspan(layer * num_experts, num_experts)));
  };
  const StageConfig& model = stage_.config();
  for (size_t layer = 0; layer < model.blocks.size(); ++layer) add(layer, model.blocks[layer]);
  if (model.mtp) add(model.blocks.size(), *model.mtp);
  return loads;
}

StepResult Trainer::step(int64_t step) {
  const RangeScope range(ctx_.ranges(), [&] { return fmt::format("step {}", step + 1); });
  const StepPosition at{step, step, step};
  const StepResult result = compute_gradients(at);
  if (!finite(result)) explain_non_finite(at, result);
  update_weights();
  return result;
}

bool Trainer::finite(const StepResult& result) {
  return std::isfinite(result.loss + result.mtp_loss.value_or(0)) && std::isfinite(result.gradient_norm);
}

StepResult Trainer::compute_gradients(const StepPosition& at) {
  StepResult result;
  mesh_.world.begin_step(at.step + 1);
  runtime_.bind_scratch();
  const LabelTokens labels = sum_labels(batches_.prepare(at.batch));
  result.label_tokens = labels.own;
  result.learning_rate = spec_.lr.at(at.update);
  write_state(at, result.label_tokens);
  ctx_.run(Fill{.x = step_tensors_.loss, .value = 0});
  if (step_tensors_.load) ctx_.run(Fill{.x = step_tensors_.load, .value = 0});
  for (FlatGroup* group : stage_.groups()) group->zero_gradients(ctx_);

  runtime_.run(batches_, step_tensors_);

  const Losses losses = sum_losses(labels);
  result.loss = losses.loss;
  if (spec_.model.mtp) {
    result.mtp_loss = losses.mtp;
    result.mtp_label_tokens = labels.next;
  }
  if (step_tensors_.load) result.expert_load = sum_loads();
  if (spec_.gradient_norm) {
    sum_gradient_squares(ctx_, mesh_, stage_.groups(), sum_squares_);
    if (spec_.max_norm > 0)
      ctx_.run(ClipFactor{.state = step_tensors_.state, .sum_squares = sum_squares_, .max_norm = spec_.max_norm});
    result.gradient_norm = std::sqrt(ctx_.read<double>(sum_squares_, [] { return std::vector{0.0}; }).front());
  }
  return result;
}

void Trainer::update_weights() {
  const RangeScope optimizing(ctx_.ranges(), "optimizer");
  optimizer_.step(ctx_, step_tensors_.state);
  if (spec_.optimize) balance_routers(ctx_, stage_.groups(), spec_.tokens_per_step(), spec_.selection_bias_rate);
}

// Runs the step's micro-batches again, weights being unchanged, and stops at the first operation whose output is bad.
void Trainer::explain_non_finite(const StepPosition& at, const StepResult& result) {
  const double loss = result.loss + result.mtp_loss.value_or(0);
  const bool bad_loss = !std::isfinite(loss);
  // The sign of a NaN means nothing.
  const double value = std::abs(bad_loss ? loss : result.gradient_norm);
  const std::string what = fmt::format("{} is {} at step {}", bad_loss ? "loss" : "gradient norm", value, at.step + 1);
  FirstBadTensor finder(ctx_, what, at.step == 0);
  ctx_.add_observer(&finder);
  for (FlatGroup* group : stage_.groups()) group->zero_gradients(ctx_);
  runtime_.run(batches_, step_tensors_);
  mesh_.world.barrier(ctx_.compute(), "search for the first bad tensor");
  ctx_.remove_observer(&finder);
  throw runtime_failure("{}: no single operation's result is bad when the step is run again", what)
      .advise(fmt::format("a sum over many tokens overflowed; {}", advice_for_non_finite(at.step == 0)));
}

Evaluated Trainer::evaluate(const Dataset& dataset, int64_t samples, const EvaluationWatch& watch) {
  const Sampling& sampling = spec_.sampling;
  StepBatches source(&dataset, sampling, mesh_.at.dp, spec_.seq_len, nullptr);
  runtime_.bind_scratch();
  ctx_.run(Fill{.x = step_tensors_.loss, .value = 0});
  LabelTokens labels;
  Evaluated result;
  const int64_t batches = (samples - 1) / sampling.global_batch + 1,
                per_micro_batch = sampling.micro_batch * sampling.dp;
  for (int64_t batch = 0; batch < batches && result.complete; ++batch) {
    if (watch.progress) watch.progress(batch, batches);
    labels += source.prepare(batch, samples);
    // Micro-batches without a sample that counts, the same on all ranks, are left out.
    const int64_t left = std::min(samples - batch * sampling.global_batch, sampling.global_batch);
    runtime_.evaluate(source, step_tensors_, static_cast<int>((left - 1) / per_micro_batch + 1));
    if (watch.stop && batch + 1 < batches) {
      result.complete = sum_over_world(watch.stop() ? 1 : 0, "whether to end the evaluation") == 0;
    }
  }
  const LabelTokens all = sum_labels(labels);
  result.loss = sum_losses(all).loss;
  result.label_tokens = all.own;
  return result;
}

}  // namespace sluice
