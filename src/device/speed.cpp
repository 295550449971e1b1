#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nibble/base/bytes.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/device/speed.hpp>
#include <nibble/formats/list.hpp>
#include <numeric>
#include <utility>

#include "base/memory_for.hpp"
#include "device/speed_bench.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

using namespace literals;

constexpr format_id usual[] = {id_of<formats::f16>, id_of<formats::q4_0>, id_of<formats::q8_0>,
                               id_of<formats::q4_k>, id_of<formats::q6_k>};

// Bits a value, and whether the format has floats: what formats are near by.
double bits_of(format_id format) {
  const format_info& info = *find_format_info(format);
  return 8.0 * info.block_bytes / info.block_size;
}
bool has_blocks(format_id format) {
  return find_format_info(format)->block_size > 1;
}

// A run of products with a prompt that takes less is too short to tell a fast device's speed.
constexpr double short_run = 1e-3;
constexpr std::int32_t many_tokens = 512;
// The rows of the small products that tell a step's fixed time, and how many pairs of them a run
// has.
constexpr std::int64_t small_rows = 32;
constexpr int small_pairs = 16;
constexpr std::int64_t table_rows = 32;
constexpr float epsilon = 1e-5f;

// What is left of a time when another is taken from it; as that is measured as well, a part stays.
double without(double seconds, double fixed) {
  return std::max(seconds - fixed, seconds / 10);
}

std::size_t last_level_cache() {
#if defined(_SC_LEVEL3_CACHE_SIZE)
  if (const long bytes = ::sysconf(_SC_LEVEL3_CACHE_SIZE); bytes > 0) {
    return static_cast<std::size_t>(bytes);
  }
#endif
  return 32_MiB;
}

// Of weights in all: more than caches hold, and not more than there is room for.
std::size_t working_set(const device_info& device, const speed_plan& plan) {
  if (plan.weight_bytes > 0) return plan.weight_bytes;
  const std::size_t wanted = computes_on_cpu(device.kind)
                                 ? std::clamp<std::size_t>(3 * last_level_cache(), 128_MiB, 768_MiB)
                                 : std::size_t{512_MiB};
  const auto room = static_cast<std::size_t>(device.free_bytes / 4);
  return device.free_bytes > 0 ? std::min(wanted, room) : wanted;
}

void check(const speed_plan& plan) {
  const auto fits_blocks = [](std::int64_t n) { return n > 0 && n % 256 == 0; };
  const bool sizes = fits_blocks(plan.columns) && fits_blocks(plan.rows) && plan.heads_kv > 0 &&
                     plan.heads > 0 && plan.heads % plan.heads_kv == 0 && plan.head_length > 0 &&
                     plan.head_length % 8 == 0 && plan.depth > 1 && plan.layers > 0 &&
                     plan.prompt_tokens > 1 && plan.prompt_tokens <= plan.depth;
  if (sizes) return;
  throw error(errc::invalid_argument,
              "a plan of what to measure has sizes that no program can have; columns and rows are "
              "multiples of 256, heads of heads_kv, head_length of 8, and a prompt is no longer "
              "than the depth.");
}

// A matrix that widens and one that narrows again, of one format.
struct weight_pair {
  const weight *up, *down;
};

// What tells the fixed times of products with some columns.
struct small_products {
  const weight *gain, *table;
  weight_pair pair;
};

class measurement {
 public:
  measurement(backend& on, const speed_plan& plan, const speed_clock& now)
      : on_(on), plan_(plan), now_(now) {
    if (plan_.formats.empty()) plan_.formats.assign(std::begin(usual), std::end(usual));
  }

  device_speed run() {
    make_weights();
    device_speed speed;
    speed.measured = true;
    measure_fixed(speed);
    measure_link(speed);
    measure_formats(speed);
    for (const kv_type type : plan_.kv_types) speed.kv.push_back(measure_attention(type, speed));
    return speed;
  }

 private:
  // recording -----------------------------------------------------------------------------------

  static rms_norm norm(const weight* gain) { return {gain, epsilon}; }

  static value embed(recording& r, const weight* table) {
    const value x = r.make(static_cast<std::int64_t>(table->shape.columns()));
    r.emit(embed_step{.table = table, .out = x});
    return x;
  }

  static void select(recording& r, value x) {
    r.output = r.make({.width = r.info(x).width, .rows = value_rows::per_output});
    r.emit(select_step{x, r.output});
  }

  // x += down * gate(up * norm(x))
  static void pair(recording& r, value x, const weight_pair& w, const weight* gain) {
    const value h = r.make(static_cast<std::int64_t>(w.up->shape.extent[1]));
    r.emit(matmul_step{.in = x, .norm = norm(gain), .outputs = {{w.up, nullptr, h}}});
    r.emit(gate_step{.gate = h, .up = h, .out = h});
    r.emit(matmul_step{.in = h, .outputs = {{w.down, nullptr, x}}, .accumulate = true});
  }

