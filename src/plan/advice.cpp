#include "plan/advice.h"

#include <algorithm>
#include <functional>

#include "base/text.h"
#include "config/load.h"
#include "trainer/precision.h"

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

struct Setting {
  std::string key;
  std::string value;
};
using Settings = std::vector<Setting>;

// Other runs of a configuration. Each is resolved from its settings as the program would, so that whoever writes them
// into the file gets what was planned.
class Candidates {
 public:
  Candidates(const Config& config, const RunSpec& now) : config_(config), now_(now) {}

  // The run with `settings` changed; none where it is not one that can be.
  std::optional<Candidate> with(Settings settings, int ranks) const {
    Candidate candidate;
    if (ranks != now_.mesh.world) candidate.change = fmt::format("--ranks {}", ranks);
    Config config = config_;
    try {
      apply(config, settings);
      // Follows from the others, and may stand there too.
      const config::Distributed& d = config.distributed;
      const int64_t dp = ranks / (d.pp_size * d.tp_size * d.cp_size);
      if (d.dp_size && *d.dp_size != dp) {
        settings.push_back({"distributed.dp_size", std::to_string(dp)});
        apply(config, {settings.back()});
      }
      candidate.spec = computed_in(resolve(config, ranks, Purpose::plan), config, now_.dtype);
      (void)candidate.spec.make_schedule();
    } catch (const Error&) {
      return std::nullopt;
    }
    candidate.spec.shared_counts = now_.shared_counts;
    for (const Setting& setting : settings) {
      candidate.change += fmt::format("{}{}: {}", candidate.change.empty() ? "" : " + ", setting.key, setting.value);
    }
    return candidate;
  }

  void add(const Settings& settings) { keep(with(settings, now_.mesh.world)); }
  void add_recompute(const RecomputePolicy& pieces) {
    const RecomputePolicy policy = pieces_of(now_.model, pieces);
    if (policy != now_.recompute) add({{"memory.recompute", describe(policy)}});
  }
  // Other degrees, with the virtual stages that the file gives them and without any; with as many tokens in a
  // micro-batch as now.
  void add_mesh(int pp, int ep, int ranks) {
    Settings settings;
    if (pp != now_.mesh.pp) settings.push_back({"distributed.pp_size", std::to_string(pp)});
    if (ep != now_.mesh.ep) settings.push_back({"distributed.ep_size", std::to_string(ep)});
    if (pp == 1 && now_.local_batch != now_.sampling.micro_batch) {
      settings.push_back({"step_scheduler.local_batch_size", std::to_string(now_.sampling.micro_batch)});
    }
    if (pp > 1 && now_.mesh.pp == 1 && config_.distributed.pipeline.pp_microbatch_size != now_.sampling.micro_batch) {
      settings.push_back({"distributed.pipeline.pp_microbatch_size", std::to_string(now_.sampling.micro_batch)});
    }
    const std::optional<Candidate> as_it_stands = with(settings, ranks);
    keep(as_it_stands);
    if (pp == 1 || pp == now_.mesh.pp || (as_it_stands && as_it_stands->spec.chunks == 1)) return;
    settings.push_back({"distributed.pipeline.virtual_stages", "1"});
    settings.push_back({"distributed.pipeline.pp_schedule", "1f1b"});
    keep(with(settings, ranks));
  }
  const std::vector<Candidate>& list() const { return list_; }

 private:
  static void apply(Config& config, const Settings& settings) {
    std::vector<std::string> arguments;
    for (const Setting& setting : settings) arguments.push_back("--" + setting.key + "=" + setting.value);
    config::apply_overrides(config, arguments);
  }
  void keep(std::optional<Candidate> candidate) {
    if (candidate) list_.push_back(std::move(*candidate));
  }

