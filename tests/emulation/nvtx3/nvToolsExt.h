// The part of NVTX that sluice uses, for the emulated runtime: ranges go to the tool that listens (profiler.h).
#pragma once

#include <cstdint>

#include "emulation/profiler.h"

inline constexpr uint16_t NVTX_VERSION = 3;
enum nvtxMessageType_t { NVTX_MESSAGE_TYPE_ASCII = 1 };
struct nvtxEventAttributes_t {
  uint16_t version;
  uint16_t size;
  int32_t messageType;
  union {
    const char* ascii;
  } message;
};
inline constexpr uint16_t NVTX_EVENT_ATTRIB_STRUCT_SIZE = sizeof(nvtxEventAttributes_t);

// Something for handles to point at.
using nvtxDomainHandle_t = const char*;

inline nvtxDomainHandle_t nvtxDomainCreateA(const char* name) {
  return sluice::emulation::a_tool_listens() ? name : nullptr;
}
inline void nvtxDomainDestroy(nvtxDomainHandle_t) {}
inline int nvtxDomainRangePushEx(nvtxDomainHandle_t, const nvtxEventAttributes_t* attributes) {
  const bool sound = attributes->version == NVTX_VERSION && attributes->size == NVTX_EVENT_ATTRIB_STRUCT_SIZE &&
                     attributes->messageType == NVTX_MESSAGE_TYPE_ASCII;
  sluice::emulation::tell_tool(sound ? std::string("> ") + attributes->message.ascii : "an event NVTX refuses");
  return 0;
}
inline int nvtxDomainRangePop(nvtxDomainHandle_t) {
  sluice::emulation::tell_tool("<");
  return 0;
}
