#include "cli/version.h"

#include <sluice_commit.h>

namespace sluice::cli {

std::string_view version() {
  return generated::version();
}

std::string_view commit() {
  return generated::commit();
}

}  // namespace sluice::cli
