#include <span>

#include "references.hpp"

using nibble::kv_type;
using nibble::cpu::kernel_table;
using test::head;
using test::make_head;

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
          const test::stored_rows keys[] = {test::store(kv_type::f32, h.key, l.key),
                                            test::store(kv_type::f16, h.key, l.key)};
          const test::stored_rows values[] = {test::store(kv_type::f32, h.value, l.value),
                                              test::store(kv_type::f16, h.value, l.value)};
          for (const float softcap : {0.0f, 30.0f}) {
            const float sinks[] = {-3.0f, 90.0f};
            for (const float* sink : {static_cast<const float*>(nullptr), sinks, sinks + 1}) {
              const auto expected = test::attention(h, softcap, sink);
              for (const int page : {1, 7, 64, 1000}) {
                for (const int f16 : {0, 1}) {
                  const auto out =
                      test::attend(table, h, keys[f16], values[f16], page, softcap, sink);
                  for (std::size_t j = 0; j < out.size(); ++j) {
                    INFO("lengths " << l.key << ", " << l.value << ", tokens " << tokens
                                    << ", page " << page << ", softcap " << softcap << ", "
                                    << (f16 ? "f16" : "f32") << ": " << out[j] << ", not "
                                    << expected[j].value);
                    REQUIRE(std::fabs(out[j] - expected[j].value) <= expected[j].tolerance);
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

namespace {

// Queries of one key/value head over its pages.
struct problem {
  std::int32_t key_length, value_length, tokens;
  std::vector<float> q, q_turned;
  test::stored_rows key, value;
  std::vector<nibble::cpu::kv_page> pages;

  // Query i goes to row i of out.
  nibble::cpu::attend_query query(int i, float* out) const {
    const std::int64_t at = std::int64_t{i} * key_length;
    return {q.data() + at,
            q_turned.empty() ? nullptr : q_turned.data() + at,
            out + std::int64_t{i} * value_length,
            0,
            tokens,
            nullptr};
  }
  void attend(const kernel_table& table, std::span<const nibble::cpu::attend_query> queries) const {
    test::attend_queries(table, key.type, value.type, queries, pages, key_length, value_length, 0);
  }
  // Results of all queries, [n, value_length].
  std::vector<float> attend(const kernel_table& table, int n) const {
    std::vector<float> out(static_cast<std::size_t>(n * value_length) + 1, -7.0f);
    std::vector<nibble::cpu::attend_query> queries;
    for (int i = 0; i < n; ++i) queries.push_back(query(i, out.data()));
    attend(table, queries);
    REQUIRE(out.back() == -7.0f);
    out.pop_back();
    return out;
  }
  // What query i should get.
  std::vector<test::expectation> expected(int i) const {
    const auto first = q.begin() + std::ptrdiff_t{i} * key_length;
    const head h{key_length, value_length, tokens, {first, first + key_length},
                 key.values, value.values};
    return test::attention(h, 0, nullptr, has_scales(key.type));
  }
};

problem make_problem(kv_type key, kv_type value, std::int32_t length, std::int32_t tokens,
                     int page_tokens, int queries, test::random_source& random) {
  const head h = make_head(length, length, tokens, 0.3f, random);
  problem p{length,
            length,
            tokens,
            random.normals(static_cast<std::size_t>(queries * length), 0.3f),
            {},
            test::store(key, h.key, length),
            test::store(value, h.value, length),
            {}};
  p.pages = test::pages_of(p.key, p.value, tokens, page_tokens);
  return p;
}

template <typename Function>
void for_each_pair_of_types(Function f) {
  for (const auto& key : nibble::all_kv_types) {
    for (const auto& value : nibble::all_kv_types) {
      INFO("keys " << key.name << ", values " << value.name);
      f(key.type, value.type);
    }
  }
}

void check_result(const std::vector<float>& out, std::size_t row,
                  const std::vector<test::expectation>& expected) {
  for (std::size_t j = 0; j < expected.size(); ++j) {
    const float got = out[row * expected.size() + j];
    INFO("query " << row << ", column " << j << ": " << got << ", not " << expected[j].value);
    REQUIRE(std::fabs(got - expected[j].value) <= expected[j].tolerance);
  }
}

}  // namespace

TEST_CASE("attention agrees with a softmax over stored rows, for every pair of types") {
  test::random_source random(15);
  int combinations = 0;
  for_each_pair_of_types([&](kv_type key, kv_type value) {
    for (const int length : {8, 24, 40, 64, 72, 80, 96, 128, 192, 256, 512}) {
      const int pages[] = {64, 7, 1};
      const int page = pages[combinations++ % 3];
      INFO("length " << length << ", page " << page);
      // more than a block; of long heads fewer tokens, for the sake of time
      const problem p = make_problem(key, value, length, length <= 128 ? 67 : 9, page, 64, random);
      std::vector<std::vector<test::expectation>> expected;
      for (int i = 0; i < 6; ++i) expected.push_back(p.expected(i < 5 ? i : 63));
      test::for_each_isa([&](const kernel_table& table) {
        const auto many = p.attend(table, 64);
        for (std::size_t i = 0; i < 6; ++i) check_result(many, i < 5 ? i : 63, expected[i]);
        for (const int n : {1, 4}) {
          const auto few = p.attend(table, n);
          CHECK(std::equal(few.begin(), few.end(), many.begin()));
        }
      });
    }
  });
  std::cout << "attend: " << combinations << " combinations of types and lengths\n";
}

TEST_CASE("turned pages meet turned queries") {
  test::random_source random(16);
  constexpr int length = 40, tokens = 100, queries = 6;
  for (const auto& type : nibble::all_kv_types) {
    INFO("keys " << type.name);
    problem p = make_problem(type.type, kv_type::f16, length, tokens, 16, queries, random);
    p.q_turned = random.normals(p.q.size(), 0.3f);
    for (std::size_t i = 0; i < p.pages.size(); ++i) p.pages[i].turned = i % 3 == 1;
    test::for_each_isa([&](const kernel_table& table) {
      const auto out = p.attend(table, queries);
      for (int i = 0; i < queries; ++i) {
        // both queries side by side; each key beside zeros
        const auto at = std::ptrdiff_t{i} * length;
        head both{2 * length, length, tokens, {}, {}, p.value.values};
        both.q.assign(p.q.begin() + at, p.q.begin() + at + length);
        both.q.insert(both.q.end(), p.q_turned.begin() + at, p.q_turned.begin() + at + length);
        for (int t = 0; t < tokens; ++t) {
          const auto key = p.key.values.begin() + std::ptrdiff_t{t} * length;
          const std::vector<float> zeros(length);
          const bool turned = t / 16 % 3 == 1;
          if (turned) both.key.insert(both.key.end(), zeros.begin(), zeros.end());
          both.key.insert(both.key.end(), key, key + length);
          if (!turned) both.key.insert(both.key.end(), zeros.begin(), zeros.end());
        }
        check_result(out, static_cast<std::size_t>(i),
                     test::attention(both, 0, nullptr, has_scales(type.type)));
      }
    });
  }
}

TEST_CASE("sums of the greatest codes and queries do not overflow") {
  constexpr int length = 512;
  for (const auto& type : nibble::all_kv_types) {
    if (!has_scales(type.type)) continue;
    INFO("keys " << type.name);
    // all codes -127, or -8; by turns such a row and its opposite
    const float size = type.bits == 8 ? 127 : 8;
    std::vector<float> rows(2 * length, -size), ones(2 * length, 1.0f);
    std::fill(rows.begin() + length, rows.end(), size);
    test::stored_rows key = test::store(type.type, rows, length);
    for (std::size_t i = 0; i < key.codes.size(); ++i) {
      const bool first = i < key.codes.size() / 2;
      key.codes[i] = type.bits == 8 ? (first ? 0x80 : 0x7f) : (first ? 0x00 : 0xff);
    }
    for (nibble::half& scale : key.scales) scale = nibble::to_half(1.0f);
    const test::stored_rows value = test::store(kv_type::f32, rows, length);
    const auto pages = test::pages_of(key, value, 2, 64);
    test::for_each_isa([&](const kernel_table& table) {
      for (const float q : {1e-3f, -1e-3f}) {
        const std::vector<float> query(length, q);
        std::vector<float> out(5 * length);
        std::vector<nibble::cpu::attend_query> queries;
        for (int i = 0; i < 5; ++i) {
          queries.push_back({query.data(), nullptr, out.data() + i * length, 0, 2, nullptr});
        }
        for (const std::size_t n : {1, 4, 5}) {
          test::attend_queries(table, type.type, kv_type::f32, {queries.data(), n}, pages, length,
                               length, 0);
          const double low = type.bits == 8 ? -128 : -8, high = type.bits == 8 ? 127 : 7;
          const double gap = double{q} * length * (low - high);  // of the logits
          const double first = 1 / (1 + std::exp(-gap));
          const double expected = double{size} * (1 - 2 * first);
          // logits of up to 66 are known to 2^-16 of them
          for (std::size_t i = 0; i < n * length; ++i) {
            REQUIRE(std::fabs(out[i] - expected) <= size * 66 * 0x1p-16);
          }
        }
      }
    });
  }
}

TEST_CASE("attention does not depend on pages that are multiples of 64 tokens, bit by bit") {
  test::for_each_isa([](const kernel_table& table) {
    test::random_source random(10);
    const head h = make_head(64, 64, 500, 0.3f, random);
    for (const auto& type : nibble::all_kv_types) {
      INFO(type.name);
      const auto whole = test::attend(table, h, type.type, 10000, 0, nullptr);
      CHECK(test::attend(table, h, type.type, 64, 0, nullptr) == whole);
      CHECK(test::attend(table, h, type.type, 192, 0, nullptr) == whole);
    }
  });
}

TEST_CASE("one token's attention is its value, and a NaN is not lost") {
  test::for_each_isa([](const kernel_table& table) {
    test::random_source random(11);
    head h = make_head(64, 64, 1, 100.0f, random);
    for (const auto& type : nibble::all_kv_types) {
      INFO(type.name);
      CHECK(test::attend(table, h, type.type, 64, 0, nullptr) ==
            test::store(type.type, h.value, 64).values);
    }
    h = make_head(64, 64, 130, 0.1f, random);
    for (auto* const broken : {&h.key, &h.value, &h.q}) {
      float& one = (*broken)[broken == &h.q ? 3 : 70 * 64 + 3];
      const float before = one;
      one = std::nanf("");
      for (const auto& type : nibble::all_kv_types) {
        INFO(type.name);
        const auto out = test::attend(table, h, type.type, 64, 0, nullptr);
        CHECK(std::isnan(out[3]));
        // a value's row is lost if it has one scale
        const bool all = broken != &h.value || type.values_of_scale == nibble::whole_row;
        for (const float v : out) CHECK((std::isnan(v) || !all));
      }
      one = before;
    }
  });
}

TEST_CASE("queries asked together get what each gets alone, bit by bit") {
  test::for_each_isa([](const kernel_table& table) {
    test::random_source random(12);
    const auto check = [&](kv_type key, kv_type value, int length) {
      if (!fits(key, length) || !fits(value, length)) return;
      INFO("keys " << info_of(key).name << ", values " << info_of(value).name << ", length "
                   << length);
      const problem p = make_problem(key, value, length, 200, 64, 64, random);
      // heads of one token in a row, tokens with windows, tokens that see nothing of some pages
      std::vector<float> together(p.q.size() + 1, -7.0f), alone = together;
      std::vector<nibble::cpu::attend_query> queries;
      const float sink = 0.5f;
      for (int i = 0; i < 64; ++i) {
        queries.push_back(p.query(i, together.data()));
        auto& q = queries.back();
        q.end = i < 40 ? 130 + i / 4 : 1 + 3 * (i - 40);
        q.begin = i % 8 < 4 ? 0 : std::max<std::int64_t>(q.end - 70, 0);
        q.sink = i % 5 == 0 ? &sink : nullptr;
      }
      p.attend(table, queries);
      for (std::size_t i = 0; i < queries.size(); ++i) {
        queries[i].out = alone.data() + i * static_cast<std::size_t>(length);
        p.attend(table, std::span(queries).subspan(i, 1));
      }
      CHECK(together == alone);
    };
    for (const int length : {5, 24, 64, 136}) {
      for (const auto& type : nibble::all_kv_types) check(type.type, type.type, length);
    }
    check(kv_type::q8, kv_type::q4_0, 72);
    check(kv_type::q4, kv_type::q8_0, 80);
  });
}

TEST_CASE("what a query does not see cannot harm it") {
  test::for_each_isa([](const kernel_table& table) {
    test::random_source random(13);
    const head whole = make_head(64, 64, 64, 0.3f, random);
    head h = whole;
    const auto rest = static_cast<std::ptrdiff_t>(40 * 64);
    std::fill(h.key.begin() + rest, h.key.end(), std::nanf(""));
    std::fill(h.value.begin() + rest, h.value.end(), std::nanf(""));
    const auto run = [&](kv_type type, const head& from) {
      std::vector<float> out(8 * 64);
      std::vector<nibble::cpu::attend_query> queries;
      for (int i = 0; i < 8; ++i) {
        // the last four see all of it
        queries.push_back(
            {whole.q.data(), nullptr, out.data() + i * 64, i, i < 4 ? 37 + i : 64, nullptr});
      }
      const auto key = test::store(type, from.key, 64), value = test::store(type, from.value, 64);
      test::attend_queries(table, type, type, queries, test::pages_of(key, value, 64, 64), 64, 64,
                           0);
      out.resize(4 * 64);
      return out;
    };
    for (const auto& type : nibble::all_kv_types) CHECK(run(type.type, h) == run(type.type, whole));
  });
}

TEST_CASE("segments joined afterwards give what the whole sequence gives, bit by bit") {
  test::for_each_isa([](const kernel_table& table) {
    constexpr int length = 24, segment = static_cast<int>(nibble::cpu::attend_segment);
    test::random_source random(14);
    // the third segment is short, and the window ends in the first
    const head h = make_head(length, length, 2 * segment + 100, 0.4f, random);
    for (const kv_type type : {kv_type::f16, kv_type::q8, kv_type::q4_0}) {
      INFO(info_of(type).name);
      const auto key = test::store(type, h.key, length), value = test::store(type, h.value, length);
      const auto pages = test::pages_of(key, value, h.tokens, 64);
      const float sink = 1.5f;
      for (const float* const s : {static_cast<const float*>(nullptr), &sink}) {
        for (const std::int64_t begin : {0, 1000, segment - 64, segment + 5}) {
          std::vector<float> whole(length), joined(length), parts(3 * length);
          const auto run = [&](float* out, std::int64_t first, std::int64_t n,
                               nibble::cpu::softmax_state* state) {
            const nibble::cpu::attend_query query{h.q.data(),    nullptr,          out,
                                                  begin - first, h.tokens - first, s};
            test::attend_queries(table, type, type, {&query, 1},
                                 std::span(pages).subspan(static_cast<std::size_t>(first / 64),
                                                          static_cast<std::size_t>(n)),
                                 length, length, 0, first, state);
          };
          constexpr int per_segment = segment / 64;
          run(whole.data(), 0, static_cast<std::int64_t>(pages.size()), nullptr);
          nibble::cpu::softmax_state states[3];
          for (int i = 0; i < 3; ++i) {
            run(parts.data() + i * length, i * segment,
                std::min<std::int64_t>(per_segment,
                                       static_cast<std::int64_t>(pages.size()) - i * per_segment),
                states + i);
          }
          table.join_segments(states, parts.data(), 3, s, length, joined.data());
          CHECK(joined == whole);
        }
      }
    }
  });
}
