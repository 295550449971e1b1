// A recording compiled for the CPU.
#pragma once

#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <vector>

#include "device/batch_check.hpp"
#include "device/cpu_program_memory.hpp"
#include "device/cpu_step.hpp"

namespace nibble::inline NIBBLE_ABI {

class cpu_backend;
struct cpu_workspace;
class cpu_step_maker;
class matmul_observer;

class cpu_program final : public program {
 public:
  cpu_program(cpu_backend& owner, const cpu::kernel_table& kernels, activation_type activations,
              matmul_observer* observer, recording steps, program_limits limits,
              std::shared_ptr<const cpu_workspace> space);

  std::span<float> input() override;
  void submit(const batch& work) override;  // runs to the end
  void wait() override {}
  std::span<const float> output() override;

 private:
  float* values_of(value v) const;
  void compile(const cpu::kernel_table& kernels, activation_type activations,
               matmul_observer* observer);
  // Puts them before the products that they look at.
  void add_observations(const cpu_step_maker& maker, matmul_observer& observer);

  cpu_backend& owner_;
  const recording recording_;
  const batch_needs needs_;
  const std::shared_ptr<const cpu_workspace> space_;
  cpu_program_memory memory_;
  std::vector<std::unique_ptr<cpu_step>> steps_;
  std::vector<bool> barriers_[2];  // before each step; [1]: for a single token
  std::vector<token_place> places_;
  std::int64_t tokens_ = 0, outputs_ = 0;  // of the last run
};

}  // namespace nibble::inline NIBBLE_ABI
