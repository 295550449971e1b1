#include "device/cpu_program_memory.hpp"

#include <algorithm>
#include <variant>

#include "cpu/attend_scratch.hpp"
#include "device/carver.hpp"
#include "device/cpu_weights.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

constexpr std::size_t line = 128;  // two cache lines: neighbours are prefetched in pairs

q8_buffer take_q8(carver& space, std::int64_t elements) {
  q8_buffer b;
  b.q = space.take<std::int8_t>(elements);
  b.scale = space.take<float>(elements / 32);
  b.sum = space.take<std::int16_t>(elements / 16);
  return b;
}

// The most that any step needs.
class scratch_needs {
 public:
  scratch_needs(const recording& r, program_limits limits, activation_type activations)
      : r_(r), limits_(limits), activations_(activations) {
    for (const step& s : r.steps) {
      std::visit([this](const auto& kind) { add(kind); }, s);
    }
  }

  std::int64_t row = 0, q8_row = 0, attend = 0, turned = 0, value = 0;  // a thread's
  // shared
  std::int64_t q8 = 0, normed = 0, pairs = 0, pair_starts = 0, attend_parts = 0, attend_outs = 0;
  std::vector<const rope_spec*> ropes;  // distinct

 private:
  template <typename Step>
  void add(const Step&) {}

  void add(const norm_step& s) { grow(row, width(s.in)); }
  void add(const add_step& s) { grow(row, s.norm ? width(s.in) : 0); }
  void add(const embed_step& s) { grow(row, width(s.out)); }
  void add(const route_step& s) { grow(row, width(s.logits)); }

  void add(const matmul_step& s) {
    const std::int64_t columns = width(s.in), n = rows(s.in) * columns;
    grow(row, s.norm ? columns : 0);
    if (s.norm && any(s.outputs, false)) grow(normed, n);
    if (any(s.outputs, true)) {
      grow(q8, n);
      grow(q8_row, columns);
    }
  }

  void add(const expert_matmul_step& s) {
    const std::int64_t n_pairs = rows(s.in) * width(s.selection);
    const std::int64_t columns = width(s.in) / (s.in_per_slot ? width(s.selection) : 1);
    const std::uint64_t n_expert = s.outputs[0].matrix->shape.extent[2];
    grow(pairs, n_pairs);
    grow(pair_starts, static_cast<std::int64_t>(n_expert) + 1);
    if (any(s.outputs, true)) grow(q8, n_pairs * columns);
    if (any(s.outputs, false)) grow(normed, n_pairs * columns);
  }

  void add(const attend_step& s) {
    grow(attend, attend_scratch_floats(s.spec.key_length, s.spec.value_length));
    grow(turned, std::int64_t{cpu::attend_queries} * s.spec.key_length);
    grow(value, s.spec.value_length);
    grow(attend_parts, s.spec.n_head * segments());
    grow(attend_outs, s.spec.n_head * segments() * s.spec.value_length);
    const rope_spec& rope = s.spec.rope;
    if (rope.style == rope_style::none) return;
    const bool known = std::any_of(ropes.begin(), ropes.end(),
                                   [&](const rope_spec* r) { return same_table(*r, rope); });
    if (!known) ropes.push_back(&rope);
  }

  std::int64_t segments() const { return attend_segments(limits_); }
  static void grow(std::int64_t& most, std::int64_t n) { most = std::max(most, n); }
  std::int64_t width(nibble::value v) const { return r_.info(v).width; }
  std::int64_t rows(nibble::value v) const {
    return r_.info(v).rows == value_rows::per_token ? limits_.max_tokens : limits_.max_outputs;
  }
  bool any(const std::vector<linear>& outputs, bool q8_wanted) const {
    return std::any_of(outputs.begin(), outputs.end(), [&](const linear& l) {
      return takes_q8(l.matrix->format, activations_) == q8_wanted;
    });
  }

  const recording& r_;
  program_limits limits_;
  activation_type activations_;
};

}  // namespace

std::int64_t attend_segments(program_limits limits) {
  const std::int64_t segments =
      (limits.max_context + cpu::attend_segment - 1) / cpu::attend_segment;
  return segments > 1 ? segments : 0;
}

bool same_table(const rope_spec& a, const rope_spec& b) {
  return a.frequencies == b.frequencies && a.magnitude == b.magnitude;
}

cpu_program_memory lay_out_program(const recording& r, program_limits limits,
                                   activation_type activations, int threads, std::byte* base) {
  const scratch_needs needs(r, limits, activations);
  cpu_program_memory m;
  m.values = lay_out_workspace(r, limits);
  carver space(base, line);
  m.base = space.take<std::byte>(static_cast<std::int64_t>(m.values.bytes));
  for (q8_buffer& b : m.q8) b = take_q8(space, needs.q8);
  m.normed = space.take<float>(needs.normed);
  m.pair_order = space.take<std::int32_t>(needs.pairs);
  m.pair_start = space.take<std::int32_t>(needs.pair_starts);
  m.attend_groups = space.take<std::int32_t>(limits.max_tokens + 1);
  m.segments = attend_segments(limits);
  m.attend_states = space.take<cpu::softmax_state>(needs.attend_parts);
  m.attend_outs = space.take<float>(needs.attend_outs);
  for (const rope_spec* spec : needs.ropes) {
    const auto n = static_cast<std::int64_t>(spec->frequencies.size()) * limits.max_tokens;
    rope_table table{.spec = spec};
    for (float** part : {&table.cosine, &table.sine, &table.back_cosine, &table.back_sine}) {
      *part = space.take<float>(n);
    }
    m.ropes.push_back(table);
  }
  for (int i = 0; i < threads; ++i) {
    thread_scratch t;
    t.row = space.take<float>(needs.row);
    t.q8 = take_q8(space, needs.q8_row);
    t.tile = space.take<float>(tile_floats);
    t.attend = space.take<float>(needs.attend);
    t.turned = space.take<float>(needs.turned);
    t.value = space.take<float>(needs.value);
    if (needs.q8 > 0) t.product = space.take<std::byte>(cpu::product_scratch_bytes);
    m.threads.push_back(t);
  }
  m.bytes = space.used();
  return m;
}

}  // namespace nibble::inline NIBBLE_ABI
