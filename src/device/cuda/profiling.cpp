#include "device/cuda/profiling.h"

#include <cuda_profiler_api.h>
#include <nvtx3/nvToolsExt.h>

#include <string>

#include "device/cuda/api.h"

namespace sluice::cuda {

namespace {

class NvtxRanges final : public Ranges {
 public:
  explicit NvtxRanges(nvtxDomainHandle_t domain) : domain_(domain) {}
  ~NvtxRanges() override { nvtxDomainDestroy(domain_); }

  void open(std::string_view name) override {
    const std::string text(name);  // ends in a zero
    nvtxEventAttributes_t attributes{};
    attributes.version = NVTX_VERSION;
    attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
    attributes.message.ascii = text.c_str();
    nvtxDomainRangePushEx(domain_, &attributes);
  }
  void close() override { nvtxDomainRangePop(domain_); }

 private:
  nvtxDomainHandle_t domain_;
};

}  // namespace

std::unique_ptr<Ranges> make_nvtx_ranges() {
  // Without a tool there are no domains.
  auto* const domain = nvtxDomainCreateA("sluice");
  return domain != nullptr ? std::make_unique<NvtxRanges>(domain) : nullptr;
}

void record_profile(bool on) {
  check(on ? cudaProfilerStart() : cudaProfilerStop(), on ? "cudaProfilerStart" : "cudaProfilerStop");
}

}  // namespace sluice::cuda
