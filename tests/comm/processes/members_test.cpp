// How processes introduce themselves, and who is refused.
#include "comm/processes/members.h"

#include <gtest/gtest.h>

#include <climits>
#include <random>

#include "base/error.h"

namespace sluice {
namespace {

Member member(int process, const std::string& host, int first_rank, int ranks) {
  return {.process = process, .host = host, .first_rank = first_rank, .ranks = ranks, .common = {{"version", "0.6.1"}}};
}

std::string refusal(const std::vector<Member>& members, int world) {
  try {
    check_members(members, world);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::user);
    EXPECT_FALSE(error.hint().empty());
    return error.what();
  }
  return "";
}

std::string all_bytes() {
  std::string text;
  for (int byte = 0; byte < 256; ++byte) text += static_cast<char>(byte);
  return text;
}

TEST(Members, SayTheirRanksAndHost) {
  EXPECT_EQ(member(1, "b", 4, 4).str(), "ranks 4-7 on host b");
  EXPECT_EQ(member(1, "b", 4, 1).str(), "rank 4 on host b");
  EXPECT_EQ(member(1, "b\x1b[2J", 4, 1).str(), "rank 4 on host b\\x1b[2J");
  EXPECT_EQ(member(1, "b", INT_MAX, 2).str(), "ranks 2147483647-2147483648 on host b");
}

TEST(Members, ALineReadsBackAsTheSameMember) {
  EXPECT_EQ(to_line(member(1, "node b", 4, 4)), "process=1 host=node%20b first_rank=4 ranks=4 version=0.6.1");
  std::vector<Member> members{{}, member(1, "b", 4, 4), member(INT_MAX, all_bytes(), INT_MIN, -1)};
  members[1].common = {{"", ""}, {all_bytes(), all_bytes()}, {"a=b", "c d"}, {"process", "2"}};
  for (const Member& m : members) {
    const std::string line = to_line(m);
    for (const char c : line) EXPECT_TRUE(c >= ' ' && c <= '~') << static_cast<int>(c);
    Member read = member(9, "x", 9, 9);
    ASSERT_TRUE(from_line(line, read)) << line;
    EXPECT_EQ(read, m);
  }
}

TEST(Members, WhatIsNoLineIsRefused) {
  const char* const lines[] = {"",
                               "process=1",
                               "process=1 host=b first_rank=4",
                               "host=b process=1 first_rank=4 ranks=4",
                               "process=1 host=b first_rank=4 ranks=four",
                               "process=1 host=b first_rank=4 ranks=",
                               "process=1 host=b first_rank=4 ranks=4x",
                               "process=1 host=b first_rank=4 ranks=99999999999",
                               "process=1 host=b first_rank=04 ranks=4",
                               "process=1 host=b first_rank=+4 ranks=4",
                               "process=1 host=b first_rank=4 ranks=4 ",
                               " process=1 host=b first_rank=4 ranks=4",
                               "process=1  host=b first_rank=4 ranks=4",
                               "process=1 host=b first_rank=4 ranks=4 version",
                               "process=1 host=b first_rank=4 ranks=4 a=b=c",
                               "process=1 host=b% first_rank=4 ranks=4",
                               "process=1 host=b%2 first_rank=4 ranks=4",
                               "process=1 host=b%2g first_rank=4 ranks=4",
                               "process=1 host=b%-1 first_rank=4 ranks=4",
                               "process=1 host=%62 first_rank=4 ranks=4",
                               "process=1 host=b%0a first_rank=4 ranks=4",
                               "process=1 host=b\n first_rank=4 ranks=4"};
  for (const char* line : lines) {
    Member read = member(9, "x", 9, 9);
    EXPECT_FALSE(from_line(line, read)) << line;
    EXPECT_EQ(read, member(9, "x", 9, 9)) << line;
  }
}

// One byte of a line is changed, left out or added: it is refused, or it is the line of another member.
TEST(Members, ADamagedLineIsAnotherMemberOrNone) {
  std::mt19937 random(1);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  Member m = member(1, "node \xff", 4, 4);
  m.common.emplace_back("configuration", "a b%c");
  const std::string line = to_line(m);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string damaged = line;
    const size_t at = below(line.size());
    const char byte = "%= 0Aa9\n\xff"[below(9)];
    if (i % 3 == 0) damaged[at] = byte;
    if (i % 3 == 1) damaged.erase(at, 1);
    if (i % 3 == 2) damaged.insert(at, 1, byte);
    Member read;
    if (!from_line(damaged, read)) {
      ++refused;
    } else {
      EXPECT_EQ(to_line(read), damaged);
      EXPECT_EQ(read == m, damaged == line);
    }
  }
  EXPECT_GT(refused, 1000);
  EXPECT_LT(refused, 2900);
}

TEST(Members, WhoFitTogetherPass) {
  check_members({member(0, "a", 0, 1)}, 1);
  check_members({member(0, "a", 0, 3), member(1, "b", 3, 1), member(2, "b", 4, 4)}, 8);
  // Processes need not be in the order of their ranks.
  check_members({member(0, "a", 4, 4), member(1, "b", 0, 4)}, 8);
  // What is said in another order is the same.
  std::vector<Member> members{member(0, "a", 0, 4), member(1, "b", 4, 4)};
  members[0].common = {{"version", "1"}, {"seed", "2"}};
  members[1].common = {{"seed", "2"}, {"version", "1"}};
  check_members(members, 8);
}

