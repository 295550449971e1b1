// Attention: heads are normalised and rotated, keys and values go to the cache, and each query head
// looks at the pages that its token may see.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "device/cpu_kv_cache.hpp"
#include "device/cpu_step_maker.hpp"
#include "device/work_queue.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// Angles are made in double: a float has too few bits for position 100000 times a frequency.
class cpu_rope_tables final : public cpu_step {
 public:
  explicit cpu_rope_tables(const std::vector<rope_table>& tables) : tables_(tables) {}

  void run(const cpu_run& state, int thread) const override {
    for (const rope_table& table : tables_) {
      const auto n = static_cast<std::int64_t>(table.spec->frequencies.size());
      const index_range mine = share(state.tokens * n, thread, state.threads());
      for (std::int64_t i = mine.begin; i < mine.end; ++i) {
        const token_place& at = state.places[i / n];
        const double frequency = table.spec->frequencies[static_cast<std::size_t>(i % n)];
        const double angle = static_cast<double>(at.place) * frequency;
        const double magnitude = static_cast<double>(table.spec->magnitude);
        table.cosine[i] = static_cast<float>(std::cos(angle) * magnitude);
        table.sine[i] = static_cast<float>(std::sin(angle) * magnitude);
        if (at.dropped() == 0) continue;
        const double back = -static_cast<double>(at.dropped()) * frequency;
        table.back_cosine[i] = static_cast<float>(std::cos(back));
        table.back_sine[i] = static_cast<float>(std::sin(back));
      }
    }
  }

 private:
  const std::vector<rope_table>& tables_;
};

class cpu_attend final : public cpu_step {
 public:
  cpu_attend(const attend_step& s, const cpu::kernel_table& kernels, cpu_buffer<float> q,
             cpu_buffer<float> k, cpu_buffer<float> v, cpu_buffer<float> out,
             std::optional<cpu_norm> q_norm, std::optional<cpu_norm> k_norm, rope_table rope,
             const cpu_program_memory& memory)
      : spec_(s.spec),
        layer_(s.layer),
        kernels_(kernels),
        q_(q),
        k_(k),
        v_(v),
        out_(out),
        q_norm_(q_norm),
        k_norm_(k_norm),
        rope_(rope),
        memory_(memory),
        heads_per_kv_(s.spec.n_head / s.spec.n_head_kv) {}

  void begin() override { queue_.reset(); }

  void run(const cpu_run& state, int thread) const override {
    if (state.tokens == 1) {
      run_single(state, thread);
    } else {
      run_many(state, thread);
    }
  }

 private:
  // A piece is a key/value head, or a segment of one where heads are few for the threads.
  void run_single(const cpu_run& state, int thread) const {
    const std::int64_t kv_heads = spec_.n_head_kv;
    const token_place& at = state.places[0];
    const std::int64_t first_segment = first_seen(at) / cpu::attend_segment;
    const std::int64_t n = at.index / cpu::attend_segment + 1 - first_segment;
    if (n == 1 || n > memory_.segments || kv_heads >= 4 * state.threads()) {
      queue_.take(kv_heads, thread, state.threads(), [&](std::int64_t kv) {
        prepare(state, thread, 0, kv);
        attend(state, thread, kv, {0, 1});
      });
      return;
    }
    const index_range mine = share(kv_heads, thread, state.threads(), 1);
    for (std::int64_t kv = mine.begin; kv < mine.end; ++kv) prepare(state, thread, 0, kv);
    state.team->barrier();
    queue_.take(kv_heads * n, thread, state.threads(), [&](std::int64_t piece) {
      attend_segment(state, thread, piece / n, first_segment + piece % n, n, piece % n);
    });
    state.team->barrier();
    const index_range heads = share(spec_.n_head, thread, state.threads(), 1);
    for (std::int64_t h = heads.begin; h < heads.end; ++h) {
      float* const out = out_.row(0) + h * spec_.value_length;
      kernels_.join_segments(memory_.attend_states + h * n,
                             memory_.attend_outs + h * n * spec_.value_length, n, sink(h),
                             spec_.value_length, out);
      if (at.cache->layout().rotate_value) kernels_.hadamard(out, spec_.value_length);
    }
  }

