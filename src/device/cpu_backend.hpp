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
#include "device/cpu_sizes.hpp"
#include "device/cpu_step.hpp"
#include "device/memory_tally.hpp"
#include "device/thread_team.hpp"
#include "device/weight_room.hpp"

namespace nibble::inline NIBBLE_ABI {

// Memory that programs work in.
struct cpu_workspace {
  cpu_workspace(std::size_t bytes, std::shared_ptr<memory_tally> tally)
      : memory(bytes, "a workspace"),
        counted(std::move(tally), memory_tally::workspace, memory.bytes()) {}

  arena memory;
  tally_entry counted;
};

device_info describe_cpu(const cpu::kernel_table& kernels, int threads);

class cpu_backend final : public backend {
 public:
  cpu_backend(const cpu_options& options, const cpu::kernel_table& kernels);

  const device_info& info() const noexcept override { return sizes_.info(); }

  std::size_t weight_bytes(const tensor_view& tensor) const override {
    return sizes_.weight_bytes(tensor);
  }
  void reserve_weights(std::size_t bytes) override;
  weight place_weight(const tensor_view& tensor) override;
  void fill_weight(const weight& placed, row_range rows, const std::byte* from) override;

  std::size_t cache_bytes(const kv_layout& layout,
                          std::span<const std::int32_t> pages) const override {
    return sizes_.cache_bytes(layout, pages);
  }
  std::unique_ptr<kv_cache> make_cache(const kv_layout& layout,
                                       std::span<const std::int32_t> pages) override;

  workspace_size workspace_of(const recording& steps, program_limits limits) const override {
    return sizes_.workspace_of(steps, limits);
  }
  void reserve_workspace(const workspace_size& size) override;
  std::unique_ptr<program> make_program(recording steps, program_limits limits) override;

  memory_use allocated() const override { return tally_->use(); }
  memory_use peak() const override { return tally_->peak(); }

  // Runs steps[i] for all i on all threads, one program at a time.
  void run(const std::vector<std::unique_ptr<cpu_step>>& steps, const std::vector<bool>& barriers,
           cpu_run state);

  int threads() const noexcept { return team_.size(); }

 private:
  const cpu::kernel_table& kernels_;
  matmul_observer* observer_;
  thread_team team_;
  cpu_sizes sizes_;

  const std::shared_ptr<memory_tally> tally_ = std::make_shared<memory_tally>();
  arena weights_;
  weight_room room_;
  tally_entry counted_weights_;
  std::shared_ptr<const cpu_workspace> workspace_;  // null: each program has its own

  std::mutex running_;  // guards what follows, and the team
  // Parts of pages that a head looks at, by thread; as long as the greatest cache may need.
  std::vector<std::vector<cpu::kv_page>> page_lists_;
};

}  // namespace nibble::inline NIBBLE_ABI
