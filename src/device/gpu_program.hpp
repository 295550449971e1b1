// A recording compiled for a GPU: a list of launches, which for few tokens are captured once as a
// graph and replayed.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <utility>
#include <vector>

#include "device/batch_check.hpp"
#include "device/gpu_device.hpp"
#include "device/gpu_kv_cache.hpp"
#include "device/gpu_program_memory.hpp"

namespace nibble::inline NIBBLE_ABI {

class gpu_backend;

// What launches of one run are given.
struct gpu_run {
  const gpu::kernel_table& kernels;
  const gpu::launch_target& target;
  std::int64_t tokens = 0, outputs = 0;
  std::int64_t run_tokens = 0;                  // of one sequence that follow each other, usually
  const std::int32_t* output_tokens = nullptr;  // [outputs]
  const gpu_kv_cache* cache = nullptr;
  gpu::step_tokens step{};
  gpu::step_pages pages{};
  const std::vector<std::int32_t>* groups = nullptr;  // of the cache, in the order of the step's

  std::int64_t rows(value_rows kind) const noexcept {
    return kind == value_rows::per_token ? tokens : outputs;
  }
  // A layer of the cache; its group is numbered as in the step.
  gpu::cache_layer layer(std::int32_t i) const;
};

// One or a few launches; `name` is told if they fail.
struct gpu_launch {
  const char* name;
  std::function<void(const gpu_run&)> run;
};

// Memory that programs work in: the device's, and pinned memory for what enters and leaves.
struct gpu_workspace {
  gpu_workspace(const std::shared_ptr<gpu_device>& on, const workspace_size& size)
      : device(on, gpu_memory::kind::workspace, size.shared, "a workspace"),
        host(on, gpu_memory::kind::host, size.host_shared, "what enters and leaves a segment") {}

  gpu_memory device, host;
};

class gpu_program final : public program {
 public:
  gpu_program(const gpu_backend& owner, std::shared_ptr<gpu_device> device,
              activation_type activations, recording steps, program_limits limits,
              std::shared_ptr<const gpu_workspace> space);
  ~gpu_program() override;

  std::span<float> input() override;
  void submit(const batch& work) override;
  void wait() override;
  std::span<const float> output() override;

 private:
  // Fills the block of the step in pinned memory; throws before anything is launched.
  void write_step(const batch& work);
  void write_pages(const batch& work);
  // Makes the step's block longer, if need be, by allocating another.
  void make_room(const gpu_step_sizes& wanted);
  gpu_step_sizes sizes_for(const batch& work) const;
  void use_cache(const batch& work);

  void launch_all(const gpu_run& run);
  void launch_graph(const gpu_run& run);
  void record_graph(const gpu_run& run, gpu::graph_id& graph);
  void forget_graphs() noexcept;
  std::byte* place_of(value v) const;

  const gpu_backend& owner_;
  std::shared_ptr<gpu_device> device_;
  recording recording_;
  batch_needs needs_;
  const std::shared_ptr<const gpu_workspace> space_;
  gpu_memory own_, pinned_step_;
  gpu_memory more_step_;  // a longer block than the workspace's, if one was needed
  gpu_program_memory memory_;
  gpu_step_block host_step_;
  std::vector<gpu_launch> launches_;
  std::map<std::pair<std::int64_t, std::int64_t>, gpu::graph_id> graphs_;  // by tokens, outputs
  const gpu_kv_cache* cache_ = nullptr;  // that the graphs were captured with
  std::vector<std::int32_t> groups_;     // of the cache that the program's layers are in
  std::int64_t tokens_ = 0, outputs_ = 0;
  bool running_ = false;
};

}  // namespace nibble::inline NIBBLE_ABI
