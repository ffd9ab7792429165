// Which sluice this is. The commit is that of the last build.
#pragma once

#include <string_view>

namespace sluice::cli {

std::string_view version();  // "0.1.0"
std::string_view commit();   // "3f2a91c0d1e2", with "-dirty" when there were changes; "unknown" outside of git

}  // namespace sluice::cli
