// Attention: heads are normalised and rotated, keys and values go to the cache, and each query head
// looks at the pages that its token may see.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "device/cpu_kv_cache.hpp"
#include "device/cpu_step_maker.hpp"

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
        heads_per_kv_(s.spec.n_head / s.spec.n_head_kv),
        whole_heads_(s.spec.n_head_kv % threads() == 0),
        aligned_(whole_heads_ && splits_evenly(threads())) {}

  sharing enters(bool) const override { return aligned_ ? sharing::columns : sharing::other; }
  sharing leaves(bool) const override { return aligned_ ? sharing::columns : sharing::other; }

  void run(const cpu_run& state, int thread) const override {
    if (whole_heads_) {
      run_own_heads(state, thread);
    } else {
      run_shared_heads(state, thread);
    }
  }

 private:
  int threads() const { return static_cast<int>(memory_.threads.size()); }

  // Whether share() of the columns of q, k, v and out gives each thread exactly its heads.
  bool splits_evenly(int threads) const {
    const std::int64_t unit = share_unit * threads;
    return q_.width % unit == 0 && k_.width % unit == 0 && v_.width % unit == 0 &&
           out_.width % unit == 0;
  }

  // Each thread has key/value heads of its own, with their query heads: nobody waits.
  void run_own_heads(const cpu_run& state, int thread) const {
    const index_range heads = share(spec_.n_head_kv, thread, state.threads(), 1);
    for (std::int64_t kv = heads.begin; kv < heads.end; ++kv) {
      for (std::int64_t t = 0; t < state.tokens; ++t) prepare(state, t, kv);
      for (std::int64_t t = 0; t < state.tokens;) t = attend(state, thread, kv, t);
    }
  }

  // Fewer heads than threads, or a remainder: share out tokens as well.
  void run_shared_heads(const cpu_run& state, int thread) const {
    const std::int64_t kv_heads = spec_.n_head_kv, n = state.tokens;
    const index_range some = share(n * kv_heads, thread, state.threads(), 1);
    for (std::int64_t i = some.begin; i < some.end; ++i) prepare(state, i / kv_heads, i % kv_heads);
    state.team->barrier();
    // late tokens see more than early ones: threads take turns
    std::int64_t turn = 0;
    for (std::int64_t kv = 0; kv < kv_heads; ++kv) {
      for (std::int64_t t = 0; t < n; ++turn) {
        const bool mine = turn % state.threads() == thread;
        t = mine ? attend(state, thread, kv, t) : group_end(state, t);
      }
    }
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

  // The query heads of one key/value head for the tokens from t on that go together; returns the
  // token after them.
  std::int64_t attend(const cpu_run& state, int thread, std::int64_t kv, std::int64_t t) const {
    const std::int64_t end = group_end(state, t);
    const token_place& first = state.places[t];
    const std::int64_t from = first_page(first.position);
    auto& pages = (*state.page_lists)[static_cast<std::size_t>(thread)];
    cpu::attend_query queries[cpu::attend_queries];
    cpu::attend_args args{};
    args.queries = queries;
    args.pages = pages.data();
    args.n_pages = list_pages(first, kv, from, state.places[end - 1].position + 1, pages.data());
    args.key_length = spec_.key_length;
    args.value_length = spec_.value_length;
    args.softcap = spec_.softcap;
    args.scratch = memory_.threads[static_cast<std::size_t>(thread)].attend;
    const auto run =
        first.cache->layout().key == kv_type::f16 ? kernels_.attend_f16 : kernels_.attend_f32;
    for (std::int64_t i = t; i < end; ++i) {
      for (std::int64_t h = kv * heads_per_kv_; h < (kv + 1) * heads_per_kv_; ++h) {
        queries[args.n_queries++] = query(state, i, h, from * kv_page_tokens);
        if (args.n_queries < cpu::attend_queries) continue;
        run(args);
        args.n_queries = 0;
      }
    }
    if (args.n_queries > 0) run(args);
    return end;
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
            begin - from, end - from, spec_.sinks ? floats_of(*spec_.sinks) + head : nullptr};
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
  bool whole_heads_, aligned_;
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
