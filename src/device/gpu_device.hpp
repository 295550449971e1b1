// One opened GPU: what gpu::context offers, with failures as exceptions and memory that frees
// itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <string>
#include <utility>

#include "device/memory_tally.hpp"
#include "gpu/module.hpp"

namespace nibble::inline NIBBLE_ABI {

class gpu_device;

// Memory of a device, or pinned memory of the host that belongs to one (memory_tally::host).
class gpu_memory {
 public:
  using kind = memory_tally::kind;

  gpu_memory() = default;
  // `purpose` is named in the error: "weights". Throws error (out_of_memory, device).
  gpu_memory(std::shared_ptr<gpu_device> device, kind what, std::size_t bytes, const char* purpose);
  ~gpu_memory();
  gpu_memory(gpu_memory&& other) noexcept;
  gpu_memory& operator=(gpu_memory&& other) noexcept;

  std::byte* data() const noexcept { return data_; }
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  void release() noexcept;

  std::shared_ptr<gpu_device> device_;
  kind kind_ = kind::weights;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  tally_entry counted_;
};

// May be used from several threads; calls that belong together are made under lock().
class gpu_device {
 public:
  // Throws error (device, unsupported).
  gpu_device(gpu::module& from, std::int32_t index);
  ~gpu_device();
  gpu_device(const gpu_device&) = delete;
  gpu_device& operator=(const gpu_device&) = delete;

  const gpu::device_facts& facts() const noexcept { return facts_; }
  const std::string& id() const noexcept { return id_; }      // "cuda0"
  const std::string& name() const noexcept { return name_; }  // "cuda0 (NVIDIA H200)"
  gpu::module_kind kind() const noexcept { return kind_; }
  std::uint64_t free_bytes();
  device_info info();
  const std::shared_ptr<memory_tally>& tally() const noexcept { return tally_; }

  [[nodiscard]] std::unique_lock<std::recursive_mutex> lock() { return std::unique_lock(calls_); }

  void upload(gpu::queue_id queue, std::byte* to, const std::byte* from, std::size_t bytes);
  void download(gpu::queue_id queue, std::byte* to, const std::byte* from, std::size_t bytes);
  void copy(gpu::queue_id queue, std::byte* to, const std::byte* from, std::size_t bytes);
  void fill(gpu::queue_id queue, std::byte* to, std::uint8_t byte, std::size_t bytes);
  void finish(gpu::queue_id queue);

  // A point in a queue, whose time is known once it is finished. The two used last are kept.
  gpu::event_id mark(gpu::queue_id queue);
  double seconds_between(gpu::event_id from, gpu::event_id to);

  const gpu::kernel_table& kernels() const noexcept { return context_->kernels(); }
  const gpu::launch_target& target() noexcept { return context_->target(); }
  // `what` was launched: "matmul". Throws error (device) if the device did not take it.
  void check_launches(const char* what);

  void begin_graph();
  gpu::graph_id end_graph();
  void abandon_graph() noexcept;  // after a failure between the two
  void launch_graph(gpu::graph_id graph);
  void release_graph(gpu::graph_id graph) noexcept;

 private:
  friend class gpu_memory;
  [[noreturn]] void fail(const gpu::failure& why, const char* doing) const;
  void check(bool done, const gpu::failure& why, const char* doing) const {
    if (!done) fail(why, doing);
  }

  gpu::module_kind kind_;
  gpu::context* context_ = nullptr;
  gpu::device_facts facts_{};
  std::string id_, name_;
  const std::shared_ptr<memory_tally> tally_ = std::make_shared<memory_tally>();
  std::recursive_mutex calls_;
  gpu::event_id marks_[2] = {};  // 0: not made yet
  int next_mark_ = 0;
};

// "cuda0", and what people read: "cuda0 (NVIDIA H200)".
std::string gpu_id(gpu::module_kind kind, std::int32_t index);
std::string gpu_name(const std::string& id, const gpu::device_facts& facts);
device_kind device_kind_of(gpu::module_kind kind);

}  // namespace nibble::inline NIBBLE_ABI
