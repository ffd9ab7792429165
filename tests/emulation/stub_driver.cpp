// A libcuda.so.1 for plans of a GPU that is not there: cuDNN finds the functions it looks for, is told that there is a
// GPU and "loads" on it the kernels it compiled; they can be asked for by name. Nothing runs. What is called must
// succeed; the rest is refused.
#include <string>

namespace {

constexpr int kSuccess = 0, kNoDevice = 100;

std::string& kernels() {
  static std::string names;
  return names;
}

// Something for handles to point at.
char anything;

}  // namespace

extern "C" {

// The kernels so far, a line each.
const char* stub_driver_kernels() {
  return kernels().c_str();
}

int cuDriverGetVersion(int* version) {
  *version = 13000;
  return kSuccess;
}
int cuDeviceGetCount(int* count) {
  *count = 1;
  return kSuccess;
}
int cuGetErrorName(int /*error*/, const char** text) {
  *text = "an error of the stub driver";
  return kSuccess;
}
int cuGetErrorString(int error, const char** text) {
  return cuGetErrorName(error, text);
}
int cuLibraryLoadData(void** library, ...) {
  *library = &anything;
  return kSuccess;
}
int cuLibraryUnload(void* /*library*/) {
  return kSuccess;
}
int cuLibraryGetKernel(void** kernel, void* /*library*/, const char* name) {
  kernels().append(name).append("\n");
  *kernel = &anything;
  return kSuccess;
}
int cuKernelGetFunction(void** function, void* /*kernel*/) {
  *function = &anything;
  return kSuccess;
}
int cuFuncGetAttribute(int* value, int /*attribute*/, void* /*function*/) {
  *value = 0;
  return kSuccess;
}
int cuFuncSetAttribute(void* /*function*/, int /*attribute*/, int /*value*/) {
  return kSuccess;
}

#define REFUSED(name) \
  int name() {        \
    return kNoDevice; \
  }
REFUSED(cuInit)
REFUSED(cuCtxGetCurrent)
REFUSED(cuCtxGetLimit)
REFUSED(cuCtxPopCurrent)
REFUSED(cuCtxPushCurrent)
REFUSED(cuDeviceGet)
REFUSED(cuKernelGetAttribute)
REFUSED(cuKernelSetAttribute)
REFUSED(cuLaunchCooperativeKernel)
REFUSED(cuLaunchKernel)
REFUSED(cuLaunchKernelEx)
REFUSED(cuLibraryLoadFromFile)
REFUSED(cuLinkAddData)
REFUSED(cuLinkComplete)
REFUSED(cuLinkCreate)
REFUSED(cuLinkDestroy)
REFUSED(cuOccupancyMaxPotentialClusterSize)
REFUSED(cuStreamGetCtx)
}
