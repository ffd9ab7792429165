// What processes tell each other when they meet reads back as the same, or is refused.
#include "comm/sockets/contacts.h"

#include <gtest/gtest.h>

#include "comm/sockets/socket_address.h"

namespace sluice {
namespace {

Introduction introduction() {
  return {.member = {.process = 1, .host = "a b\n", .first_rank = 4, .ranks = 4, .common = {{"version", "\xff"}}},
          .processes = 2,
          .world = 8,
          .port = 65535,
          .local = "4f"};
}

Directory directory() {
  Directory all{.token = "1f", .contacts = {}};
  for (int p = 0; p < 3; ++p) {
    all.contacts.push_back({.member = {.process = p, .host = "h", .first_rank = p},
                            .address = p == 0 ? "" : "fe80::1",
                            .port = 1 + p,
                            .local = "4f"});
  }
  return all;
}

TEST(Contacts, ReadBackAsTheSame) {
  EXPECT_EQ(introduction_of(to_text(introduction())), introduction());
  EXPECT_EQ(directory_of(to_text(directory())), directory());
  for (const Pass& pass : {Pass{"1f", 3, true}, Pass{"", 0, false}}) EXPECT_EQ(pass_of(to_text(pass)), pass);
  const Error errors[] = {user_error("what\nis"), runtime_failure("wrong").advise("do\nthis"),
                          Error(ErrorKind::internal, "")};
  for (const Error& error : errors) {
    const Error read = error_of(to_text(error));
    EXPECT_EQ(read.kind(), error.kind());
    EXPECT_STREQ(read.what(), error.what());
    EXPECT_EQ(read.hint(), error.hint());
  }
}

// No text that lacks its end is read, and none with more behind it.
TEST(Contacts, PartsAreRefused) {
  const std::string guest = to_text(introduction());
  const std::string pass = to_text(Pass{"1f", 3, true});
  const std::string all = to_text(directory());
  for (size_t i = 0; i < guest.size(); ++i) EXPECT_FALSE(introduction_of(guest.substr(0, i))) << i;
  for (size_t i = 0; i < pass.size(); ++i) EXPECT_FALSE(pass_of(pass.substr(0, i))) << i;
  for (size_t i = 0; i < all.size(); ++i) {
    const auto read = directory_of(all.substr(0, i));
    // Whole members are a directory of fewer.
    if (read) {
      EXPECT_LT(read->contacts.size(), 3U) << i;
      EXPECT_EQ(all[i - 1], '\n') << i;
    }
  }
  EXPECT_FALSE(introduction_of(guest + "x"));
  EXPECT_FALSE(pass_of(pass + "x"));
  EXPECT_FALSE(directory_of(all + "x"));
}

TEST(Contacts, WrongValuesAreRefused) {
  const std::string member = to_line(introduction().member) + "\n";
  EXPECT_TRUE(introduction_of("2 8 1 n\n" + member));
  for (const char* head : {"2 8 0 n\n", "2 8 65536 n\n", "2 8 -1 n\n", "02 8 1 n\n", "2 +8 1 n\n", "2  8 1 n\n",
                           "2 8 1\n", "2 x 1 n\n", "99999999999 8 1 n\n"}) {
    EXPECT_FALSE(introduction_of(head + member)) << head;
  }
  EXPECT_FALSE(introduction_of("2 8 1 n\nnobody\n"));
  EXPECT_FALSE(pass_of("1f 3 other\n"));
  // A directory lists processes in their order.
  EXPECT_FALSE(directory_of("1f\n 1 n\n" + member));
  EXPECT_EQ(error_of("").kind(), ErrorKind::runtime);
}

TEST(SocketAddresses, AreWrittenAndReadAsNumbers) {
  const auto four = SocketAddress::parse("10.77.0.1", 29500);
  ASSERT_TRUE(four);
  EXPECT_EQ(four->str(), "10.77.0.1:29500");
  EXPECT_EQ(four->at(1).str(), "10.77.0.1:1");
  const auto six = SocketAddress::parse("fe80::1", 29500);
  ASSERT_TRUE(six);
  EXPECT_EQ(six->str(), "[fe80::1]:29500");
  EXPECT_EQ(six->at(1).str(), "[fe80::1]:1");
  // What came to a socket of IPv6 from IPv4.
  EXPECT_EQ(SocketAddress::parse("::ffff:10.77.0.1", 29500)->str(), "10.77.0.1:29500");
  for (const char* text : {"", "localhost", "10.77.0", "10.77.0.256", "fe80::1%eth0", "-"}) {
    EXPECT_FALSE(SocketAddress::parse(text, 1)) << text;
  }
}

TEST(SocketAddresses, KnowTheLoopbackAndTheirMachine) {
  for (const char* text : {"127.0.0.1", "127.0.1.1", "::1", "::ffff:127.0.0.1"}) {
    EXPECT_TRUE(SocketAddress::parse(text, 1)->loopback()) << text;
  }
  for (const char* text : {"128.0.0.1", "10.77.0.1", "fe80::1", "0.0.0.0"}) {
    EXPECT_FALSE(SocketAddress::parse(text, 1)->loopback()) << text;
  }
  EXPECT_TRUE(SocketAddress::parse("127.0.0.1", 1)->here());
  EXPECT_FALSE(SocketAddress::parse("192.0.2.1", 1)->here());
}

}  // namespace
}  // namespace sluice
