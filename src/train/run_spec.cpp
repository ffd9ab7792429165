#include "train/run_spec.h"

#include <algorithm>

#include "base/hash.h"
#include "config/load.h"
#include "model/cards.h"

namespace sluice {

namespace {

RecomputePolicy recompute_policy(const config::Recompute& recompute, bool mla) {
  RecomputePolicy policy;
  policy.full = recompute.full;
  for (const config::Piece piece : recompute.pieces) {
    for (const RecomputePiece& known : kRecomputePieces) {
      if (known.name == config::word(piece)) policy.*known.on = true;
    }
  }
  return policy.applied_to(mla);
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

DType dtype_of(const Config& config, Purpose purpose) {
  const config::DeviceKind device = config.runtime.device;
  if (device == config::DeviceKind::cuda && !config.is_set("runtime.dtype")) return DType::bf16;
  switch (config.runtime.dtype) {
    case config::Dtype::f64:
      return DType::f64;
    case config::Dtype::f32:
      return DType::f32;
    case config::Dtype::bf16:
      break;
  }
  const bool on_cpu = device == config::DeviceKind::cpu || device == config::DeviceKind::ref;
  if (purpose == Purpose::plan || !on_cpu) return DType::bf16;
  throw user_error("runtime.dtype bf16 is not available on the CPU").advise("use f32 (or f64, slowly)");
}

DecayShape decay_shape(config::DecayStyle style) {
  switch (style) {
    case config::DecayStyle::linear:
      return DecayShape::linear;
    case config::DecayStyle::cosine:
      return DecayShape::cosine;
    case config::DecayStyle::constant:
      break;
  }
  return DecayShape::constant;
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

// What the model's own router is; all its layers with experts have the same.
RouterKind learned_router(const ModelConfig& model) {
  return family_of(model).block(model, model.num_layers - 1, 1).moe.router;
}

void check_balance_loss(const Config& config, const RunSpec& spec) {
  if (config.model.aux_loss_coef.value_or(0) == 0) return;
  if (spec.model.num_experts > 0) return;
  throw user_error("model.aux_loss_coef {}: {} has no experts", *config.model.aux_loss_coef, spec.model.name)
      .at(config.origin("model.aux_loss_coef").place())
      .advise("leave it out or set it to 0");
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
  spec.schedule = pipelined ? std::string(config::word(d.pipeline.pp_schedule)) : "1f1b";
  if (spec.model.num_layers < static_cast<int64_t>(spec.mesh.pp) * spec.chunks) {
    throw user_error("{} layers cannot fill {} stages (pp_size {} x {} virtual stages)", spec.model.num_layers,
                     int64_t{spec.mesh.pp} * spec.chunks, spec.mesh.pp, spec.chunks)
        .advise("lower distributed.pp_size or distributed.pipeline.virtual_stages");
  }
  spec.recompute = recompute_policy(config.recompute(), spec.model.kv_lora > 0);
  spec.router = config.balance() == config::Balance::router ? learned_router(spec.model) : RouterKind::forced;
  check_balance_loss(config, spec);
  spec.aux_loss_coef = config.model.aux_loss_coef.value_or(spec.model.aux_loss_coef);
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
  spec.dtype = dtype_of(config, purpose);
  spec.optimize = config.benchmark.optimizer;
  spec.optimizer = {.beta1 = config.optimizer.betas.at(0),
                    .beta2 = config.optimizer.betas.at(1),
                    .eps = config.optimizer.eps,
                    .weight_decay = config.optimizer.weight_decay,
                    .state_dtype = config.optimizer.state_dtype == config::StateDtype::bf16 ? DType::bf16 : DType::f32,
                    .seed = static_cast<uint64_t>(config.seed)};
  spec.lr = {.shape = decay_shape(config.lr_scheduler.lr_decay_style),
             .peak = config.optimizer.lr,
             .minimum = config.lr_scheduler.min_lr,
             .warmup_steps = config.lr_scheduler.lr_warmup_steps,
             .decay_steps = config.lr_scheduler.lr_decay_steps.value_or(config.step_scheduler.max_steps)};
  // The published benchmark leaves the norm out of its timed step.
  spec.gradient_norm = config.recipe == config::Recipe::train || config.clip_grad_norm.max_norm.has_value();
  spec.max_norm = config.clip_grad_norm.max_norm.value_or(0);
  spec.load_factor = config.memory.load_factor;
  spec.seed = static_cast<uint64_t>(config.seed);
  spec.steps = config.step_scheduler.max_steps;
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
  stage.yarn = model.yarn;
  stage.chunks = chunks;
  stage.dense_groups = {.dtype = dtype, .reshard_after_use = reshard_after_forward};
  stage.expert_groups = {.dtype = dtype, .reshard_after_use = reshard_experts};
  return stage;
}

}  // namespace sluice
