// The module of a vendor: CUDA's and HIP's runtimes behind gpu::module. Compiled by nvcc and by
// hipcc; what differs stands in cuda/runtime.hpp and hip/runtime.hpp.
#include "gpu/dialect.hpp"
#include "gpu/launchers.hpp"
#include "gpu/table.hpp"

#if defined(__HIP__) || defined(__HIPCC__) || defined(NIBBLE_HIP_ON_CUDA)
#include "hip/runtime.hpp"
#else
#include "cuda/runtime.hpp"
#endif

#include <algorithm>
#include <cstdio>
#include <mutex>
#include <new>
#include <vector>

namespace nibble::inline v0::gpu {
namespace {

using error_t = NIBBLE_VENDOR(Error_t);
constexpr error_t success = NIBBLE_VENDOR(Success);

fault fault_of(error_t error) {
  switch (error) {
    case NIBBLE_VENDOR(Success):
      return fault::none;
    case NIBBLE_VENDOR(ErrorMemoryAllocation):
      return fault::out_of_memory;
    case NIBBLE_VENDOR(ErrorInvalidValue):
      return fault::invalid;
    case NIBBLE_VENDOR(ErrorNoDevice):
      return fault::no_device;
    case NIBBLE_VENDOR(ErrorInsufficientDriver):
      return fault::old_driver;
    case NIBBLE_VENDOR(ErrorIllegalAddress):
    case NIBBLE_VENDOR(ErrorLaunchFailure):
    case vendor::launch_timeout:
    case NIBBLE_VENDOR(ErrorAssert):
      return fault::lost;
    default:
      return fault::other;
  }
}

// Which call, and what the runtime says of it.
bool check(error_t error, const char* call, std::uint64_t bytes, failure& why) {
  if (error == success) return true;
  why.what = fault_of(error);
  if (bytes > 0) {
    std::snprintf(why.text, sizeof why.text, "%s%s of %llu bytes: %s (%s)", vendor::prefix, call,
                  static_cast<unsigned long long>(bytes), NIBBLE_VENDOR(GetErrorString)(error),
                  NIBBLE_VENDOR(GetErrorName)(error));
  } else {
    std::snprintf(why.text, sizeof why.text, "%s%s: %s (%s)", vendor::prefix, call,
                  NIBBLE_VENDOR(GetErrorString)(error), NIBBLE_VENDOR(GetErrorName)(error));
  }
  static_cast<void>(NIBBLE_VENDOR(GetLastError)());  // it would be told again
  return false;
}

// Whether the module has code for a device at all.
__global__ void present() {}

bool get_facts(int device, device_facts& facts, failure& why) {
  NIBBLE_VENDOR(DeviceProp) p{};
  if (!check(vendor::properties(&p, device), "GetDeviceProperties", 0, why)) return false;
  facts = {};
  std::snprintf(facts.name, sizeof facts.name, "%.127s", p.name);
  vendor::name_arch(p, facts.arch);
  facts.warp = p.warpSize;
  facts.multiprocessors = p.multiProcessorCount;
  facts.shared_bytes = vendor::shared_by_request(p);
  facts.shared_default = static_cast<std::int32_t>(p.sharedMemPerBlock);
  facts.matrix_units = vendor::has_matrix_units(p);
  facts.total_bytes = p.totalGlobalMem;
  facts.memory_bandwidth = vendor::bandwidth_of(device, p);
  return true;
}

class vendor_context final : public context {
 public:
  explicit vendor_context(int device) : device_(device) {}

  bool start(failure& why) {
    if (!get_facts(device_, facts_, why) || !use(why)) return false;
    NIBBLE_VENDOR(FuncAttributes) attributes{};
    if (NIBBLE_VENDOR(FuncGetAttributes)(&attributes, reinterpret_cast<const void*>(&present)) !=
        success) {
      static_cast<void>(NIBBLE_VENDOR(GetLastError)());
      why.what = fault::old_device;
      std::snprintf(why.text, sizeof why.text,
                    "this module has no code for %s; it was built for %s", facts_.arch,
                    NIBBLE_BUILT_FOR);
      return false;
    }
    for (auto& stream : streams_) {
      if (!check(NIBBLE_VENDOR(StreamCreateWithFlags)(&stream, NIBBLE_VENDOR(StreamNonBlocking)),
                 "StreamCreate", 0, why)) {
        return false;
      }
    }
    target_ = {streams_[0], &facts_};
    return true;
  }

