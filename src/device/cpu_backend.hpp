// The CPU as a backend: weights in one arena, a team of threads, kernels for one instruction set.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <nibble/device/cpu.hpp>
#include <vector>

#include "cpu/kernel_table.hpp"
#include "device/arena.hpp"
#include "device/cpu_step.hpp"
#include "device/cpu_weights.hpp"
#include "device/thread_team.hpp"
#include "device/weight_room.hpp"

namespace nibble::inline NIBBLE_ABI {

device_info describe_cpu(const cpu::kernel_table& kernels, int threads);

class cpu_backend final : public backend {
 public:
  cpu_backend(const cpu_options& options, const cpu::kernel_table& kernels);

  const device_info& info() const noexcept override { return info_; }

  std::size_t weight_bytes(const tensor_view& tensor) const override;
  void reserve_weights(std::size_t bytes) override;
  weight place_weight(const tensor_view& tensor) override;
  void fill_weight(const weight& placed, row_range rows, const std::byte* from) override;

  std::size_t cache_bytes(const kv_layout& layout,
                          std::span<const std::int32_t> pages) const override;
  std::unique_ptr<kv_cache> make_cache(const kv_layout& layout,
                                       std::span<const std::int32_t> pages) override;

  std::size_t workspace_bytes(const recording& steps, program_limits limits) const override;
  std::unique_ptr<program> make_program(recording steps, program_limits limits) override;

  // Runs steps[i] for all i on all threads, one program at a time.
  void run(const std::vector<std::unique_ptr<cpu_step>>& steps, const std::vector<bool>& barriers,
           cpu_run state);

  int threads() const noexcept { return team_.size(); }

 private:
  const cpu::kernel_table& kernels_;
  activation_type activations_;
  matmul_observer* observer_;
  thread_team team_;
  device_info info_;

  weight_packing packing_;
  arena weights_;
  weight_room room_;

  std::mutex running_;  // guards what follows, and the team
  // Parts of pages that a head looks at, by thread; as long as the greatest cache may need.
  std::vector<std::vector<cpu::kv_page>> page_lists_;
};

}  // namespace nibble::inline NIBBLE_ABI
