#include "base/error.h"
#include "comm/processes/members.h"
namespace sluice {
std::string Member::str() const {
  return ranks == 1 ? fmt::format("rank {} on host {}", first_rank, host)
                    : fmt::format("ranks {}-{} on host {}", first_rank, first_rank + ranks - 1, host);
}
}  // namespace sluice
