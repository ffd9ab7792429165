// The entry libFuzzer calls; SLUICE_FUZZ_TARGET is one of targets.h.
#include "fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, size_t size) {
  sluice::fuzz::SLUICE_FUZZ_TARGET(std::as_bytes(std::span(data, size)));
  return 0;
}