  recording products(std::span<const weight_pair> pairs) const {
    recording r;
    const value x = embed(r, table_);
    for (const weight_pair& p : pairs) pair(r, x, p, gain_);
    select(r, x);
    return r;
  }

  recording attention(std::int32_t heads) const {
    recording r;
    attend_step a;
    const std::int64_t length = plan_.head_length;
    a.q = embed(r, heads == plan_.heads ? query_table_ : key_table_);
    a.k = embed(r, key_table_);
    a.v = embed(r, key_table_);
    a.out = r.make(heads * length);
    a.spec.n_head = heads;
    a.spec.n_head_kv = plan_.heads_kv;
    a.spec.key_length = a.spec.value_length = plan_.head_length;
    a.spec.scale = 1;  // queries are scaled in place, once in each layer
    a.spec.rope.style = rope_style::neox;
    for (std::int64_t i = 0; i < length / 2; ++i) {
      a.spec.rope.frequencies.push_back(
          std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(length)));
    }
    for (std::int32_t layer = 0; layer < plan_.layers; ++layer) {
      a.layer = layer;
      r.emit(a);
    }
    select(r, a.out);
    return r;
  }

  // weights -------------------------------------------------------------------------------------

  void make_weights() {
    const std::int64_t columns = plan_.columns, length = plan_.head_length;
    const format_id f32 = id_of<formats::f32>, q8_0 = id_of<formats::q8_0>;
    gain_ = weights_.add(f32, columns, 1);
    table_ = weights_.add(f32, columns, table_rows);
    query_table_ = weights_.add(f32, plan_.heads * length, table_rows);
    key_table_ = weights_.add(f32, plan_.heads_kv * length, table_rows);
    for (const std::int64_t some : {columns, columns / 2}) {
      const weight* const gain = weights_.add(f32, some, 1);
      const weight* const table = weights_.add(f32, some, table_rows);
      for (const std::int64_t rows : {small_rows, 2 * small_rows}) {
        small_.push_back({gain, table, add_pair(q8_0, some, rows)});
      }
    }
    const std::size_t bytes = working_set(on_.info(), plan_) / plan_.formats.size();
    for (const format_id format : plan_.formats) by_format_.push_back(add_format(format, bytes));
    weights_.import_into(on_);
  }

  weight_pair add_pair(format_id format, std::int64_t columns, std::int64_t rows) {
    const weight* const up = weights_.add(format, columns, rows);
    return {up, weights_.add(format, rows, columns)};
  }

  // As many pairs as have these bytes.
  std::vector<weight_pair> add_format(format_id format, std::size_t bytes) {
    const double of_pair = 2 * bits_of(format) / 8 * plan_.columns * plan_.rows;
    const auto n = static_cast<std::int64_t>(std::ceil(static_cast<double>(bytes) / of_pair));
    std::vector<weight_pair> pairs;
    for (std::int64_t i = 0; i < n; ++i)
      pairs.push_back(add_pair(format, plan_.columns, plan_.rows));
    return pairs;
  }

  // times ---------------------------------------------------------------------------------------

  // A product's fixed time is what it would take with no rows: with twice the rows it takes longer
  // by what the rows cost. With half the columns it takes less by what half of its input costs.
  void measure_fixed(device_speed& speed) {
    std::vector<timed_program> programs;
    recording nothing;
    select(nothing, embed(nothing, table_));
    programs.emplace_back(on_, std::move(nothing), 1, now_);
    for (const small_products& s : small_) {
      recording r;
      const value x = embed(r, s.table);
      for (int i = 0; i < small_pairs; ++i) pair(r, x, s.pair, s.gain);
      select(r, x);
      programs.emplace_back(on_, std::move(r), 1, now_);
    }
    const std::vector<double> t = time_in_turn(programs, plan_.seconds / 5, 100, now_).usual;
    speed.run_seconds = t[0];
    const auto of_pair = [&](double one, double two) {
      one = without(one, t[0]);
      return std::clamp(2 * one - without(two, t[0]), one / 4, one) / small_pairs;
    };
    const double wide = of_pair(t[1], t[2]), narrow = of_pair(t[3], t[4]);
    // of a pair, one product has an input of all columns
    const double columns = std::clamp(2 * (wide - narrow), wide / 20, wide * 0.95);
    speed.step_value_seconds = columns / plan_.columns;
    speed.step_seconds = (wide - columns) / 2;
  }

  // A hidden state that goes in and out, of one token and of many.
  void measure_link(device_speed& speed) {
    if (computes_on_cpu(on_.info().kind)) return;
    std::vector<timed_program> programs;
    for (const std::int32_t tokens : {1, many_tokens}) {
      recording r;
      r.input = r.make(plan_.columns);
      r.output = r.make(plan_.columns);
      r.emit(norm_step{r.input, r.output, norm(gain_)});
      programs.emplace_back(on_, std::move(r), tokens, now_);
    }
    const std::vector<double> t = time_in_turn(programs, plan_.seconds / 5, 30, now_).usual;
    const double of_token = 2.0 * plan_.columns * sizeof(float);
    const double seconds = without(t[1], t[0]) / (many_tokens - 1);
    speed.link_bytes_per_second = of_token / seconds;
    speed.link_seconds = without(t[0], speed.run_seconds + seconds) / 2;
  }

  void measure_formats(device_speed& speed) {
    const auto n = static_cast<double>(by_format_.size());
    // a pair at a time, if that is long enough to be timed: short runs are often not interrupted
    bool apart = true;
    for (const auto& pairs : by_format_) {
      timed_program one(on_, products({pairs.data(), 1}), 1, now_);
      apart = apart && time_alone(one, 0, 3, now_) > short_run;
    }
    std::vector<timed_program> programs;
    for (const auto& pairs : by_format_) {
      const std::size_t step = apart ? 1 : pairs.size();
      for (std::size_t i = 0; i < pairs.size(); i += step) {
        programs.emplace_back(on_, products({&pairs[i], step}), 1, now_);
      }
    }
    const run_times t = time_in_turn(programs, plan_.seconds * n / 2, 20, now_);
    programs.clear();
    speed.noise = t.noise;
    auto next = t.usual.begin();
    for (std::size_t i = 0; i < by_format_.size(); ++i) {
      const auto& pairs = by_format_[i];
      const auto runs = static_cast<std::ptrdiff_t>(apart ? pairs.size() : 1);
      const double seconds = std::accumulate(next, next + runs, 0.0);
      next += runs;
      const double fixed = speed.run_seconds * static_cast<double>(runs) +
                           pair_seconds(speed) * static_cast<double>(pairs.size());
      const double bytes = pair_bytes(pairs[0]) * static_cast<double>(pairs.size());
      speed.formats.push_back(
          {plan_.formats[i], bytes / without(seconds, fixed), prompt_rate(pairs, speed)});
    }
  }

  double pair_seconds(const device_speed& speed) const {
    return 2 * speed.step_seconds + speed.step_value_seconds * (plan_.columns + plan_.rows);
  }

  double pair_bytes(const weight_pair& pair) const {
    const auto bytes = [&](const weight& w) {
      return static_cast<double>(on_.weight_bytes({w.format, w.shape, nullptr}));
    };
    return bytes(*pair.up) + bytes(*pair.down);
  }

  // Multiply-adds a second with many tokens: of one product, and on a device for which that is
  // nothing, of all of them.
  double prompt_rate(std::span<const weight_pair> pairs, const device_speed& speed) {
    const double macs = static_cast<double>(pairs[0].up->shape.elements());
    recording r;
    const value x = embed(r, table_), h = r.make(plan_.rows);
    r.emit(matmul_step{.in = x, .norm = norm(gain_), .outputs = {{pairs[0].up, nullptr, h}}});
    select(r, h);
    timed_program few(on_, std::move(r), plan_.prompt_tokens, now_);
    const double seconds = time_alone(few, plan_.seconds / 4, 10, now_);
    const double fixed =
        speed.run_seconds + speed.step_seconds + speed.step_value_seconds * plan_.columns;
    if (seconds > short_run) return macs * plan_.prompt_tokens / without(seconds, fixed);
    timed_program many(on_, products(pairs), many_tokens, now_);
    const double all = time_alone(many, plan_.seconds / 4, 10, now_);
    const auto n = 2 * static_cast<double>(pairs.size());
    return n * macs * many_tokens / without(all, speed.run_seconds + pair_seconds(speed) * n / 2);
  }

  // One token at the end of a full cache, with fewer and with more queries for the same keys: what
  // reading costs, and what the queries do. Then without a past: what neither explains.
  kv_speed measure_attention(kv_type type, device_speed& speed) {
    kv_layout layout{.layers = {}, .key = type, .value = type};
    const kv_layer layer{plan_.heads_kv, plan_.head_length, plan_.head_length};
    layout.layers.assign(static_cast<std::size_t>(plan_.layers), layer);
    const speed_cache_pages pages(on_, layout, plan_.depth);
    const bool grouped = plan_.heads > plan_.heads_kv;
    std::vector<timed_program> programs;
    const auto add = [&](std::int32_t heads, std::int32_t n_past) {
      programs.emplace_back(on_, attention(heads), pages.chunk(1, n_past), plan_.depth, now_);
    };
    add(plan_.heads, 0);
    add(plan_.heads, plan_.depth - 1);
    if (grouped) add(plan_.heads_kv, plan_.depth - 1);
    const std::vector<double> t = time_in_turn(programs, plan_.seconds / 2, 15, now_).usual;
    // what the tokens of the past cost; without one, a token still sees itself
    const double layers = plan_.layers, past = plan_.depth - 1;
    const double all = without(t[1], t[0]);
    if (speed.kv.empty()) {
      speed.attend_seconds = without(t[0], speed.run_seconds + all / past) / layers;
    }
    const double bytes = static_cast<double>(layout.bytes_per_token()) * past;
    const double macs = attention_macs() * layers * past;
    // of that, what more queries add; the first ones are as dear as the others
    const double share = static_cast<double>(plan_.heads) / (plan_.heads - plan_.heads_kv);
    const double more = grouped ? (t[1] - t[2]) * share * past / plan_.depth : 0;
    const double queries = std::clamp(more, all / 20, all * 0.95);
    return {type, bytes / (all - queries), macs / queries, prompt_attention(pages)};
  }

  // Of a token that one query of a layer sees.
  double attention_macs() const { return 2.0 * plan_.heads * plan_.head_length; }

  double prompt_attention(const speed_cache_pages& pages) {
    const auto rate = [&](std::int32_t tokens, std::int32_t n_past, double& seconds) {
      timed_program p(on_, attention(plan_.heads), pages.chunk(tokens, n_past), plan_.depth, now_);
      seconds = time_alone(p, plan_.seconds / 4, 7, now_);
      const double seen = n_past + (tokens + 1) / 2.0;
      return attention_macs() * plan_.layers * tokens * seen / seconds;
    };
    double seconds = 0;
    const std::int32_t some = plan_.prompt_tokens;
    const double first = rate(some, std::min(plan_.depth - some, some), seconds);
    const std::int32_t many = std::min(many_tokens, plan_.depth);
    return seconds > short_run ? first : rate(many, plan_.depth - many, seconds);
  }

  backend& on_;
  speed_plan plan_;
  const speed_clock& now_;
  speed_weights weights_;
  const weight *gain_ = nullptr, *table_ = nullptr;
  const weight *query_table_ = nullptr, *key_table_ = nullptr;
  std::vector<small_products> small_;                // two of all columns, two of half
  std::vector<std::vector<weight_pair>> by_format_;  // as in the plan
};

}  // namespace

