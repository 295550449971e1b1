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
