// Launchers of several hosts, here of one machine: their processes start, fail, end and start again together.
#include "launch/hosts.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <utility>

#include "base/error.h"
#include "launch/host_letters.h"
#include "launch/run_launcher.h"
#include "support/temporary_folder.h"

namespace sluice::launch {
namespace {

using Lines = std::vector<std::string>;

// Says so, and waits for what the test does.
const std::string wait_long = "echo ready; exec 2>/dev/null; while :; do sleep 0.01; done";

class SeveralHosts : public testing::Test {
 protected:
  LocalPlan plan(int host, int restarts = 0, int hosts = 2) const {
    return {.processes = 2,
            .nodes = hosts,
            .node = host,
            .master = Address{.host = "127.0.0.1", .port = port_},
            .restarts = restarts};
  }
  // Both launchers, and how each has ended.
  std::pair<Ended, Ended> both(const std::string& script, int restarts = 0) const {
    RunningLauncher second(script, plan(1, restarts)), first(script, plan(0, restarts));
    Ended ended = first.wait();
    return {std::move(ended), second.wait()};
  }
  // Machines are called as they are called.
  std::string text(const std::string& with_name) const {
    std::string text = with_name;
    for (size_t at = 0; (at = text.find("HOST", at)) != std::string::npos;) text.replace(at, 4, machine_name());
    return text;
  }
  void TearDown() override { take_orphans(5); }

