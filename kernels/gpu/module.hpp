// What a GPU module offers: devices, their memory, their queues, and one table of kernels.
//
// There are three kinds of modules behind this one interface: CUDA and HIP, shared libraries that
// are opened at run time, and the emulated device, which runs the same kernels on the CPU. Like
// cpu/kernel_table.hpp this header holds plain data and abstract classes only. Nothing throws
// through it: functions that can fail return false and fill a `failure`.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gpu/kernel_table.hpp"

namespace nibble::inline v0::gpu {

// Of this header and kernel_table.hpp. A module of another number is not used.
inline constexpr std::uint32_t module_abi = 1;

enum class fault : std::int32_t {
  none,
  no_driver,      // there is no driver, or no library to reach it
  old_driver,     // older than what the module was built for
  no_device,      // a driver, but no device
  old_device,     // a device that the module has no code for
  out_of_memory,  // of the device, or of pinned host memory
  lost,           // the device no longer answers, or a kernel has faulted: the context is dead
  invalid,        // a call that cannot be right
  other
};

// A sentence without the device's name, such as "cudaMalloc of 1234 bytes: out of memory".
struct failure {
  fault what = fault::none;
  char text[500] = {};
};

enum class module_kind : std::int32_t { cuda, hip, emulated };

struct device_facts {
  char name[128];     // "NVIDIA H200"
  char arch[32];      // "sm_90", "gfx1100"
  std::int32_t warp;  // lanes: 32 or 64
  std::int32_t multiprocessors;
  std::int32_t shared_bytes;       // that a block may have, by request
  std::int32_t shared_default;     // without one
  bool matrix_units;               // the tiles of tile.hpp are made of matrix instructions
  std::uint64_t total_bytes;       // of memory
  std::uint64_t memory_bandwidth;  // bytes a second by the data sheet; 0: not known
};

enum class queue_id : std::int32_t {
  compute,
  copy  // for transfers beside computation
};

// A point in a queue; those of a context are numbered from 1.
using event_id = std::int32_t;
// A captured run of kernels; numbered from 1.
using graph_id = std::int32_t;

// One device, opened. Calls from one thread at a time.
class context {
 public:
  virtual const device_facts& facts() const noexcept = 0;
  virtual bool free_bytes(std::uint64_t& bytes, failure& why) noexcept = 0;

  // Aligned to 256 bytes.
  virtual bool allocate(std::size_t bytes, void*& memory, failure& why) noexcept = 0;
  virtual void release(void* memory) noexcept = 0;
  // Host memory that the device reads and writes by itself.
  virtual bool allocate_pinned(std::size_t bytes, void*& memory, failure& why) noexcept = 0;
  virtual void release_pinned(void* memory) noexcept = 0;

  // Asynchronous, in the order of the queue; host memory is to be pinned.
  virtual bool upload(queue_id queue, void* to, const void* from, std::size_t bytes,
                      failure& why) noexcept = 0;
  virtual bool download(queue_id queue, void* to, const void* from, std::size_t bytes,
                        failure& why) noexcept = 0;
  virtual bool copy(queue_id queue, void* to, const void* from, std::size_t bytes,
                    failure& why) noexcept = 0;
  virtual bool fill(queue_id queue, void* to, std::uint8_t byte, std::size_t bytes,
                    failure& why) noexcept = 0;

  // Blocks until the queue is empty. Faults of kernels show here.
  virtual bool finish(queue_id queue, failure& why) noexcept = 0;
  // A point in a queue, and another queue that waits for it. An event may be recorded again.
  virtual bool make_event(event_id& event, failure& why) noexcept = 0;
  virtual bool record(queue_id queue, event_id event, failure& why) noexcept = 0;
  virtual bool wait_for(queue_id queue, event_id event, failure& why) noexcept = 0;
  // Milliseconds between two events that the device has passed.
  virtual bool elapsed(event_id from, event_id to, float& milliseconds, failure& why) noexcept = 0;

  // Between the two, work given to the compute queue is recorded and not run.
  virtual bool begin_graph(failure& why) noexcept = 0;
  virtual bool end_graph(graph_id& graph, failure& why) noexcept = 0;
  virtual bool launch_graph(graph_id graph, failure& why) noexcept = 0;
  virtual void release_graph(graph_id graph) noexcept = 0;

  // Launchers of kernels put them into the compute queue of this target.
  virtual const kernel_table& kernels() const noexcept = 0;
  virtual const launch_target& target() noexcept = 0;
  // Whether the launches since the last call were accepted.
  virtual bool check_launches(failure& why) noexcept = 0;

  // Ends everything. Memory that was not released is released.
  virtual void close() noexcept = 0;

 protected:
  ~context() = default;
};

class module {
 public:
  virtual module_kind kind() const noexcept = 0;
  // "CUDA 13.0, sm_80 and sm_90": what it was built with and for.
  virtual const char* built_for() const noexcept = 0;
  // How many devices; if none, `why` says what is missing, and what would help.
  virtual std::int32_t count(failure& why) noexcept = 0;
  virtual bool describe(std::int32_t device, device_facts& facts, failure& why) noexcept = 0;
  virtual bool open(std::int32_t device, context*& opened, failure& why) noexcept = 0;

 protected:
  ~module() = default;
};

}  // namespace nibble::inline v0::gpu

// The one function that a module exports, by this name. Null if it has another ABI number.
using nibble_gpu_module_fn = nibble::gpu::module* (*)(std::uint32_t abi);
inline constexpr const char* nibble_gpu_module_name = "nibble_gpu_module";
