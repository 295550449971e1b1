// GPUs as backends, through modules that are found and opened at run time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

namespace gpu {
class module;  // kernels/gpu/module.hpp
}

class gpu_device;

struct gpu_options {
  activation_type activations = activation_type::int8;
};

// The modules for CUDA and HIP: libnibble_cuda.so and libnibble_hip.so. They are looked for in
// `folders`, in those that NIBBLE_MODULE_PATH names (separated by colons), where the library or
// program that nibble is linked into lies, in the folders nibble was installed to, and where the
// system looks. A module stays loaded until the process ends.
class NIBBLE_API gpu_modules {
 public:
  explicit gpu_modules(const std::vector<std::filesystem::path>& folders = {});
  ~gpu_modules();
  gpu_modules(gpu_modules&&) noexcept;
  gpu_modules& operator=(gpu_modules&&) noexcept;

  // Adds the devices of a module that is linked in or was opened by the caller, who keeps it alive.
  void add(gpu::module& module);

  // Every device that can be used, with ids like "cuda0".
  const std::vector<device_info>& devices() const noexcept;
  // A sentence for each kind of GPU that cannot be used, saying why and what would help.
  const std::vector<std::string>& notes() const noexcept;

  // Opens a device by its id. Throws error: invalid_argument (there is no such device; the message
  // names those there are), device, unsupported.
  std::unique_ptr<backend> open(std::string_view id, const gpu_options& options = {}) const;
  // What models take there, without opening it. Throws error (invalid_argument) likewise.
  std::unique_ptr<device_sizes> sizes(std::string_view id, const gpu_options& options = {}) const;

 private:
  friend std::shared_ptr<gpu_device> open_gpu(const gpu_modules& modules, std::string_view id);
  struct state;
  std::unique_ptr<state> state_;
};

// A device of a module that is linked in or was opened by the caller, who keeps it alive.
// Throws error: device, unsupported.
NIBBLE_API std::unique_ptr<backend> make_gpu_backend(gpu::module& from, std::int32_t index,
                                                     const gpu_options& options = {});

}  // namespace nibble::inline NIBBLE_ABI
