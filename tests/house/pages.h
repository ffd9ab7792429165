// Rules for pages of docs/: what they say of the sources holds of the sources.
#pragma once

#include <string_view>
#include <vector>

#include "house/rules.h"

namespace sluice::house {

// "Adding an operation" of `page` walks through one that is there, the first word it quotes. Its numbered steps open
// with the files to change, in bold, and it says how many these are ("10 files"). They are the files that mention the
// operation, of those where operations are made: src/ops, src/device, tests/ops, benchmarks and, by the operation's
// name in a run, docs.
Violations operation_guide(std::string_view page, const std::vector<SourceFile>& files);

// The first column of the table of `page` (docs/host_reads.md) names a file of src/ and a function or class in it: the
// places that call Context::read or, with a backend, Backend::read, all of them and no others. A file of a device's
// folder that reads for itself (Device::to_host) is named somewhere on the page.
Violations host_reads(std::string_view page, const std::vector<SourceFile>& files);

}  // namespace sluice::house