  const device_facts& facts() const noexcept override { return facts_; }

  bool free_bytes(std::uint64_t& bytes, failure& why) noexcept override {
    std::size_t free = 0, total = 0;
    if (!use(why) || !check(NIBBLE_VENDOR(MemGetInfo)(&free, &total), "MemGetInfo", 0, why)) {
      return false;
    }
    bytes = free;
    return true;
  }

  bool allocate(std::size_t bytes, void*& memory, failure& why) noexcept override {
    return use(why) && check(NIBBLE_VENDOR(Malloc)(&memory, bytes), "Malloc", bytes, why);
  }
  void release(void* memory) noexcept override {
    failure ignored;
    if (use(ignored)) static_cast<void>(NIBBLE_VENDOR(Free)(memory));
  }
  bool allocate_pinned(std::size_t bytes, void*& memory, failure& why) noexcept override {
    return use(why) &&
           check(vendor::allocate_host(&memory, bytes), "HostAlloc (pinned)", bytes, why);
  }
  void release_pinned(void* memory) noexcept override {
    failure ignored;
    if (use(ignored)) static_cast<void>(vendor::free_host(memory));
  }

  bool upload(queue_id queue, void* to, const void* from, std::size_t bytes,
              failure& why) noexcept override {
    return transfer(queue, to, from, bytes, NIBBLE_VENDOR(MemcpyHostToDevice), why);
  }
  bool download(queue_id queue, void* to, const void* from, std::size_t bytes,
                failure& why) noexcept override {
    return transfer(queue, to, from, bytes, NIBBLE_VENDOR(MemcpyDeviceToHost), why);
  }
  bool copy(queue_id queue, void* to, const void* from, std::size_t bytes,
            failure& why) noexcept override {
    return transfer(queue, to, from, bytes, NIBBLE_VENDOR(MemcpyDeviceToDevice), why);
  }
  bool fill(queue_id queue, void* to, std::uint8_t byte, std::size_t bytes,
            failure& why) noexcept override {
    return use(why) && check(NIBBLE_VENDOR(MemsetAsync)(to, byte, bytes, stream(queue)),
                             "MemsetAsync", bytes, why);
  }

  bool finish(queue_id queue, failure& why) noexcept override {
    return use(why) &&
           check(NIBBLE_VENDOR(StreamSynchronize)(stream(queue)), "StreamSynchronize", 0, why);
  }
  bool make_event(event_id& event, failure& why) noexcept override {
    NIBBLE_VENDOR(Event_t) made{};
    if (!use(why) || !check(NIBBLE_VENDOR(EventCreate)(&made), "EventCreate", 0, why)) return false;
    return keep(events_, made, event, why);
  }
  bool record(queue_id queue, event_id event, failure& why) noexcept override {
    return use(why) && check(NIBBLE_VENDOR(EventRecord)(at(events_, event), stream(queue)),
                             "EventRecord", 0, why);
  }
  bool wait_for(queue_id queue, event_id event, failure& why) noexcept override {
    return use(why) && check(NIBBLE_VENDOR(StreamWaitEvent)(stream(queue), at(events_, event), 0),
                             "StreamWaitEvent", 0, why);
  }
  bool elapsed(event_id from, event_id to, float& milliseconds, failure& why) noexcept override {
    return use(why) &&
           check(NIBBLE_VENDOR(EventElapsedTime)(&milliseconds, at(events_, from), at(events_, to)),
                 "EventElapsedTime", 0, why);
  }

  bool begin_graph(failure& why) noexcept override {
    return use(why) && check(NIBBLE_VENDOR(StreamBeginCapture)(
                                 streams_[0], NIBBLE_VENDOR(StreamCaptureModeThreadLocal)),
                             "StreamBeginCapture", 0, why);
  }
  bool end_graph(graph_id& graph, failure& why) noexcept override {
    NIBBLE_VENDOR(Graph_t) captured{};
    if (!use(why) || !check(NIBBLE_VENDOR(StreamEndCapture)(streams_[0], &captured),
                            "StreamEndCapture", 0, why)) {
      return false;
    }
    NIBBLE_VENDOR(GraphExec_t) executable{};
    const bool made = check(vendor::instantiate(&executable, captured), "GraphInstantiate", 0, why);
    static_cast<void>(NIBBLE_VENDOR(GraphDestroy)(captured));
    return made && keep(graphs_, executable, graph, why);
  }
  bool launch_graph(graph_id graph, failure& why) noexcept override {
    return use(why) && check(NIBBLE_VENDOR(GraphLaunch)(at(graphs_, graph), streams_[0]),
                             "GraphLaunch", 0, why);
  }
  void release_graph(graph_id graph) noexcept override {
    failure ignored;
    auto& executable = at(graphs_, graph);
    if (use(ignored) && executable) {
      static_cast<void>(NIBBLE_VENDOR(GraphExecDestroy)(executable));
    }
    executable = nullptr;
  }

