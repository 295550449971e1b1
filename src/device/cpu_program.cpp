#include "device/cpu_program.hpp"

#include <utility>
#include <variant>

#include "device/cpu_backend.hpp"
#include "device/cpu_barriers.hpp"
#include "device/cpu_kv_cache.hpp"
#include "device/cpu_step_maker.hpp"

namespace nibble::inline NIBBLE_ABI {

cpu_program::cpu_program(cpu_backend& owner, const cpu::kernel_table& kernels,
                         activation_type activations, matmul_observer* observer, recording steps,
                         program_limits limits, std::shared_ptr<const cpu_workspace> space)
    : owner_(owner),
      recording_(std::move(steps)),
      needs_(find_needs(recording_, limits)),
      space_(std::move(space)),
      memory_(lay_out_program(recording_, limits, activations, owner.threads(),
                              space_->memory.data())) {
  places_.resize(static_cast<std::size_t>(limits.max_tokens));
  compile(kernels, activations, observer);
}

void cpu_program::compile(const cpu::kernel_table& kernels, activation_type activations,
                          matmul_observer* observer) {
  cpu_step_maker maker(recording_, kernels, activations, memory_);
  for (const step& s : recording_.steps) {
    steps_.push_back(std::visit([&](const auto& kind) { return maker.make(kind); }, s));
  }
  for (const bool single : {false, true}) {
    barriers_[single] = place_barriers(recording_, needs_.limits, memory_.values, steps_, single);
  }
  if (observer) add_observations(maker, *observer);
  auto tables = maker.make_rope_tables();
  if (!tables) return;
  // the tables come first, and all threads wait for them
  steps_.insert(steps_.begin(), std::move(tables));
  for (std::vector<bool>& before : barriers_) {
    before[0] = true;
    before.insert(before.begin(), false);
  }
}

void cpu_program::add_observations(const cpu_step_maker& maker, matmul_observer& observer) {
  for (std::size_t i = recording_.steps.size(); i-- > 0;) {
    auto observation = maker.make_observation(recording_.steps[i], observer);
    if (!observation) continue;
    const auto at = static_cast<std::ptrdiff_t>(i);
    steps_.insert(steps_.begin() + at, std::move(observation));
    for (std::vector<bool>& before : barriers_) {
      // one thread reads what all have written, and nobody writes meanwhile
      before[i] = true;
      before.insert(before.begin() + at, true);
    }
  }
}

float* cpu_program::values_of(value v) const {
  return reinterpret_cast<float*>(memory_.base +
                                  memory_.values.offset[static_cast<std::size_t>(v.id)]);
}

std::span<float> cpu_program::input() {
  if (!recording_.input) return {};
  const value_info& info = recording_.info(recording_.input);
  return {values_of(recording_.input), value_bytes(info, needs_.limits) / sizeof(float)};
}

std::span<const float> cpu_program::output() {
  if (!recording_.output) return {};
  const value_info& info = recording_.info(recording_.output);
  const std::int64_t rows = info.rows == value_rows::per_token ? tokens_ : outputs_;
  return {values_of(recording_.output), static_cast<std::size_t>(rows * info.width)};
}

void cpu_program::submit(const batch& work) {
  check_batch(work, needs_, &owner_);
  for (const batch_chunk& c : work.chunks) {
    // without attention the caches are not looked at, and may be another backend's
    auto* const cache = needs_.layers.empty() ? nullptr : static_cast<cpu_kv_cache*>(c.cache);
    for (std::int32_t i = 0; i < c.count; ++i) {
      const std::int64_t index = std::int64_t{c.n_past} + i;
      places_[static_cast<std::size_t>(c.first + i)] = {cache, c.table, index,
                                                        c.table ? c.table->place(index) : index};
    }
  }
  tokens_ = static_cast<std::int64_t>(work.tokens.size());
  outputs_ = static_cast<std::int64_t>(work.outputs.size());
  cpu_run state;
  state.tokens = tokens_;
  state.outputs = outputs_;
  state.ids = work.tokens.data();
  state.output_tokens = work.outputs.data();
  state.places = places_.data();
  owner_.run(steps_, barriers_[state.single()], state);
}

}  // namespace nibble::inline NIBBLE_ABI
