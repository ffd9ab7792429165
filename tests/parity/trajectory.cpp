#include "trajectory.h"

#include <algorithm>
#include <cmath>
#include <fstream>

#include "base/error.h"
#include "comm/inproc/inproc.h"
#include "config/load.h"
#include "support/host_tensor.h"

namespace sluice::test {

std::filesystem::path trajectories_directory() {
  return std::filesystem::path(SLUICE_SOURCE_DIR) / "tests/parity/trajectories";
}

const nlohmann::json& trajectories_manifest() {
  static const nlohmann::json read = [] {
    std::ifstream file(trajectories_directory() / "MANIFEST.json");
    return nlohmann::json::parse(file);
  }();
  return read;
}

std::vector<std::string> trajectory_names() {
  std::vector<std::string> names;
  for (const auto& [name, facts] : trajectories_manifest().at("models").items()) names.push_back(name);
  return names;
}

Trajectory::Trajectory(const std::string& name)
    : facts_(trajectories_manifest().at("models").at(name)),
      golden_(name),
      stored_(trajectories_directory() / (name + ".safetensors")) {}

int64_t Trajectory::count(const std::string& prefix) const {
  return std::ranges::count_if(stored_.tensors(), [&](const auto& entry) { return entry.first.starts_with(prefix); });
}

RunSpec Trajectory::spec(const std::vector<std::string>& overrides, int ranks) const {
  const nlohmann::json& all = trajectories_manifest();
  const int64_t micro_batch = all.at("micro_batch"), micro_batches = all.at("micro_batches");
  const nlohmann::json& betas = facts_.at("settings").at("betas");
  Config config = config::parse(
      fmt::format(R"(
step_scheduler: {{global_batch_size: {}, local_batch_size: {}, max_steps: {}}}
model: {{config: {{pretrained_model_name_or_path: {}}}, aux_loss_coef: {}, mtp_loss_weight: {}}}
benchmark: {{balance: router}}
dataset: {{_target_: mock, seq_len: {}}}
runtime: {{dtype: f64}}
optimizer: {{_target_: AdamW, lr: {}, betas: [{}, {}], eps: {}, weight_decay: {}}}
lr_scheduler: {{lr_decay_style: cosine, lr_warmup_steps: {}, lr_decay_steps: {}, min_lr: {}}}
clip_grad_norm: {{max_norm: {}}}
)",
                  micro_batch * micro_batches, micro_batch, all.at("steps").get<int64_t>(),
                  golden_.directory().string(), setting("aux_loss_coef"), golden_.has_mtp() ? kMtpWeight : 0,
                  all.at("seq_len").get<int64_t>(), setting("peak"), betas.at(0).get<double>(),
                  betas.at(1).get<double>(), setting("eps"), setting("weight_decay"), setting("warmup"),
                  setting("decay_end"), setting("minimum"), setting("max_norm")),
      "trajectory");
  config::apply_overrides(config, overrides);
  return resolve(config, ranks);
}

TrajectoryTokens::TrajectoryTokens(const Trajectory& trajectory)
    : length_(trajectories_manifest().at("seq_len").get<size_t>() + 1) {
  const safetensors::StoredTensor& stored = trajectory.stored("tokens");
  require(stored.spec.type == safetensors::Type::u8, "the tokens are no bytes");
  for (const std::byte token : stored.bytes) tokens_.push_back(std::to_integer<int32_t>(token));
}

void TrajectoryTokens::sample(int64_t id, std::span<int32_t> tokens) const {
  require(tokens.size() == length_, "{} tokens are asked for, a sample has {}", tokens.size(), length_);
  std::copy_n(tokens_.begin() + id * static_cast<int64_t>(length_), length_, tokens.begin());
}

int64_t TrajectoryTokens::vocab_size() const {
  return 1 + *std::ranges::max_element(tokens_);
}

namespace {

// The number of the layer a parameter belongs to.
std::string layer_of(const std::string& parameter) {
  const size_t from = parameter.find('.') + 1;
  return parameter.substr(from, parameter.find('.', from) - from);
}

}  // namespace

TrajectoryResult follow(const Trajectory& trajectory, const RunSpec& spec, int64_t steps, Backend& backend) {
  const TrajectoryTokens tokens(trajectory);
  HostMemory memory;
  InprocWorld world(1);
  const auto communicator = world.communicator(0);
  Trainer trainer(spec, {&backend, &memory, communicator.get()}, &tokens, nullptr);
  import_weights(trainer.context(), trainer.stage(), trainer.spec().model, trajectory.golden());
  const auto weights = [&] { return hub_values(trainer, [](const Param& param) { return values_of(param.value); }); };
  TrajectoryResult run{.before = weights()};
  for (int64_t step = 0; step < steps; ++step) {
    run.steps.push_back(trainer.step(step));
    for (FlatGroup* group : trainer.stage().groups()) {
      if (group->trained()) continue;
      for (const Param* param : group->params()) {
        std::vector<int32_t>& loads = run.loads[layer_of(param->spec.name)];
        for (const double load : values_of(param->grad)) loads.push_back(static_cast<int32_t>(load));
      }
    }
  }
  for (FlatGroup* group : trainer.stage().groups()) group->end_gather(trainer.context());
  run.after = weights();
  return run;
}

// As make_trajectories.py.
std::vector<double> digest(const std::vector<double>& values) {
  constexpr size_t kWhole = 32;
  if (values.size() <= kWhole) return values;
  std::vector<double> all = {0};
  for (const double value : values) all[0] = std::max(all[0], std::abs(value));
  for (const uint32_t multiplier : {2654435761U, 2246822519U, 3266489917U}) {
    double product = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      product += values[i] * (static_cast<double>(static_cast<uint32_t>(i + 1) * multiplier) / 0x1p31 - 1);
    }
    all.push_back(product);
  }
  return all;
}

}  // namespace sluice::test
