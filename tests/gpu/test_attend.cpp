// Attention on the device against a plain softmax in double over what is stored.
#include <iostream>
#include <set>
#include <utility>

#include "attend_fixture.hpp"

namespace {

using namespace test;

struct problem {
  test_layer layer;
  std::int32_t n_head = 1;
  std::vector<test_sequence> sequences;
  std::int32_t window = 0;
  float softcap = 0;
  bool sinks = false;
  std::int32_t splits = 1, run_tokens = 1;
  float size = 0.5f;  // of what queries, keys and values are made of
  unsigned seed = 1;
  // Of sequence 0: a key or a value whose first number is a NaN; -1: none.
  std::int64_t faulty_key = -1, faulty_value = -1;

  // As launch_attend.cpp chooses.
  bool in_tiles() const {
    std::int64_t tokens = 0;
    for (const test_sequence& s : sequences) tokens += s.run;
    return run_tokens >= 16 && tokens >= 16 && layer.key != kv_type::f32 &&
           layer.value != kv_type::f32;
  }
};

struct expectation {
  double value, tolerance;
};

// All that a problem is made of, and what should come out.
class prepared_problem {
 public:
  explicit prepared_problem(const problem& p)
      : p_(p), random_(p.seed), cache_(p.layer, p.sequences, p.window, random_) {
    for (std::size_t s = 0; s < p.sequences.size(); ++s) {
      for (const bool key : {true, false}) fill(s, key);
    }
    tokens_ = tokens_of(p.sequences);
    const std::size_t n = tokens_.size() * static_cast<std::size_t>(p.n_head * p.layer.key_length);
    q_ = normals(random_, n, p.size);
    q_turned_ = normals(random_, n, p.size);
    if (p.sinks) sinks_ = normals(random_, static_cast<std::size_t>(p.n_head), 3);
  }

  std::vector<float> run(gpu_device& device) {
    const device_batch batch(device, p_.layer, cache_);
    const device_array<float> q(device, q_), q_turned(device, q_turned_), sinks(device, sinks_);
    const std::size_t heads = tokens_.size() * static_cast<std::size_t>(p_.n_head);
    const auto length = static_cast<std::size_t>(p_.layer.value_length),
               splits = static_cast<std::size_t>(p_.splits);
    const device_array<float> out(device, heads * length), parts(device, heads * splits * length),
        states(device, heads * splits * 2);
    const device_array<std::uint32_t> counters(device, std::vector<std::uint32_t>(heads, 0));
    gpu::attend_args args{};
    args.shape.n_head = p_.n_head;
    args.shape.n_head_kv = p_.layer.n_head_kv;
    args.shape.key_length = p_.layer.key_length;
    args.shape.value_length = p_.layer.value_length;
    args.shape.softcap = p_.softcap;
    args.shape.window = p_.window;
    args.shape.sinks = p_.sinks ? sinks.data() : nullptr;
    args.step = batch.step();
    args.pages = batch.pages();
    args.cache = batch.cache();
    args.tokens = batch.tokens();
    args.q = q.data();
    args.q_turned = any_gap() ? q_turned.data() : nullptr;
    args.out = out.data();
    args.run_tokens = p_.run_tokens;
    args.splits = p_.splits;
    args.parts = p_.splits > 1 ? parts.data() : nullptr;
    args.states = p_.splits > 1 ? states.data() : nullptr;
    args.counters = p_.splits > 1 ? counters.data() : nullptr;
    test::run(device, &gpu::kernel_table::attend, args);
    for (const std::uint32_t counter : counters.read()) REQUIRE(counter == 0);
    return out.read();
  }

  // Of all heads of all tokens.
  const std::vector<expectation>& expected() {
    if (!expected_.empty()) return expected_;
    for (std::size_t t = 0; t < tokens_.size(); ++t) {
      for (int h = 0; h < p_.n_head; ++h) {
        const auto head = expected_head(t, h);
        expected_.insert(expected_.end(), head.begin(), head.end());
      }
    }
    return expected_;
  }

 private:
  void fill(std::size_t s, bool key) {
    const test_layer& l = p_.layer;
    const kv_type type = key ? l.key : l.value;
    const auto length = static_cast<std::size_t>(key ? l.key_length : l.value_length);
    auto& loaded = key ? keys_ : values_;
    for (std::int64_t i = 0; i < p_.sequences[s].tokens; ++i) {
      for (int head = 0; head < l.n_head_kv; ++head) {
        // magnitudes differ from row to row
        auto x = normals(random_, length, p_.size * (i % 5 == 3 ? 0.1f : 1.0f));
        if (s == 0 && i == (key ? p_.faulty_key : p_.faulty_value)) x[0] = NAN;
        const stored_row row = store_on_host(type, x);
        cache_.put(s, i, key, head, row);
        loaded.push_back(load_on_host(type, row, length));
      }
    }
    if (key) first_row_.push_back(rows_);
    if (key) rows_ += static_cast<std::size_t>(p_.sequences[s].tokens * l.n_head_kv);
  }
  bool any_gap() const {
    return std::any_of(p_.sequences.begin(), p_.sequences.end(),
                       [](const test_sequence& s) { return s.dropped > 0; });
  }

