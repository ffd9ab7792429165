// The CPU's profile: peaks and bandwidth of the machine, and for each operation the share of its roofline that it
// reaches in two steps of a small model in the precision of the plan.
#include <mutex>

#include "config/load.h"
#include "data/mock.h"
#include "machine/machine_info.h"
#include "plan/profile.h"
#include "trainer/op_profile.h"
#include "training/session.h"

namespace sluice {

namespace {

// Every operation of a step at sizes where products reach their speed and the whole takes well under a second.
constexpr std::string_view kProbe = R"(
step_scheduler: {global_batch_size: 2, local_batch_size: 2, max_steps: 2}
model:
  config:
    model_type: qwen3_moe
    vocab_size: 4096
    hidden_size: 256
    num_hidden_layers: 2
    num_attention_heads: 8
    num_key_value_heads: 2
    head_dim: 64
    num_experts: 8
    num_experts_per_tok: 2
    norm_topk_prob: true
    moe_intermediate_size: 256
    rms_norm_eps: 1.0e-6
    rope_theta: 10000.0
    max_position_embeddings: 512
benchmark: {balance: spread}
dataset: {_target_: mock, seq_len: 512}
)";

OpProfile probe(int threads, DType dtype) {
  RunSpec spec = resolve(config::parse(kProbe, "probe"), 1);
  spec.dtype = dtype;
  const MockDataset dataset(spec.seed, spec.model.vocab_size);
  OpProfile profile;
  run_session(spec, {.threads = threads}, dataset, [&](Trainer& trainer) {
    trainer.step(0);  // pages and caches warm up
    OpProfiler profiler(trainer.context().backend());
    const ObserverScope scope(trainer.context(), profiler);
    trainer.step(1);
    profile = profiler.profile(0);
  });
  return profile;
}

}  // namespace

Profile measure_cpu(int ranks, int threads, DType dtype) {
  const MachineInfo machine = measure_machine(threads);
  Profile profile;
  profile.name = "cpu";
  profile.dtype = dtype;
  profile.description = describe(machine) + (ranks > 1 ? fmt::format(", shared by {} ranks", ranks) : "");
  // Ranks are threads that take turns with one pool: each has its part of everything.
  const double share = 1.0 / ranks;
  DeviceModel& device = profile.device;
  device.target = {.row_align = 1, .workers = threads};
  device.roof = machine.roof(share);
  const Roof roof = machine.roof(1);
  for (const OpTotals& op : probe(threads, dtype).ops) {
    const double best = op.roof_seconds(roof);
    if (op.seconds > 0 && best > 0) device.roofline_share[op.name] = best / op.seconds;
  }
  // A message is a copy: each byte is read and written.
  profile.network.intra = {.latency_s = 5e-6, .bandwidth_bytes_per_s = device.roof.bandwidth / 2};
  profile.memory = static_cast<size_t>(machine.memory_bytes / static_cast<uint64_t>(ranks));
  profile.usable = static_cast<size_t>(available_memory() / static_cast<uint64_t>(ranks));
  return profile;
}

}  // namespace sluice
