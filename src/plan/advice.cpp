#include "plan/advice.h"

#include <algorithm>
#include <functional>

#include "base/text.h"

namespace sluice {

namespace {

struct Candidate {
  std::string change;
  RunSpec spec;
};

// Plans of all candidates, at the same time.
std::vector<Plan> plan_all(const std::vector<Candidate>& candidates, const Profile& profile, Pool& pool) {
  std::vector<Plan> plans(candidates.size());
  pool.run(static_cast<int64_t>(candidates.size()), [&](int64_t i, int) {
    plans[static_cast<size_t>(i)] = make_plan(candidates[static_cast<size_t>(i)].spec, profile);
  });
  return plans;
}

// Whether a spec with changed degrees and batches is one `resolve` would accept.
bool possible(const RunSpec& spec) {
  try {
    spec.mesh.validate(spec.model.num_experts);
    spec.sampling.check();
    make_schedule(spec.schedule, spec.mesh.pp, spec.chunks, static_cast<int>(spec.sampling.micro_batches()));
  } catch (const Error&) {
    return false;
  }
  if (spec.local_shard > 1 && spec.mesh.ep > 1) return false;
  return spec.model.num_layers >= static_cast<int64_t>(spec.mesh.pp) * spec.chunks;
}

RunSpec with_mesh(RunSpec spec, int pp, int ep, int ranks) {
  if (pp != spec.mesh.pp) {
    // Virtual stages belong to a pipeline of a certain depth.
    spec.chunks = 1;
    if (pp == 1 || spec.schedule.starts_with("inter")) spec.schedule = "1f1b";
  }
  spec.mesh.pp = pp;
  spec.mesh.ep = ep;
  spec.mesh.world = ranks;
  spec.sampling.dp = spec.mesh.world % (spec.mesh.pp * spec.mesh.cp * spec.mesh.tp) == 0 ? spec.mesh.dp() : 0;
  if (pp == 1) spec.local_batch = spec.sampling.micro_batch;
  return spec;
}

class Candidates {
 public:
  explicit Candidates(const RunSpec& now) : now_(now) {}

  void add(const std::string& change, const std::function<void(RunSpec&)>& apply) {
    RunSpec spec = now_;
    apply(spec);
    if (possible(spec)) list_.push_back({change, spec});
  }
  void add(const std::string& change, const RunSpec& spec) {
    if (spec.sampling.dp > 0 && possible(spec)) list_.push_back({change, spec});
  }
  void add_recompute(const RecomputePolicy& pieces) {
    const RecomputePolicy policy = pieces.applied_to(now_.model.kv_lora > 0);
    if (policy == now_.recompute) return;
    add("memory.recompute: " + describe(policy), [&](RunSpec& spec) { spec.recompute = policy; });
  }
  const std::vector<Candidate>& list() const { return list_; }