  // A piece is a key/value head of a group of tokens. Late tokens see more than early ones and come
  // first, so that the last pieces are short.
  void run_many(const cpu_run& state, int thread) const {
    const std::int64_t kv_heads = spec_.n_head_kv, n = state.tokens;
    std::int32_t* const groups = memory_.attend_groups;
    if (thread == 0) {
      groups[0] = 0;
      for (std::int64_t i = 0, t = 0; t < n; ++i) {
        t = group_end(state, t);
        groups[i + 1] = static_cast<std::int32_t>(t);
      }
    }
    const index_range some = share(n * kv_heads, thread, state.threads(), 1);
    for (std::int64_t i = some.begin; i < some.end; ++i) {
      prepare(state, thread, i / kv_heads, i % kv_heads);
    }
    state.team->barrier();
    std::int64_t n_groups = 0;
    while (groups[n_groups] < n) ++n_groups;
    queue_.take(n_groups * kv_heads, thread, state.threads(), [&](std::int64_t piece) {
      const std::int64_t group = n_groups - 1 - piece % n_groups;
      attend(state, thread, piece / n_groups, {groups[group], groups[group + 1]});
    });
  }

  // One key/value head of one token and the query heads that share it.
  void prepare(const cpu_run& state, int thread, std::int64_t t, std::int64_t kv) const {
    const token_place& at = state.places[t];
    const bool rotate = at.cache->layout().rotate_key;
    float* const key = k_.row(t) + kv * spec_.key_length;
    turn(key, k_norm_, t);
    if (rotate) kernels_.hadamard(key, spec_.key_length);
    store(at, thread, kv, key, v_.row(t) + kv * spec_.value_length);
    const float scale = query_scale(at.index);
    for (std::int64_t h = kv * heads_per_kv_; h < (kv + 1) * heads_per_kv_; ++h) {
      float* const query = q_.row(t) + h * spec_.key_length;
      turn(query, q_norm_, t);
      for (std::int32_t i = 0; i < spec_.key_length; ++i) query[i] *= scale;
      if (rotate) kernels_.hadamard(query, spec_.key_length);
    }
  }

  void turn(float* head, const std::optional<cpu_norm>& norm, std::int64_t t) const {
    if (norm) kernels_.rms_norm(head, norm->gain, norm->epsilon, spec_.key_length, head);
    rope(head, rope_.cosine, rope_.sine, t);
  }

  void rope(float* head, const float* cosine, const float* sine, std::int64_t t) const {
    if (spec_.rope.style == rope_style::none) return;
    const auto n = static_cast<std::int64_t>(spec_.rope.frequencies.size());
    const auto rotate =
        spec_.rope.style == rope_style::norm ? kernels_.rope_norm : kernels_.rope_neox;
    rotate(head, cosine + t * n, sine + t * n, n);
  }

  float query_scale(std::int64_t index) const {
    if (spec_.temperature_scale == 0) return spec_.scale;
    const double periods = std::floor(static_cast<double>(index) / spec_.temperature_period);
    return static_cast<float>(spec_.scale *
                              (1.0 + spec_.temperature_scale * std::log(1.0 + periods)));
  }

  void store(const token_place& at, int thread, std::int64_t kv, const float* key,
             const float* value) const {
    const kv_layout& layout = at.cache->layout();
    const auto& layer = at.cache->layer(layer_);
    const page_id page = at.table->groups[layer.group].at(at.place / kv_page_tokens);
    const std::int64_t row = at.place % kv_page_tokens;
    if (layout.rotate_value) {
      float* const rotated = memory_.threads[static_cast<std::size_t>(thread)].value;
      std::copy_n(value, spec_.value_length, rotated);
      kernels_.hadamard(rotated, spec_.value_length);
      value = rotated;
    }
    const auto put = [&](kv_type type, const float* x, std::int64_t n, const cpu_kv_rows& to) {
      kernels_.store_row[static_cast<int>(type)](x, n, to.codes, to.scales);
    };
    put(layout.key, key, spec_.key_length, at.cache->keys(layer, page, kv, row));
    put(layout.value, value, spec_.value_length, at.cache->values(layer, page, kv, row));
  }

