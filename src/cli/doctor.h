// `sluice doctor`: what the machine has, what sluice will use of it, what is in the way.
#pragma once

namespace sluice::cli {

// 0 when ready, 1 when not.
int run_doctor();

}  // namespace sluice::cli