 private:
  const RunSpec& now_;
  std::vector<Candidate> list_;
};

void add_recomputation(Candidates& candidates, const RecomputePolicy& now) {
  if (now.full) return;
  for (const RecomputePiece& piece : kRecomputePieces) {
    RecomputePolicy policy = now;
    if (policy.*piece.on) continue;
    policy.*piece.on = true;
    candidates.add_recompute(policy);
  }
  // The cheap ones together, with the next cheapest, and all: less time than `full`, which also repeats attention.
  RecomputePolicy policy = RecomputePolicy::selective();
  if (!now.any()) {
    candidates.add_recompute(policy);
    policy.dispatch = true;
    candidates.add_recompute(policy);
  }
  policy.dispatch = policy.experts = true;
  candidates.add_recompute(policy);
  candidates.add_recompute({.full = true});
}

// Memory that more ranks, or other ways to cut the model, would share.
void add_sharing(Candidates& candidates, const RunSpec& now) {
  const MeshSpec& mesh = now.mesh;
  if (!now.reshard_after_forward && mesh.stage_ranks() > 1) {
    candidates.add("distributed.moe.reshard_after_forward: true",
                   [](RunSpec& spec) { spec.reshard_after_forward = true; });
  }
  if (now.optimize && now.optimizer.state_dtype == DType::f32) {
    candidates.add("optimizer.state_dtype: bf16", [](RunSpec& spec) { spec.optimizer.state_dtype = DType::bf16; });
  }
  if (now.sampling.micro_batch % 2 == 0) {
    const int64_t half = now.sampling.micro_batch / 2;
    candidates.add(
        fmt::format("{}: {}",
                    mesh.pp > 1 ? "distributed.pipeline.pp_microbatch_size" : "step_scheduler.local_batch_size", half),
        [&](RunSpec& spec) {
          spec.sampling.micro_batch = half;
          if (mesh.pp == 1) spec.local_batch = half;
        });
  }
  candidates.add(fmt::format("distributed.ep_size: {}", mesh.ep * 2), with_mesh(now, mesh.pp, mesh.ep * 2, mesh.world));
  candidates.add(fmt::format("distributed.pp_size: {}", mesh.pp * 2),
                 with_mesh(now, mesh.pp * 2, std::min(mesh.ep, mesh.stage_ranks() / 2), mesh.world));
  candidates.add(fmt::format("--ranks {}", mesh.world * 2), with_mesh(now, mesh.pp, mesh.ep, mesh.world * 2));
}

double seconds_per_token(const Plan& plan) {
  return 1 / plan.tokens_per_s_per_rank;
}

WayOut compare(const std::string& change, const Plan& now, const Plan& other) {
  return {.change = change,
          .peak_bytes = other.peak_bytes(),
          .freed_bytes = static_cast<double>(now.peak_bytes()) - static_cast<double>(other.peak_bytes()),
          .time_ratio = seconds_per_token(other) / seconds_per_token(now),
          .fits = other.fits()};
}

// Everything that needs no other machine, strongest first, one more change at a time until it fits.
WayOut together(const Plan& plan) {
  RunSpec spec = plan.spec;
  std::string changes;
  const auto add = [&](const std::string& change) { changes += (changes.empty() ? "" : " + ") + change; };
  const std::vector<std::function<bool()>> steps = {
      [&] {
        if (spec.recompute.full) return false;
        spec.recompute = {.full = true};
        add("memory.recompute: full");
        return true;
      },
      [&] {
        if (spec.reshard_after_forward || spec.mesh.stage_ranks() == 1) return false;
        spec.reshard_after_forward = true;
        add("distributed.moe.reshard_after_forward: true");
        return true;
      },
      [&] {
        if (spec.sampling.micro_batch == 1) return false;
        spec.sampling.micro_batch = 1;
        if (spec.mesh.pp == 1) spec.local_batch = 1;
        add(spec.mesh.pp > 1 ? "distributed.pipeline.pp_microbatch_size: 1" : "step_scheduler.local_batch_size: 1");
        return true;
      },
      [&] {
        if (spec.optimizer.state_dtype != DType::f32) return false;
        spec.optimizer.state_dtype = DType::bf16;
        add("optimizer.state_dtype: bf16");
        return true;
      }};
  WayOut best;
  for (const auto& step : steps) {
    if (!step() || !possible(spec)) continue;
    best = compare(changes, plan, make_plan(spec, plan.profile));
    if (best.fits) break;
  }
  return best;
}

// What another layout wins or loses most by.
std::string reason(const Plan& now, const Plan& other) {
  const struct {
    const char* name;
    double change;
  } parts[] = {{"the bubble", other.time.bubble - now.time.bubble},
               {"communication", other.time.communication() - now.time.communication()},
               {"compute", other.time.compute() - now.time.compute()},
               {"the optimizer", other.time.optimizer - now.time.optimizer}};
  const bool slower = other.step_seconds >= now.step_seconds;
  const auto* most = &parts[0];
  for (const auto& part : parts) {
    if (slower ? part.change > most->change : part.change < most->change) most = &part;
  }
  return slower ? fmt::format("loses {} to {}", format_duration(most->change), most->name)
                : fmt::format("saves {} of {}", format_duration(-most->change), most->name);
}

}  // namespace

std::string describe(const RecomputePolicy& policy) {
  if (policy.full) return "full";
  std::string pieces;
  for (const RecomputePiece& piece : kRecomputePieces) {
    if (policy.*piece.on) pieces += (pieces.empty() ? "" : ", ") + std::string(piece.name);
  }
  return pieces.empty() ? "none" : "[" + pieces + "]";
}

std::vector<WayOut> ways_out(const Plan& plan, Pool& pool) {
  Candidates candidates(plan.spec);
  add_recomputation(candidates, plan.spec.recompute);
  add_sharing(candidates, plan.spec);
  const std::vector<Plan> plans = plan_all(candidates.list(), plan.profile, pool);
  std::vector<WayOut> ways;
  for (size_t i = 0; i < plans.size(); ++i) {
    WayOut way = compare(candidates.list()[i].change, plan, plans[i]);
    if (way.freed_bytes > 0) ways.push_back(std::move(way));
  }
  std::stable_sort(ways.begin(), ways.end(), [](const WayOut& a, const WayOut& b) {
    if (a.fits != b.fits) return a.fits;
    return a.fits ? a.time_ratio < b.time_ratio : a.freed_bytes > b.freed_bytes;
  });
  if (ways.empty() || !ways.front().fits) {
    WayOut all = together(plan);
    if (all.freed_bytes > 0) ways.push_back(std::move(all));
  }
  return ways;
}

std::optional<OtherLayout> next_best_layout(const Plan& plan, Pool& pool) {
  // Near layouts are the likely ones, and few enough to plan in a moment.
  constexpr size_t kMost = 10;
  const MeshSpec& mesh = plan.spec.mesh;
  Candidates candidates(plan.spec);
  for (int pp = 1; pp <= mesh.world && pp <= 4 * mesh.pp; pp *= 2) {
    if (mesh.world % pp != 0 || 4 * pp < mesh.pp) continue;
    const int stage_ranks = mesh.world / pp;
    for (int ep = stage_ranks; ep >= 1 && 4 * ep >= std::min(mesh.ep, stage_ranks); ep /= 2) {
      if (candidates.list().size() == kMost || (pp == mesh.pp && ep == mesh.ep) || stage_ranks % ep != 0) continue;
      candidates.add(fmt::format("pp {} x ep {}", pp, ep), with_mesh(plan.spec, pp, ep, mesh.world));
    }
  }
  const std::vector<Plan> plans = plan_all(candidates.list(), plan.profile, pool);
  std::optional<size_t> best;
  for (size_t i = 0; i < plans.size(); ++i) {
    if (plans[i].fits() && (!best || plans[i].step_seconds < plans[*best].step_seconds)) best = i;
  }
  if (!best) return std::nullopt;
  return OtherLayout{candidates.list()[*best].change, plans[*best], reason(plan, plans[*best])};
}

std::optional<WayOut> faster_setting(const Plan& plan, Pool& pool) {
  if (!plan.spec.recompute.any()) return std::nullopt;
  Candidates candidates(plan.spec);
  candidates.add_recompute({});
  RecomputePolicy all_pieces;
  for (const RecomputePiece& piece : kRecomputePieces) all_pieces.*piece.on = true;
  if (plan.spec.recompute.full) {
    candidates.add_recompute({.act = true});
    candidates.add_recompute(RecomputePolicy::selective());
    candidates.add_recompute(all_pieces);
  }
  const std::vector<Plan> plans = plan_all(candidates.list(), plan.profile, pool);
  std::optional<WayOut> best;
  for (size_t i = 0; i < plans.size(); ++i) {
    const WayOut way = compare(candidates.list()[i].change, plan, plans[i]);
    if (way.fits && way.time_ratio < 1 && (!best || way.time_ratio < best->time_ratio)) best = way;
  }
  return best;
}

}  // namespace sluice
