// Turns the steps of a recording into steps of the CPU. One make() per kind; each stands beside the
// code that runs it, in cpu_steps_*.cpp.
#pragma once

#include <cstdint>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <nibble/device/cpu.hpp>
#include <nibble/device/recording.hpp>

#include "cpu/kernel_table.hpp"
#include "device/cpu_program_memory.hpp"
#include "device/cpu_step.hpp"

namespace nibble::inline NIBBLE_ABI {

// A value of the workspace: [rows, width].
template <typename T>
struct cpu_buffer {
  T* data = nullptr;
  std::int64_t width = 0;
  value_rows rows = value_rows::per_token;

  T* row(std::int64_t i) const noexcept { return data + i * width; }
};

// A norm with its gain at hand.
struct cpu_norm {
  const float* gain = nullptr;
  float epsilon = 0;
};

inline const float* floats_of(const weight& w) {
  return reinterpret_cast<const float*>(w.data);
}

class cpu_step_maker {
 public:
  using made = std::unique_ptr<cpu_step>;

  // All outlive the steps.
  cpu_step_maker(const recording& r, const cpu::kernel_table& kernels, activation_type activations,
                 const cpu_program_memory& memory)
      : r_(r), kernels_(kernels), activations_(activations), memory_(memory) {}

  // Fills the tables of sines and cosines for the batch's positions; null if nothing rotates.
  made make_rope_tables() const;

  // What shows the inputs of a step's products to the observer; null if it is no product.
  made make_observation(const step& s, matmul_observer& observer) const;

  made make(const embed_step& s);
  made make(const norm_step& s);
  made make(const matmul_step& s);
  made make(const attend_step& s);
  made make(const gate_step& s);
  made make(const add_step& s);
  made make(const route_step& s);
  made make(const expert_matmul_step& s);
  made make(const combine_step& s);
  made make(const select_step& s);
  made make(const softcap_step& s);

 private:
  template <typename T = float>
  cpu_buffer<T> buffer(value v) const {
    const std::size_t offset = memory_.values.offset[static_cast<std::size_t>(v.id)];
    return {reinterpret_cast<T*>(memory_.base + offset), r_.info(v).width, r_.info(v).rows};
  }
  static cpu_norm norm(const rms_norm& n) { return {floats_of(*n.gain), n.epsilon}; }
  const q8_buffer& next_q8() { return memory_.q8[products_++ % 2]; }

  const recording& r_;
  const cpu::kernel_table& kernels_;
  activation_type activations_;
  const cpu_program_memory& memory_;
  std::size_t products_ = 0;
};

}  // namespace nibble::inline NIBBLE_ABI
