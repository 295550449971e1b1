// What the tests of GPU kernels share: the devices, arrays on them, and how to launch.
//
//   for (auto& device : test::gpu_devices()) {
//     INFO(device.name);
//     test::device_array<float> x(device, values), out(device, n);
//     test::run(device, &gpu::kernel_table::softcap, {x.data(), n, 30.0f});
//     check(x.read());
//   }
//
// The devices are the emulated ones, whose threads go on in a random order with a fixed seed
// (NIBBLE_TEST_ORDER: "ascending", "descending", or the number of another seed), and those of the
// module that NIBBLE_TEST_GPU_MODULE names: the file of a shared library.
#pragma once

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "coverage.hpp"
#include "emulated/emulated.hpp"
#include "gpu/module.hpp"

namespace test {

namespace gpu = nibble::gpu;

inline void require(bool ok, const gpu::failure& why) {
  INFO(why.text);
  REQUIRE(ok);
}

struct close_context {
  void operator()(gpu::context* context) const { context->close(); }
};

struct gpu_device {
  std::string name;
  std::unique_ptr<gpu::context, close_context> context;
  gpu::module_kind kind;
  std::optional<gpu::emulated_target> emulated = {};  // if it is

  const gpu::kernel_table& kernels() const { return context->kernels(); }
};

inline gpu_device open_device(gpu::module& from, std::int32_t which) {
  gpu::context* context = nullptr;
  gpu::failure why;
  require(from.open(which, context, why), why);
  return {context->facts().name, std::unique_ptr<gpu::context, close_context>(context),
          from.kind()};
}

inline gpu_device open_emulated(const gpu::emulated_options& options) {
  gpu::emulated_module from({options});
  gpu_device device = open_device(from, 0);
  device.emulated = options.target;
  return device;
}

inline void set_order(gpu::emulated_options& options) {
  const char* const order = std::getenv("NIBBLE_TEST_ORDER");
  options.order = nibble::simt::lane_order::random;
  if (order == nullptr) return;
  if (std::strcmp(order, "ascending") == 0) options.order = nibble::simt::lane_order::ascending;
  if (std::strcmp(order, "descending") == 0) options.order = nibble::simt::lane_order::descending;
  options.seed = static_cast<std::uint32_t>(std::strtoul(order, nullptr, 10));
}

inline gpu::module* real_module() {
  const char* const file = std::getenv("NIBBLE_TEST_GPU_MODULE");
  if (file == nullptr) return nullptr;
  void* const library = ::dlopen(file, RTLD_NOW | RTLD_LOCAL);
  INFO((library == nullptr ? ::dlerror() : file));
  REQUIRE(library != nullptr);
  const auto entry =
      reinterpret_cast<nibble_gpu_module_fn>(::dlsym(library, nibble_gpu_module_name));
  REQUIRE(entry != nullptr);
  gpu::module* const found = entry(gpu::module_abi);
  REQUIRE(found != nullptr);
  return found;
}

// Opened at the first call, and for the whole program.
inline std::vector<gpu_device>& gpu_devices() {
  static std::vector<gpu_device> devices = [] {
    std::vector<gpu_device> opened;
    for (const gpu::emulated_target target : gpu::emulated_targets) {
      gpu::emulated_options options;
      options.target = target;
      set_order(options);
      opened.push_back(open_emulated(options));
    }
    if (gpu::module* const real = real_module()) {
      gpu::failure why;
      const std::int32_t n = real->count(why);
      INFO(why.text);
      REQUIRE(n > 0);
      for (std::int32_t i = 0; i < n; ++i) opened.push_back(open_device(*real, i));
    }
    return opened;
  }();
  return devices;
}

// Pinned memory of the host.
template <typename T>
class pinned_array {
 public:
  pinned_array(gpu_device& device, std::size_t n) : context_(device.context.get()), n_(n) {
    gpu::failure why;
    void* memory = nullptr;
    require(context_->allocate_pinned(n * sizeof(T), memory, why), why);
    data_ = static_cast<T*>(memory);
  }
  ~pinned_array() { context_->release_pinned(data_); }
  pinned_array(const pinned_array&) = delete;
  pinned_array& operator=(const pinned_array&) = delete;

  T* data() const { return data_; }
  std::size_t size() const { return n_; }
  T& operator[](std::size_t i) const { return data_[i]; }

 private:
  gpu::context* context_;
  T* data_ = nullptr;
  std::size_t n_;
};

// An array in a device's memory. Transfers wait until all is done.
template <typename T>
class device_array {
 public:
  // Holds garbage.
  device_array(gpu_device& device, std::size_t n) : device_(&device), n_(n) {
    gpu::failure why;
    void* memory = nullptr;
    require(device.context->allocate(n * sizeof(T), memory, why), why);
    data_ = static_cast<T*>(memory);
  }
  device_array(gpu_device& device, const std::vector<T>& values)
      : device_array(device, values.size()) {
    write(values);
  }
  ~device_array() {
    if (data_ != nullptr) device_->context->release(data_);
  }
  device_array(device_array&& other) noexcept
      : device_(other.device_), data_(std::exchange(other.data_, nullptr)), n_(other.n_) {}
  device_array& operator=(device_array&&) = delete;

  T* data() const { return data_; }
  std::size_t size() const { return n_; }

  void write(const std::vector<T>& values) {
    REQUIRE(values.size() == n_);
    if (n_ == 0) return;
    const pinned_array<T> staging(*device_, n_);
    std::memcpy(static_cast<void*>(staging.data()), values.data(), n_ * sizeof(T));
    gpu::failure why;
    gpu::context& context = *device_->context;
    require(context.upload(gpu::queue_id::compute, data_, staging.data(), n_ * sizeof(T), why),
            why);
    require(context.finish(gpu::queue_id::compute, why), why);
  }

  std::vector<T> read() const {
    std::vector<T> values(n_);
    if (n_ == 0) return values;
    const pinned_array<T> staging(*device_, n_);
    gpu::failure why;
    gpu::context& context = *device_->context;
    require(context.download(gpu::queue_id::compute, staging.data(), data_, n_ * sizeof(T), why),
            why);
    require(context.finish(gpu::queue_id::compute, why), why);
    std::memcpy(static_cast<void*>(values.data()), staging.data(), n_ * sizeof(T));
    return values;
  }

 private:
  gpu_device* device_;
  T* data_ = nullptr;
  std::size_t n_;
};

// Launches by launch(const gpu::launch_target&), and waits until all has been done without a fault.
template <typename Launch>
void run(gpu_device& device, Launch&& launch) {
  launch(device.context->target());
  gpu::failure why;
  require(device.context->check_launches(why), why);
  require(device.context->finish(gpu::queue_id::compute, why), why);
}

// The same of a kernel of the table: run(device, &gpu::kernel_table::quantise, args).
template <typename Args>
void run(gpu_device& device,
         void (*gpu::kernel_table::*kernel)(const gpu::launch_target&, const Args&),
         const std::type_identity_t<Args>& args) {
  note(device.name, args);
  run(device, [&](const gpu::launch_target& target) { (device.kernels().*kernel)(target, args); });
}

}  // namespace test
