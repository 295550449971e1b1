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

// Whether a value is read by one of the steps from `first` on before it is written anew.
bool is_read_from(const recording& r, std::size_t first, value v) {
  for (std::size_t i = first; i < r.steps.size(); ++i) {
    bool read = false, written = false;
    for_each_value(r.steps[i], [&](value other, value_access access) {
      if (other != v) return;
      (access == value_access::write ? written : read) = true;
    });
    if (read) return true;
    if (written) return false;
  }
  return r.output == v;
}

}  // namespace

std::vector<bool> find_taken_gates(const recording& r) {
  std::vector<bool> taken(r.steps.size());
  for (std::size_t i = 0; i + 1 < r.steps.size(); ++i) {
    const auto* const gate = std::get_if<gate_step>(&r.steps[i]);
    taken[i] = gate && multiplies(r.steps[i + 1], gate->out) && !is_read_from(r, i + 2, gate->out);
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
