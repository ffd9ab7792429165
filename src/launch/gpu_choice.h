// Which GPU each rank of a process has, where ranks have one each.
#pragma once

#include <string>
#include <vector>

#include "comm/processes/members.h"

namespace sluice::launch {

// Where a process stands among those of its host, all of which have as many ranks.
struct LocalRanks {
  int process = 0;
  int processes = 1;
  int ranks = 1;  // of each

  int on_host() const { return processes * ranks; }
};

// GPUs of the ranks of this process, which sees `gpus` of them: by local rank where there are enough for all ranks of
// the host. Where there are enough for its own alone, launchers may have given each process others (check_apart knows):
// the first ones. User error where there are fewer.
std::vector<int> choose_gpus(int gpus, const LocalRanks& local);

// A GPU as its machine names it.
struct GpuName {
  std::string uuid;  // no other GPU's
  std::string pci;   // "0000:3b:00.0"
};

// The GPUs of a process, as it tells the others.
struct ProcessGpus {
  std::string nccl;          // "NCCL 2.28.9"
  int seen = 0;              // how many it could have
  std::vector<GpuName> own;  // of its ranks
};
std::string to_text(const ProcessGpus& gpus);
ProcessGpus from_text(const std::string& text);

// `gpus`: of each of the members. User error that names who has which where NCCL is not the same everywhere: its
// versions do not understand each other.
void check_same_nccl(const std::vector<Member>& members, const std::vector<ProcessGpus>& gpus);
// User error that names both ranks where two of them have one GPU.
void check_apart(const std::vector<Member>& members, const std::vector<ProcessGpus>& gpus);

}  // namespace sluice::launch
