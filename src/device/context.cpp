#include "device/context.h"

namespace sluice {

std::string Context::place() const {
  std::string path;
  for (const std::string_view name : names_) path += (path.empty() ? "" : ".") + std::string(name);
  return path;
}

}  // namespace sluice
