#include "device/gpu_program_memory.hpp"

#include <algorithm>
#include <variant>

#include "device/carver.hpp"
#include "device/cpu_program_memory.hpp"
#include "device/cpu_weights.hpp"
#include "device/gpu_fusion.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

constexpr std::size_t alignment = 256;
// Blocks of attention for each multiprocessor, and tokens up to which sequences are split.
constexpr std::int64_t blocks_each = 4, split_tokens = 8;
constexpr std::int32_t most_splits = 64;
// Sequences of one batch for whose page numbers there is room from the start.
constexpr std::int32_t usual_sequences = 256;

// The most that any step needs.
class scratch_needs {
 public:
  scratch_needs(const recording& r, program_limits limits, activation_type activations,
                const gpu::device_facts& facts)
      : r_(r), limits_(limits), activations_(activations), facts_(facts) {
    for (const step& s : r.steps) {
      std::visit([this](const auto& kind) { add(kind); }, s);
    }
  }

  std::int64_t q8 = 0, normed = 0, pairs = 0, pair_starts = 0;
  std::int64_t turned = 0, parts = 0, states = 0, counters = 0;
  std::vector<const rope_spec*> ropes;  // distinct
  std::vector<std::int32_t> windows;    // distinct: as many groups of layers are used at most

 private:
  template <typename Step>
  void add(const Step&) {}

  void add(const matmul_step& s) { add_input(s.outputs, rows(s.in) * r_.info(s.in).width); }

  void add(const expert_matmul_step& s) {
    const std::int64_t used = r_.info(s.selection).width;
    grow(pairs, rows(s.in) * used);
    grow(pair_starts, static_cast<std::int64_t>(s.outputs[0].matrix->shape.extent[2]) + 1);
    add_input(s.outputs, rows(s.in) * r_.info(s.in).width);
  }

  void add_input(const std::vector<linear>& outputs, std::int64_t elements) {
    for (const linear& l : outputs) {
      grow(takes_q8(l.matrix->format, activations_) ? q8 : normed, elements);
    }
  }

  void add(const attend_step& s) {
    const attention_spec& a = s.spec;
    if (std::find(windows.begin(), windows.end(), a.window) == windows.end()) {
      windows.push_back(a.window);
    }
    grow(turned, std::int64_t{limits_.max_tokens} * a.n_head * a.key_length);
    for (std::int64_t t = 1; t <= std::min<std::int64_t>(limits_.max_tokens, split_tokens); ++t) {
      const std::int64_t splits = t * a.n_head * attend_splits(facts_, t, a.n_head_kv);
      grow(parts, splits * a.value_length);
      grow(states, splits * 2);
      grow(counters, t * a.n_head);
    }
    if (a.rope.style == rope_style::none) return;
    const bool known = std::any_of(ropes.begin(), ropes.end(),
                                   [&](const rope_spec* r) { return same_table(*r, a.rope); });
    if (!known) ropes.push_back(&a.rope);
  }

  static void grow(std::int64_t& most, std::int64_t n) { most = std::max(most, n); }
  std::int64_t rows(value v) const {
    return r_.info(v).rows == value_rows::per_token ? limits_.max_tokens : limits_.max_outputs;
  }

  const recording& r_;
  program_limits limits_;
  activation_type activations_;
  const gpu::device_facts& facts_;
};

gpu_step_sizes sizes_of(const scratch_needs& needs, program_limits limits) {
  gpu_step_sizes sizes;
  sizes.tokens = limits.max_tokens;
  sizes.outputs = std::max(limits.max_outputs, 1);
  sizes.groups = static_cast<std::int32_t>(needs.windows.size());
  sizes.sequences = std::min(limits.max_tokens, usual_sequences);
  const std::int64_t context = std::max(limits.max_context, limits.max_tokens);
  // a full context for each session that there are outputs for; more grow the block
  sizes.page_numbers =
      sizes.groups * (pages_for(context) + 2) * std::min(sizes.sequences, sizes.outputs);
  return sizes;
}

}  // namespace

std::int32_t attend_splits(const gpu::device_facts& facts, std::int64_t tokens,
                           std::int32_t n_head_kv) {
  if (tokens > split_tokens) return 1;
  const std::int64_t wanted = blocks_each * facts.multiprocessors / (tokens * n_head_kv);
  return static_cast<std::int32_t>(std::clamp<std::int64_t>(wanted, 1, most_splits));
}

std::size_t lay_out_step(const gpu_step_sizes& sizes, std::byte* base, gpu_step_block& block) {
  carver space(base, 16);
  block.ids = space.take<std::int32_t>(sizes.tokens);
  block.chunk = space.take<std::int32_t>(sizes.tokens);
  block.index = space.take<std::int64_t>(sizes.tokens);
  block.place = space.take<std::int64_t>(sizes.tokens);
  block.outputs = space.take<std::int32_t>(sizes.outputs);
  block.sequences = space.take<gpu::sequence_pages>(std::int64_t{sizes.groups} * sizes.sequences);
  block.page_numbers = space.take<std::int32_t>(sizes.page_numbers);
  return space.used();
}

gpu_program_memory lay_out_gpu_program(const recording& r, program_limits limits,
                                       activation_type activations, const gpu::device_facts& facts,
                                       const gpu_program_bases& at) {
  const scratch_needs needs(r, limits, activations, facts);
  gpu_program_memory m;
  m.values = lay_out_workspace(r, limits, kept_for_gates(r));
  carver space(at.shared, alignment), own(at.own, alignment), host(at.host_shared, alignment);
  m.base = space.take<std::byte>(static_cast<std::int64_t>(m.values.bytes));
  m.q8 = {.codes = space.take<std::int8_t>(needs.q8),
          .scales = space.take<float>(needs.q8 / 32),
          .sums = space.take<std::int16_t>(needs.q8 / 16)};
  m.normed = space.take<float>(needs.normed);
  m.pair_order = space.take<std::int32_t>(needs.pairs);
  m.pair_start = space.take<std::int32_t>(needs.pair_starts);
  m.q_turned = space.take<float>(needs.turned);
  m.attend_parts = space.take<float>(needs.parts);
  m.attend_states = space.take<float>(needs.states);
  m.attend_counters = own.take<std::uint32_t>(needs.counters);
  m.n_counters = needs.counters;
  for (const rope_spec* spec : needs.ropes) {
    const auto n = static_cast<std::int64_t>(spec->frequencies.size());
    gpu_rope_table table{.spec = spec, .frequencies = own.take<double>(n)};
    for (float** part : {&table.cosine, &table.sine, &table.back_cosine, &table.back_sine}) {
      *part = space.take<float>(n * limits.max_tokens);
    }
    m.ropes.push_back(table);
  }
  m.step_sizes = sizes_of(needs, limits);
  gpu_step_block counted;
  m.step_bytes = lay_out_step(m.step_sizes, nullptr, counted);
  m.step_base = space.take<std::byte>(static_cast<std::int64_t>(m.step_bytes));
  if (m.step_base) lay_out_step(m.step_sizes, m.step_base, m.step);
  const auto border = [&](value v) {
    return v ? static_cast<std::int64_t>(value_bytes(r.info(v), limits)) : std::int64_t{0};
  };
  m.host_input = host.take<std::byte>(border(r.input));
  m.host_output = host.take<std::byte>(border(r.output));
  m.size = {.shared = space.used(),
            .own = own.used(),
            .host_shared = host.used(),
            .host_own = m.step_bytes};
  return m;
}

}  // namespace nibble::inline NIBBLE_ABI
