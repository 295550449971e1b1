// HIP's runtime in terms of CUDA's, for HIP sources that nvcc compiles (NIBBLE_HIP_ON_CUDA): as
// much of it as nibble uses. The headers that HIP brings for this do not compile with CUDA 13.
#pragma once

#include <cuda_runtime.h>

#include <utility>

using hipError_t = cudaError_t;
using hipStream_t = cudaStream_t;
using hipEvent_t = cudaEvent_t;
using hipGraph_t = cudaGraph_t;
using hipGraphExec_t = cudaGraphExec_t;
using hipDeviceProp_t = cudaDeviceProp;
using hipDeviceAttribute_t = cudaDeviceAttr;
using hipMemcpyKind = cudaMemcpyKind;
using hipFuncAttribute = cudaFuncAttribute;
using hipFuncAttributes = cudaFuncAttributes;
using hipStreamCaptureMode = cudaStreamCaptureMode;

#define NIBBLE_HIP_AS_CUDA(name)                    \
  template <typename... Args>                       \
  inline auto hip##name(Args&&... args) {           \
    return cuda##name(std::forward<Args>(args)...); \
  }
NIBBLE_HIP_AS_CUDA(DeviceGetAttribute)
NIBBLE_HIP_AS_CUDA(DeviceSynchronize)
NIBBLE_HIP_AS_CUDA(DriverGetVersion)
NIBBLE_HIP_AS_CUDA(EventCreate)
NIBBLE_HIP_AS_CUDA(EventCreateWithFlags)
NIBBLE_HIP_AS_CUDA(EventDestroy)
NIBBLE_HIP_AS_CUDA(EventElapsedTime)
NIBBLE_HIP_AS_CUDA(EventRecord)
NIBBLE_HIP_AS_CUDA(EventSynchronize)
NIBBLE_HIP_AS_CUDA(Free)
NIBBLE_HIP_AS_CUDA(FuncGetAttributes)
NIBBLE_HIP_AS_CUDA(FuncSetAttribute)
NIBBLE_HIP_AS_CUDA(GetDevice)
NIBBLE_HIP_AS_CUDA(GetDeviceCount)
NIBBLE_HIP_AS_CUDA(GetDeviceProperties)
NIBBLE_HIP_AS_CUDA(GetErrorName)
NIBBLE_HIP_AS_CUDA(GetErrorString)
NIBBLE_HIP_AS_CUDA(GetLastError)
NIBBLE_HIP_AS_CUDA(GraphDestroy)
NIBBLE_HIP_AS_CUDA(GraphExecDestroy)
NIBBLE_HIP_AS_CUDA(GraphLaunch)
NIBBLE_HIP_AS_CUDA(MemGetInfo)
NIBBLE_HIP_AS_CUDA(Memcpy)
NIBBLE_HIP_AS_CUDA(MemcpyAsync)
NIBBLE_HIP_AS_CUDA(Memset)
NIBBLE_HIP_AS_CUDA(MemsetAsync)
NIBBLE_HIP_AS_CUDA(PeekAtLastError)
NIBBLE_HIP_AS_CUDA(RuntimeGetVersion)
NIBBLE_HIP_AS_CUDA(SetDevice)
NIBBLE_HIP_AS_CUDA(StreamBeginCapture)
NIBBLE_HIP_AS_CUDA(StreamCreate)
NIBBLE_HIP_AS_CUDA(StreamCreateWithFlags)
NIBBLE_HIP_AS_CUDA(StreamDestroy)
NIBBLE_HIP_AS_CUDA(StreamEndCapture)
NIBBLE_HIP_AS_CUDA(StreamQuery)
NIBBLE_HIP_AS_CUDA(StreamSynchronize)
#undef NIBBLE_HIP_AS_CUDA

// Those whose arguments differ.
inline hipError_t hipMalloc(void** memory, std::size_t bytes) {
  return cudaMalloc(memory, bytes);
}
inline hipError_t hipHostMalloc(void** memory, std::size_t bytes, unsigned flags = 0) {
  return cudaHostAlloc(memory, bytes, flags);
}
inline hipError_t hipHostFree(void* memory) {
  return cudaFreeHost(memory);
}
inline hipError_t hipStreamWaitEvent(hipStream_t stream, hipEvent_t event, unsigned flags = 0) {
  return cudaStreamWaitEvent(stream, event, flags);
}
// `node` and what follows tell of errors in HIP's first version of this function.
inline hipError_t hipGraphInstantiate(hipGraphExec_t* made, hipGraph_t graph, void* /*node*/,
                                      char* /*log*/, std::size_t /*bytes*/) {
  return cudaGraphInstantiate(made, graph, 0);
}

// Macros, since they stand for enumerators of several types.
#define hipSuccess cudaSuccess
#define hipErrorAssert cudaErrorAssert
#define hipErrorInsufficientDriver cudaErrorInsufficientDriver
#define hipErrorInvalidDevice cudaErrorInvalidDevice
#define hipErrorInvalidDeviceFunction cudaErrorInvalidDeviceFunction
#define hipErrorInvalidConfiguration cudaErrorInvalidConfiguration
#define hipErrorInvalidValue cudaErrorInvalidValue
#define hipErrorLaunchFailure cudaErrorLaunchFailure
#define hipErrorLaunchTimeOut cudaErrorLaunchTimeout
#define hipErrorIllegalAddress cudaErrorIllegalAddress
#define hipErrorNoBinaryForGpu cudaErrorNoKernelImageForDevice
#define hipErrorNoDevice cudaErrorNoDevice
#define hipErrorNotReady cudaErrorNotReady
#define hipErrorMemoryAllocation cudaErrorMemoryAllocation
#define hipErrorOutOfMemory cudaErrorMemoryAllocation

#define hipMemcpyDefault cudaMemcpyDefault
#define hipMemcpyDeviceToDevice cudaMemcpyDeviceToDevice
#define hipMemcpyDeviceToHost cudaMemcpyDeviceToHost
#define hipMemcpyHostToDevice cudaMemcpyHostToDevice

#define hipEventDefault cudaEventDefault
#define hipEventDisableTiming cudaEventDisableTiming
#define hipHostMallocDefault cudaHostAllocDefault
#define hipStreamCaptureModeRelaxed cudaStreamCaptureModeRelaxed
#define hipStreamCaptureModeThreadLocal cudaStreamCaptureModeThreadLocal
#define hipStreamNonBlocking cudaStreamNonBlocking

#define hipFuncAttributeMaxDynamicSharedMemorySize cudaFuncAttributeMaxDynamicSharedMemorySize
#define hipDeviceAttributeMaxSharedMemoryPerBlock cudaDevAttrMaxSharedMemoryPerBlockOptin
#define hipDeviceAttributeMemoryBusWidth cudaDevAttrGlobalMemoryBusWidth
#define hipDeviceAttributeMemoryClockRate cudaDevAttrMemoryClockRate
#define hipDeviceAttributeMultiprocessorCount cudaDevAttrMultiProcessorCount
#define hipDeviceAttributeWarpSize cudaDevAttrWarpSize
