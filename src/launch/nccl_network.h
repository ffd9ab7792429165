// Over which network interface NCCL brings the hosts of a job together: its own choice is often one that leads nowhere
// (a container's bridge), and then it hangs.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "comm/processes/courier.h"

namespace sluice::launch {

// The interface of this host from which `host` is reached; none where that is this host alone (loopback), or unknown.
std::optional<std::string> interface_to(const std::string& host);

// What NCCL_SOCKET_IFNAME is to be: the interface that leads to the job's first process, where the job has several
// hosts and the user has chosen none, in the environment or in one of NCCL's `files` (/etc/nccl.conf, ~/.nccl.conf).
// Empty: it stays as it is. `master`: the host of the first process as it was given; empty: as it calls itself.
std::string nccl_interface(const std::vector<Member>& members, const std::string& master,
                           const std::vector<std::filesystem::path>& files);

// Does so, before NCCL's first call, and says so.
void choose_nccl_interface(const Courier& courier, const std::string& master);

}  // namespace sluice::launch