  // Tokens [t, end) are attended together: they follow each other in one sequence, and their
  // queries of a key/value head are no more than the kernels take.
  std::int64_t group_end(const cpu_run& state, std::int64_t t) const {
    const std::int64_t most = std::max<std::int64_t>(cpu::attend_queries / heads_per_kv_, 1);
    std::int64_t end = t + 1;
    while (end < state.tokens && end - t < most &&
           state.places[end].table == state.places[t].table) {
      ++end;
    }
    return end;
  }

  // The query heads of one key/value head for a group of tokens.
  void attend(const cpu_run& state, int thread, std::int64_t kv, index_range tokens) const {
    const token_place& first = state.places[tokens.begin];
    const std::int64_t end = state.places[tokens.end - 1].index + 1;
    cpu::attend_query queries[cpu::attend_queries];
    cpu::attend_args args = args_for(state, thread, first, kv, first_seen(first), end);
    args.queries = queries;
    const auto run = [&] {
      kernels_.attend(args);
      for (std::int32_t i = 0; i < args.n_queries; ++i) {
        if (first.cache->layout().rotate_value) {
          kernels_.hadamard(queries[i].out, spec_.value_length);
        }
      }
      args.n_queries = 0;
    };
    for (std::int64_t t = tokens.begin; t < tokens.end; ++t) {
      for (std::int64_t h = kv * heads_per_kv_; h < (kv + 1) * heads_per_kv_; ++h) {
        const std::int32_t i = args.n_queries++;
        queries[i] = query(state, thread, t, h, args.first, i);
        if (args.n_queries == cpu::attend_queries) run();
      }
    }
    if (args.n_queries > 0) run();
  }

  // The same of a single token for one segment, the i-th of n that it sees.
  void attend_segment(const cpu_run& state, int thread, std::int64_t kv, std::int64_t segment,
                      std::int64_t n, std::int64_t i) const {
    const token_place& at = state.places[0];
    const std::int64_t begin = std::max(first_seen(at), segment * cpu::attend_segment);
    const std::int64_t end = std::min(at.index + 1, (segment + 1) * cpu::attend_segment);
    cpu::attend_args args = args_for(state, thread, at, kv, begin, end);
    for (std::int64_t h = kv * heads_per_kv_; h < (kv + 1) * heads_per_kv_;) {
      cpu::attend_query queries[cpu::attend_queries];
      cpu::softmax_state states[cpu::attend_queries];
      args.queries = queries;
      args.states = states;
      args.n_queries = 0;
      const std::int64_t first = h;
      for (; h < (kv + 1) * heads_per_kv_ && args.n_queries < cpu::attend_queries; ++h) {
        const std::int32_t at_query = args.n_queries++;
        cpu::attend_query& q = queries[at_query];
        q = query(state, thread, 0, h, args.first, at_query);
        q.out = memory_.attend_outs + (h * n + i) * spec_.value_length;
      }
      kernels_.attend(args);
      for (std::int64_t j = first; j < h; ++j) {
        memory_.attend_states[j * n + i] = states[j - first];
      }
    }
  }

  // All but the queries: the pages of a key/value head for tokens [begin, end).
  cpu::attend_args args_for(const cpu_run& state, int thread, const token_place& at,
                            std::int64_t kv, std::int64_t begin, std::int64_t end) const {
    auto& pages = (*state.page_lists)[static_cast<std::size_t>(thread)];
    const kv_layout& layout = at.cache->layout();
    cpu::attend_args args{};
    args.key_type = static_cast<std::int32_t>(layout.key);
    args.value_type = static_cast<std::int32_t>(layout.value);
    args.pages = pages.data();
    args.first = first_listed(*at.table, begin);
    args.n_pages = list_pages(at, kv, args.first, end, pages.data());
    args.key_length = spec_.key_length;
    args.value_length = spec_.value_length;
    args.softcap = spec_.softcap;
    args.scratch = memory_.threads[static_cast<std::size_t>(thread)].attend;
    return args;
  }

  const float* sink(std::int64_t head) const {
    return spec_.sinks ? floats_of(*spec_.sinks) + head : nullptr;
  }

  // The first token that this one sees.
  std::int64_t first_seen(const token_place& at) const {
    return spec_.window > 0 ? std::max<std::int64_t>(at.index + 1 - spec_.window, 0) : 0;
  }

