// The processes of one host: what they are told, what is seen of them, how they end, together and with the launcher.
#include "launch/local_processes.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>

#include "base/clock.h"
#include "base/error.h"
#include "launch/run_launcher.h"
#include "support/temporary_folder.h"

namespace sluice::launch {
namespace {

constexpr double kEver = 30;  // what takes so long was not ended

using Lines = std::vector<std::string>;

void expect_none_left() {
  take_orphans(1);
}

// Says so, and waits for what the test does.
const std::string wait_long = "echo ready; exec 2>/dev/null; while :; do sleep 0.01; done";

TEST(LocalProcesses, LinesNameTheProcessUnlessItIsTheFirst) {
  const Ended ended = run_launcher("echo out; echo err >&2; echo; printf 'no end'", {.processes = 3});
  EXPECT_EQ(ended.code, 0);
  EXPECT_EQ(sorted_lines(ended.out),
            (Lines{"", "[1] ", "[1] no end", "[1] out", "[2] ", "[2] no end", "[2] out", "no end", "out"}));
  EXPECT_EQ(sorted_lines(ended.err), (Lines{"[1] err", "[2] err", "err"}));
  expect_none_left();
}

TEST(LocalProcesses, TheFirstOnesOutputIsPassedOnExactly) {
  const Ended ended = run_launcher(R"(printf 'a\rb\r\n\001\377no end')", {});
  EXPECT_EQ(ended.out, "a\rb\r\n\001\377no end");
  EXPECT_EQ(ended.err, "");
}

TEST(LocalProcesses, EachIsToldWhoItIs) {
  const std::string script =
      "echo \"$RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR:$MASTER_PORT $OMP_NUM_THREADS"
      "${SLUICE_LISTENER:+ listens}\"; cat";
  const LocalPlan told{.processes = 2, .master = Address{.host = "n0", .port = 4711}};
  EXPECT_EQ(sorted_lines(run_launcher(script, told).out), (Lines{"0/2 0/2 n0:4711 7", "[1] 1/2 1/2 n0:4711 7"}));
  // On one host process 0 gets the listener of a port that was free.
  const Ended ended = run_launcher(
      R"(echo "$MASTER_ADDR:$MASTER_PORT"; [ -z "$SLUICE_LISTENER" ] || readlink /proc/$$/fd/$SLUICE_LISTENER)",
      {.processes = 2});
  const Lines lines = sorted_lines(ended.out);
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[0].substr(0, 10), "127.0.0.1:");
  EXPECT_EQ(lines[1], "[1] " + lines[0]);
  EXPECT_EQ(lines[2].substr(0, 8), "socket:[");
  expect_none_left();
}

TEST(LocalProcesses, TheFirstFailureEndsTheOthersAndIsNamed) {
  // The last one, when all have been started.
  const std::string fails = "[ $RANK = $((WORLD_SIZE - 1)) ] || { " + wait_long + "; }; ";
  const Ended code = run_launcher(fails + "exit 3", {.processes = 3});
  EXPECT_EQ(code.code, 3);
  EXPECT_EQ(without_pids(code.err),
            "error: process 2 of 3 (pid ) ended with exit code 3; ending the 2 that still run\n");
  const Ended mistake = run_launcher("exit 2", {});
  EXPECT_EQ(mistake.code, 2);
  EXPECT_EQ(without_pids(mistake.err),
            "error: process 0 of 1 (pid ) ended with exit code 2 (a mistake in the command or its files)\n");
  const Ended crash = run_launcher(fails + "kill -SEGV $$", {.processes = 2});
  EXPECT_EQ(crash.code, 128 + SIGSEGV);
  EXPECT_EQ(without_pids(crash.err),
            "error: process 1 of 2 (pid ) was killed by SIGSEGV (Segmentation fault); ending the 1 that still runs\n");
  const Ended killed = run_launcher("kill -KILL $$", {});
  EXPECT_EQ(killed.code, 128 + SIGKILL);
  EXPECT_EQ(without_pids(killed.err),
            "error: process 0 of 1 (pid ) was killed by SIGKILL (sent by hand, by a scheduler, or by the system when "
            "memory ran out)\n");
  const Ended asked = run_launcher("exit 143", {});
  EXPECT_EQ(without_pids(asked.err), "error: process 0 of 1 (pid ) ended with exit code 143 (after SIGTERM)\n");
  expect_none_left();
}

TEST(LocalProcesses, NoMoreAreStartedWhenOneHasFailedOrASignalHasCome) {
  constexpr int kMany = 100'000;
  const Ended failed = run_launcher("exit 2", {.processes = kMany});
  EXPECT_EQ(failed.code, 2);
  RunningLauncher launcher(wait_long, {.processes = kMany});
  launcher.wait_for("ready");
  launcher.send(SIGTERM);
  EXPECT_EQ(launcher.wait().code, 128 + SIGTERM);
  expect_none_left();
}

TEST(LocalProcesses, WhatAFailedOneSaidLastStandsBeforeItsEnd) {
  const Ended ended = run_launcher("[ $RANK = 0 ] || { echo 'error: why' >&2; exit 1; }", {.processes = 2});
  EXPECT_EQ(without_pids(ended.err).substr(0, 63), "[1] error: why\nerror: process 1 of 2 (pid ) ended with exit cod");
  EXPECT_EQ(ended.code, 1);
}

TEST(LocalProcesses, TheOthersMaySaveUntilTheirTimeIsOver) {
  const Stopwatch watch;
  const Ended saved = run_launcher(
      "if [ $RANK = 1 ]; then sleep 0.1; exit 1; fi; trap 'sleep 0.1; echo saved; exit 0' TERM; " + wait_long,
      {.processes = 2}, {.grace_s = kEver});
  EXPECT_EQ(sorted_lines(saved.out), (Lines{"ready", "saved"}));
  EXPECT_EQ(saved.code, 1);
  const Ended deaf = run_launcher("if [ $RANK = 2 ]; then sleep 0.1; exit 1; fi; trap '' TERM; " + wait_long,
                                  {.processes = 3}, {.grace_s = 0.1});
  EXPECT_EQ(deaf.code, 1);
  EXPECT_EQ(without_pids(deaf.err),
            "error: process 2 of 3 (pid ) ended with exit code 1; ending the 2 that still run\n"
            "warning: processes 0 and 1 did not end within 0.1 s and are killed\n");
  // One that was stopped hears it.
  const Ended stopped =
      run_launcher("if [ $RANK = 1 ]; then sleep 0.1; exit 1; fi; kill -STOP $$", {.processes = 2}, {.grace_s = kEver});
  EXPECT_EQ(stopped.code, 1);
  EXPECT_LT(watch.seconds(), kEver);
  expect_none_left();
}

TEST(LocalProcesses, SignalsReachAllAndAreNoFailure) {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2}) {
    SCOPED_TRACE(signal);
    // The first ends at once, the second in its own time.
    RunningLauncher launcher(fmt::format("trap '[ $RANK = 0 ] || {{ sleep 0.05; echo saved; }}; exit {0}' {1}; {2}",
                                         128 + signal, sigabbrev_np(signal), wait_long),
                             {.processes = 2, .restarts = 3}, {.grace_s = 0.01});
    launcher.wait_for("ready", 2);
    launcher.send(signal);
    const Ended ended = launcher.wait();
    EXPECT_EQ(ended.code, 128 + signal);
    EXPECT_EQ(ended.err, "");
    EXPECT_EQ(sorted_lines(ended.out), (Lines{"[1] ready", "[1] saved", "ready"}));
  }
  // Those that do not listen end as by the signal itself.
  RunningLauncher launcher(wait_long, {.processes = 2});
  launcher.wait_for("ready", 2);
  launcher.send(SIGTERM);
  const Ended ended = launcher.wait();
  EXPECT_EQ(ended.code, 128 + SIGTERM);
  EXPECT_EQ(ended.err, "");
  expect_none_left();
}

