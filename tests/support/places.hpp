// Where tests of whole programs run: the CPU, and GPUs of each kind, emulated.
#pragma once

#include <functional>
#include <memory>
#include <nibble/device/cpu.hpp>
#include <nibble/device/gpu.hpp>
#include <string>
#include <vector>

#include "emulated/emulated.hpp"

namespace test {

struct place {
  std::string name;
  std::function<std::unique_ptr<nibble::backend>(nibble::activation_type)> open;
  bool emulated = false;
};

inline place cpu_place(int threads) {
  return {"CPU, threads: " + std::to_string(threads), [threads](nibble::activation_type type) {
            nibble::cpu_options options;
            options.threads = threads;
            options.activations = type;
            return nibble::make_cpu_backend(options);
          }};
}

inline place emulated_place(nibble::gpu::emulated_target target) {
  using nibble::gpu::emulated_target;
  const char* const name = target == emulated_target::cuda   ? "emulated, as CUDA"
                           : target == emulated_target::rdna ? "emulated, as RDNA"
                                                             : "emulated, as CDNA";
  // the module must live as long as its backends
  auto module = std::make_shared<nibble::gpu::emulated_module>(
      std::vector{nibble::gpu::emulated_options{.target = target}});
  return {name,
          [module](nibble::activation_type type) {
            return nibble::make_gpu_backend(*module, 0, {.activations = type});
          },
          true};
}

// With sanitizers whole models would take long, and their kernels have tests of their own.
inline std::vector<place> emulated_places() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return {};
#else
  std::vector<place> all;
  for (const auto target : nibble::gpu::emulated_targets) all.push_back(emulated_place(target));
  return all;
#endif
}

}  // namespace test
