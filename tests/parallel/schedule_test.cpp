#include "parallel/schedule.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "schedule_run.h"

namespace sluice {
namespace {

using enum ActionKind;

constexpr ActionTimes unit{1, 1, 1};

// One rank's order in the papers' notation, without the chunk where there is only one: "F0 F1 BW0".
std::string order(const Schedule& schedule, int rank) {
  std::string text;
  for (const Action& action : schedule.ranks.at(rank)) {
    std::string name = action.str();
    if (schedule.chunks == 1) name.erase(name.find("0."), 2);
    text += (text.empty() ? "" : " ") + name;
  }
  return text;
}

Error error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error";
  return user_error("none");
}

// What validate says about a broken schedule.
std::string verdict(const Schedule& schedule) {
  const Error error = error_of([&] { validate(schedule); });
  EXPECT_EQ(error.kind(), ErrorKind::internal);
  return error.what();
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Schedule, NotationOfActions) {
  EXPECT_EQ((Action{forward, 0, 3}.str()), "F0.3");
  EXPECT_EQ((Action{backward, 1, 3}.str()), "B1.3");
  EXPECT_EQ((Action{backward_full, 0, 12}.str()), "BW0.12");
  EXPECT_EQ((Action{weight, 2, 0}.str()), "W2.0");
}

TEST(Schedule, OneStageAccumulates) {
  EXPECT_EQ(order(schedule_1f1b(1, 3), 0), "F0 BW0 F1 BW1 F2 BW2");
  EXPECT_EQ(order(schedule_interleaved_1f1b(1, 2, 2), 0), "F0.0 F1.0 BW1.0 BW0.0 F0.1 F1.1 BW1.1 BW0.1");
  EXPECT_EQ(order(schedule_zb_h1(1, 2), 0), "F0 B0 W0 F1 B1 W1");
}

TEST(Schedule, OneForwardOneBackwardByHand) {
  const Schedule schedule = schedule_1f1b(4, 8);
  EXPECT_EQ(order(schedule, 0), "F0 F1 F2 F3 BW0 F4 BW1 F5 BW2 F6 BW3 F7 BW4 BW5 BW6 BW7");
  EXPECT_EQ(order(schedule, 1), "F0 F1 F2 BW0 F3 BW1 F4 BW2 F5 BW3 F6 BW4 F7 BW5 BW6 BW7");
  EXPECT_EQ(order(schedule, 2), "F0 F1 BW0 F2 BW1 F3 BW2 F4 BW3 F5 BW4 F6 BW5 F7 BW6 BW7");
  EXPECT_EQ(order(schedule, 3), "F0 BW0 F1 BW1 F2 BW2 F3 BW3 F4 BW4 F5 BW5 F6 BW6 F7 BW7");
}

TEST(Schedule, FewerMicroBatchesThanStages) {
  const Schedule schedule = schedule_1f1b(4, 2);
  EXPECT_EQ(order(schedule, 0), "F0 F1 BW0 BW1");
  EXPECT_EQ(order(schedule, 2), "F0 F1 BW0 BW1");
  EXPECT_EQ(order(schedule, 3), "F0 BW0 F1 BW1");
  EXPECT_EQ(order(schedule_zb_h1(4, 2), 1), "F0 F1 B0 B1 W0 W1");
  EXPECT_EQ(order(schedule_interleaved_1f1b(2, 2, 1), 0), "F0.0 F1.0 BW1.0 BW0.0");
}

TEST(Schedule, InterleavedByHand) {
  const Schedule schedule = schedule_interleaved_1f1b(2, 2, 4);
  EXPECT_EQ(order(schedule, 0),
            "F0.0 F0.1 F1.0 F1.1 F0.2 BW1.0 F0.3 BW1.1 F1.2 BW0.0 F1.3 BW0.1 BW1.2 BW1.3 BW0.2 BW0.3");
  EXPECT_EQ(order(schedule, 1),
            "F0.0 F0.1 F1.0 BW1.0 F1.1 BW1.1 F0.2 BW0.0 F0.3 BW0.1 F1.2 BW1.2 F1.3 BW1.3 BW0.2 BW0.3");
}

// Narayanan et al. 2021, figure 4: device 1 of 4 runs 2 (4 - 1) + (2 - 1) 4 = 10 forwards before the first pair.
TEST(Schedule, InterleavedWarmUpOfThePaper) {
  const Schedule schedule = schedule_interleaved_1f1b(4, 2, 8);
  for (int rank = 0; rank < 4; ++rank) {
    const std::vector<Action>& actions = schedule.ranks[rank];
    const auto first = std::find_if(actions.begin(), actions.end(), [](const Action& a) { return a.kind != forward; });
    EXPECT_EQ(first - actions.begin(), 2 * (3 - rank) + 4 + 1) << rank;
    EXPECT_EQ(first->str(), "BW1.0");
  }
}

// A remainder widens the groups: 3 micro-batches over 2 stages pass each chunk together.
TEST(Schedule, InterleavedSpreadsTheRemainder) {
  EXPECT_EQ(order(schedule_interleaved_1f1b(2, 2, 3), 1),
            "F0.0 F0.1 F0.2 F1.0 BW1.0 F1.1 BW1.1 F1.2 BW1.2 BW0.0 BW0.1 BW0.2");
}

// Qi et al. 2023, figure 3.
TEST(Schedule, ZeroBubbleByHand) {
  const Schedule schedule = schedule_zb_h1(4, 8);
  EXPECT_EQ(order(schedule, 0), "F0 F1 F2 F3 B0 W0 F4 B1 W1 F5 B2 W2 F6 B3 W3 F7 B4 W4 B5 W5 B6 W6 B7 W7");
  EXPECT_EQ(order(schedule, 3), "F0 B0 F1 B1 F2 B2 F3 B3 W0 F4 B4 W1 F5 B5 W2 F6 B6 W3 F7 B7 W4 W5 W6 W7");
}

TEST(Schedule, BackwardsAreFullOnlyWithoutZeroBubble) {
  for (const auto& actions : schedule_interleaved_1f1b(3, 2, 7).ranks) {
    for (const Action& action : actions) EXPECT_TRUE(action.kind == forward || action.kind == backward_full);
  }
  for (const auto& actions : schedule_zb_h1(3, 7).ranks) {
    for (const Action& action : actions) EXPECT_NE(action.kind, backward_full);
  }
}

// Idle share (p - 1) / (m + p - 1) for 1F1B; each of v chunks takes 1 / v of the time: (p - 1) / (v m + p - 1).
TEST(Schedule, BubblesOfThePapers) {
  int cases = 0;
  for (int p = 1; p <= 8; ++p) {
    for (int m = 1; m <= 17; ++m) {
      for (const ActionTimes& times : {ActionTimes{1, 0.5, 0.5}, ActionTimes{1, 1, 1}}) {
        const double ideal = (p - 1.0) / (m + p - 1.0);
        EXPECT_NEAR(simulate(schedule_1f1b(p, m), times).bubble(), ideal, 1e-12) << p << " " << m;
        for (int v = 2; v <= 4 && m >= p && p > 1; ++v) {
          const double interleaved = (p - 1.0) / (v * m + p - 1.0);
          EXPECT_NEAR(simulate(schedule_interleaved_1f1b(p, v, m), times).bubble(), interleaved, 1e-12)
              << p << " " << v << " " << m;
          ++cases;
        }
      }
    }
  }
  EXPECT_EQ(cases, 546);
}

// Idle time (p - 1) (F + B - W): with equal times a third of 1F1B's (p - 1) (F + B + W).
TEST(Schedule, ZeroBubbleHasAThirdOfTheBubble) {
  for (int p = 1; p <= 8; ++p) {
    for (int m = p; m <= 17; ++m) {
      EXPECT_DOUBLE_EQ(simulate(schedule_1f1b(p, m), unit).end, 3 * m + 3 * (p - 1));
      EXPECT_DOUBLE_EQ(simulate(schedule_zb_h1(p, m), unit).end, 3 * m + (p - 1)) << p << " " << m;
    }
    for (int m = 1; m < p; ++m) {
      EXPECT_LE(simulate(schedule_zb_h1(p, m), unit).end, simulate(schedule_1f1b(p, m), unit).end);
    }
  }
}

// Micro-batches between B and W at once; a full backward defers nothing.
int most_deferred(const Schedule& schedule, int rank) {
  int now = 0, most = 0;
  for (const Action& a : schedule.ranks[rank]) {
    now += a.kind == backward ? 1 : a.kind == weight ? -1 : 0;
    most = std::max(most, now);
  }
  return most;
}

TEST(Schedule, MemoryOfOneForwardOneBackward) {
  for (int p = 1; p <= 8; ++p) {
    for (int m = 1; m <= 17; ++m) {
      const Schedule plain = schedule_1f1b(p, m), zero = schedule_zb_h1(p, m);
      for (int rank = 0; rank < p; ++rank) {
        EXPECT_EQ(plain.max_in_flight(rank, 0), std::min(p - rank, m));
        EXPECT_EQ(plain.max_held(rank, 0), std::min(p - rank, m));
        EXPECT_EQ(most_deferred(plain, rank), 0);
        // ZB-H1 has the same forwards in flight; with the W it holds back, each rank keeps what rank 0 of 1F1B keeps.
        EXPECT_EQ(zero.max_in_flight(rank, 0), std::min(p - rank, m));
        EXPECT_EQ(most_deferred(zero, rank), std::min(rank + 1, m));
        EXPECT_EQ(zero.max_held(rank, 0), std::min(p, m));
      }
    }
  }
}

// One chunk more than the warm-up: 2 (p - 1 - rank) + (v - 1) g + 1, with g the micro-batches of a group.
TEST(Schedule, MemoryOfInterleaved) {
  for (int p = 2; p <= 8; ++p) {
    for (int v = 2; v <= 4; ++v) {
      for (int m = 1; m <= 17; ++m) {
        const Schedule schedule = schedule_interleaved_1f1b(p, v, m);
        const int groups = std::max(1, m / p), largest = (m + groups - 1) / groups;
        for (int rank = 0; rank < p; ++rank) {
          int now = 0, most = 0;
          for (const Action& a : schedule.ranks[rank]) most = std::max(most, now += a.kind == forward ? 1 : -1);
          EXPECT_EQ(most, std::min(v * m, 2 * (p - 1 - rank) + (v - 1) * largest + 1)) << p << " " << v << " " << m;
        }
      }
    }
  }
  const Schedule schedule = schedule_interleaved_1f1b(4, 2, 16);
  EXPECT_EQ(schedule.max_in_flight(0, 0), 8);
  EXPECT_EQ(schedule.max_in_flight(0, 1), 4);
  EXPECT_EQ(schedule.max_in_flight(3, 0), 5);
  EXPECT_EQ(schedule.max_in_flight(3, 1), 1);
}

TEST(Schedule, EverySmallScheduleIsValid) {
  int cases = 0;
  for (int p = 1; p <= 8; ++p) {
    for (int m = 1; m <= 17; ++m) {
      for (int v = 1; v <= 4; ++v) {
        const Schedule schedule = v == 1 ? schedule_1f1b(p, m) : schedule_interleaved_1f1b(p, v, m);
        EXPECT_NO_THROW(validate(schedule)) << p << " " << v << " " << m;
        const Timeline timeline = simulate(schedule, unit);
        for (const auto& spans : timeline.ranks) EXPECT_EQ(spans.size(), 2U * v * m);
        ++cases;
      }
      EXPECT_NO_THROW(validate(schedule_zb_h1(p, m))) << p << " " << m;
      ++cases;
    }
  }
  EXPECT_EQ(cases, 8 * 17 * 5);
}

TEST(Schedule, ManyRanksAndMicroBatches) {
  validate(schedule_1f1b(64, 256));
  validate(schedule_zb_h1(64, 100));
  validate(schedule_interleaved_1f1b(16, 8, 37));
}

TEST(ScheduleValidator, FindsMissingDuplicatedAndForeignActions) {
  Schedule missing = schedule_zb_h1(3, 4);
  missing.ranks[1].pop_back();
  EXPECT_TRUE(contains(verdict(missing), "rank 1 never runs W0.3")) << verdict(missing);

  Schedule twice = schedule_1f1b(3, 4);
  twice.ranks[2].push_back({backward_full, 0, 1});
  EXPECT_TRUE(contains(verdict(twice), "rank 2 runs BW0.1 a second time")) << verdict(twice);

  Schedule both = schedule_1f1b(3, 4);
  both.ranks[0].push_back({weight, 0, 0});
  EXPECT_TRUE(contains(verdict(both), "rank 0 runs W0.0 a second time")) << verdict(both);

  Schedule foreign = schedule_1f1b(3, 4);
  foreign.ranks[0].push_back({forward, 0, 4});
  EXPECT_TRUE(contains(verdict(foreign), "rank 0 has no F0.4")) << verdict(foreign);
  foreign = schedule_1f1b(3, 4);
  foreign.ranks[0].push_back({forward, 1, 0});
  EXPECT_TRUE(contains(verdict(foreign), "rank 0 has no F1.0")) << verdict(foreign);

  Schedule ranks = schedule_1f1b(3, 4);
  ranks.ranks.pop_back();
  EXPECT_TRUE(contains(verdict(ranks), "orders for 2 ranks")) << verdict(ranks);
}

TEST(ScheduleValidator, FindsWhatCanNeverRun) {
  Schedule backward_first = schedule_1f1b(2, 2);
  std::swap(backward_first.ranks[1][0], backward_first.ranks[1][1]);
  EXPECT_TRUE(contains(verdict(backward_first), "rank 1 can never run BW0.0 (action 0): its F has not run"))
      << verdict(backward_first);

  Schedule weight_first = schedule_zb_h1(1, 1);
  std::swap(weight_first.ranks[0][1], weight_first.ranks[0][2]);
  EXPECT_TRUE(contains(verdict(weight_first), "rank 0 can never run W0.0 (action 1): its B has not run"))
      << verdict(weight_first);

  // Each rank waits for the other: rank 0 for B of micro-batch 0, rank 1 for F of micro-batch 1.
  Schedule deadlock = schedule_1f1b(2, 2);
  deadlock.ranks[0] = {{forward, 0, 0}, {backward_full, 0, 0}, {forward, 0, 1}, {backward_full, 0, 1}};
  deadlock.ranks[1] = {{forward, 0, 0}, {forward, 0, 1}, {backward_full, 0, 0}, {backward_full, 0, 1}};
  EXPECT_TRUE(contains(verdict(deadlock), "rank 0 can never run BW0.0 (action 1): B0.0 of rank 1 has not run"))
      << verdict(deadlock);

  // Received in another order than sent.
  Schedule overtaking = schedule_1f1b(2, 2);
  std::swap(overtaking.ranks[0][0], overtaking.ranks[0][1]);
  EXPECT_TRUE(contains(verdict(overtaking), "it needs F0.0 of rank 0, but F0.1 arrives first")) << verdict(overtaking);

  // A chunk before the one that feeds it.
  Schedule wrap = schedule_interleaved_1f1b(2, 2, 1);
  std::swap(wrap.ranks[0][0], wrap.ranks[0][1]);
  EXPECT_TRUE(contains(verdict(wrap), "rank 0 can never run F1.0 (action 0): F0.0 of rank 1 has not run"))
      << verdict(wrap);
}

// Dropping, repeating or moving any one action across one that it depends on is found.
TEST(ScheduleValidator, CatchesEverySingleCorruption) {
  int cases = 0;
  for (const Schedule& good :
       {schedule_1f1b(3, 4), schedule_interleaved_1f1b(2, 2, 3), schedule_zb_h1(3, 4), schedule_zb_h1(1, 2)}) {
    for (int rank = 0; rank < good.stages; ++rank) {
      for (std::size_t i = 0; i < good.ranks[rank].size(); ++i) {
        const Action action = good.ranks[rank][i];
        Schedule bad = good;
        bad.ranks[rank].erase(bad.ranks[rank].begin() + static_cast<std::ptrdiff_t>(i));
        EXPECT_THROW(validate(bad), Error) << "without " << action.str();
        if (action.kind != forward) {
          bad.ranks[rank].insert(bad.ranks[rank].begin(), action);
          EXPECT_THROW(validate(bad), Error) << "too early " << action.str();
        } else {
          bad.ranks[rank].push_back(action);
          EXPECT_THROW(validate(bad), Error) << "too late " << action.str();
        }
        bad = good;
        bad.ranks[rank].push_back(action);
        EXPECT_THROW(validate(bad), Error) << "twice " << action.str();
        cases += 3;
      }
    }
  }
  EXPECT_EQ(cases, 3 * (3 * 8 + 2 * 12 + 3 * 12 + 6));
}

TEST(Schedule, SimulateRefusesADeadlock) {
  Schedule stuck = schedule_1f1b(2, 1);
  std::swap(stuck.ranks[0][0], stuck.ranks[0][1]);
  EXPECT_THROW(simulate(stuck, unit), Error);
  stuck = schedule_1f1b(2, 1);
  stuck.ranks[1].clear();
  const Error error = error_of([&] { simulate(stuck, unit); });
  EXPECT_TRUE(contains(error.what(), "rank 0 can never run BW0.0 (action 1): B0.0 of rank 1 has not run"))
      << error.what();
}

TEST(Schedule, TimelineOfASmallCase) {
  const Timeline timeline = simulate(schedule_1f1b(2, 1), {1, 2, 3});
  EXPECT_DOUBLE_EQ(timeline.ranks[1][0].begin, 1);
  EXPECT_DOUBLE_EQ(timeline.ranks[1][1].end, 7);
  EXPECT_DOUBLE_EQ(timeline.ranks[0][1].begin, 7);
  EXPECT_DOUBLE_EQ(timeline.end, 12);
  EXPECT_DOUBLE_EQ(timeline.bubble(), 0.5);
}

TEST(Schedule, ByKind) {
  using enum ScheduleKind;
  EXPECT_EQ(make_schedule(one_f_one_b, 4, 1, 8).ranks, schedule_1f1b(4, 8).ranks);
  EXPECT_EQ(make_schedule(interleaved, 4, 2, 8).ranks, schedule_interleaved_1f1b(4, 2, 8).ranks);
  EXPECT_EQ(make_schedule(zero_bubble, 4, 1, 8).ranks, schedule_zb_h1(4, 8).ranks);
  for (const ScheduleKind kind : {one_f_one_b, interleaved}) {
    EXPECT_EQ(order(make_schedule(kind, 1, 1, 2), 0), "F0 BW0 F1 BW1");
  }
}

TEST(Schedule, UserErrorsNameTheNumbersAndAWayOut) {
  using enum ScheduleKind;
  const auto expect = [](ScheduleKind kind, int stages, int chunks, int micro_batches, const std::string& what,
                         const std::string& hint) {
    const Error error = error_of([&] { make_schedule(kind, stages, chunks, micro_batches); });
    EXPECT_EQ(error.kind(), ErrorKind::user);
    EXPECT_TRUE(contains(error.what(), what)) << error.what();
    EXPECT_TRUE(contains(error.hint(), hint)) << error.hint();
  };
  expect(interleaved, 4, 1, 8, "interleaved1f1b needs at least 2 chunks on each of its 4 stages, not 1",
         "choose schedule 1f1b");
  expect(zero_bubble, 4, 2, 8, "zb-h1 takes 1 chunk per rank, not 2", "choose schedule interleaved1f1b");
  expect(one_f_one_b, 4, 3, 8, "1f1b takes 1 chunk per rank, not 3", "choose schedule interleaved1f1b");
  expect(one_f_one_b, 4, 1, 0, "1f1b with 0 micro-batches", "raise the global batch size");
  expect(interleaved, 4, 2, -1, "interleaved1f1b with -1 micro-batches", "raise the global batch size");
  expect(zero_bubble, 0, 1, 8, "zb-h1 over 0 stages of 1 chunks", "at least 1");
  expect(interleaved, 2, 0, 8, "interleaved1f1b over 2 stages of 0 chunks", "at least 1");
}

}  // namespace
}  // namespace sluice
