#include "device/gpu_fusion.hpp"

#include <algorithm>
#include <nibble/device/step_values.hpp>
#include <variant>

namespace nibble::inline NIBBLE_ABI {
namespace {

// Whether the step is a product whose input is `in`, as it is.
bool multiplies(const step& s, value in) {
  const auto overwrites = [&](const std::vector<linear>& outputs) {
    return std::any_of(outputs.begin(), outputs.end(),
                       [&](const linear& l) { return l.out == in; });
  };
  if (const auto* const product = std::get_if<matmul_step>(&s)) {
    return product->in == in && !product->norm && !overwrites(product->outputs);
  }
  if (const auto* const experts = std::get_if<expert_matmul_step>(&s)) {
    return experts->in == in && experts->in_per_slot && !overwrites(experts->outputs);
  }
  return false;
}

// By value: the last step that reads it; -1: none. The output is read after all of them.
std::vector<std::int64_t> last_reads(const recording& r) {
  std::vector<std::int64_t> last(r.values.size(), -1);
  for (std::size_t i = 0; i < r.steps.size(); ++i) {
    for_each_value(r.steps[i], [&](value v, value_access access) {
      if (access != value_access::write) {
        last[static_cast<std::size_t>(v.id)] = static_cast<std::int64_t>(i);
      }
    });
  }
  if (r.output) {
    last[static_cast<std::size_t>(r.output.id)] = static_cast<std::int64_t>(r.steps.size());
  }
  return last;
}

}  // namespace

std::vector<bool> find_taken_gates(const recording& r) {
  std::vector<bool> taken(r.steps.size());
  const std::vector<std::int64_t> last = last_reads(r);
  for (std::size_t i = 0; i + 1 < r.steps.size(); ++i) {
    const auto* const gate = std::get_if<gate_step>(&r.steps[i]);
    taken[i] = gate && multiplies(r.steps[i + 1], gate->out) &&
               last[static_cast<std::size_t>(gate->out.id)] <= static_cast<std::int64_t>(i + 1);
  }
  return taken;
}

std::vector<kept_value> kept_for_gates(const recording& r) {
  const std::vector<bool> taken = find_taken_gates(r);
  std::vector<kept_value> kept;
  for (std::size_t i = 0; i < taken.size(); ++i) {
    if (!taken[i]) continue;
    const auto& gate = std::get<gate_step>(r.steps[i]);
    kept.push_back({gate.gate, i + 1});
    kept.push_back({gate.up, i + 1});
  }
  return kept;
}

}  // namespace nibble::inline NIBBLE_ABI
