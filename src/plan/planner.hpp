// Chooses which block of a model lies on which device.
#pragma once

#include <cstdint>
#include <map>
#include <nibble/base/config.hpp>
#include <nibble/plan/placement.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "plan/cost_model.hpp"
#include "plan/solver.hpp"

namespace nibble::inline NIBBLE_ABI {

// Tokens of a batch that pass a segment together.
std::int32_t part_of_batch(std::int32_t batch, bool several_segments);

// Fills in the bytes of a placement whose sizes are chosen. part: tokens that pass a segment
// together; 0: as many as is usual.
placement place_blocks(block_catalogue& blocks, std::span<const std::int32_t> device_of,
                       const placement& sizes, std::int32_t part = 0);

class planner {
 public:
  // Throws error (invalid_argument) for options and devices that make no sense.
  planner(const model_definition& model, std::span<const offered_device> devices,
          const plan_options& options);

  // Throws error as plan().
  placement run();

 private:
  enum class where { anywhere, accelerated };  // the latter: GPUs, or the CPU where there are none

  // The best placement with these options; none if it does not fit. `effort`: a multiple of the
  // usual search; 0: only whether it fits matters.
  std::optional<placement> place(const plan_options& options, where allowed, int effort = 1);
  std::optional<placement> place_so(const plan_options& options, where allowed, int effort);
  std::optional<placement> search(const cost_model& costs, const placement& sizes,
                                  placement_problem problem, int effort);
  // What a solution takes, with budgets; parts of batches are smaller where that lets it fit.
  placement count(const std::vector<std::int32_t>& device_of, const placement& sizes);
  void keep_experts(placement& p) const;
  std::uint64_t bytes_in_memory_of(const placement& p, std::size_t device) const;
  std::map<std::size_t, std::uint64_t> excess_of(const placement& p) const;
  placement_problem problem_of(const cost_model& costs, const plan_options& options,
                               where allowed) const;
  std::vector<bool> allowed_blocks(std::size_t device, const plan_options& options,
                                   where allowed) const;
  // The longest context with which everything fits, at least options.least_context.
  std::optional<placement> longest(const plan_options& options);
  std::optional<placement> concede();
  void choose_overlapping(placement& best, const cost_model& costs,
                          const placement_problem& problem, const placement& sizes);
  // Where each block lies: all on one device, or evenly on some GPUs.
  std::vector<std::vector<std::int32_t>> simple_placements(const placement_problem& problem) const;
  placement place_all();
  void explain(placement& p);
  // Whether there are some on disk.
  bool explain_experts(placement& p, std::size_t device) const;
  void explain_gpu_layers(placement& p) const;
  void explain_shortage(placement& p);
  std::optional<std::uint64_t> missing_on_each(std::int32_t context);
  // What would make everything fit on the GPUs, as sentences.
  std::vector<std::string> remedies(const placement& p);
  // beside: a plan that has not everything on the GPUs, if there is one.
  [[noreturn]] void refuse(const placement* beside);
  std::string least_beside_disk(const placement& sizes);
  std::string advice_of_context();

  bool is_host(std::size_t device) const;
  bool has_experts(std::size_t block) const;
  bool has_ring(std::size_t device) const { return sizes_[device]->ring().slots > 0; }
  // A disk's blocks take of the memory that the CPU's take of.
  std::size_t memory_of(std::size_t device) const;
  std::int32_t usual_part(const placement& sizes) const;
  bool on_gpus(const placement& p) const;
  double seconds_of(const placement& p) const;  // of a usual request

  const model_definition& model_;
  std::span<const offered_device> devices_;
  const plan_options& options_;
  std::vector<const device_sizes*> sizes_;
  block_catalogue blocks_;
  std::vector<std::uint64_t> budgets_;
  std::set<std::int32_t> experts_;  // layers that have some
  bool has_gpu_ = false;
  bool uses_disk_ = false;                // blocks may stay there now
  std::optional<std::size_t> cpu_;        // the first CPU
  bool cut_short_ = false;                // the last search
  std::vector<std::string> unusable_;     // devices without kernels for the model, and why
  std::optional<predicted_speed> whole_;  // if everything lay on GPUs, and something else is chosen
};

}  // namespace nibble::inline NIBBLE_ABI