TEST(LocalProcesses, EverySignalIsPassedOn) {
  RunningLauncher launcher("trap 'trap \"exit 7\" INT; echo one' INT; " + wait_long, {});
  launcher.wait_for("ready");
  launcher.send(SIGINT);
  launcher.wait_for("one");
  launcher.send(SIGINT);
  const Ended ended = launcher.wait();
  EXPECT_EQ(ended.code, 7);
}

TEST(LocalProcesses, AStoppedLauncherStopsAllAndGoesOnWithAll) {
  RunningLauncher launcher("trap 'echo on; exit 0' CONT; " + wait_long, {.processes = 2});
  launcher.wait_for("ready", 2);
  launcher.send(SIGTSTP);
  launcher.wait_stopped();
  launcher.send(SIGCONT);
  EXPECT_EQ(launcher.wait().code, 0);
  expect_none_left();
}

TEST(LocalProcesses, StartsAgainAsOftenAsItMay) {
  const test::Folder folder;
  // Fails until there are as many marks.
  const auto failing = [&](const std::string& name, int times, int code) {
    const std::string marks = (folder.path() / name).string();
    return fmt::format("[ $RANK = 0 ] || exit 0; echo x >>{0}; [ $(wc -l <{0}) -gt {1} ] || exit {2}; echo done", marks,
                       times, code);
  };
  const Ended twice = run_launcher(failing("twice", 2, 1), {.processes = 2, .restarts = 2});
  EXPECT_EQ(twice.code, 0);
  EXPECT_EQ(twice.out, "done\n");
  EXPECT_NE(twice.err.find("\nwarning: restart 1 of 2: all 2 processes are started again\n"), std::string::npos);
  EXPECT_NE(twice.err.find("\nwarning: restart 2 of 2: all 2 processes are started again\n"), std::string::npos);
  const Ended too_often = run_launcher(failing("often", 2, 5), {.restarts = 1});
  EXPECT_EQ(too_often.code, 5);
  EXPECT_EQ(without_pids(too_often.err),
            "error: process 0 of 1 (pid ) ended with exit code 5\n"
            "warning: restart 1 of 1: the process is started again\n"
            "error: process 0 of 1 (pid ) ended with exit code 5\n");
  // What the same command would end with again.
  const Ended mistake = run_launcher(failing("mistake", 1, 2), {.restarts = 1});
  EXPECT_EQ(mistake.code, 2);
  EXPECT_EQ(mistake.err.find("restart"), std::string::npos);
  expect_none_left();
}

