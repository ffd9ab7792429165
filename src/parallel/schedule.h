// Pipeline schedules as data: for each stage of the pipeline the order of its forwards (F), backwards (B, input
// gradients) and weight gradients (W) over chunks and micro-batches. Notation: F0.3 is the forward of micro-batch 3 in
// the rank's chunk 0. A backward marked full (written BW) does its W at once. Communication follows from the order.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/schedule_kind.h"

namespace sluice {

enum class ActionKind : uint8_t { forward, backward, backward_full, weight };

std::string_view letters_of(ActionKind kind);  // "F", "B", "BW", "W"

struct Action {
  ActionKind kind = ActionKind::forward;
  int chunk = 0;  // local chunk (virtual stage) of the rank
  int micro_batch = 0;
  bool operator==(const Action&) const = default;
  std::string str() const;  // "F0.3", "B0.3", "BW0.3", "W0.3"
};

// Chunk c of pipeline rank p is model stage c * num_stages + p (loop placement).
struct Schedule {
  std::string name;
  int stages = 1;         // pipeline ranks
  int chunks = 1;         // chunks per rank (VP)
  int micro_batches = 1;  // in one optimizer step
  std::vector<std::vector<Action>> ranks;

  // Forward activations of a chunk alive at once on a rank: how many slots its arenas need.
  int max_in_flight(int rank, int chunk) const;
  // Micro-batches between F and W at once: slots of a store that only W returns.
  int max_held(int rank, int chunk) const;
};

// Throws a user error that names the schedule and the numbers when it cannot be made. Any micro_batches >= 1.
// With one stage of one chunk there is no pipeline, and any kind will do.
Schedule make_schedule(ScheduleKind kind, int stages, int chunks, int micro_batches);

Schedule schedule_1f1b(int stages, int micro_batches);
// Narayanan et al. 2021: micro-batches pass each chunk in groups. The paper's groups have `stages` micro-batches; a
// remainder is spread over them instead of forming a smaller group, which keeps the bubble at
// (stages - 1) / (chunks * micro_batches + stages - 1) and cannot deadlock. Groups have fewer than 2 * stages.
Schedule schedule_interleaved_1f1b(int stages, int chunks, int micro_batches);
// Qi et al. 2023, ZB-H1: 1F1B with W delayed to fill the bubbles, at 1F1B's memory.
Schedule schedule_zb_h1(int stages, int micro_batches);

}  // namespace sluice