  const kernel_table& kernels() const noexcept override { return nibble::kernels::kernels(); }
  // The launches that follow go to this device.
  const launch_target& target() noexcept override {
    failure ignored;
    use(ignored);
    return target_;
  }
  bool check_launches(failure& why) noexcept override {
    return check(NIBBLE_VENDOR(GetLastError)(), " kernel launch", 0, why);
  }

  void close() noexcept override {
    failure ignored;
    if (use(ignored)) {
      for (auto& g : graphs_) {
        if (g) static_cast<void>(NIBBLE_VENDOR(GraphExecDestroy)(g));
      }
      for (auto& e : events_) static_cast<void>(NIBBLE_VENDOR(EventDestroy)(e));
      for (auto& s : streams_) {
        if (s) static_cast<void>(NIBBLE_VENDOR(StreamDestroy)(s));
      }
    }
    delete this;
  }

 private:
  // A host thread has a current device, which may be another one.
  bool use(failure& why) noexcept {
    return check(NIBBLE_VENDOR(SetDevice)(device_), "SetDevice", 0, why);
  }
  NIBBLE_VENDOR(Stream_t) stream(queue_id queue) const noexcept {
    return streams_[static_cast<int>(queue)];
  }
  bool transfer(queue_id queue, void* to, const void* from, std::size_t bytes,
                NIBBLE_VENDOR(MemcpyKind) kind, failure& why) noexcept {
    return use(why) && check(NIBBLE_VENDOR(MemcpyAsync)(to, from, bytes, kind, stream(queue)),
                             "MemcpyAsync", bytes, why);
  }

  template <typename T>
  static T& at(std::vector<T>& all, std::int32_t id) noexcept {
    return all[static_cast<std::size_t>(id - 1)];
  }
  template <typename T>
  static bool keep(std::vector<T>& all, T one, std::int32_t& id, failure& why) noexcept {
    try {
      all.push_back(one);
    } catch (const std::bad_alloc&) {
      why.what = fault::out_of_memory;
      std::snprintf(why.text, sizeof why.text, "the host has no memory left");
      return false;
    }
    id = static_cast<std::int32_t>(all.size());
    return true;
  }

  int device_;
  device_facts facts_{};
  NIBBLE_VENDOR(Stream_t) streams_[2] = {};
  launch_target target_{};
  std::vector<NIBBLE_VENDOR(Event_t)> events_;
  std::vector<NIBBLE_VENDOR(GraphExec_t)> graphs_;
};

class vendor_module final : public module {
 public:
  module_kind kind() const noexcept override { return vendor::kind; }
  const char* built_for() const noexcept override { return NIBBLE_BUILT_FOR; }

  std::int32_t count(failure& why) noexcept override {
    int n = 0;
    const error_t error = NIBBLE_VENDOR(GetDeviceCount)(&n);
    if (error == success && n > 0) return n;
    static_cast<void>(NIBBLE_VENDOR(GetLastError)());
    vendor::explain(error, why);
    return 0;
  }

  bool describe(std::int32_t device, device_facts& facts, failure& why) noexcept override {
    return get_facts(device, facts, why);
  }

  bool open(std::int32_t device, context*& opened, failure& why) noexcept override {
    auto* const made = new (std::nothrow) vendor_context(device);
    if (!made) {
      why.what = fault::out_of_memory;
      std::snprintf(why.text, sizeof why.text, "the host has no memory left");
      return false;
    }
    if (!made->start(why)) {
      made->close();
      return false;
    }
    opened = made;
    return true;
  }
};

}  // namespace
}  // namespace nibble::inline v0::gpu

extern "C" __attribute__((visibility("default"))) nibble::gpu::module* nibble_gpu_module(
    std::uint32_t abi) {
  static nibble::gpu::vendor_module module;
  return abi == nibble::gpu::module_abi ? &module : nullptr;
}
