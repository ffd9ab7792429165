#include "trainer/run_spec.h"

#include <algorithm>
#include <regex>
#include <utility>

#include "base/hash.h"
#include "config/defaults.h"
#include "config/load.h"
#include "model/cards.h"

namespace sluice {

namespace {

// Of a run whose data alone ends it, until that is known.
constexpr auto kMostSteps = static_cast<int64_t>(config::max_count);

RecomputePolicy recompute_policy(const config::Recompute& recompute, const ModelConfig& model) {
  RecomputePolicy policy;
  policy.full = recompute.full;
  for (const RecomputePart part : recompute.pieces) {
    for (const RecomputePiece& known : kRecomputePieces) {
      if (known.part == part) policy.*known.on = true;
    }
  }
  return pieces_of(model, policy);
}

GateKind gate_kind(config::Balance balance) {
  switch (balance) {
    case config::Balance::published:
      return GateKind::published;
    case config::Balance::skewed:
      return GateKind::skewed;
    case config::Balance::spread:
    case config::Balance::router:
      break;
  }
  return GateKind::spread;
}

DType dtype_of(const Config& config) {
  const bool left_open = config.runtime.device == DeviceKind::cuda && !config.is_set("runtime.dtype");
  return left_open ? DType::bf16 : config.runtime.dtype;
}

void check_batch(const RunSpec& spec, bool pipelined) {
  const int64_t local = spec.local_batch * spec.mesh.dp();
  if (spec.sampling.global_batch % local != 0) {
    throw user_error(
        "step_scheduler.global_batch_size {} is not a multiple of local_batch_size {} x {} data-parallel ranks",
        spec.sampling.global_batch, spec.local_batch, spec.mesh.dp())
        .advise(spec.sampling.global_batch < local
                    ? fmt::format("the least is {}", local)
                    : fmt::format("nearest that are: {}, {}", spec.sampling.global_batch / local * local,
                                  (spec.sampling.global_batch / local + 1) * local));
  }
  // Shapes and schedules are computed from these.
  constexpr int64_t kMostTokens = int64_t{1} << 31, kMostMicroBatches = int64_t{1} << 20;
  if (spec.sampling.micro_batch > kMostTokens / spec.seq_len) {
    throw user_error("a micro-batch of {} x {} tokens; at most {} are possible", spec.sampling.micro_batch,
                     spec.seq_len, kMostTokens)
        .advise("lower step_scheduler.local_batch_size or dataset.seq_len");
  }
  if (spec.sampling.micro_batches() > kMostMicroBatches) {
    throw user_error("a step of {} micro-batches; at most {} are possible", spec.sampling.micro_batches(),
                     kMostMicroBatches)
        .advise("lower step_scheduler.global_batch_size, or raise step_scheduler.local_batch_size");
  }
  if (pipelined && spec.local_batch % spec.sampling.micro_batch != 0) {
    throw user_error("distributed.pipeline.pp_microbatch_size {} does not divide step_scheduler.local_batch_size {}",
                     spec.sampling.micro_batch, spec.local_batch);
  }
}

void check_local_shard(const Config& config, const RunSpec& spec) {
  const int64_t shard = config.benchmark.local_shard;
  const std::string place = config.origin("benchmark.local_shard").place();
  if (shard > 1 && spec.mesh.ep > 1) {
    throw user_error("benchmark.local_shard {} stands for expert parallelism, and distributed.ep_size is {}", shard,
                     spec.mesh.ep)
        .at(place)
        .advise("set distributed.ep_size: 1");
  }
  if (spec.model.num_experts == 0 ? shard > 1 : spec.model.num_experts % shard != 0) {
    throw user_error("benchmark.local_shard {} does not divide num_experts {} ({})", shard, spec.model.num_experts,
                     spec.model.name)
        .at(place)
        .advise("it is the expert-parallel degree of the run it stands for");
  }
}

// What the overrides of parameter groups mean for each parameter. The first pattern that a name has decides.
ParamScales param_scales(const Config& config, const ModelConfig& model, std::vector<bool>& matched) {
  const std::vector<config::ParamGroupOverride>& overrides = config.optimizer.param_group_overrides;
  ParamScales scales;
  matched.assign(overrides.size(), false);
  if (overrides.empty()) return scales;
  std::vector<std::regex> patterns;
  for (const config::ParamGroupOverride& each : overrides) patterns.emplace_back(each.pattern);
  for (const HubTensor& tensor : family_of(model).tensors(model)) {
    if (tensor.repeated) continue;
    const auto found = std::ranges::find_if(
        patterns, [&](const std::regex& pattern) { return std::regex_search(tensor.hub_name, pattern); });
    if (found == patterns.end()) continue;
    const auto index = static_cast<size_t>(found - patterns.begin());
    matched[index] = true;
    scales[tensor.parameter].push_back({.first = tensor.first(),
                                        .count = tensor.rows * tensor.cols(),
                                        .lr = overrides[index].lr_mult,
                                        .decay = overrides[index].wd_mult});
  }
  for (auto& [name, parts] : scales) std::ranges::sort(parts, {}, &ParamScale::first);
  return scales;
}

AdamWOptions optimizer_options(const Config& config, const RunSpec& spec) {
  const config::Optimizer& optimizer = config.optimizer;
  std::vector<bool> matched;
  return {.beta1 = optimizer.betas.at(0),
          .beta2 = optimizer.betas.at(1),
          .eps = optimizer.eps,
          .coupled_decay = optimizer.target == config::OptimizerKind::adam || !optimizer.adam_w_mode,
          .bias_correction = optimizer.bias_correction,
          .decayed = optimizer.decay_parameters,
          .scales = param_scales(config, spec.model, matched),
          .state_dtype = state_dtype_of(config, spec.dtype),
          .seed = static_cast<uint64_t>(config.seed)};
}

// Of a run that saves while it trains.
uint64_t staging_bytes(const Config& config, bool trains) {
  constexpr double kGib = 1073741824.0, kUsual = 1;
  if (!trains || !config.checkpoint.enabled || !config.benchmark.optimizer) return 0;
  const double gib = config.checkpoint.is_async ? config.checkpoint.staging_gib.value_or(kUsual) : 0;
  // A GPU's weights are written by way of the host.
  constexpr double kLeastOfGpu = 0.0625;
  return static_cast<uint64_t>((config.runtime.device == DeviceKind::cuda ? std::max(gib, kLeastOfGpu) : gib) * kGib);
}

// What the model's own router is; all its layers with experts have the same.
RouterKind learned_router(const ModelConfig& model) {
  return family_of(model).block(model, model.num_layers - 1, 1).moe.router;
}

void check_router_losses(const Config& config, const RunSpec& spec) {
  if (spec.model.num_experts > 0) return;
  const auto refuse = [&](const std::string& key, const std::string& value, const char* advice) {
    throw user_error("{} {}: {} has no experts", key, value, spec.model.name)
        .at(config.origin(key).place())
        .advise(advice);
  };
  const auto check = [&](const std::string& key, double coef) {
    if (coef != 0) refuse(key, fmt::format("{}", coef), "leave it out or set it to 0");
  };
  check("model.aux_loss_coef", config.model.aux_loss_coef.value_or(0));
  check("model.router_z_loss_coef", config.model.router_z_loss_coef);
  if (const auto& over = config.model.aux_loss_over) {
    refuse("model.aux_loss_over", std::string(config::word(*over)), "leave it out or set it to null");
  }
}

void add_mtp(const Config& config, RunSpec& spec) {
  spec.mtp_loss_weight = config.model.mtp_loss_weight;
  if (spec.mtp_loss_weight == 0) return;
  if (spec.model.nextn_layers != 1) {
    const bool none = spec.model.nextn_layers == 0;
    throw user_error("model.mtp_loss_weight {:g}: {} has {}", spec.mtp_loss_weight, spec.model.name,
                     none ? "no layer that predicts further tokens"
                          : "several layers that predict further tokens, and one can be trained")
        .at(config.origin("model.mtp_loss_weight").place())
        .advise(spec.model.kv_lora > 0 ? "set model.config.num_nextn_predict_layers: 1"
                                       : "leave it out; deepseek_v3 has such a layer");
  }
  spec.model.mtp = true;
}

}  // namespace

int chunks_per_rank(const config::Pipeline& pipeline, int64_t layers, int64_t pp) {
  if (pp == 1) return 1;
  if (pipeline.virtual_stages) return static_cast<int>(*pipeline.virtual_stages);
  if (!pipeline.layers_per_stage) return 1;
  const int64_t stages = (layers + *pipeline.layers_per_stage - 1) / *pipeline.layers_per_stage;
  if (stages % pp != 0 && !pipeline.round_virtual_stages_to_pp_multiple) {
    throw user_error("{} layers in stages of {} are {} stages, not a multiple of pp_size {}", layers,
                     *pipeline.layers_per_stage, stages, pp)
        .advise("set distributed.pipeline.round_virtual_stages_to_pp_multiple: up or down, or virtual_stages");
  }
  const bool up = pipeline.round_virtual_stages_to_pp_multiple == config::Rounding::up;
  const int64_t rounded = up ? (stages + pp - 1) / pp : stages / pp;
  return static_cast<int>(rounded > 0 ? rounded : 1);
}

DType state_dtype_of(const Config& config, DType weights) {
  switch (config.optimizer.state_dtype) {
    case config::StateDtype::weights:
      return weights;
    case config::StateDtype::bf16:
      return DType::bf16;
    case config::StateDtype::fp32:
      break;
  }
  return DType::f32;
}

RunSpec with_steps(RunSpec spec, const Config& config, int64_t steps, const Horizon& before) {
  const int64_t horizon = before.steps.value_or(steps);
  config::check_schedule_steps(config, horizon, before.decay);
  const config::LrScheduler& schedule = config.lr_scheduler;
  spec.steps = steps;
  spec.horizon = {
      .steps = horizon,
      .decay = config.lr_scheduler.lr_decay_steps ? config.lr_scheduler.lr_decay_steps : before.decay,
      .weight_decay = config.lr_scheduler.wd_incr_steps ? config.lr_scheduler.wd_incr_steps : before.weight_decay};
  spec.lr = {.decay = schedule.lr_decay_style,
             .peak = schedule.max_lr.value_or(config.optimizer.lr),
             .minimum = schedule.min_lr,
             .warmup_steps = config::warmup_steps(config, horizon),
             .init = schedule.init_lr,
             .decay_steps = spec.horizon.decay.value_or(horizon),
             .wsd = schedule.lr_wsd_decay_style.value_or(WsdDecay::linear),
             .wsd_steps = schedule.wsd_decay_steps.value_or(0)};
  spec.weight_decay = {.ramp = schedule.wd_incr_style,
                       .start = schedule.start_wd.value_or(config.optimizer.weight_decay),
                       .end = schedule.end_wd.value_or(config.optimizer.weight_decay),
                       .steps = spec.horizon.weight_decay.value_or(horizon)};
  return spec;
}

std::vector<std::string> unmatched_patterns(const Config& config, const ModelConfig& model) {
  std::vector<bool> matched;
  param_scales(config, model, matched);
  std::vector<std::string> unmatched;
  for (size_t i = 0; i < matched.size(); ++i) {
    if (!matched[i]) unmatched.push_back(config.optimizer.param_group_overrides[i].pattern);
  }
  return unmatched;
}

std::vector<HfOverride> model_overrides(const Config& config) {
  std::vector<HfOverride> overrides;
  for (const config::HubField& field : config.model.config.overrides.fields) {
    overrides.push_back({field.key, field.json, config.origin("model.config." + field.key).text});
  }
  return overrides;
}

ModelConfig model_of(const Config& config) {
  return load_model(config.model.config.pretrained_model_name_or_path.value_or(""), model_overrides(config));
}

RunSpec resolve(const Config& config, int ranks, Purpose purpose) {
  config::validate(config);
  RunSpec spec;
  spec.model = model_of(config);
  add_mtp(config, spec);
  const config::Distributed& d = config.distributed;
  if (d.tp_size > 1 || d.cp_size > 1) {
    throw user_error("distributed.tp_size {} and cp_size {}: tensor and context parallelism are not available",
                     d.tp_size, d.cp_size)
        .advise("set both to 1 and use pp_size, ep_size and data parallelism");
  }
  spec.mesh = {.world = ranks,
               .pp = static_cast<int>(d.pp_size),
               .dp_replicate = static_cast<int>(d.dp_replicate_size),
               .cp = static_cast<int>(d.cp_size),
               .tp = static_cast<int>(d.tp_size),
               .ep = static_cast<int>(d.ep_size)};
  spec.mesh.validate(spec.model.num_experts);
  if (d.dp_size && *d.dp_size != spec.mesh.dp()) {
    throw user_error("distributed.dp_size {} with {} ranks and pp_size {}: there are {} data-parallel ranks",
                     *d.dp_size, ranks, d.pp_size, spec.mesh.dp())
        .advise("leave dp_size out: it follows from the others");
  }
  spec.seq_len = config.dataset.seq_len;
  spec.local_batch = config.step_scheduler.local_batch_size;
  const bool pipelined = spec.mesh.pp > 1;
  spec.sampling = {.global_batch = config.step_scheduler.global_batch_size,
                   .micro_batch = pipelined ? d.pipeline.pp_microbatch_size : spec.local_batch,
                   .dp = spec.mesh.dp()};
  check_batch(spec, pipelined);
  spec.chunks = chunks_per_rank(d.pipeline, spec.model.num_layers, spec.mesh.pp);
  spec.schedule = pipelined ? d.pipeline.pp_schedule : ScheduleKind::one_f_one_b;
  if (spec.model.num_layers < static_cast<int64_t>(spec.mesh.pp) * spec.chunks) {
    throw user_error("{} layers cannot fill {} stages (pp_size {} x {} virtual stages)", spec.model.num_layers,
                     int64_t{spec.mesh.pp} * spec.chunks, spec.mesh.pp, spec.chunks)
        .advise("lower distributed.pp_size or distributed.pipeline.virtual_stages");
  }
  spec.recompute = recompute_policy(config.recompute(), spec.model);
  spec.router = config.balance() == config::Balance::router ? learned_router(spec.model) : RouterKind::forced;
  check_router_losses(config, spec);
  spec.aux_loss_coef = config.model.aux_loss_coef.value_or(
      config.model.aux_loss_of_config ? spec.model.config_aux_loss_coef : spec.model.aux_loss_coef);
  spec.aux_loss_over = config.model.aux_loss_over;
  spec.router_z_loss_coef = config.model.router_z_loss_coef;
  spec.z_loss_coef = config.loss_fn.z_loss_coef;
  spec.selection_bias_rate = config.model.gate_bias_update_factor.value_or(spec.selection_bias_rate);
  spec.gate = {.kind = gate_kind(config.balance()),
               .num_experts = spec.model.num_experts,
               .top_k = spec.model.top_k,
               .skew = config.benchmark.skew,
               .noise = config.model.backend.fake_gate_noise,
               .seed = hash64("gate", static_cast<uint64_t>(config.seed))};
  check_local_shard(config, spec);
  spec.local_shard = config.benchmark.local_shard;
  spec.reshard_after_forward = d.moe.reshard_after_forward;
  spec.reshard_experts = d.moe.experts_reshard_after_forward.value_or(d.moe.reshard_after_forward);
  spec.dtype = dtype_of(config);
  spec.optimize = config.benchmark.optimizer;
  spec.optimizer = optimizer_options(config, spec);
  // The published benchmark leaves both out of its timed step.
  const bool trains = purpose == Purpose::train || config.recipe == config::Recipe::train;
  spec.expert_load = trains && spec.model.num_experts > 0;
  spec.gradient_norm = trains || config.clip_grad_norm.max_norm.has_value();
  spec.max_norm = config.clip_grad_norm.max_norm.value_or(0);
  spec.load_factor = config.memory.load_factor;
  // A benchmark saves nothing.
  spec.staging_bytes = staging_bytes(config, trains && purpose != Purpose::run);
  spec.seed = static_cast<uint64_t>(config.seed);
  spec = with_steps(std::move(spec), config, config.step_scheduler.max_steps.value_or(kMostSteps));
  spec.shared_counts = spec.gate_counts();
  return spec;
}

std::shared_ptr<GateCounts> RunSpec::gate_counts() const {
  const bool same = shared_counts && shared_counts->gate() == gate && shared_counts->seq_len() == seq_len;
  if (same) return shared_counts;
  return std::make_shared<GateCounts>(gate, seq_len);
}

Schedule RunSpec::make_schedule() const {
  return sluice::make_schedule(schedule, mesh.pp, chunks, static_cast<int>(sampling.micro_batches()));
}

StageConfig RunSpec::stage() const {
  StageConfig stage;
  const Family& family = family_of(model);
  const auto block = [&](int64_t layer) {
    BlockConfig config = family.block(model, layer, seq_len);
    MoeConfig& moe = config.moe;
    if (router == RouterKind::forced) moe.router = router;
    moe.gate = gate;
    moe.aux_loss_coef = aux_loss_coef;
    moe.aux_loss_over = aux_loss_over;
    moe.router_z_coef = router_z_loss_coef;
    if (moe.num_experts > 0) moe.local_shard = local_shard;
    return config;
  };
  for (int64_t layer = 0; layer < model.num_layers; ++layer) stage.blocks.push_back(block(layer));
  if (model.mtp) stage.mtp = block(model.num_layers);
  stage.vocab = model.vocab_size;
  stage.hidden = model.hidden_size;
  stage.seq_len = seq_len;
  stage.norm_eps = model.norm_eps;
  stage.init_std = model.init_std;
  stage.rope_theta = model.rope_theta;
  stage.rope_scaling = model.rope_scaling;
  stage.tied_head = model.tied_head;
  stage.z_loss_coef = z_loss_coef;
  stage.chunks = chunks;
  stage.dense_groups = {.dtype = dtype, .reshard_after_use = reshard_after_forward};
  stage.expert_groups = {.dtype = dtype, .reshard_after_use = reshard_experts};
  return stage;
}

}  // namespace sluice