  // What a device computes differs by rounding. With u = 2^-24 and A = the weighted mean of
  // |value|:
  // - a logit is a sum of key_length products in some order, off by at most (key_length + 2) u
  // times
  //   the sum of their magnitudes; softcap adds some u of the cap; taking the greatest off and the
  //   exponential add some u, and fast ones 2 u |logit - greatest|. An error d of all logits, with
  //   either sign, makes at most 2 d A of the result.
  // - sums over tokens add (tokens + 64) u A, and as much for the sum of weights.
  // In tiles queries are rounded to halves, which is 2^-11 of each product, and so are keys and
  // values with a scale for 32 values; weights are rounded by 2^-11 (and from 2^-26 of the greatest
  // on by 2^-37 of it).
  std::vector<expectation> expected_head(std::size_t t, int head) {
    const test_layer& l = p_.layer;
    const test_token& at = tokens_[t];
    const auto sequence = static_cast<std::size_t>(at.sequence);
    const test_sequence& s = p_.sequences[sequence];
    const int kv_head = head / (p_.n_head / l.n_head_kv);
    const std::int64_t begin =
        p_.window > 0 ? std::max<std::int64_t>(at.index + 1 - p_.window, 0) : 0;
    const auto row = [&](std::int64_t i) {
      return first_row_[sequence] + static_cast<std::size_t>(i * l.n_head_kv + kv_head);
    };
    const auto n_key = static_cast<std::size_t>(l.key_length);
    const std::size_t q_at =
        (t * static_cast<std::size_t>(p_.n_head) + static_cast<std::size_t>(head)) * n_key;
    constexpr double u = 0x1p-24, h = 0x1p-11;
    const bool tiles = p_.in_tiles();
    const auto rounded = [&](kv_type type) {
      return tiles && (type == kv_type::q8_0 || type == kv_type::q4_0) ? h : 0.0;
    };
    std::vector<double> logits;
    double greatest = -INFINITY, error = 0;
    for (std::int64_t i = begin; i <= at.index; ++i) {
      const float* const q = (s.dropped > 0 && i < s.keep ? q_turned_ : q_).data() + q_at;
      const std::vector<float>& key = keys_[row(i)];
      double sum = 0, magnitude = 0;
      for (std::size_t j = 0; j < n_key; ++j) {
        const double x = static_cast<double>(q[j]) * static_cast<double>(key[j]);
        sum += x;
        magnitude += std::fabs(x);
      }
      const double of_queries = tiles ? h : 0;
      error = std::max(error, magnitude * ((l.key_length + 8) * u + of_queries + rounded(l.key)));
      const double cap = static_cast<double>(p_.softcap);
      logits.push_back(cap == 0 ? sum : cap * std::tanh(sum / cap));
      greatest = std::max(greatest, logits.back());
    }
    error += 8 * u * static_cast<double>(p_.softcap);
    double sum = 0, span = 0;
    const auto n_value = static_cast<std::size_t>(l.value_length);
    std::vector<double> out(n_value, 0.0), magnitude(n_value, 0.0);
    double greatest_value = 0;
    for (std::int64_t i = begin; i <= at.index; ++i) {
      const double logit = logits[static_cast<std::size_t>(i - begin)];
      const double weight = std::exp(logit - greatest);
      span = std::max(span, greatest - logit);
      sum += weight;
      const std::vector<float>& value = values_[row(i)];
      for (std::size_t j = 0; j < n_value; ++j) {
        out[j] += weight * static_cast<double>(value[j]);
        magnitude[j] += weight * std::fabs(static_cast<double>(value[j]));
        greatest_value = std::max(greatest_value, std::fabs(static_cast<double>(value[j])));
      }
    }
    if (p_.sinks)
      sum += std::exp(static_cast<double>(sinks_[static_cast<std::size_t>(head)]) - greatest);
    const double tokens = static_cast<double>(at.index + 1 - begin);
    const double relative = 2 * (error + 4 * u * span + 8 * u) + 2 * (tokens + 64) * u +
                            (tiles ? h + rounded(l.value) : 0);
    double squares = 0;
    for (std::size_t j = 0; j < n_value; ++j) {
      out[j] /= sum;
      magnitude[j] = magnitude[j] / sum * relative +
                     (tiles ? tokens / sum * 0x1p-36 * greatest_value : 0) + 1e-30;
      squares += magnitude[j] * magnitude[j];
    }
    if (l.rotate_value) {
      hadamard_on_host(out);
      // an orthonormal matrix leaves the sum of squared errors as it is
      std::fill(magnitude.begin(), magnitude.end(), std::sqrt(squares) * (1 + 16 * u));
      for (std::size_t j = 0; j < n_value; ++j) magnitude[j] += 16 * u * std::fabs(out[j]);
    }
    std::vector<expectation> all;
    for (std::size_t j = 0; j < n_value; ++j) all.push_back({out[j], magnitude[j]});
    return all;
  }

