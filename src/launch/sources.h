// What each kind of launcher says about a process, one function for each: an identity without disagreement, nothing
// where the launcher's names are not there, a user error where they are not whole. `process`, `processes`, the local
// two, `source`, `launcher` and `by_mpi` are set.
#pragma once

#include <optional>

#include "launch/identity.h"

namespace sluice::launch {

std::optional<Identity> from_flags(const IdentityFlags& flags);
std::optional<Identity> from_torchrun(const Environment& environment);
std::optional<Identity> from_mpi(const Environment& environment);
std::optional<Identity> from_slurm(const Environment& environment);

// User error where what is set is meant for a launcher or comes from one that is not known here: several processes are
// wanted, and each would take itself for the only one.
void refuse_unread_launchers(const Environment& environment);

}  // namespace sluice::launch
