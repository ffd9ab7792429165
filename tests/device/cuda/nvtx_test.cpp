// The ranges as NVTX's own header passes them on, to a tool that is linked into this program instead of injected into
// it. No GPU is asked.
#define NVTX_NO_IMPL  // the types alone
#include <gtest/gtest.h>
#include <nvtx3/nvToolsExt.h>

#include <string>
#include <vector>

#include "device/cuda/profiling.h"

namespace {

// What the tool was told; null while none is attached.
std::vector<std::string>* told = nullptr;
char domain;

nvtxDomainHandle_t create_domain(const char* name) {
  if (told == nullptr) return nullptr;
  told->push_back(std::string("domain ") + name);
  return reinterpret_cast<nvtxDomainHandle_t>(&domain);
}
void destroy_domain(nvtxDomainHandle_t handle) {
  if (told != nullptr && handle == reinterpret_cast<nvtxDomainHandle_t>(&domain)) told->emplace_back("gone");
}
int push(nvtxDomainHandle_t handle, const nvtxEventAttributes_t* event) {
  const bool sound = handle == reinterpret_cast<nvtxDomainHandle_t>(&domain) && event->version == NVTX_VERSION &&
                     event->size == NVTX_EVENT_ATTRIB_STRUCT_SIZE && event->messageType == NVTX_MESSAGE_TYPE_ASCII;
  told->push_back(sound ? std::string("> ") + event->message.ascii : "unsound");
  return 0;
}
int pop(nvtxDomainHandle_t /*handle*/) {
  told->emplace_back("<");
  return 0;
}

int initialize(NvtxGetExportTableFunc_t get_table) {
  const auto* callbacks = static_cast<const NvtxExportTableCallbacks*>(get_table(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable table = nullptr;
  unsigned size = 0;
  if (callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size) == 0) return 0;
  *table[NVTX_CBID_CORE2_DomainCreateA] = reinterpret_cast<NvtxFunctionPointer>(&create_domain);
  *table[NVTX_CBID_CORE2_DomainDestroy] = reinterpret_cast<NvtxFunctionPointer>(&destroy_domain);
  *table[NVTX_CBID_CORE2_DomainRangePushEx] = reinterpret_cast<NvtxFunctionPointer>(&push);
  *table[NVTX_CBID_CORE2_DomainRangePop] = reinterpret_cast<NvtxFunctionPointer>(&pop);
  return 1;
}

}  // namespace

NvtxInitializeInjectionNvtxFunc_t InitializeInjectionNvtx2_fnptr = &initialize;

namespace sluice::test {
namespace {

TEST(Nvtx, RangesReachTheToolAndNestThere) {
  EXPECT_EQ(cuda::make_nvtx_ranges(), nullptr) << "no tool, no ranges";
  std::vector<std::string> list;
  told = &list;
  {
    const auto ranges = cuda::make_nvtx_ranges();
    ASSERT_NE(ranges, nullptr);
    const RangeScope step(ranges.get(), [] { return std::string("step 1"); });
    const RangeScope op(ranges.get(), std::string_view("gemm and more").substr(0, 4));
  }
  told = nullptr;
  EXPECT_EQ(list, (std::vector<std::string>{"domain sluice", "> step 1", "> gemm", "<", "<", "gone"}));
}

}  // namespace
}  // namespace sluice::test