TEST(Members, RanksAreThereOnceEach) {
  EXPECT_EQ(refusal({member(0, "a", 0, 4), member(1, "b", 4, 2)}, 8),
            "no process has ranks 6-7: the job has 8 ranks, its 2 processes have 6");
  EXPECT_EQ(refusal({member(0, "a", 1, 1)}, 3),
            "no process has rank 0, rank 2: the job has 3 ranks, its 1 process has 1");
  EXPECT_EQ(refusal({member(0, "a", 0, 4), member(1, "b", 2, 6)}, 8),
            "ranks 2-3 are there twice: in process 0 (ranks 0-3 on host a) and in process 1 (ranks 2-7 on host b)");
  EXPECT_EQ(refusal({member(0, "a", 0, 1), member(1, "b", 0, 1)}, 2),
            "rank 0 is there twice: in process 0 (rank 0 on host a) and in process 1 (rank 0 on host b)");
  EXPECT_EQ(refusal({member(0, "a", 0, 4), member(1, "b", 4, 4)}, 4),
            "process 1 (ranks 4-7 on host b) has ranks 4-7, but the job has ranks 0 to 3");
  EXPECT_EQ(refusal({member(0, "a", INT_MAX, INT_MAX)}, 4),
            "process 0 (ranks 2147483647-4294967293 on host a) has ranks 2147483647-4294967293, but the job has ranks "
            "0 to 3");
  EXPECT_EQ(refusal({member(0, "a", -1, 2)}, 4),
            "process 0 (ranks -1-0 on host a) has ranks -1-0, but the job has ranks 0 to 3");
  EXPECT_EQ(refusal({member(0, "a", 0, 0)}, 4), "process 0 (ranks 0--1 on host a) has 0 ranks");
}

TEST(Members, WhatDiffersIsNamedWithEveryValueAndWhoHasIt) {
  std::vector<Member> members;
  for (int i = 0; i < 6; ++i) members.push_back(member(i, i < 3 ? "a" : "b", 2 * i, 2));
  members[4].common = {{"version", "0.6.2"}};
  EXPECT_EQ(refusal(members, 12),
            "the processes of the job do not agree: the version differs: 0.6.1 (ranks 0-1 on host a, ranks 2-3 on host "
            "a, ranks 4-5 on host a and 2 more processes), 0.6.2 (ranks 8-9 on host b)");

  // All that differs is said at once, as process 0 orders it.
  members = {member(0, "a", 0, 1), member(1, "b", 1, 1)};
  members[0].common = {{"version", "1"}, {"seed", "1"}, {"steps", "7"}};
  members[1].common = {{"seed", "2"}, {"version", "2"}, {"steps", "7"}};
  EXPECT_EQ(refusal(members, 2),
            "the processes of the job do not agree: the version differs: 1 (rank 0 on host a), 2 (rank 1 on host b); "
            "the seed differs: 1 (rank 0 on host a), 2 (rank 1 on host b)");

  // One who does not say it at all differs too, whoever it is.
  members[0].common = {};
  members[1].common = {{"seed", ""}};
  EXPECT_EQ(refusal(members, 2),
            "the processes of the job do not agree: the seed differs: not said (rank 0 on host a), nothing (rank 1 on "
            "host b)");
}

TEST(Members, OfSeveralLinesTheOneIsShownThatDiffers) {
  std::vector<Member> members{member(0, "a", 0, 1), member(1, "b", 1, 1)};
  const auto said = [&](const std::string& mine, const std::string& other) {
    members[0].common = {{"configuration", mine}};
    members[1].common = {{"configuration", other}};
    return refusal(members, 2);
  };
  const auto differs = [](const std::string& mine, const std::string& other) {
    return fmt::format(
        "the processes of the job do not agree: the configuration differs: {} (rank 0 on host a), {} "
        "(rank 1 on host b)",
        mine, other);
  };
  EXPECT_EQ(said("lr: 1\nseed: 7\nsteps: 9\n", "lr: 1\nseed: 78\nsteps: 9\n"), differs("seed: 7", "seed: 78"));
  EXPECT_EQ(said("lr: 1\nseed: 7\n", "lr: 2\nseed: 7\n"), differs("lr: 1", "lr: 2"));
  EXPECT_EQ(said("lr: 1\nsteps: 9\n", "lr: 1\n"), differs("steps: 9", "nothing"));
}

TEST(Members, LongValuesAreShownWhereTheyDiffer) {
  std::vector<Member> members{member(0, "a", 0, 1), member(1, "b", 1, 1)};
  const std::string same(500, 'x');
  members[0].common = {{"options", same + " --lr 1" + same}};
  members[1].common = {{"options", same + " --lr 2\x1b" + same}};
  const std::string text = refusal(members, 2);
  EXPECT_NE(text.find("x --lr 1x"), std::string::npos) << text;
  EXPECT_NE(text.find("x --lr 2\\x1bx"), std::string::npos) << text;
  EXPECT_LT(text.size(), 400U);
  // Where one ends earlier, too.
  members[1].common = {{"options", same}};
  const std::string shorter = refusal(members, 2);
  EXPECT_NE(shorter.find("x --lr 1x"), std::string::npos) << shorter;
}

}  // namespace
}  // namespace sluice
