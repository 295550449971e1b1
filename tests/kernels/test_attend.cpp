#include <span>

#include "references.hpp"

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
          for (const float softcap : {0.0f, 30.0f}) {
            const float sinks[] = {-3.0f, 90.0f};
            for (const float* sink : {static_cast<const float*>(nullptr), sinks, sinks + 1}) {
              const auto expected = test::attention(h, softcap, sink);
              for (const int page : {1, 7, 64, 1000}) {
                for (const bool f16 : {false, true}) {
                  const auto out = f16 ? test::attend<nibble::half>(table, h, page, softcap, sink)
                                       : test::attend<float>(table, h, page, softcap, sink);
                  for (std::size_t j = 0; j < out.size(); ++j) {
                    INFO("lengths " << l.key << ", " << l.value << ", tokens " << tokens
                                    << ", page " << page << ", softcap " << softcap << ", f16 "
                                    << f16 << ": " << out[j] << ", not " << expected[j].value);
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

TEST_CASE("attention does not depend on pages that are multiples of 64 tokens, bit by bit") {
  test::for_each_isa([](const kernel_table& table) {
    test::random_source random(10);
    const head h = make_head(64, 64, 500, 0.3f, random);
    const auto whole = test::attend<nibble::half>(table, h, 10000, 0, nullptr);
    CHECK(test::attend<nibble::half>(table, h, 64, 0, nullptr) == whole);
    CHECK(test::attend<nibble::half>(table, h, 192, 0, nullptr) == whole);
  });
}

TEST_CASE("one token's attention is its value, and a NaN is not lost") {
  test::for_each_isa([](const kernel_table& table) {
    test::random_source random(11);
    head h = make_head(64, 64, 1, 100.0f, random);
    CHECK(test::attend<float>(table, h, 64, 0, nullptr) == h.value);
    h = make_head(64, 64, 130, 0.1f, random);
    h.key[70 * 64 + 3] = std::nanf("");
    for (const float v : test::attend<float>(table, h, 64, 0, nullptr)) CHECK(std::isnan(v));
  });
}

TEST_CASE("queries asked together get what each gets alone, bit by bit") {
  test::for_each_isa([](const kernel_table& table) {
    test::random_source random(12);
    for (const int length : {5, 24, 64, 136}) {
      constexpr int tokens = 200;
      const head h = make_head(length, length, tokens, 0.4f, random);
      const auto key = test::stored<nibble::half>(h.key),
                 value = test::stored<nibble::half>(h.value);
      std::vector<nibble::cpu::kv_page> pages;
      for (int first = 0; first < tokens; first += 64) {
        pages.push_back({key.data() + first * length, value.data() + first * length,
                         std::min(64, tokens - first)});
      }
      // heads of one token in a row, tokens with windows, tokens that see nothing of some pages
      const auto q = random.normals(static_cast<std::size_t>(64 * length), 0.4f);
      std::vector<float> together(q.size() + 1, -7.0f), alone = together;
      std::vector<nibble::cpu::attend_query> queries;
      const float sink = 0.5f;
      for (int i = 0; i < 64; ++i) {
        const int end = i < 40 ? 130 + i / 4 : 1 + 3 * (i - 40);
        const int begin = i % 8 < 4 ? 0 : std::max(end - 70, 0);
        queries.push_back({q.data() + i * length, together.data() + i * length, begin, end,
                           i % 5 == 0 ? &sink : nullptr});
      }
      const auto run = [&](std::span<const nibble::cpu::attend_query> some) {
        test::attend_queries<nibble::half>(table, some, pages, length, length, 0);
      };
      run(queries);
      for (std::size_t i = 0; i < queries.size(); ++i) {
        queries[i].out = alone.data() + i * static_cast<std::size_t>(length);
        run(std::span(queries).subspan(i, 1));
      }
      CHECK(together == alone);
    }
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
    const auto run = [&](const head& from) {
      std::vector<float> out(8 * 64);
      std::vector<nibble::cpu::attend_query> queries;
      for (int i = 0; i < 8; ++i) {
        // the last four see all of it
        queries.push_back({whole.q.data(), out.data() + i * 64, i, i < 4 ? 37 + i : 64, nullptr});
      }
      const nibble::cpu::kv_page page{from.key.data(), from.value.data(), 64};
      test::attend_queries<float>(table, queries, {&page, 1}, 64, 64, 0);
      out.resize(4 * 64);
      return out;
    };
    CHECK(run(h) == run(whole));
  });
}

TEST_CASE("segments joined afterwards give what the whole sequence gives, bit by bit") {
  test::for_each_isa([](const kernel_table& table) {
    constexpr int length = 24, segment = static_cast<int>(nibble::cpu::attend_segment);
    test::random_source random(14);
    // the third segment is short, and the window ends in the first
    const head h = make_head(length, length, 2 * segment + 100, 0.4f, random);
    const auto key = test::stored<nibble::half>(h.key), value = test::stored<nibble::half>(h.value);
    std::vector<nibble::cpu::kv_page> pages;
    for (int first = 0; first < h.tokens; first += 64) {
      pages.push_back({key.data() + first * length, value.data() + first * length,
                       std::min(64, h.tokens - first)});
    }
    const float sink = 1.5f;
    for (const float* const s : {static_cast<const float*>(nullptr), &sink}) {
      for (const std::int64_t begin : {0, 1000, segment - 64, segment + 5}) {
        std::vector<float> whole(length), joined(length), parts(3 * length);
        const auto run = [&](float* out, std::int64_t first, std::int64_t n,
                             nibble::cpu::softmax_state* state) {
          const nibble::cpu::attend_query query{h.q.data(), out, begin - first, h.tokens - first,
                                                s};
          test::attend_queries<nibble::half>(
              table, {&query, 1},
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
  });
}
