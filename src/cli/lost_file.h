// Files are read by mapping them; one that loses its bytes meanwhile ends the process, by a message instead of a crash.
#pragma once

#include <string>

namespace sluice::cli {

// From here on SIGBUS, which a thread gets that reads what a mapped file no longer has (cut short by another program, a
// failed disk), prints what happened to which file and ends the process with exit code 1.
void explain_lost_files();

// The file mapped at an address of this process; empty if none is.
std::string file_mapped_at(const void* address);

}  // namespace sluice::cli