  // One query head of one token, the i-th of a call; `from`: index of the pages' first token. A
  // token sees itself and those before it, inside the window.
  cpu::attend_query query(const cpu_run& state, int thread, std::int64_t t, std::int64_t head,
                          std::int64_t from, std::int32_t i) const {
    const token_place& at = state.places[t];
    const float* const q = q_.row(t) + head * spec_.key_length;
    return {q,
            turned_back(at, thread, t, q, i),
            out_.row(t) + head * spec_.value_length,
            first_seen(at) - from,
            at.index + 1 - from,
            sink(head)};
  }

  // The query as it looks at tokens before the gap, null if there is none: at its index, not at its
  // place.
  const float* turned_back(const token_place& at, int thread, std::int64_t t, const float* q,
                           std::int32_t i) const {
    if (at.dropped() == 0 || at.table->keep == 0) return nullptr;
    float* const turned = memory_.threads[static_cast<std::size_t>(thread)].turned +
                          std::int64_t{i} * spec_.key_length;
    std::copy_n(q, spec_.key_length, turned);
    const bool rotated = at.cache->layout().rotate_key;
    if (rotated) kernels_.hadamard(turned, spec_.key_length);  // undone, and done again
    rope(turned, rope_.back_cosine, rope_.back_sine, t);
    if (rotated) kernels_.hadamard(turned, spec_.key_length);
    return turned;
  }

  // Where the part of a page begins that has this token: at its page's, its segment's, or the gap's
  // end. What is listed together does not depend on who asks.
  static std::int64_t first_listed(const kv_table& table, std::int64_t index) {
    const std::int64_t page = index - table.place(index) % kv_page_tokens;
    const std::int64_t segment = index / cpu::attend_segment * cpu::attend_segment;
    const bool behind = table.dropped > 0 && index >= table.keep;
    return std::max({page, segment, behind ? std::int64_t{table.keep} : 0});
  }

  // Parts of pages with tokens [index, end).
  std::int64_t list_pages(const token_place& at, std::int64_t kv, std::int64_t index,
                          std::int64_t end, cpu::kv_page* pages) const {
    const kv_table& table = *at.table;
    const auto& layer = at.cache->layer(layer_);
    const kv_table::group& group = table.groups[layer.group];
    std::int64_t count = 0;
    while (index < end) {
      const std::int64_t place = table.place(index), row = place % kv_page_tokens;
      const bool before_gap = table.dropped > 0 && index < table.keep;
      std::int64_t next = std::min({index + kv_page_tokens - row, end,
                                    (index / cpu::attend_segment + 1) * cpu::attend_segment});
      if (before_gap) next = std::min<std::int64_t>(next, table.keep);
      const page_id page = group.at(place / kv_page_tokens);
      const cpu_kv_rows key = at.cache->keys(layer, page, kv, row);
      const cpu_kv_rows value = at.cache->values(layer, page, kv, row);
      pages[count++] = {{key.codes, key.scales},
                        {value.codes, value.scales},
                        static_cast<std::int32_t>(next - index),
                        before_gap};
      index = next;
    }
    return count;
  }

  attention_spec spec_;
  std::int32_t layer_;
  const cpu::kernel_table& kernels_;
  cpu_buffer<float> q_, k_, v_, out_;
  std::optional<cpu_norm> q_norm_, k_norm_;
  rope_table rope_;
  const cpu_program_memory& memory_;
  std::int64_t heads_per_kv_;
  mutable work_queue queue_;
};

}  // namespace

cpu_step_maker::made cpu_step_maker::make_rope_tables() const {
  if (memory_.ropes.empty()) return nullptr;
  return std::make_unique<cpu_rope_tables>(memory_.ropes);
}

cpu_step_maker::made cpu_step_maker::make(const attend_step& s) {
  std::optional<cpu_norm> q_norm, k_norm;
  if (s.spec.q_norm) q_norm = norm(*s.spec.q_norm);
  if (s.spec.k_norm) k_norm = norm(*s.spec.k_norm);
  rope_table rope;
  for (const rope_table& table : memory_.ropes) {
    if (same_table(*table.spec, s.spec.rope)) rope = table;
  }
  return std::make_unique<cpu_attend>(s, kernels_, buffer(s.q), buffer(s.k), buffer(s.v),
                                      buffer(s.out), q_norm, k_norm, rope, memory_);
}

}  // namespace nibble::inline NIBBLE_ABI
