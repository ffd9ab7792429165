#include "base/error.h"

namespace sluice {

std::string describe(const Error& error) {
  std::string text;
  if (!error.where().empty()) text += error.where() + ": ";
  text += error.what();
  if (!error.hint().empty()) text += "\n       " + error.hint();
  return text;
}

}  // namespace sluice
