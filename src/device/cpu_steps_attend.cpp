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
        const double frequency = table.spec->frequencies[static_cast<std::size_t>(i % n)];
        const double angle = state.places[i / n].position * frequency;
        const double magnitude = static_cast<double>(table.spec->magnitude);
        table.cosine[i] = static_cast<float>(std::cos(angle) * magnitude);
        table.sine[i] = static_cast<float>(std::sin(angle) * magnitude);
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
    const std::int64_t first = first_page(state.places[0].position) * kv_page_tokens;
    const std::int64_t first_segment = first / cpu::attend_segment;
    const std::int64_t n = state.places[0].position / cpu::attend_segment + 1 - first_segment;
    if (n == 1 || n > memory_.segments || kv_heads >= 4 * state.threads()) {
      queue_.take(kv_heads, thread, state.threads(), [&](std::int64_t kv) {
        prepare(state, 0, kv);
        attend(state, thread, kv, {0, 1});
      });
      return;
    }
    const index_range mine = share(kv_heads, thread, state.threads(), 1);
    for (std::int64_t kv = mine.begin; kv < mine.end; ++kv) prepare(state, 0, kv);
    state.team->barrier();
    queue_.take(kv_heads * n, thread, state.threads(), [&](std::int64_t piece) {
      attend_segment(state, thread, piece / n, first_segment + piece % n, n, piece % n);
    });
    state.team->barrier();
    const index_range heads = share(spec_.n_head, thread, state.threads(), 1);
    for (std::int64_t h = heads.begin; h < heads.end; ++h) {
      kernels_.join_segments(memory_.attend_states + h * n,
                             memory_.attend_outs + h * n * spec_.value_length, n, sink(h),
                             spec_.value_length, out_.row(0) + h * spec_.value_length);
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
    for (std::int64_t i = some.begin; i < some.end; ++i) prepare(state, i / kv_heads, i % kv_heads);
    state.team->barrier();
    std::int64_t n_groups = 0;
    while (groups[n_groups] < n) ++n_groups;
    queue_.take(n_groups * kv_heads, thread, state.threads(), [&](std::int64_t piece) {
      const std::int64_t group = n_groups - 1 - piece % n_groups;
      attend(state, thread, piece / n_groups, {groups[group], groups[group + 1]});
    });
  }

  // One key/value head of one token and the query heads that share it.
  void prepare(const cpu_run& state, std::int64_t t, std::int64_t kv) const {
    float* const key = k_.row(t) + kv * spec_.key_length;
    turn(key, k_norm_, t);
    store(state.places[t], kv, key, v_.row(t) + kv * spec_.value_length);
    const float scale = query_scale(state.places[t].position);
    for (std::int64_t h = kv * heads_per_kv_; h < (kv + 1) * heads_per_kv_; ++h) {
      float* const query = q_.row(t) + h * spec_.key_length;
      turn(query, q_norm_, t);
      for (std::int32_t i = 0; i < spec_.key_length; ++i) query[i] *= scale;
    }
  }

  void turn(float* head, const std::optional<cpu_norm>& norm, std::int64_t t) const {
    if (norm) kernels_.rms_norm(head, norm->gain, norm->epsilon, spec_.key_length, head);
    if (spec_.rope.style == rope_style::none) return;
    const auto n = static_cast<std::int64_t>(spec_.rope.frequencies.size());
    const auto rotate =
        spec_.rope.style == rope_style::norm ? kernels_.rope_norm : kernels_.rope_neox;
    rotate(head, rope_.cosine + t * n, rope_.sine + t * n, n);
  }

  float query_scale(std::int32_t position) const {
    if (spec_.temperature_scale == 0) return spec_.scale;
    const double periods = std::floor(static_cast<double>(position) / spec_.temperature_period);
    return static_cast<float>(spec_.scale *
                              (1.0 + spec_.temperature_scale * std::log(1.0 + periods)));
  }

  void store(const token_place& at, std::int64_t kv, const float* key, const float* value) const {
    const std::int64_t page = at.position / kv_page_tokens;
    const auto row = static_cast<std::size_t>(at.position % kv_page_tokens);
    std::byte* const keys = at.cache->keys(page, layer_, kv) + row * at.cache->key_row(layer_);
    std::byte* const values =
        at.cache->values(page, layer_, kv) + row * at.cache->value_row(layer_);
    if (at.cache->layout().key == kv_type::f16) {
      kernels_.to_f16(key, spec_.key_length, keys);
      kernels_.to_f16(value, spec_.value_length, values);
    } else {
      std::memcpy(keys, key, at.cache->key_row(layer_));
      std::memcpy(values, value, at.cache->value_row(layer_));
    }
  }

  // Tokens [t, end) are attended together: they follow each other in one sequence, and their
  // queries of a key/value head are no more than the kernels take.
  std::int64_t group_end(const cpu_run& state, std::int64_t t) const {
    const std::int64_t most = std::max<std::int64_t>(cpu::attend_queries / heads_per_kv_, 1);
    std::int64_t end = t + 1;
    while (end < state.tokens && end - t < most &&
           state.places[end].cache == state.places[t].cache &&
           state.places[end].position == state.places[end - 1].position + 1) {
      ++end;
    }
    return end;
  }

  // The query heads of one key/value head for a group of tokens.
  void attend(const cpu_run& state, int thread, std::int64_t kv, index_range tokens) const {
    const token_place& first = state.places[tokens.begin];
    const std::int64_t page = first_page(first.position);
    const std::int64_t end = state.places[tokens.end - 1].position + 1;
    cpu::attend_query queries[cpu::attend_queries];
    cpu::attend_args args = args_for(state, thread, first, kv, page, end);
    args.queries = queries;
    for (std::int64_t t = tokens.begin; t < tokens.end; ++t) {
      for (std::int64_t h = kv * heads_per_kv_; h < (kv + 1) * heads_per_kv_; ++h) {
        queries[args.n_queries++] = query(state, t, h, args.first);
        if (args.n_queries < cpu::attend_queries) continue;
        run_kernel(first, args);
        args.n_queries = 0;
      }
    }
    if (args.n_queries > 0) run_kernel(first, args);
  }

  // The same of a single token for one segment, the i-th of n that it sees.
  void attend_segment(const cpu_run& state, int thread, std::int64_t kv, std::int64_t segment,
                      std::int64_t n, std::int64_t i) const {
    constexpr std::int64_t pages = cpu::attend_segment / kv_page_tokens;
    const token_place& at = state.places[0];
    const std::int64_t page = std::max(first_page(at.position), segment * pages);
    const std::int64_t end =
        std::min<std::int64_t>(at.position + 1, (segment + 1) * cpu::attend_segment);
    cpu::attend_args args = args_for(state, thread, at, kv, page, end);
    for (std::int64_t h = kv * heads_per_kv_; h < (kv + 1) * heads_per_kv_;) {
      cpu::attend_query queries[cpu::attend_queries];
      cpu::softmax_state states[cpu::attend_queries];
      args.queries = queries;
      args.states = states;
      args.n_queries = 0;
      const std::int64_t first = h;
      for (; h < (kv + 1) * heads_per_kv_ && args.n_queries < cpu::attend_queries; ++h) {
        cpu::attend_query& q = queries[args.n_queries++] = query(state, 0, h, args.first);
        q.out = memory_.attend_outs + (h * n + i) * spec_.value_length;
      }
      run_kernel(at, args);
      for (std::int64_t j = first; j < h; ++j) {
        memory_.attend_states[j * n + i] = states[j - first];
      }
    }
  }

  // All but the queries: the pages of a key/value head from `page` up to position `end`.
  cpu::attend_args args_for(const cpu_run& state, int thread, const token_place& at,
                            std::int64_t kv, std::int64_t page, std::int64_t end) const {
    auto& pages = (*state.page_lists)[static_cast<std::size_t>(thread)];
    cpu::attend_args args{};
    args.pages = pages.data();
    args.n_pages = list_pages(at, kv, page, end, pages.data());
    args.first = page * kv_page_tokens;
    args.key_length = spec_.key_length;
    args.value_length = spec_.value_length;
    args.softcap = spec_.softcap;
    args.scratch = memory_.threads[static_cast<std::size_t>(thread)].attend;
    return args;
  }

  void run_kernel(const token_place& at, const cpu::attend_args& args) const {
    const auto run =
        at.cache->layout().key == kv_type::f16 ? kernels_.attend_f16 : kernels_.attend_f32;
    run(args);
  }

  const float* sink(std::int64_t head) const {
    return spec_.sinks ? floats_of(*spec_.sinks) + head : nullptr;
  }

  // The page of the first token that one at this position sees.
  std::int64_t first_page(std::int64_t position) const {
    return spec_.window > 0
               ? std::max<std::int64_t>(position + 1 - spec_.window, 0) / kv_page_tokens
               : 0;
  }

  // One query head of one token; `from`: position of the pages' first token. A token sees itself
  // and those before it, inside the window.
  cpu::attend_query query(const cpu_run& state, std::int64_t t, std::int64_t head,
                          std::int64_t from) const {
    const std::int64_t end = std::int64_t{state.places[t].position} + 1;
    const std::int64_t begin = spec_.window > 0 ? std::max<std::int64_t>(end - spec_.window, 0) : 0;
    return {q_.row(t) + head * spec_.key_length, out_.row(t) + head * spec_.value_length,
            begin - from, end - from, sink(head)};
  }

  // Pages from `page` on up to position `end`.
  std::int64_t list_pages(const token_place& at, std::int64_t kv, std::int64_t page,
                          std::int64_t end, cpu::kv_page* pages) const {
    std::int64_t count = 0;
    for (; page * kv_page_tokens < end; ++page) {
      const std::int64_t tokens =
          std::min<std::int64_t>(end - page * kv_page_tokens, kv_page_tokens);
      pages[count++] = {at.cache->keys(page, layer_, kv), at.cache->values(page, layer_, kv),
                        static_cast<std::int32_t>(tokens)};
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
