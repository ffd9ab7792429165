// Steps that are no good (config::BadSteps): which are, what is done about them, and when it has been done too often.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "checkpoint/manifest.h"
#include "trainer/trainer.h"

namespace sluice {

inline constexpr int64_t kMostLeftOut = 20;    // steps in a row; the next one ends the run
inline constexpr int64_t kMostRollbacks = 10;  // to the same checkpoint; the next one ends the run

enum class Verdict : uint8_t { good, leave_out, roll_back, end };

struct Judgement {
  Verdict verdict = Verdict::good;
  std::string what = {};  // is wrong with it; empty where nothing is
};

// `recent`: losses of the last good steps, the newest last.
Judgement judge_step(const config::BadSteps& rule, const StepResult& step, std::span<const double> recent);

// Whether what bad steps come from is set as it was, so that those of before count: optimizer, schedule, bad_steps.
bool same_remedies(const Manifest& before, const Manifest& now);

// A run that goes back changes no checkpoint, and may be killed before the next one. So it says in its directory where
// it stands then: the checkpoint's state, with the batches that it passes over and how often it has gone back.
void keep_rollback(const std::filesystem::path& folder, const Manifest& run);
// What was kept, if the run goes on from the checkpoint of this step; user error for a damaged file.
std::optional<Manifest> kept_rollback(const std::filesystem::path& folder, int64_t step);
// Of a run that begins.
void forget_rollback(const std::filesystem::path& folder);

}  // namespace sluice
