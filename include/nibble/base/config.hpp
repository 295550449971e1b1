// The facts that every header shares: version, ABI namespace, visibility, host/device marker.
#pragma once

#define NIBBLE_VERSION_MAJOR 0
#define NIBBLE_VERSION_MINOR 1
#define NIBBLE_VERSION_PATCH 0

// Every name lives in `nibble::inline NIBBLE_ABI`, so two versions in one process cannot be mixed
// up by the linker. A translation unit compiled for one instruction set defines NIBBLE_ABI as a
// name of its own: its copies of inline functions then have symbols of their own, and code made
// for a newer CPU can never be chosen for an older one.
#ifndef NIBBLE_ABI
#define NIBBLE_ABI v0
#endif

#if defined(NIBBLE_SHARED) && (defined(__GNUC__) || defined(__clang__))
#define NIBBLE_API __attribute__((visibility("default")))
#else
#define NIBBLE_API
#endif

// Code that runs on the host and on a GPU.
#if defined(__CUDACC__) || defined(__HIPCC__)
#define NIBBLE_HD __host__ __device__
#else
#define NIBBLE_HD
#endif