  problem p_;
  std::mt19937 random_;
  test_cache cache_;
  std::vector<std::size_t> first_row_;  // by sequence, in keys_ and values_
  std::size_t rows_ = 0;
  std::vector<std::vector<float>> keys_, values_;  // [token, n_head_kv] of all sequences, as stored
  std::vector<test_token> tokens_;
  std::vector<float> q_, q_turned_, sinks_;
  std::vector<expectation> expected_;
};

// Greatest error as a share of what is allowed.
double check(const std::vector<float>& out, const std::vector<expectation>& expected) {
  REQUIRE(out.size() == expected.size());
  double worst = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double error = std::fabs(static_cast<double>(out[i]) - expected[i].value);
    if (!(error <= expected[i].tolerance)) {
      INFO("number " << i << ": " << out[i] << ", not " << expected[i].value << " +- "
                     << expected[i].tolerance);
      REQUIRE(error <= expected[i].tolerance);
    }
    worst = std::max(worst, error / expected[i].tolerance);
  }
  return worst;
}

double check_problem(const problem& p) {
  prepared_problem prepared(p);
  double worst = 0;
  for (gpu_device& device : gpu_devices()) {
    INFO(device.name << ": keys " << nibble::info_of(p.layer.key).name << " of "
                     << p.layer.key_length << ", values " << nibble::info_of(p.layer.value).name
                     << " of " << p.layer.value_length << ", heads " << p.n_head << " on "
                     << p.layer.n_head_kv << ", window " << p.window << ", softcap " << p.softcap
                     << ", splits " << p.splits << ", run " << p.run_tokens << ", tokens "
                     << p.sequences[0].tokens << ", in the batch " << p.sequences[0].run);
    worst = std::max(worst, check(prepared.run(device), prepared.expected()));
  }
  return worst;
}

}  // namespace

TEST_CASE("the device attends as a plain softmax does, for every pair of types") {
  std::set<std::pair<kv_type, kv_type>> pairs;
  double worst = 0;
  unsigned seed = 0;
  for (const auto& key : nibble::all_kv_types) {
    for (const auto& value : nibble::all_kv_types) {
      for (const int length : {8, 64, 80, 128}) {
        problem p;
        p.layer = {key.type, value.type, 1, length, length, false, seed % 2 == 0};
        p.n_head = 4;
        p.sequences = {{69, 1}};
        p.seed = ++seed;
        worst = std::max(worst, check_problem(p));
        p.sequences = {{50, 18}};
        p.run_tokens = 16;
        worst = std::max(worst, check_problem(p));
      }
      pairs.emplace(key.type, value.type);
    }
  }
  CHECK(pairs.size() == nibble::all_kv_types.size() * nibble::all_kv_types.size());
  std::cout << "attend: " << pairs.size() << " pairs of types, at worst " << worst
            << " of the tolerance\n";
}

TEST_CASE("heads may have other lengths, and values others than keys") {
  struct lengths {
    int key, value;
  };
  unsigned seed = 100;
  for (const lengths l : {lengths{16, 40},
                          {40, 16},
                          {256, 256},
                          {192, 128},
                          {128, 192},
                          {512, 64},
                          {72, 512},
                          {512, 512}}) {
    for (const kv_type type : {kv_type::f32, kv_type::bf16, kv_type::q4_0, kv_type::q4}) {
      problem p;
      p.layer = {type, type == kv_type::q4 ? kv_type::q8 : type, 2, l.key, l.value};
      p.n_head = 6;
      p.seed = ++seed;
      p.size = 0.3f;
      p.sequences = {{70, 1}};
      check_problem(p);
      p.sequences = {{40, 17}};
      p.run_tokens = 17;
      check_problem(p);
    }
  }
  // floats may have any length
  for (const lengths l : {lengths{1, 3}, {5, 7}, {13, 100}, {67, 9}}) {
    for (const kv_type type : {kv_type::f32, kv_type::f16, kv_type::bf16}) {
      problem p;
      p.layer = {type, type, 2, l.key, l.value};
      p.n_head = 2;
      p.seed = ++seed;
      p.sequences = {{66, 1}};
      check_problem(p);
      p.sequences = {{33, 16}};
      p.run_tokens = 16;
      check_problem(p);
    }
  }
}

