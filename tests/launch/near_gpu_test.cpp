// The processors near a GPU by the system's files, made up here, and threads that stay on them.
#include "launch/near_gpu.h"

#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "support/temporary_folder.h"

namespace sluice::launch {
namespace {

using List = std::vector<int>;

TEST(NearGpu, ListsOfProcessors) {
  EXPECT_EQ(parse_cpu_list("0-3,8"), (List{0, 1, 2, 3, 8}));
  EXPECT_EQ(parse_cpu_list("7"), List{7});
  EXPECT_EQ(parse_cpu_list("8,0-1,1"), (List{0, 1, 8}));
  for (const char* text : {"", ",", "1,", "3-1", "a", "1-", "-1", "0-1-2", " 1", "0-99999999", "1\n"}) {
    EXPECT_FALSE(parse_cpu_list(text)) << text;
  }
}

// What a system with a GPU says of it.
class System {
 public:
  System& file(const std::string& path, const std::string& text) {
    const auto at = folder_.path() / path;
    std::filesystem::create_directories(at.parent_path());
    std::ofstream(at) << text;
    return *this;
  }
  List near(const std::string& pci) const { return processors_near(pci, folder_.path()); }

 private:
  test::Folder folder_;
};

const std::string kGpu = "bus/pci/devices/0000:3b:00.0/";

TEST(NearGpu, ProcessorsAreThoseOfTheDevice) {
  System system;
  system.file(kGpu + "local_cpulist", "0-1,4-5\n").file(kGpu + "numa_node", "1\n");
  EXPECT_EQ(system.near("0000:3b:00.0"), (List{0, 1, 4, 5}));
  EXPECT_EQ(system.near("0000:3B:00.0"), (List{0, 1, 4, 5}));  // as CUDA writes it
}

TEST(NearGpu, ElseThoseOfItsNode) {
  System system;
  system.file(kGpu + "local_cpulist", "\n").file(kGpu + "numa_node", "1\n");
  system.file("devices/system/node/node1/cpulist", "2-3\n");
  EXPECT_EQ(system.near("0000:3b:00.0"), (List{2, 3}));
}

TEST(NearGpu, NothingIsKnownWhereTheSystemDoesNotSay) {
  System system;
  EXPECT_TRUE(system.near("0000:3b:00.0").empty());
  system.file(kGpu + "numa_node", "-1\n").file("devices/system/node/node1/cpulist", "2-3\n");
  EXPECT_TRUE(system.near("0000:3b:00.0").empty());
  EXPECT_TRUE(system.near("").empty());
}

List allowed() {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  List list;
  for (int processor = 0; processor < CPU_SETSIZE; ++processor) {
    if (CPU_ISSET(processor, &set)) list.push_back(processor);
  }
  return list;
}

TEST(NearGpu, AThreadAndThoseItStartsStayThereMeanwhile) {
  const List before = allowed();
  if (before.size() < 2) GTEST_SKIP() << "one processor";
  {
    // Also one that this process may not use.
    const OnProcessors on({before.back(), CPU_SETSIZE - 1});
    EXPECT_EQ(allowed(), List{before.back()});
    std::thread([&] { EXPECT_EQ(allowed(), List{before.back()}); }).join();
  }
  EXPECT_EQ(allowed(), before);
}

TEST(NearGpu, NothingChangesWhereNoneOfThemMayBeUsed) {
  const List before = allowed();
  for (const List& near : {List{}, List{CPU_SETSIZE - 1}}) {
    const OnProcessors on(near);
    EXPECT_EQ(allowed(), before);
  }
}

}  // namespace
}  // namespace sluice::launch
