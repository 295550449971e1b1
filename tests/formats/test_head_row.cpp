#include <nibble/formats/head_row.hpp>
#include <random>
#include <vector>

#include "catch.hpp"

namespace {

struct kind {
  int bits, values_of_scale;
};
const kind kinds[] = {{8, 32}, {8, nibble::whole_row}, {4, 32}, {4, nibble::whole_row}};

struct stored {
  std::vector<std::uint8_t> codes;
  std::vector<nibble::half> scales;
  std::vector<float> values;
};

stored store(const std::vector<float>& x, const kind& k) {
  const auto n = static_cast<std::int64_t>(x.size());
  stored s;
  s.codes.assign(x.size() * static_cast<std::size_t>(k.bits) / 8 + 1, 0xee);
  s.scales.resize(static_cast<std::size_t>(nibble::row_scales(n, k.values_of_scale)));
  s.values.resize(x.size());
  nibble::quantise_head_row(x.data(), n, k.bits, k.values_of_scale, s.codes.data(),
                            s.scales.data());
  REQUIRE(s.codes.back() == 0xee);
  nibble::decode_head_row(s.codes.data(), s.scales.data(), n, k.bits, k.values_of_scale,
                          s.values.data());
  return s;
}

std::vector<float> normals(std::size_t n, std::mt19937& engine, float size) {
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& v : x) v = size * normal(engine);
  return x;
}

}  // namespace

TEST_CASE("four-bit codes of a row lie in halves of each 32, and of what is left") {
  for (const std::int64_t length : {8, 16, 24, 32, 40, 72, 80, 128}) {
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(length / 2));
    std::vector<int> expected;
    for (std::int64_t i = 0; i < length; ++i) {
      expected.push_back(static_cast<int>((i * 7 + i / 16) % 16) - 8);
      nibble::set_head_code(codes.data(), length, 4, i, expected.back());
    }
    for (std::int64_t i = 0; i < length; ++i) {
      CHECK(nibble::head_code(codes.data(), length, 4, i) == expected[static_cast<std::size_t>(i)]);
    }
    // by hand: a whole group, then one of what is left
    const std::int64_t first = length / 32 * 32, m = length % 32 == 0 ? 32 : length % 32;
    const std::int64_t at = length % 32 == 0 ? length - 32 : first;
    for (std::int64_t i = 0; i < m / 2; ++i) {
      const int byte = codes[static_cast<std::size_t>(at / 2 + i)];
      CHECK(byte % 16 - 8 == expected[static_cast<std::size_t>(at + i)]);
      CHECK(byte / 16 - 8 == expected[static_cast<std::size_t>(at + m / 2 + i)]);
    }
  }
}

TEST_CASE("a stored row is off by no more than its scale says, and by little on the whole") {
  std::mt19937 engine(3);
  for (const kind& k : kinds) {
    for (const std::size_t length : {8, 24, 64, 80, 128, 512}) {
      double error = 0, all = 0;
      const float sizes[] = {1.0f, 1e-3f, 300.0f};
      for (int row = 0; row < 300; ++row) {
        const float size = sizes[row % 3];
        const auto x = normals(length, engine, size);
        const stored s = store(x, k);
        for (std::size_t i = 0; i < length; ++i) {
          const auto group = k.values_of_scale == nibble::whole_row ? 0 : i / 32;
          const double scale = std::fabs(nibble::to_float(s.scales[group]));
          const double off = double{x[i]} - s.values[i];
          // half a step, or what lies outside of the codes: 9.5625 levels of 8, half of them of 7
          REQUIRE(std::fabs(off) <= scale * (k.bits == 8 ? 0.501 : 9.5625 - 7 + 0.01));
          error += off / size * off / size;
          all += 1;
        }
      }
      const double rms = std::sqrt(error / all);
      INFO(k.bits << " bits, " << k.values_of_scale << ", length " << length << ": " << rms);
      CHECK(rms < (k.bits == 8 ? 0.0078 : 0.12));
    }
  }
}

TEST_CASE("rows of zeros, of one value, of tiny and of huge ones") {
  for (const kind& k : kinds) {
    INFO(k.bits << " bits, " << k.values_of_scale);
    std::vector<float> x(40);
    stored s = store(x, k);
    for (const nibble::half scale : s.scales) CHECK(scale.bits == 0);
    for (const float v : s.values) CHECK(v == 0);
    for (const float value : {1.0f, -1.0f, 3e-5f, -70000.0f}) {
      x.assign(40, value);
      for (const float v : store(x, k).values) CHECK(std::fabs(v - value) < std::fabs(value) / 80);
    }
    // smaller than the least scale, and greater than what the greatest one reaches
    x.assign(40, 1e-20f);
    for (const float v : store(x, k).values) CHECK(v == 0);
    x.assign(40, -1e30f);
    for (const float v : store(x, k).values) {
      CHECK(v == -65504.0f * (k.bits == 8 ? 127 : 8));
    }
  }
}

TEST_CASE("what is not finite makes a scale that is not a number, and codes of 0") {
  for (const kind& k : kinds) {
    for (const float odd : {HUGE_VALF, -HUGE_VALF, std::nanf("")}) {
      std::vector<float> x(72, 1.0f);
      x[35] = odd;
      const stored s = store(x, k);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const bool lost = k.values_of_scale == nibble::whole_row || i / 32 == 1;
        CHECK(std::isnan(s.values[i]) == lost);
        if (lost) {
          CHECK(nibble::head_code(s.codes.data(), 72, k.bits, static_cast<std::int64_t>(i)) == 0);
        }
      }
    }
  }
}