TEST(LocalProcesses, AFailureAfterASignalIsNotStartedAgain) {
  RunningLauncher launcher("trap 'exit 1' TERM; " + wait_long, {.processes = 2, .restarts = 3});
  launcher.wait_for("ready", 2);
  launcher.send(SIGTERM);
  const Ended ended = launcher.wait();
  EXPECT_EQ(ended.code, 1);
  EXPECT_EQ(ended.err.find("restart"), std::string::npos);
  expect_none_left();
}

TEST(LocalProcesses, AllEndWithTheLauncher) {
  RunningLauncher launcher("trap '' TERM INT HUP; " + wait_long, {.processes = 3});
  launcher.wait_for("ready", 3);
  launcher.send(SIGKILL);
  EXPECT_EQ(launcher.wait().code, 128 + SIGKILL);
  EXPECT_GE(take_orphans(kEver), 3);
}

TEST(LocalProcesses, WhatTheyLeaveRunningEndsWithThem) {
  const Stopwatch watch;
  const Ended ended = run_launcher("sleep 100 & echo left", {.processes = 2});
  EXPECT_EQ(ended.code, 0);
  EXPECT_EQ(sorted_lines(ended.out), (Lines{"[1] left", "left"}));
  EXPECT_LT(watch.seconds(), kEver);
  take_orphans(kEver);  // killed, whoever their parent is
}

TEST(LocalProcesses, ASlowReaderHoldsUpNoSignal) {
  // More than all pipes and the launcher hold: the processes wait for the reader when the signal comes.
  RunningLauncher launcher(
      "trap 'exit 143' TERM; echo ready; i=0; until [ $i = 24 ]; do printf '%131072s\\n' x; i=$((i+1)); done",
      {.processes = 2});
  launcher.wait_for("ready", 2);
  launcher.stop_reading();
  ::usleep(100'000);
  launcher.send(SIGTERM);
  const Ended ended = launcher.wait();
  EXPECT_EQ(ended.code, 128 + SIGTERM);
  EXPECT_EQ(ended.err, "warning: stdout was not read to its end: not all that was printed has arrived\n");
  expect_none_left();
}

TEST(LocalProcesses, AReaderThatGoesAndAFullDiskAreSaid) {
  RunningLauncher launcher("echo ready; sleep 0.05; echo more", {});
  launcher.wait_for("ready");
  launcher.close_reader();
  const Ended gone = launcher.wait();
  EXPECT_EQ(gone.code, 0);
  EXPECT_EQ(gone.err, "warning: stdout was not read to its end: not all that was printed has arrived\n");
  const Ended full = run_launcher("echo lost", {}, kTestTimes, RunningLauncher::Output::full_disk);
  EXPECT_EQ(full.code, 1);
  EXPECT_EQ(full.err, "error: not all of stdout could be written: No space left on device\n");
}

TEST(LocalProcesses, ATerminalIsTheFirstOnesOwn) {
  const Ended ended =
      run_launcher("[ -t 1 ] && [ -t 2 ] && echo terminal $RANK; [ $RANK = 0 ] || echo none; sleep 0.02",
                   {.processes = 2}, kTestTimes, RunningLauncher::Output::terminal);
  EXPECT_EQ(ended.code, 0);
  EXPECT_NE(ended.out.find("terminal 0\r\n"), std::string::npos) << ended.out;
  EXPECT_NE(ended.out.find("\r\033[K[1] none\r\n"), std::string::npos) << ended.out;
}

TEST(LocalProcesses, AProgramThatIsNotThereIsNamed) {
  try {
    run_processes({"/nowhere/sluice", "train"}, {.processes = 2});
    FAIL() << "it was started";
  } catch (const Error& error) {
    EXPECT_EQ(describe(error), "cannot run /nowhere/sluice: No such file or directory");
    EXPECT_EQ(error.kind(), ErrorKind::user);
  }
  expect_none_left();
}

}  // namespace
}  // namespace sluice::launch
