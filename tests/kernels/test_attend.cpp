#include <nibble/base/half.hpp>
#include <type_traits>

#include "kernel_test.hpp"

using nibble::cpu::attend_args;
using nibble::cpu::kernel_table;
using nibble::cpu::kv_page;

namespace {

struct head {
  std::int32_t key_length, value_length, tokens;
  std::vector<float> q, key, value;  // keys and values as stored, exactly representable
};

// The plain definition in double. What a float kernel may be off by grows with the logits, since
// a logit is only known to |logit| units and moves a weight by as much: returned as well.
std::vector<double> attention(const head& h, float softcap, const float* sink, double& bound) {
  std::vector<double> weight;
  double greatest = sink ? double{*sink} : -HUGE_VAL, magnitude = 0, largest_value = 0;
  for (int i = 0; i < h.tokens; ++i) {
    double logit = 0, sum = 0;
    for (int j = 0; j < h.key_length; ++j) {
      const double p = double{h.q[static_cast<std::size_t>(j)]} *
                       h.key[static_cast<std::size_t>(i * h.key_length + j)];
      logit += p;
      sum += std::fabs(p);
    }
    if (softcap != 0) logit = softcap * std::tanh(logit / softcap);
    magnitude = std::max(magnitude, sum + std::fabs(logit));
    greatest = std::max(greatest, logit);
    weight.push_back(logit);
  }
  double total = sink ? std::exp(*sink - greatest) : 0;
  for (double& w : weight) total += w = std::exp(w - greatest);
  std::vector<double> out(static_cast<std::size_t>(h.value_length));
  for (int i = 0; i < h.tokens; ++i) {
    for (int j = 0; j < h.value_length; ++j) {
      const double v = h.value[static_cast<std::size_t>(i * h.value_length + j)];
      out[static_cast<std::size_t>(j)] += weight[static_cast<std::size_t>(i)] / total * v;
      largest_value = std::max(largest_value, std::fabs(v));
    }
  }
  bound = test::unit_roundoff * (4 * magnitude + 24 + h.tokens / 16) * largest_value;
  return out;
}

template <typename Storage>
std::vector<Storage> stored(const std::vector<float>& x) {
  std::vector<Storage> y;
  for (const float v : x) {
    if constexpr (std::is_same_v<Storage, float>) {
      y.push_back(v);
    } else {
      y.push_back(nibble::to_half(v));
    }
  }
  return y;
}

template <typename Storage>
std::vector<float> run(const kernel_table& table, const head& h, int page_tokens, float softcap,
                       const float* sink) {
  const auto key = stored<Storage>(h.key), value = stored<Storage>(h.value);
  std::vector<kv_page> pages;
  for (int first = 0; first < h.tokens; first += page_tokens) {
    pages.push_back({key.data() + first * h.key_length, value.data() + first * h.value_length,
                     std::min(page_tokens, h.tokens - first)});
  }
  std::vector<float> out(static_cast<std::size_t>(h.value_length) + 1, -7.0f);
  const attend_args args{h.q.data(),   pages.data(),   static_cast<std::int64_t>(pages.size()),
                         h.key_length, h.value_length, softcap,
                         sink,         out.data()};
  (std::is_same_v<Storage, float> ? table.attend_f32 : table.attend_f16)(args);
  REQUIRE(out.back() == -7.0f);
  out.pop_back();
  return out;
}

head make_head(std::int32_t key_length, std::int32_t value_length, std::int32_t tokens,
               float q_size, test::random_source& random) {
  head h{key_length, value_length, tokens, {}, {}, {}};
  h.q = random.normals(static_cast<std::size_t>(key_length), q_size);
  h.key = random.normals(static_cast<std::size_t>(key_length * tokens));
  h.value = random.normals(static_cast<std::size_t>(value_length * tokens));
  for (auto* x : {&h.key, &h.value}) {
    for (float& v : *x) v = nibble::to_float(nibble::to_half(v));
  }
  return h;
}

}  // namespace

TEST_CASE("attention agrees with a plain softmax in double") {
  int combinations = 0;
  test::for_each_isa([&](const kernel_table& table) {
    test::random_source random(9);
    struct lengths {
      int key, value;
    };
    for (const lengths l : {lengths{64, 64},
                            {128, 128},
                            {8, 8},
                            {80, 80},
                            {72, 40},
                            {192, 128},
                            {96, 5},
                            {512, 512}}) {
      for (const int tokens : {1, 3, 64, 65, 300}) {
        for (const float size : {0.05f, 0.5f, 5.0f}) {
          const head h = make_head(l.key, l.value, tokens, size, random);
          for (const float softcap : {0.0f, 30.0f}) {
            const float sinks[] = {-3.0f, 90.0f};
            for (const float* sink : {static_cast<const float*>(nullptr), sinks, sinks + 1}) {
              double bound = 0;
              const auto expected = attention(h, softcap, sink, bound);
              for (const int page : {1, 7, 64, 1000}) {
                for (const bool f16 : {false, true}) {
                  const auto out = f16 ? run<nibble::half>(table, h, page, softcap, sink)
                                       : run<float>(table, h, page, softcap, sink);
                  for (std::size_t j = 0; j < out.size(); ++j) {
                    INFO("lengths " << l.key << ", " << l.value << ", tokens " << tokens
                                    << ", page " << page << ", softcap " << softcap << ", f16 "
                                    << f16 << ": " << out[j] << ", not " << expected[j]);
                    REQUIRE(std::fabs(out[j] - expected[j]) <= bound);
                  }
                  ++combinations;
                }
              }
            }
          }
        }
      }
    }
  });
  std::cout << "attend: " << combinations << " combinations\n";
}

TEST_CASE("attention does not depend on pages that are multiples of 64 tokens, bit by bit") {
  test::for_each_isa([](const kernel_table& table) {
    test::random_source random(10);
    const head h = make_head(64, 64, 500, 0.3f, random);
    const auto whole = run<nibble::half>(table, h, 10000, 0, nullptr);
    CHECK(run<nibble::half>(table, h, 64, 0, nullptr) == whole);
    CHECK(run<nibble::half>(table, h, 192, 0, nullptr) == whole);
  });
}

TEST_CASE("one token's attention is its value; a NaN is not lost") {
  test::for_each_isa([](const kernel_table& table) {
    test::random_source random(11);
    head h = make_head(64, 64, 1, 100.0f, random);
    CHECK(run<float>(table, h, 64, 0, nullptr) == h.value);
    h = make_head(64, 64, 130, 0.1f, random);
    h.key[70 * 64 + 3] = std::nanf("");
    for (const float v : run<float>(table, h, 64, 0, nullptr)) CHECK(std::isnan(v));
  });
}