  const Config& config_;
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

// Parameters gathered for each use, where they are kept now; empty if that changes nothing.
Settings resharding(const Config& config, const RunSpec& now) {
  Settings settings;
  if (now.mesh.stage_ranks() == 1) return settings;
  if (!now.reshard_after_forward) settings.push_back({"distributed.moe.reshard_after_forward", "true"});
  if (!now.reshard_experts && config.distributed.moe.experts_reshard_after_forward) {
    settings.push_back({"distributed.moe.experts_reshard_after_forward", "true"});
  }
  return settings;
}

Setting micro_batch(const RunSpec& now, int64_t size) {
  return {now.mesh.pp > 1 ? "distributed.pipeline.pp_microbatch_size" : "step_scheduler.local_batch_size",
          std::to_string(size)};
}

// Memory that more ranks, or other ways to cut the model, would share.
void add_sharing(Candidates& candidates, const Config& config, const RunSpec& now) {
  const MeshSpec& mesh = now.mesh;
  if (const Settings settings = resharding(config, now); !settings.empty()) candidates.add(settings);
  if (now.optimize && now.optimizer.state_dtype == DType::f32) candidates.add({{"optimizer.state_dtype", "bf16"}});
  if (now.sampling.micro_batch % 2 == 0) candidates.add({micro_batch(now, now.sampling.micro_batch / 2)});
  candidates.add_mesh(mesh.pp, mesh.ep * 2, mesh.world);
  candidates.add_mesh(mesh.pp * 2, std::min(mesh.ep, std::max(1, mesh.stage_ranks() / 2)), mesh.world);
  candidates.add_mesh(mesh.pp, mesh.ep, mesh.world * 2);
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
WayOut together(const Config& config, const Plan& plan) {
  const RunSpec& now = plan.spec;
  const Candidates candidates(config, now);
  std::vector<Settings> steps;
  if (!now.recompute.full) steps.push_back({{"memory.recompute", "full"}});
  if (Settings settings = resharding(config, now); !settings.empty()) steps.push_back(std::move(settings));
  if (now.sampling.micro_batch > 1) steps.push_back({micro_batch(now, 1)});
  if (now.optimize && now.optimizer.state_dtype == DType::f32) steps.push_back({{"optimizer.state_dtype", "bf16"}});
  WayOut best;
  Settings settings;
  for (const Settings& step : steps) {
    settings.insert(settings.end(), step.begin(), step.end());
    const std::optional<Candidate> candidate = candidates.with(settings, now.mesh.world);
    if (!candidate) continue;
    best = compare(candidate->change, plan, make_plan(candidate->spec, plan.profile));
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

std::vector<WayOut> ways_out(const Config& config, const Plan& plan, Pool& pool) {
  Candidates candidates(config, plan.spec);
  add_recomputation(candidates, plan.spec.recompute);
  add_sharing(candidates, config, plan.spec);
  const std::vector<Plan> plans = plan_all(candidates.list(), plan.profile, pool);
  std::vector<WayOut> ways;
  for (size_t i = 0; i < plans.size(); ++i) {
    WayOut way = compare(candidates.list()[i].change, plan, plans[i]);
    if (way.freed_bytes > 0) ways.push_back(std::move(way));
  }
  std::sort(ways.begin(), ways.end(), [](const WayOut& a, const WayOut& b) {
    if (a.fits != b.fits) return a.fits;
    if (a.fits && a.time_ratio != b.time_ratio) return a.time_ratio < b.time_ratio;
    if (!a.fits && a.freed_bytes != b.freed_bytes) return a.freed_bytes > b.freed_bytes;
    return a.change < b.change;
  });
  if (ways.empty() || !ways.front().fits) {
    WayOut all = together(config, plan);
    const bool known =
        std::any_of(ways.begin(), ways.end(), [&](const WayOut& way) { return way.change == all.change; });
    if (all.freed_bytes > 0 && !known) ways.push_back(std::move(all));
  }
  return ways;
}

std::optional<OtherLayout> next_best_layout(const Config& config, const Plan& plan, Pool& pool) {
  // Near layouts are the likely ones, and few enough to plan in a moment.
  constexpr size_t kMost = 10;
  const MeshSpec& mesh = plan.spec.mesh;
  Candidates candidates(config, plan.spec);
  for (int pp = 1; pp <= mesh.world && pp <= 4 * mesh.pp; pp *= 2) {
    if (mesh.world % pp != 0 || 4 * pp < mesh.pp) continue;
    const int stage_ranks = mesh.world / pp;
    for (int ep = stage_ranks; ep >= 1 && 4 * ep >= std::min(mesh.ep, stage_ranks); ep /= 2) {
      if (candidates.list().size() >= kMost || (pp == mesh.pp && ep == mesh.ep) || stage_ranks % ep != 0) continue;
      candidates.add_mesh(pp, ep, mesh.world);
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

std::optional<WayOut> faster_setting(const Config& config, const Plan& plan, Pool& pool) {
  if (!plan.spec.recompute.any()) return std::nullopt;
  Candidates candidates(config, plan.spec);
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
