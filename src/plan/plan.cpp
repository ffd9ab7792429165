#include "plan/plan.h"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>

#include "model/family.h"

namespace sluice {

namespace {

// The sum of `times` that an operation's seconds belong to.
double& sum_of(StepTime& times, OpKind kind) {
  switch (kind) {
    case OpKind::linear:
      return times.projections;
    case OpKind::attention:
      return times.attention;
    case OpKind::experts:
      return times.experts;
    case OpKind::head:
      return times.head;
    case OpKind::optimizer:
      return times.optimizer;
    case OpKind::norm:
    case OpKind::activation:
    case OpKind::position:
    case OpKind::embedding:
    case OpKind::routing:
    case OpKind::dispatch:
    case OpKind::combine:
    case OpKind::elementwise:
      break;
  }
  return times.rest;
}

StepTime split(const RankPlan& rank, double step_seconds) {
  StepTime times;
  for (const auto& [op, seconds] : rank.op_seconds) sum_of(times, op.kind) += seconds;
  for (const auto& [axis, kinds] : rank.traffic.axes()) {
    const TrafficTotals totals = rank.traffic.total(axis);
    // Along the pipeline, and where all meet at the end, one waits for others' work; within a stage ranks keep pace,
    // and a longer wait is for the same axis' earlier calls.
    const bool between_stages = axis == "pp" || axis == "world";
    times.bubble += between_stages ? totals.idle_s : 0;
    const double exposed = totals.exposed_s + (between_stages ? 0 : totals.idle_s);
    if (exposed > 0) times.exposed.emplace_back(axis, exposed);
  }
  times.bubble += step_seconds - rank.step_seconds;
  return times;
}

StepTime mean(const std::vector<StagePlan>& stages) {
  StepTime sum;
  std::map<std::string, double> exposed;
  for (const StagePlan& stage : stages) {
    const StepTime& t = stage.time;
    sum.projections += t.projections;
    sum.attention += t.attention;
    sum.experts += t.experts;
    sum.head += t.head;
    sum.rest += t.rest;
    sum.bubble += t.bubble;
    sum.optimizer += t.optimizer;
    for (const auto& [axis, seconds] : t.exposed) exposed[axis] += seconds;
  }
  sum.exposed.assign(exposed.begin(), exposed.end());
  const double share = 1.0 / static_cast<double>(stages.size());
  for (double* part :
       {&sum.projections, &sum.attention, &sum.experts, &sum.head, &sum.rest, &sum.bubble, &sum.optimizer}) {
    *part *= share;
  }
  for (auto& [axis, seconds] : sum.exposed) seconds *= share;
  return sum;
}

}  // namespace

double StepTime::communication() const {
  double sum = 0;
  for (const auto& [axis, seconds] : exposed) sum += seconds;
  return sum;
}

const StagePlan& Plan::fullest() const {
  return *std::max_element(stages.begin(), stages.end(),
                           [](const StagePlan& a, const StagePlan& b) { return a.bytes() < b.bytes(); });
}

void count_gate(const RunSpec& spec, Pool& pool, const std::function<void(int64_t done, int64_t all)>& progress) {
  if (spec.model.num_experts == 0 || spec.mesh.world == 1) return;
  spec.gate_counts()->count_ahead(spec.sampling.global_batch, pool, progress);
}

std::vector<int> representatives(const RunSpec& spec) {
  int column = 0;
  const bool uneven = spec.gate.kind == GateKind::skewed || spec.gate.noise > 0;
  if (spec.mesh.ep > 1 && spec.router == RouterKind::forced && uneven) {
    const GateForecast forecast(spec.gate_counts(), spec.mesh, coordinates(spec.mesh, 0), spec.sampling, 1);
    std::vector<int64_t> rows(static_cast<size_t>(spec.mesh.ep), 0);
    for (int source = 0; source < spec.mesh.ep; ++source) {
      const std::vector<int32_t> counts = forecast.counts_sent_by(source, 0, 0);
      for (size_t r = 0; r < rows.size(); ++r) rows[r] += counts[2 * r + 1];
    }
    column = static_cast<int>(std::max_element(rows.begin(), rows.end()) - rows.begin());
  }
  std::vector<int> ranks;
  for (int stage = 0; stage < spec.mesh.pp; ++stage) ranks.push_back(stage * spec.mesh.stage_ranks() + column);
  return ranks;
}

Plan make_plan(const RunSpec& spec, const Profile& profile, Detail detail) {
  const std::vector<int> ranks = representatives(spec);
  std::map<int, std::unique_ptr<MemoryPeakWatch>> watches;
  std::mutex mutex;
  PlanWatch watch;
  if (detail == Detail::memory_peaks) {
    watch = [&](int rank, Trainer& trainer) {
      const std::lock_guard lock(mutex);
      watches[rank] = std::make_unique<MemoryPeakWatch>(trainer);
      trainer.context().add_observer(watches[rank].get());
    };
  }
  Plan plan{.spec = spec, .profile = profile, .stages = {}, .time = {}};
  MetaWorld meta(profile.network, spec.mesh.world);
  for (RankPlan& rank : plan_ranks(spec, ranks, profile.device, profile.network, watch)) {
    plan.step_seconds = std::max(plan.step_seconds, rank.step_seconds);
    const int number = rank.rank;
    StagePlan stage{.stage = static_cast<int>(plan.stages.size()), .rank = std::move(rank), .time = {}, .peak = {}};
    const std::unique_ptr<Communicator> world = meta.communicator(number);
    stage.communicators = profile.communicators.of_rank(nccl_groups(Mesh(spec.mesh, *world)), number, profile.network);
    if (const auto seen = watches.find(stage.rank.rank); seen != watches.end()) stage.peak = seen->second->peak();
    plan.stages.push_back(std::move(stage));
  }
  for (StagePlan& stage : plan.stages) stage.time = split(stage.rank, plan.step_seconds);
  plan.time = mean(plan.stages);
  const double rank_seconds = plan.step_seconds * spec.mesh.world;
  const double flops =
      model_flops_per_sequence(spec.model, spec.seq_len) * static_cast<double>(spec.sampling.global_batch);
  plan.tokens_per_s_per_rank = static_cast<double>(spec.tokens_per_step()) / rank_seconds;
  plan.model_tflops_per_rank = flops / rank_seconds * 1e-12;
  plan.mfu = flops / rank_seconds / profile.device.roof.peak(spec.dtype);
  return plan;
}

}  // namespace sluice
