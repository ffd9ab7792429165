// What calls of MPI return.
#pragma once

#include <mpi.h>

#include <chrono>
#include <functional>
#include <string>

namespace sluice::mpi {

// MPI's words for a code.
std::string text_of(int code);
// Runtime error with them, after `what`, for a code that is none of success.
void check(int code, const char* what);
// Looks again and again, less often the longer it takes, until look() holds; false where `limit` is over before.
bool comes(const std::function<bool()>& look, std::chrono::milliseconds limit);

}  // namespace sluice::mpi