std::span<const format_id> usual_formats() {
  return usual;
}

device_speed measure_speed(backend& fresh, const speed_plan& plan, const speed_clock& now) {
  check(plan);
  return with_memory_for("measuring a device", [&] {
    device_speed speed = measurement(fresh, plan, now).run();
    std::sort(speed.formats.begin(), speed.formats.end(), [](const auto& a, const auto& b) {
      return *format_index(a.format) < *format_index(b.format);
    });
    std::sort(speed.kv.begin(), speed.kv.end(),
              [](const auto& a, const auto& b) { return a.type < b.type; });
    return speed;
  });
}

device_speed measure_speed(backend& fresh, const speed_plan& plan) {
  return measure_speed(fresh, plan, [] {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(now).count();
  });
}

format_speed device_speed::of(format_id format) const {
  if (!has_format(format)) throw_unsupported(format);
  const format_speed* nearest = nullptr;
  // a float is farther from a block than any block, and the other way round
  const auto distance = [&](const format_speed& s) {
    const double bits = std::abs(bits_of(s.format) - bits_of(format));
    return bits + (has_blocks(s.format) == has_blocks(format) ? 0 : 64);
  };
  for (const format_speed& s : formats) {
    if (s.format == format) return s;
    const double nearer = nearest ? distance(*nearest) - distance(s) : 1;
    if (nearer > 0 || (nearer == 0 && bits_of(s.format) > bits_of(nearest->format))) nearest = &s;
  }
  if (!nearest) {
    throw error(errc::invalid_argument, "no format of a device's speed was measured.");
  }
  return {format, nearest->bytes_per_second, nearest->macs_per_second};
}

kv_speed device_speed::of(kv_type type) const {
  const kv_speed* nearest = nullptr;
  const auto distance = [&](const kv_speed& s) {
    return std::abs(info_of(s.type).bits - info_of(type).bits);
  };
  for (const kv_speed& s : kv) {
    if (s.type == type) return s;
    const int nearer = nearest ? distance(*nearest) - distance(s) : 1;
    if (nearer > 0 || (nearer == 0 && info_of(s.type).bits > info_of(nearest->type).bits)) {
      nearest = &s;
    }
  }
  if (!nearest) {
    throw error(errc::invalid_argument,
                "no type of keys and values of a device's speed was measured.");
  }
  kv_speed found = *nearest;
  found.type = type;
  return found;
}

}  // namespace nibble::inline NIBBLE_ABI
