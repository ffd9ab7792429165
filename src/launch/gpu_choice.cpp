#include "launch/gpu_choice.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <sstream>

#include "base/error.h"

namespace sluice::launch {
namespace {

std::string counted(int64_t count, const std::string& thing) {
  return fmt::format("{} {}{}", count, thing, count == 1 ? "" : "s");
}

}  // namespace

std::vector<int> choose_gpus(int gpus, const LocalRanks& local) {
  if (gpus < local.ranks) {
    throw user_error("this host has {} for {}, which need one each", counted(gpus, "GPU"),
                     counted(local.on_host(), "rank"))
        .advise("start at most as many ranks on a host as it has GPUs");
  }
  std::vector<int> chosen(static_cast<size_t>(local.ranks));
  std::iota(chosen.begin(), chosen.end(), gpus >= local.on_host() ? local.process * local.ranks : 0);
  return chosen;
}

std::string to_text(const ProcessGpus& gpus) {
  std::string text = fmt::format("{}\n{}", gpus.nccl, gpus.seen);
  for (const GpuName& gpu : gpus.own) text += fmt::format(" {} {}", gpu.uuid, gpu.pci);
  return text;
}

ProcessGpus from_text(const std::string& text) {
  std::istringstream in(text);
  ProcessGpus gpus;
  std::getline(in, gpus.nccl);
  in >> gpus.seen;
  for (GpuName gpu; in >> gpu.uuid >> gpu.pci;) gpus.own.push_back(gpu);
  return gpus;
}

void check_same_nccl(const std::vector<Member>& members, const std::vector<ProcessGpus>& gpus) {
  require(members.size() == gpus.size(), "{} processes with the GPUs of {}", members.size(), gpus.size());
  for (size_t process = 1; process < members.size(); ++process) {
    if (gpus[process].nccl == gpus[0].nccl) continue;
    throw user_error("the processes have different versions of NCCL: {} ({}), {} ({})", gpus[0].nccl, members[0].str(),
                     gpus[process].nccl, members[process].str())
        .advise("install the same one on every host; LD_LIBRARY_PATH may lead to another than the system's");
  }
}

void check_apart(const std::vector<Member>& members, const std::vector<ProcessGpus>& gpus) {
  require(members.size() == gpus.size(), "{} processes with the GPUs of {}", members.size(), gpus.size());
  std::map<std::string, int> owners;  // by uuid: a rank
  for (size_t process = 0; process < members.size(); ++process) {
    const Member& member = members[process];
    for (size_t i = 0; i < gpus[process].own.size(); ++i) {
      const GpuName& gpu = gpus[process].own[i];
      const int rank = member.first_rank + static_cast<int>(i);
      const auto [owner, is_new] = owners.emplace(gpu.uuid, rank);
      if (is_new) continue;
      int ranks = 0, seen = 0;
      for (size_t other = 0; other < members.size(); ++other) {
        if (members[other].host != member.host) continue;
        ranks += members[other].ranks;
        seen = std::max(seen, gpus[other].seen);
      }
      throw user_error("ranks {} and {} have the same GPU ({}): host {} has {} for {}", owner->second, rank, gpu.pci,
                       member.host, counted(seen, "GPU"), counted(ranks, "rank"))
          .advise("start at most as many ranks on a host as it has GPUs; a process must see all of them, or its own");
    }
  }
}

}  // namespace sluice::launch
