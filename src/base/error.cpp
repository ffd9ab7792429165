#include "base/error.h"

#include "base/text.h"

namespace sluice {

std::string describe(const Error& error) {
  std::string text;
  if (!error.where().empty()) text += printable_line(error.where()) + ": ";
  text += error.what();
  if (!error.hint().empty()) text += "\n       " + error.hint();
  return text;
}

}  // namespace sluice
