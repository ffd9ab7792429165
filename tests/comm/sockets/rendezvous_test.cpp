// How processes meet: who is let in, and what all are told where something is wrong.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <future>

#include "comm/sockets/contacts.h"
#include "comm/sockets/letters.h"
#include "comm/sockets/socket_processes.h"

namespace sluice::test {
namespace {

using testing::internal::CaptureStderr;
using testing::internal::GetCapturedStderr;

class Meeting : public Sockets {
 protected:
  static Rendezvous at(int port, double timeout_s = 60) {
    return {.host = "127.0.0.1", .port = port, .timeout_s = timeout_s};
  }
  // The error of the one process that is connected.
  static Error error_of_process(const Rendezvous& meeting, int process, int processes,
                                std::optional<Listener> listener = std::nullopt) {
    std::vector<Member> members;
    try {
      connect_by_sockets(meeting, member_of(process, processes), processes, processes, members, std::move(listener));
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << "the process was connected";
    return {ErrorKind::internal, ""};
  }
  // Somebody who connects to a port; what it says is in the test's hands.
  static Descriptor visitor(int port) {
    Descriptor socket(-1);
    EXPECT_EQ(connect_to(*SocketAddress::parse("127.0.0.1", port), soon(), socket), 0);
    return socket;
  }
  static void say(const Descriptor& socket, const std::string& bytes) {
    EXPECT_EQ(::send(socket.number(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  static std::string introduction(int process, int processes) {
    return to_text(Introduction{.member = member_of(process, processes),
                                .processes = processes,
                                .world = processes,
                                .port = 1,
                                .local = "nobody"});
  }
  static Letter answer(Correspondent& from) {
    EXPECT_EQ(from.read_until(soon(), 1 << 20), Correspondent::State::complete);
    return from.take_letter();
  }
  // All of them ended with the same words.
  static std::string common_refusal(const std::vector<Outcome>& outcomes, ErrorKind kind = ErrorKind::user) {
    std::string text;
    for (const Outcome& outcome : outcomes) {
      if (!outcome.error) {
        ADD_FAILURE() << "a process was connected";
        continue;
      }
      EXPECT_EQ(outcome.error->kind(), kind);
      EXPECT_FALSE(outcome.error->hint().empty());
      if (text.empty()) text = outcome.error->what();
      EXPECT_EQ(outcome.error->what(), text);
    }
    return text;
  }
};

TEST_F(Meeting, ProcessesThatDoNotFitAreAllToldWhy) {
  const auto change = [](Member& self, int&, int&) {
    if (self.process == 2) self.common[0].second = "other";
  };
  EXPECT_EQ(
      common_refusal(run_processes(3, at(0), nullptr, change)),
      "the processes of the job do not agree: the processes differs: 3 (rank 0 on host host0, rank 1 on host host1), "
      "other (rank 2 on host host2)");
}

TEST_F(Meeting, AProcessThatComesTwiceEndsAll) {
  const auto change = [](Member& self, int&, int&) {
    if (self.process == 2) self.process = 1;
  };
  const std::string text = common_refusal(run_processes(3, at(0), nullptr, change));
  EXPECT_TRUE(text == "process 1 is there twice: with rank 1 on host host1 and with rank 2 on host host2" ||
              text == "process 1 is there twice: with rank 2 on host host2 and with rank 1 on host host1")
      << text;
}

TEST_F(Meeting, AJobOfAnotherSizeIsRefused) {
  EXPECT_EQ(
      common_refusal(run_processes(2, at(0), nullptr,
                                   [](Member& self, int& processes, int&) {
                                     if (self.process == 1) processes = 7;
                                   })),
      "process 1 (rank 1 on host host1) was told that the job has 7 processes, process 0 (rank 0 on host host0) that "
      "it has 2");
  EXPECT_EQ(
      common_refusal(run_processes(2, at(0), nullptr,
                                   [](Member& self, int&, int& world) {
                                     if (self.process == 1) world = 8;
                                   })),
      "process 1 (rank 1 on host host1) was told that the job has 8 ranks, process 0 (rank 0 on host host0) that it "
      "has 2");
}

TEST_F(Meeting, WhoIsMissingIsNamedToAllThatHaveCome) {
  Listener listener(0);
  const Rendezvous meeting = at(listener.port(), 0.2);
  auto one = std::async(std::launch::async, [&] { return error_of_process(meeting, 1, 6); });
  const Error zero = error_of_process(meeting, 0, 6, std::move(listener));
  const Error guest = one.get();
  for (const Error& error : {zero, guest}) {
    EXPECT_EQ(error.kind(), ErrorKind::runtime);
    EXPECT_EQ(error.what(),
              fmt::format("2 of 6 processes have come to 127.0.0.1:{} within 0.2 s: processes 2-5 are missing",
                          meeting.port));
    EXPECT_NE(error.hint().find("127.0.0.1 is 127.0.0.1 on this machine, which others cannot reach"), std::string::npos)
        << error.hint();
  }
  EXPECT_EQ(std::string(error_of_process(at(0, 0.01), 0, 2, Listener(0)).what()).find("1 of 2 processes has come to "),
            0U);
}

TEST_F(Meeting, AHostOfAnotherMachineIsSaidWhereSomebodyIsMissing) {
  // An address for documentation, which no machine has.
  const Error error = error_of_process({.host = "192.0.2.1", .timeout_s = 0.01}, 0, 2, Listener(0));
  EXPECT_NE(error.hint().find("192.0.2.1 is 192.0.2.1, which is no address of host0"), std::string::npos)
      << error.hint();
}

TEST_F(Meeting, NobodyAtThePortIsSaidWithWhatTheHostIsHere) {
  int port = 0;
  {
    port = Listener(0).port();
  }
  const Error error = error_of_process(at(port, 0.1), 1, 2);
  EXPECT_EQ(error.kind(), ErrorKind::runtime);
  EXPECT_EQ(error.what(),
            fmt::format("process 1 (rank 1 on host host1) has not found process 0 at 127.0.0.1:{} (127.0.0.1) "
                        "within 0.1 s: Connection refused",
                        port));
  EXPECT_NE(error.hint().find("on host host1, which is that machine itself"), std::string::npos) << error.hint();
}

TEST_F(Meeting, ANameThatStandsForNothingIsAskedForAgainAndThenRefused) {
  CaptureStderr();
  const Error error = error_of_process({.host = "no such host", .port = 1, .timeout_s = 0.1}, 1, 2);
  const std::string said = GetCapturedStderr();
  EXPECT_EQ(error.kind(), ErrorKind::user);
  EXPECT_EQ(std::string(error.what())
                .find("process 1 (rank 1 on host host1) cannot find process 0: the name no such host "
                      "stands for nothing: "),
            0U)
      << error.what();
  EXPECT_NE(said.find("asked for again"), std::string::npos) << said;
  EXPECT_EQ(said.find("asked for again"), said.rfind("asked for again"));
}

TEST_F(Meeting, APortThatIsTakenIsSaid) {
  const Listener taken(0);
  const Error error = error_of_process(at(taken.port()), 0, 2);
  EXPECT_EQ(error.kind(), ErrorKind::user);
  EXPECT_EQ(error.what(), fmt::format("this process cannot listen at port {}: Address already in use", taken.port()));
  EXPECT_NE(error.hint().find("MASTER_PORT"), std::string::npos);
  for (const int port : {-1, 65536}) {
    EXPECT_EQ(std::string(error_of_process(at(port), 0, 2).what()), fmt::format("there is no port {}", port));
  }
  EXPECT_THROW(Listener(0, "192.0.2.1"), Error);
  EXPECT_THROW(Listener(0, "no such host"), Error);
  EXPECT_GT(Listener(0, "127.0.0.1").port(), 0);
}

TEST_F(Meeting, AsManyFilesMayBeOpenAsConnectionsNeed) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit few{.rlim_cur = 300, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  rlimit now{};
  allow_descriptors(100);
  ::getrlimit(RLIMIT_NOFILE, &now);
  EXPECT_GE(now.rlim_cur, 356U);
  constexpr int most = 2'000'000'000;
  if (before.rlim_max < most) {
    EXPECT_THROW(allow_descriptors(most), Error);
  }
  ::setrlimit(RLIMIT_NOFILE, &before);
  allow_descriptors(1);
  ::getrlimit(RLIMIT_NOFILE, &now);
  EXPECT_EQ(now.rlim_cur, before.rlim_cur);
}

// The others are there first, and find process 0 when it comes.
TEST_F(Meeting, ProcessesMayComeBeforeProcess0) {
  int port = 0;
  {
    port = Listener(0).port();
  }
  std::vector<std::future<std::vector<Member>>> all;
  for (int p = 2; p >= 0; --p) {
    all.push_back(std::async(std::launch::async, [&, p] {
      if (p == 0) ::poll(nullptr, 0, 30);
      std::vector<Member> members;
      connect_by_sockets(at(port), member_of(p, 3), 3, 3, members);
      return members;
    }));
  }
  for (auto& members : all) EXPECT_EQ(members.get().size(), 3U);
}

TEST_F(Meeting, StrangersAreIgnoredAndSaidOnce) {
  Listener listener(0);
  const int port = listener.port();
  // Rubbish, a letter that is too long, an introduction that is none, nothing, half of a letter.
  std::vector<Descriptor> strangers;
  for (int i = 0; i < 6; ++i) strangers.push_back(visitor(port));
  say(strangers[0], "GET / HTTP/1.1\r\n\r\n");
  say(strangers[1], std::string("\x89sluice\n\x01\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\x10", 24));
  EXPECT_TRUE(send_letter(strangers[2].number(), {LetterKind::join, "1 1"}, soon()));
  EXPECT_TRUE(send_letter(strangers[3].number(), {LetterKind::pass, to_text(Pass{"token", 1, false})}, soon()));
  say(strangers[4], "\x89slui");
  CaptureStderr();
  auto one = std::async(std::launch::async, [&] {
    std::vector<Member> members;
    connect_by_sockets(at(port), member_of(1, 2), 2, 2, members);
    return members;
  });
  std::vector<Member> members;
  connect_by_sockets(at(port), member_of(0, 2), 2, 2, members, std::move(listener));
  EXPECT_EQ(one.get(), members);
  const std::string said = GetCapturedStderr();
  const std::string words =
      fmt::format("something on 127.0.0.1 that is no process of this job connected to port {}", port);
  EXPECT_NE(said.find(words), std::string::npos) << said;
  EXPECT_EQ(said.find(words), said.rfind(words)) << said;
}

// It had come, ended before all were there, and is started again.
TEST_F(Meeting, AProcessThatEndedMayComeAgain) {
  std::optional<Listener> listener(0);
  const int port = listener->port();
  {
    const Descriptor first = visitor(port);
    EXPECT_TRUE(send_letter(first.number(), {LetterKind::join, introduction(1, 3)}, soon()));
  }
  std::vector<std::future<std::vector<Member>>> all;
  for (int p = 0; p < 3; ++p) {
    std::optional<Listener> own;
    own.swap(listener);  // the first one's
    all.push_back(std::async(std::launch::async, [&, p, own = std::move(own)]() mutable {
      std::vector<Member> members;
      connect_by_sockets(at(port), member_of(p, 3), 3, 3, members, std::move(own));
      return members;
    }));
  }
  for (auto& members : all) EXPECT_EQ(members.get().size(), 3U);
}

// Process 0 in the hands of the test: takes the next that comes.
class FalseHost : public Meeting {
 protected:
  Correspondent next_guest(const Listener& listener, Introduction& introduction) {
    EXPECT_TRUE(wait_for(listener.number(), POLLIN, soon()));
    SocketAddress from;
    Correspondent guest(accept_one(listener.number(), from), from);
    const Letter letter = answer(guest);
    EXPECT_EQ(letter.kind, LetterKind::join);
    introduction = introduction_of(letter.text).value();
    return guest;
  }
};

TEST_F(FalseHost, SomethingElseAtThePortIsNotProcess0) {
  const std::string version_9("\x89sluice\n\x09\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\0", 24);
  for (const std::string& words : {std::string("SSH-2.0-OpenSSH_9.2\r\n"), version_9}) {
    const Listener listener(0);
    auto one = std::async(std::launch::async, [&] { return error_of_process(at(listener.port()), 1, 2); });
    Introduction introduction;
    const Correspondent guest = next_guest(listener, introduction);
    EXPECT_EQ(introduction.member, member_of(1, 2));
    ASSERT_EQ(::send(guest.number(), words.data(), words.size(), MSG_NOSIGNAL), static_cast<ssize_t>(words.size()));
    const Error error = one.get();
    EXPECT_EQ(error.kind(), ErrorKind::user);
    EXPECT_EQ(error.what(),
              words == version_9
                  ? fmt::format("process 0 at 127.0.0.1:{} is of another version of sluice: it says 9 where "
                                "this one says 1",
                                listener.port())
                  : fmt::format("what answers at 127.0.0.1:{} is not process 0 of a job of sluice", listener.port()));
  }
}

TEST_F(FalseHost, WhoWasClosedUponComesAgainAndHearsTheRefusalOfAnyVersion) {
  const Listener listener(0);
  auto one = std::async(std::launch::async, [&] { return error_of_process(at(listener.port()), 1, 2); });
  Introduction introduction;
  {
    const Correspondent first = next_guest(listener, introduction);
  }
  const Correspondent second = next_guest(listener, introduction);
  const std::string text = to_text(Error(user_error("no\nand no")).advise("go\naway"));
  std::string letter("\x89sluice\n\x09\0\0\0\x01\0\0\0", 16);
  const uint64_t bytes = text.size();
  letter += std::string(reinterpret_cast<const char*>(&bytes), sizeof(bytes)) + text;
  ASSERT_EQ(::send(second.number(), letter.data(), letter.size(), MSG_NOSIGNAL), static_cast<ssize_t>(letter.size()));
  const Error error = one.get();
  EXPECT_STREQ(error.what(), "no\nand no");
  EXPECT_EQ(error.hint(), "go\naway");
  EXPECT_EQ(error.kind(), ErrorKind::user);
}

TEST_F(FalseHost, WhoCannotReachAnotherSaysSoToProcess0) {
  int dead = 0;
  {
    dead = Listener(0).port();
  }
  const Listener listener(0);
  auto two = std::async(std::launch::async, [&] { return error_of_process(at(listener.port()), 2, 3); });
  Introduction introduction;
  Correspondent guest = next_guest(listener, introduction);
  Directory directory{.token = "token", .contacts = {}};
  for (int p = 0; p < 3; ++p) {
    directory.contacts.push_back(
        {.member = member_of(p, 3), .address = "", .port = p == 1 ? dead : listener.port(), .local = "nobody"});
  }
  ASSERT_TRUE(send_letter(guest.number(), {LetterKind::welcome, to_text(directory)}, soon()));
  const Error error = two.get();
  EXPECT_EQ(error.what(),
            fmt::format("process 2 (rank 2 on host host2) cannot reach process 1 (rank 1 on host host1) at "
                        "127.0.0.1:{}: Connection refused",
                        dead));
  const Letter told = answer(guest);
  EXPECT_EQ(told.kind, LetterKind::refusal);
  EXPECT_STREQ(error_of(told.text).what(), error.what());
  // It had connected to process 0 before, with what the directory gave it.
  SocketAddress from;
  Correspondent pass(accept_one(listener.number(), from), from);
  const std::optional<Pass> shown = pass_of(answer(pass).text);
  EXPECT_EQ(shown, (Pass{.token = "token", .process = 2, .bulk = false}));
}

// Guests in the hands of the test.
class FalseGuest : public Meeting {
 protected:
  // Has come to process 0 of a job of two and is welcome.
  void welcomed() {
    Listener listener(0);
    port = listener.port();
    zero = std::async(std::launch::async, [this, own = std::move(listener)]() mutable {
      return error_of_process(at(port), 0, 2, std::move(own));
    });
    guest.emplace(visitor(port));
    ASSERT_TRUE(send_letter(guest->number(), {LetterKind::join, introduction(1, 2)}, soon()));
    const Letter letter = answer(*guest);
    ASSERT_EQ(letter.kind, LetterKind::welcome);
    directory = directory_of(letter.text).value();
  }
  void TearDown() override {
    guest.reset();
    Meeting::TearDown();
  }

  int port = 0;
  std::future<Error> zero;
  std::optional<Correspondent> guest;
  Directory directory;
};

TEST_F(FalseGuest, OfAnotherVersionEndsAll) {
  Listener listener(0);
  const int at_port = listener.port();
  auto host = std::async(std::launch::async, [&, own = std::move(listener)]() mutable {
    return error_of_process(at(at_port), 0, 3, std::move(own));
  });
  Correspondent foreign(visitor(at_port));
  const std::string letter("\x89sluice\n\x09\0\0\0\x02\0\0\0\x04\0\0\0\0\0\0\0text", 28);
  ASSERT_EQ(::send(foreign.number(), letter.data(), letter.size(), MSG_NOSIGNAL), static_cast<ssize_t>(letter.size()));
  const std::string words = "a process on 127.0.0.1 is of another version of sluice: it says 9 where process 0 says 1";
  EXPECT_EQ(host.get().what(), words);
  EXPECT_EQ(error_of(answer(foreign).text).what(), words);
}

TEST_F(FalseGuest, ThatEndsWhileAllConnectEndsAll) {
  welcomed();
  guest.reset();
  EXPECT_STREQ(zero.get().what(),
               "process 1 (rank 1 on host host1) has ended while the processes connected to each other");
}

TEST_F(FalseGuest, WhoComesLateOrWithoutTheTokenHasNoPlace) {
  welcomed();
  Correspondent late(visitor(port));
  ASSERT_TRUE(send_letter(late.number(), {LetterKind::join, introduction(1, 2)}, soon()));
  const Letter refusal = answer(late);
  EXPECT_EQ(refusal.kind, LetterKind::refusal);
  EXPECT_STREQ(error_of(refusal.text).what(), "the job that was joined has all its 2 processes already");

  // Each of these is closed, and the last, the right one, is not.
  const std::string token = directory.token;
  EXPECT_EQ(token.size(), 32U);
  CaptureStderr();
  for (const Pass& pass : {Pass{"", 1, false}, Pass{std::string(32, '0'), 1, true}, Pass{token, 0, false},
                           Pass{token, 2, false}, Pass{token, -1, false}, Pass{token, 1, false}}) {
    const Descriptor socket = visitor(port);
    ASSERT_TRUE(send_letter(socket.number(), {LetterKind::pass, to_text(pass)}, soon()));
    pollfd closed{.fd = socket.number(), .events = POLLIN, .revents = 0};
    const bool right = pass.token == token && pass.process == 1;
    EXPECT_EQ(::poll(&closed, 1, right ? 5 : 60'000), right ? 0 : 1) << to_text(pass);
  }
  GetCapturedStderr();
  // It says what went wrong, and everybody hears it.
  ASSERT_TRUE(send_letter(guest->number(), {LetterKind::refusal, to_text(runtime_failure("no way"))}, soon()));
  EXPECT_STREQ(zero.get().what(), "no way");
  EXPECT_STREQ(error_of(answer(*guest).text).what(), "no way");
}

}  // namespace
}  // namespace sluice::test
