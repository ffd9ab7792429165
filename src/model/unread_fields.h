// Which fields of a configuration have no effect: the names that mean nothing for the network, in one place, and those
// that families elsewhere read, with what is done here.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "model/family.h"

namespace sluice {

// Why a field that nobody read has no effect; nothing where it may well have one elsewhere. `overridden`: it is laid
// over the file, where fewer names are taken without a word.
std::optional<std::string_view> reason_to_ignore(const Family& family, std::string_view key, bool overridden);

}  // namespace sluice