TEST_CASE("query heads share a key/value head") {
  unsigned seed = 200;
  for (const int sharing : {1, 2, 4, 7, 8, 16, 20, 71}) {
    for (const int run : {1, 19}) {
      problem p;
      p.layer = {kv_type::q8, kv_type::q8, sharing < 20 ? 3 : 1, 32, 48};
      p.n_head = sharing * p.layer.n_head_kv;
      p.sequences = {{90, run}};
      p.run_tokens = run;
      p.seed = ++seed;
      check_problem(p);
    }
  }
}

TEST_CASE("a result does not depend on how a sequence is split") {
  unsigned seed = 300;
  for (const int tokens : {1, 63, 64, 65, 200, 1000}) {
    for (const int splits : {1, 2, 5}) {
      for (const int sharing : {1, 7}) {
        problem p;
        p.layer = {kv_type::f16, kv_type::q8_0, 2, 64, 64, false, true};
        p.n_head = sharing * 2;
        p.sequences = {{tokens, 1}};
        p.splits = splits;
        p.sinks = splits == 2;
        p.seed = ++seed;
        check_problem(p);
      }
    }
  }
}

TEST_CASE("windows, caps and sinks") {
  unsigned seed = 400;
  for (const int window : {0, 1, 7, 64, 100}) {
    for (const float softcap : {0.0f, 2.0f}) {
      for (const int run : {1, 3, 40}) {
        problem p;
        p.layer = {kv_type::q8, kv_type::f16, 2, 64, 32};
        p.n_head = 4;
        p.sequences = {{230, run}};
        p.window = window;
        p.softcap = softcap;
        p.sinks = (seed & 1) != 0;
        p.splits = run == 3 ? 2 : 1;
        p.run_tokens = run;
        p.size = 0.8f;
        p.seed = ++seed;
        check_problem(p);
      }
    }
  }
}

TEST_CASE("sequences of a batch do not see each other, and look past their gaps") {
  unsigned seed = 500;
  for (const int run_tokens : {1, 20}) {
    for (const kv_type type : {kv_type::f32, kv_type::f16, kv_type::q4_0}) {
      for (const int window : {0, 50}) {
        problem p;
        p.layer = {type, type, 2, 48, 48, true, true};
        p.n_head = 6;
        p.window = window;
        p.run_tokens = run_tokens;
        // the last one sees some of the tokens that were kept, even through a window
        p.sequences = {{140, 21, 10, 100}, {5, 5},          {77, 1, 64, 64},
                       {90, 13, 0, 33},    {130, 2, 70, 7}, {70, 22, 30, 161}};
        p.splits = run_tokens == 1 ? 3 : 1;
        p.seed = ++seed;
        check_problem(p);
      }
    }
  }
}

TEST_CASE("magnitudes far from one lose nothing in tiles") {
  unsigned seed = 600;
  for (const kv_type type : {kv_type::bf16, kv_type::q8_0, kv_type::q8, kv_type::q4}) {
    for (const float size : {1e-4f, 30.0f}) {
      problem p;
      p.layer = {type, type, 1, 64, 64};
      p.n_head = 2;
      p.sequences = {{60, 30}};
      p.run_tokens = 30;
      p.size = size;
      p.seed = ++seed;
      check_problem(p);
    }
  }
}

TEST_CASE("a NaN shows in all tokens that see it, and in no others") {
  unsigned seed = 700;
  for (const auto& type : nibble::all_kv_types) {
    for (const bool key : {true, false}) {
      for (const int run : {3, 24}) {
        problem p;
        p.layer = {type.type, type.type, 1, 64, 64, false, true};
        p.n_head = 2;
        p.sequences = {{80, run}, {30, 2}};
        p.run_tokens = run;
        p.splits = run == 3 ? 2 : 1;
        p.seed = ++seed;
        const std::int64_t at = 80 - run / 2 - 1;
        (key ? p.faulty_key : p.faulty_value) = at;
        prepared_problem prepared(p);
        for (gpu_device& device : gpu_devices()) {
          const std::vector<float> out = prepared.run(device);
          for (std::size_t i = 0; i < out.size(); ++i) {
            const auto token = static_cast<std::int64_t>(i) / (2 * 64);
            const bool sees = token < run && 80 - run + token >= at;
            INFO(device.name << ", " << type.name << ", " << (key ? "key" : "value") << ", run "
                             << run << ", token " << token);
            REQUIRE(std::isnan(out[i]) == sees);
          }
        }
      }
    }
  }
}