  int port_ = free_port();
  test::Folder folder_;
};

// "MASTER_PORT" of a line of a script.
std::string port_in(const std::string& line) {
  return line.substr(line.rfind(' ') + 1);
}

TEST_F(SeveralHosts, MeetAtAPortOfTheFirst) {
  const auto [first, second] = both(
      "echo \"$RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE ${SLUICE_LISTENER:+listens} $MASTER_ADDR $MASTER_PORT\"");
  EXPECT_EQ(first.code, 0) << first.err;
  EXPECT_EQ(second.code, 0) << second.err;
  const Lines lines = sorted_lines(first.out + second.out);
  ASSERT_EQ(lines.size(), 4U);
  const std::string meeting = port_in(lines[0]);
  EXPECT_NE(meeting, std::to_string(port_));
  EXPECT_EQ(lines, (Lines{"0/4 0/2 listens 127.0.0.1 " + meeting, "[1] 1/4 1/2  127.0.0.1 " + meeting,
                          "[2] 2/4 0/2  127.0.0.1 " + meeting, "[3] 3/4 1/2  127.0.0.1 " + meeting}));
}

TEST_F(SeveralHosts, AFailureOnOneEndsAllAndIsNamedOnBoth) {
  for (const int failing : {3, 0}) {
    // When all have been started.
    const std::string mark = (folder_.path() / std::to_string(failing)).string();
    const auto [first, second] =
        both(fmt::format(": >{0}.$RANK; if [ $RANK = {1} ]; then until [ $(ls {0}.* | wc -l) = 4 ]; do sleep 0.01; "
                         "done; exit 5; fi; {2}",
                         mark, failing, wait_long));
    const std::string what = fmt::format("process {} of 4 (pid ) ended with exit code 5", failing);
    const std::string here = "error: " + what + "; ending the 1 that still runs\n";
    const auto there = [&](int host) {
      return text(fmt::format("error: host {} (HOST): {}; ending the 2 that still run\n", host, what));
    };
    EXPECT_EQ(without_pids(first.err), failing == 0 ? here : there(1));
    EXPECT_EQ(without_pids(second.err), failing == 0 ? there(0) : here);
    EXPECT_EQ(first.code, 5);
    EXPECT_EQ(second.code, 5);
  }
}

TEST_F(SeveralHosts, AllStartAgainTogether) {
  // The third process is killed in its first life, when all have spoken; the others never end before its second.
  const std::string mark = (folder_.path() / "mark").string();
  const std::string script = fmt::format(
      "echo $RANK at $MASTER_PORT; : >{0}.$RANK.$MASTER_PORT; if [ $RANK = 2 ]; then [ ! -e {0} ] || {{ : >{0}2; exit "
      "0; }}; : >{0}; until [ $(ls {0}.*.$MASTER_PORT | wc -l) = 4 ]; do sleep 0.01; done; kill -9 $$; fi; until [ -e "
      "{0}2 ]; do sleep 0.01; done",
      mark);
  const auto [first, second] = both(script, 1);
  EXPECT_EQ(first.code, 0) << first.err;
  EXPECT_EQ(second.code, 0) << second.err;
  EXPECT_NE(first.err.find("\nwarning: restart 1 of 1: all 4 processes are started again\n"), std::string::npos);
  EXPECT_NE(second.err.find("\nwarning: restart 1 of 1: all 4 processes are started again\n"), std::string::npos);
  const Lines lines = sorted_lines(first.out + second.out);
  ASSERT_EQ(lines.size(), 8U);
  // Each twice, at two ports.
  for (size_t i = 0; i < lines.size(); i += 2) EXPECT_NE(port_in(lines[i]), port_in(lines[i + 1]));
}

TEST_F(SeveralHosts, AreStartedAgainAsOftenAsTheyMay) {
  const auto [first, second] = both("[ $RANK = 1 ] && exit 7; " + wait_long, 2);
  EXPECT_EQ(first.code, 7);
  EXPECT_EQ(second.code, 7);
  EXPECT_NE(second.err.find("restart 2 of 2"), std::string::npos);
}

TEST_F(SeveralHosts, AMistakeOrASignalOnOneIsNotStartedAgain) {
  const auto [first, second] = both("[ $RANK = 2 ] && exit 2; " + wait_long, 3);
  EXPECT_EQ(first.code, 2);
  EXPECT_EQ(second.code, 2);
  EXPECT_EQ((first.err + second.err).find("restart"), std::string::npos);
  for (const int told : {0, 1}) {
    RunningLauncher a(wait_long, plan(0, 3)), b(wait_long, plan(1, 3));
    a.wait_for("ready", 2);
    b.wait_for("ready", 2);
    (told == 0 ? a : b).send(SIGTERM);
    // A run's processes agree on their end; of these some fail, since others are gone.
    (told == 0 ? b : a).send(SIGKILL);
    const Ended of_a = a.wait(), of_b = b.wait();
    EXPECT_EQ(told == 0 ? of_a.code : of_b.code, 128 + SIGTERM);
    EXPECT_EQ((of_a.err + of_b.err).find("restart"), std::string::npos);
    port_ = free_port();
  }
}

TEST_F(SeveralHosts, ASignalToOneIsTheEndOfTheRunOnAll) {
  for (const int told : {0, 1}) {
    const std::string mark = folder_.path() / std::to_string(told);
    // As a run's processes agree that it ends.
    const std::string script = fmt::format(
        "if [ $((RANK / 2)) = {} ]; then trap 'touch {}; exit 143' TERM; echo ready; while :; do sleep 0.01; done; fi; "
        "echo ready; until [ -e {} ]; do sleep 0.01; done",
        told, mark, mark);
    RunningLauncher a(script, plan(0, 3)), b(script, plan(1, 3));
    a.wait_for("ready", 2);
    b.wait_for("ready", 2);
    (told == 0 ? a : b).send(SIGTERM);
    EXPECT_EQ(a.wait().code, 128 + SIGTERM) << told;
    EXPECT_EQ(b.wait().code, 128 + SIGTERM) << told;
    port_ = free_port();
  }
}

TEST_F(SeveralHosts, OneWhoseLauncherIsKilledEndsAll) {
  for (const int killed : {0, 1}) {
    RunningLauncher a(wait_long, plan(0)), b(wait_long, plan(1));
    a.wait_for("ready", 2);
    b.wait_for("ready", 2);
    (killed == 0 ? a : b).send(SIGKILL);
    const Ended of_a = a.wait(), of_b = b.wait();
    const Ended& left = killed == 0 ? of_b : of_a;
    EXPECT_EQ(left.code, 1);
    EXPECT_EQ(left.err, killed == 0 ? fmt::format("error: the launcher of host 0 at 127.0.0.1:{} is gone; ending the "
                                                  "2 that still run\n",
                                                  port_)
                                    : text("error: the launcher of host 1 (HOST) is gone; ending the 2 that still "
                                           "run\n"));
    port_ = free_port();
  }
}

TEST_F(SeveralHosts, AnotherLauncherTakesThePlaceOfOneThatWasKilled) {
  const std::string mark = (folder_.path() / "mark").string();
  const std::string script = fmt::format("[ -e {} ] && exit 0; {}", mark, wait_long);
  for (const int killed : {0, 1}) {
    auto lost = std::make_unique<RunningLauncher>(script, plan(killed, 1));
    RunningLauncher left(script, plan(1 - killed, 1));
    lost->wait_for("ready", 2);
    left.wait_for("ready", 2);
    std::ofstream(mark).flush();
    lost->send(SIGKILL);
    lost->wait();
    EXPECT_EQ(run_launcher(script, plan(killed, 1)).code, 0);
    const Ended ended = left.wait();
    EXPECT_EQ(ended.code, 0) << ended.err;
    EXPECT_NE(ended.err.find("restart 1 of 1"), std::string::npos);
    std::filesystem::remove(mark);
    port_ = free_port();
  }
}

TEST_F(SeveralHosts, LaunchersThatDoNotFitTogetherStartNothing) {
  LocalPlan more = plan(1);
  more.processes = 3;
  const auto differs = [&](const char* what, int theirs, int ours) {
    return text(
        fmt::format("the launcher of host 1 (HOST) was given {} {}, that of host 0 (HOST) {}\n"
                    "       give all launchers the same, and each run a port of its own (--master)",
                    what, theirs, ours));
  };
  for (const auto& [second, said] : {std::pair{more, differs("--nproc", 3, 2)},
                                     {plan(1, 4), differs("--restarts", 4, 0)},
                                     {plan(1, 0, 3), differs("--nnodes", 3, 2)}}) {
    RunningLauncher b("echo started", second), a("echo started", plan(0));
    const Ended of_a = a.wait(), of_b = b.wait();
    EXPECT_EQ(of_a.err, "command line: " + said);
    EXPECT_EQ(of_b.err, said);  // its own words
    EXPECT_EQ(of_a.out + of_b.out, "");
  }
  RunningLauncher one("echo started", plan(1, 0, 3)), two("echo started", plan(1, 0, 3)),
      a("echo started", plan(0, 0, 3));
  EXPECT_NE(a.wait().err.find(text("two launchers say that they are host 1: that of HOST and that of HOST")),
            std::string::npos);
}

TEST_F(SeveralHosts, OneThatDoesNotComeIsNamed) {
  const LaunchTimes soon{.meeting_s = 0.2};
  EXPECT_EQ(
      run_launcher("echo started", plan(0, 0, 3), soon).err,
      text(fmt::format("the launcher of host 0 (HOST) has waited at 127.0.0.1:{} for 0.2 s for hosts 1 and 2 of 3\n"
                       "       look at what the launchers there say: each is to be started, with this address "
                       "and its own --node-rank",
                       port_)));
  EXPECT_EQ(
      run_launcher("echo started", plan(1), soon).err,
      text(fmt::format("the launcher of host 1 (HOST) has not found the launcher of host 0 at 127.0.0.1:{} within "
                       "0.2 s: Connection refused\n"
                       "       look at what that one says: it is to be started on the host of this name, with the "
                       "same --master",
                       port_)));
  // Who waits is ended by a signal, and who waits with it is told.
  RunningLauncher waits("echo started", plan(0, 0, 3)), with_it("echo started", plan(1, 0, 3));
  ::usleep(300'000);
  waits.send(SIGINT);
  EXPECT_EQ(waits.wait().code, 128 + SIGINT);
  const Ended told = with_it.wait();
  EXPECT_EQ(told.err, text("the launcher of host 0 (HOST) has given up\n       look at what it says"));
}

TEST(HostLetters, AreReadAsTheyWereWritten) {
  const HostIntroduction introduction{.host = 3, .hosts = 4, .processes = 8, .restarts = 2, .name = "a b\nc"};
  EXPECT_EQ(host_introduction_of(to_text(introduction)), introduction);
  const HostNews news{.kind = HostNews::Kind::over, .code = 137, .port = 9, .failure = true, .text = "x\n\n y"};
  EXPECT_EQ(host_news_of(to_text(news)), news);
  for (const char* wrong : {"", "1 2 3 4", "1 2 3\nx", "1 2 3 x\n", " 1 2 3 4\nx", "1  2 3 4\nx", "1 2 3 4 \nx"}) {
    EXPECT_FALSE(host_introduction_of(wrong)) << wrong;
  }
  for (const char* wrong : {"", "6 0 0 0 0\n", "-1 0 0 0 0\n", "1 0 0 2 0\n", "1 0 0 0\n", "1 0 0 0 0"}) {
    EXPECT_FALSE(host_news_of(wrong)) << wrong;
  }
}

}  // namespace
}  // namespace sluice::launch
