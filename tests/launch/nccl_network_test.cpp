// The network interface that NCCL is told to use: the one that leads to the first process, unless the user has chosen.
#include "launch/nccl_network.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <array>
#include <cstdlib>
#include <fstream>

#include "support/temporary_folder.h"

namespace sluice::launch {
namespace {

struct Interface {
  std::string name, address;
};

// One of this host's with an address that others could reach.
std::optional<Interface> outer() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return std::nullopt;
  std::optional<Interface> found;
  for (const ifaddrs* each = list; each != nullptr && !found; each = each->ifa_next) {
    if (each->ifa_addr == nullptr || each->ifa_addr->sa_family != AF_INET) continue;
    if ((each->ifa_flags & IFF_LOOPBACK) != 0 || (each->ifa_flags & IFF_UP) == 0) continue;
    std::array<char, INET_ADDRSTRLEN> text{};
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(each->ifa_addr)->sin_addr, text.data(), text.size());
    found = {each->ifa_name, text.data()};
  }
  ::freeifaddrs(list);
  return found;
}

std::vector<Member> on_hosts(const std::vector<std::string>& hosts) {
  std::vector<Member> members;
  for (int i = 0; i < static_cast<int>(hosts.size()); ++i) {
    members.push_back({.process = i, .host = hosts[static_cast<size_t>(i)], .first_rank = i, .ranks = 1});
  }
  return members;
}

// The test's process has no NCCL_SOCKET_IFNAME, but where it says so.
class NcclNetwork : public testing::Test {
 protected:
  void SetUp() override { ::unsetenv("NCCL_SOCKET_IFNAME"); }
  void TearDown() override { ::unsetenv("NCCL_SOCKET_IFNAME"); }
  test::Folder folder;
};

TEST_F(NcclNetwork, LoopbackLeadsNowhere) {
  EXPECT_FALSE(interface_to("127.0.0.1"));
  EXPECT_FALSE(interface_to("no-such-host.invalid"));
  EXPECT_EQ(nccl_interface(on_hosts({"a", "b"}), "127.0.0.1", {}), "");
}

TEST_F(NcclNetwork, IsTheOneThatLeadsToTheFirstProcess) {
  const auto there = outer();
  if (!there) GTEST_SKIP() << "this host has no network";
  EXPECT_EQ(interface_to(there->address), there->name);
  EXPECT_EQ(nccl_interface(on_hosts({"a", "b"}), there->address, {}), "=" + there->name);
  EXPECT_EQ(nccl_interface(on_hosts({there->address, "b"}), "", {}), "=" + there->name);
}

TEST_F(NcclNetwork, OfOneHostIsNobodysBusiness) {
  const auto there = outer();
  if (!there) GTEST_SKIP() << "this host has no network";
  EXPECT_EQ(nccl_interface(on_hosts({"a", "a"}), there->address, {}), "");
}

TEST_F(NcclNetwork, WhatTheUserHasChosenStays) {
  const auto there = outer();
  if (!there) GTEST_SKIP() << "this host has no network";
  const auto file = folder.path() / "nccl.conf";
  std::ofstream(file) << "NCCL_DEBUG=WARN\n";
  EXPECT_EQ(nccl_interface(on_hosts({"a", "b"}), there->address, {file}), "=" + there->name);
  std::ofstream(file, std::ios::app) << "NCCL_SOCKET_IFNAME=ib0\n";
  EXPECT_EQ(nccl_interface(on_hosts({"a", "b"}), there->address, {file}), "");
  ::setenv("NCCL_SOCKET_IFNAME", "eth7", 1);
  EXPECT_EQ(nccl_interface(on_hosts({"a", "b"}), there->address, {}), "");
}

}  // namespace
}  // namespace sluice::launch
