// Every kernel for every format on every instruction set of this machine, on the same problems,
// ordinary and extreme ones.
#include <cstdlib>
#include <nibble/formats/decode.hpp>
#include <nibble/formats/dot.hpp>

#include "differential.hpp"
#include "differential_rows.hpp"

using nibble::cpu::kernel_table;
using test::agreement;
using test::differential;
using test::expectation;

namespace {

// Blocks as bytes: nothing is aligned beyond what the block asks for, and rows have a gap between.
template <typename F>
class laid_out {
 public:
  using block = typename F::block;

  laid_out(const std::vector<block>& blocks, std::int64_t n_rows)
      : columns_(static_cast<std::int64_t>(blocks.size()) / n_rows * F::block_size),
        n_rows_(n_rows) {
    const std::size_t row = blocks.size() / static_cast<std::size_t>(n_rows) * sizeof(block);
    stride_ = row + alignof(block);
    bytes_.resize(alignof(block) + static_cast<std::size_t>(n_rows) * stride_);
    const auto* const from = reinterpret_cast<const std::uint8_t*>(blocks.data());
    for (std::size_t r = 0; r < static_cast<std::size_t>(n_rows); ++r) {
      std::memcpy(bytes_.data() + alignof(block) + r * stride_, from + r * row, row);
    }
  }
  nibble::cpu::weight_rows rows() const {
    return {bytes_.data() + alignof(block), stride_, n_rows_, columns_};
  }

 private:
  std::int64_t columns_, n_rows_;
  std::size_t stride_ = 0;
  std::vector<std::uint8_t> bytes_;
};

// All scales of a block that are numbers of their own; the rest are its bytes.
template <typename F>
void set_scales(typename F::block& b, float scale, std::uint8_t exponent) {
  if constexpr (requires { b.d; }) b.d = nibble::to_half(scale);
  if constexpr (requires { b.m; }) b.m = nibble::to_half(-scale);
  if constexpr (requires { b.dmin; }) b.dmin = nibble::to_half(scale);
  if constexpr (requires { b.e; }) b.e = exponent;
}

// A block whose codes all are `code`: one of the bytes repeated, for every format so far.
template <typename F>
typename F::block block_of(int code) {
  for (int byte = 0; byte < 256; ++byte) {
    typename F::block b;
    std::memset(&b, byte, sizeof b);
    bool all = true;
    for (int g = 0; g < F::block_size / F::group_size; ++g) {
      std::int8_t codes[F::group_size];
      F::codes(b, g, codes);
      for (const std::int8_t c : codes) all = all && c == code;
    }
    if (!all) continue;
    set_scales<F>(b, 1.0f, 127);
    return b;
  }
  FAIL("no byte makes all codes of " << F::name << " " << code);
  return {};
}

// Rows of one format: random, all codes least, all greatest, and both by turns.
template <typename F>
std::vector<std::vector<typename F::block>> kinds_of_rows(std::size_t blocks,
                                                          test::random_source& random) {
  std::vector<std::vector<typename F::block>> kinds = {test::random_blocks<F>(blocks, random)};
  if constexpr (nibble::block_format<F>) {
    const auto least = block_of<F>(F::min_code), greatest = block_of<F>(F::max_code);
    kinds.emplace_back(blocks, least);
    kinds.emplace_back(blocks, greatest);
    kinds.emplace_back(blocks, least);
    for (std::size_t i = 0; i < blocks; i += 2) kinds.back()[i] = greatest;
  } else {
    for (const float x : {0.0f, 65504.0f, -65504.0f, 0x1p-24f}) {
      kinds.emplace_back(blocks, F::from(x));
    }
  }
  return kinds;
}

// Blocks whose scales are no ordinary numbers.
template <typename F>
std::vector<typename F::block> odd_blocks(test::random_source& random) {
  std::vector<typename F::block> blocks;
  if constexpr (nibble::block_format<F>) {
    const struct {
      float scale;
      std::uint8_t exponent;
    } odd[] = {{0.0f, 0}, {-0.0f, 1}, {0x1p-24f, 2}, {65504.0f, 254}, {HUGE_VALF, 255}};
    for (const auto& o : odd) {
      for (typename F::block b : {test::random_blocks<F>(1, random)[0], block_of<F>(F::min_code),
                                  block_of<F>(F::max_code)}) {
        set_scales<F>(b, o.scale, o.exponent);
        blocks.push_back(b);
      }
    }
  }
  // any bytes whatever: infinities and NaNs among the scales of most formats
  for (int i = 0; i < 64; ++i) {
    std::uint8_t bytes[sizeof(typename F::block)];
    for (auto& byte : bytes) byte = random.byte();
    if (i < 2) bytes[0] = bytes[1] = 0xff;
    typename F::block b;
    std::memcpy(&b, bytes, sizeof b);
    blocks.push_back(b);
  }
  return blocks;
}

template <typename F>
void compare_decoding(differential& test, test::random_source& random) {
  const auto check = [&](const std::vector<typename F::block>& blocks) {
    const auto n = blocks.size() * F::block_size;
    std::vector<float> values(n);
    nibble::decode_row<F>(blocks.data(), n, values.data());
    std::vector<expectation> expected;
    for (const float v : values) expected.push_back({v, 0});
    const laid_out<F> row(blocks, 1);
    test.compare("decode", F::name, agreement::exact, expected, [&](const kernel_table& table) {
      std::vector<float> out(n + 1, -7.0f);
      table.decode[nibble::index_of<F>](row.rows().data, static_cast<std::int64_t>(n), out.data());
      REQUIRE(out.back() == -7.0f);
      out.pop_back();
      return out;
    });
  };
  for (const int values : {1, 77, 1024}) {
    for (const auto& kind :
         kinds_of_rows<F>(static_cast<std::size_t>(1 + (values - 1) / F::block_size), random)) {
      check(kind);
    }
  }
  check(odd_blocks<F>(random));
}

// Columns from one block up, on both sides of what is unpacked at once; every count of few tokens,
// and of many: whole blocks and the rest; every rest of rows.
struct shape {
  std::int64_t columns, n_rows, tokens;
};
template <typename F>
std::vector<shape> shapes() {
  const std::int64_t block = nibble::block_format<F> ? F::block_size : 32;
  return {{block, 1, 1},     {2 * block, 3, 2},    {3 * block, 4, 3},    {5 * block, 5, 4},
          {7 * block, 2, 5}, {block, 9, 6},        {2048 - block, 3, 7}, {2 * block, 13, 8},
          {3 * block, 7, 9}, {2048 + block, 5, 2}, {4096 + block, 1, 3}, {2048, 6, 1},
          {256, 17, 9},      {512 + block, 2, 67}};
}

// Rows that are packed come back from every strip; missing ones are filled up with zeros.
template <typename F>
void compare_packing(differential& test, test::random_source& random) {
  constexpr std::size_t block_bytes = sizeof(typename F::block);
  for (const std::int64_t n_rows : {1, 7, 8, 16, 17, 41}) {
    for (const std::int64_t blocks : {1, 5}) {
      const std::size_t row_bytes = static_cast<std::size_t>(blocks) * block_bytes;
      std::vector<std::uint8_t> rows(static_cast<std::size_t>(n_rows) * row_bytes);
      for (auto& byte : rows) byte = random.byte();
      std::vector<expectation> expected;
      for (const std::uint8_t byte : rows) expected.push_back({double(byte), 0});
      const auto round_trip = [&](const kernel_table& table) {
        const std::int64_t columns = blocks * F::block_size;
        const auto packed = test::packed(table, nibble::index_of<F>,
                                         {rows.data(), row_bytes, n_rows, columns}, row_bytes);
        std::vector<std::uint8_t> row(row_bytes + 1, 0xee);
        std::vector<float> out;
        const auto all = static_cast<std::int64_t>(packed.size() / row_bytes);
        for (std::int64_t r = 0; r < all; ++r) {
          table.unpack_row[nibble::index_of<F>](packed.data(), r, columns, row.data());
          REQUIRE(row.back() == 0xee);
          if (r < n_rows) out.insert(out.end(), row.begin(), row.end() - 1);
          for (std::size_t i = 0; i < row_bytes && r >= n_rows; ++i) REQUIRE(row[i] == 0);
        }
        return out;
      };
      test.compare("pack", F::name, agreement::exact, expected, round_trip);
      test.compare("unpack_row", F::name, agreement::exact, expected, round_trip);
    }
  }
}

template <typename F>
void compare_q8(differential& test, const laid_out<F>& weights, const test::tokens_q8& x,
                std::int64_t tokens, bool ordinary) {
  const auto w = weights.rows();
  std::vector<expectation> expected;
  for (std::int64_t t = 0; t < tokens && ordinary; ++t) {
    for (std::int64_t r = 0; r < w.count; ++r) {
      const auto* const row = static_cast<const std::uint8_t*>(w.data) + r * std::int64_t(w.stride);
      expected.push_back(test::dot_q8<F>(reinterpret_cast<const typename F::block*>(row), x, t));
    }
  }
  // bytes at an odd address
  std::vector<std::int8_t> q(1);
  q.insert(q.end(), x.q.begin(), x.q.end());
  const nibble::cpu::q8_matrix matrix{q.data() + 1, x.scale.data(), x.sum.data(), x.columns};
  test.compare("matmul_q8", F::name, agreement::by_fusing, expected,
               [&](const kernel_table& table) {
                 return test::multiply_q8(table, nibble::index_of<F>, w, matrix, tokens);
               });
}

// Random rows meet every kind of activations in every shape; the other kinds of rows meet each kind
// of activations in some shape.
bool taken(std::size_t shape, std::size_t rows, std::size_t activations) {
  return rows == 0 || (shape + rows + activations) % 4 == 0;
}

template <typename F>
void compare_int8_products(differential& test, test::random_source& random) {
  const auto any = [&](auto) { return random.in(-127, 127); };
  const auto turns = [](auto i) { return i % 2 ? 127 : -127; };
  const auto most = [](auto) { return 127; };
  const auto least = [](auto) { return -127; };
  const auto list = shapes<F>();
  for (std::size_t i = 0; i < list.size(); ++i) {
    const shape s = list[i];
    INFO(s.columns << " columns, " << s.n_rows << " rows, " << s.tokens << " tokens");
    const auto kinds =
        kinds_of_rows<F>(static_cast<std::size_t>(s.n_rows * s.columns / F::block_size), random);
    for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
      const laid_out<F> rows(kinds[kind], s.n_rows);
      std::size_t next = 0;
      const auto with = [&](auto code, float scale) {
        if (!taken(i, kind, next++)) return;
        compare_q8(test, rows, test::make_tokens(s.tokens, s.columns, code, scale), s.tokens,
                   std::isfinite(scale));
      };
      with(any, 0.01f);
      with(most, 1.0f);
      with(least, 1e-22f);
      with(turns, kind == 0 ? 1.0f : 1e26f);  // scales of random rows are large themselves
      with(any, 0.0f);
      with(turns, 0x1p-76f);  // the least there is
      with(any, std::nanf(""));
    }
  }
  const auto odd = odd_blocks<F>(random);
  const auto n = static_cast<std::int64_t>(odd.size());
  const auto x = test::make_tokens(3, F::block_size, any, 1.0f);
  compare_q8(test, laid_out<F>(odd, n), x, 3, false);
}

template <typename F>
void compare_f32(differential& test, const std::vector<typename F::block>& blocks, const shape& s,
                 const std::vector<float>& x, agreement how) {
  const laid_out<F> weights(blocks, s.n_rows);
  const auto columns = static_cast<std::size_t>(s.columns);
  std::vector<float> decoded(columns * static_cast<std::size_t>(s.n_rows));
  nibble::decode_row<F>(blocks.data(), decoded.size(), decoded.data());
  const std::int64_t x_stride = s.columns + 3, stride = s.n_rows + 2;
  std::vector<expectation> expected;
  for (std::int64_t t = 0; t < s.tokens; ++t) {
    for (std::int64_t r = 0; r < s.n_rows; ++r) {
      expected.push_back(
          test::dot_f32(decoded.data() + r * s.columns, x.data() + t * x_stride, s.columns));
    }
  }
  test.compare("matmul_f32", F::name, how, expected, [&](const kernel_table& table) {
    std::vector<float> out(static_cast<std::size_t>(s.tokens * stride), -7.0f), packed;
    table.matmul_f32[nibble::index_of<F>](weights.rows(), x.data(), x_stride, s.tokens, out.data(),
                                          stride);
    for (std::size_t i = 0; i < out.size(); ++i) {
      const bool inside = static_cast<std::int64_t>(i) % stride < s.n_rows;
      if (inside) packed.push_back(out[i]);
      if (!inside) REQUIRE(out[i] == -7.0f);
    }
    return packed;
  });
}

// Weights and activations that are small integers: every sum is exact in float, in any order.
template <typename F>
std::vector<typename F::block> whole_numbers(std::size_t blocks, test::random_source& random) {
  std::vector<typename F::block> row = test::random_blocks<F>(blocks, random);
  for (auto& b : row) {
    if constexpr (nibble::block_format<F>) {
      set_scales<F>(b, 1.0f, 128);
    } else {
      b = F::from(static_cast<float>(random.in(-100, 100)));
    }
  }
  return row;
}

template <typename F>
void compare_float_products(differential& test, test::random_source& random) {
  const auto list = shapes<F>();
  for (std::size_t i = 0; i < list.size(); ++i) {
    const shape s = list[i];
    INFO(s.columns << " columns, " << s.n_rows << " rows, " << s.tokens << " tokens");
    const auto blocks = static_cast<std::size_t>(s.n_rows * s.columns / F::block_size);
    const auto n = static_cast<std::size_t>(s.tokens * (s.columns + 3));
    std::vector<float> ones(n);
    for (float& v : ones) v = static_cast<float>(random.in(-1, 1));
    compare_f32<F>(test, whole_numbers<F>(blocks, random), s, ones, agreement::exact);
    const auto kinds = kinds_of_rows<F>(blocks, random);
    for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
      std::size_t next = 0;
      for (const float size : {1.0f, 0.0f, 1e-42f, 1e-20f}) {
        if (!taken(i, kind, next++)) continue;
        compare_f32<F>(test, kinds[kind], s, random.normals(n, size), agreement::bounded);
      }
    }
    std::vector<float> broken = ones;
    broken[static_cast<std::size_t>(s.columns) / 2] = std::nanf("");
    compare_f32<F>(test, whole_numbers<F>(blocks, random), s, broken, agreement::exact);
  }
  if constexpr (nibble::element_format<F>) {  // rows shorter than any vector, and a little longer
    for (std::int64_t columns = 1; columns < 40; ++columns) {
      const auto x = random.normals(static_cast<std::size_t>(3 * (columns + 3)));
      compare_f32<F>(test, test::random_blocks<F>(static_cast<std::size_t>(3 * columns), random),
                     {columns, 3, 3}, x, agreement::bounded);
    }
  }
}

void compare_attention(differential& test, test::random_source& random) {
  using test::kv_type;
  const struct {
    kv_type key, value;
  } types[] = {{kv_type::f32, kv_type::f32},  {kv_type::f16, kv_type::f16},
               {kv_type::bf16, kv_type::q8},  {kv_type::q8, kv_type::q4_0},
               {kv_type::q8_0, kv_type::q4},  {kv_type::q4, kv_type::q8_0},
               {kv_type::q4_0, kv_type::bf16}};
  const auto check = [&](test::head h, float softcap, const float* sink, bool ordinary) {
    for (const auto& type : types) {
      if (!fits(type.key, h.key_length) || !fits(type.value, h.value_length)) continue;
      const auto key = test::store(type.key, h.key, h.key_length);
      const auto value = test::store(type.value, h.value, h.value_length);
      test::head as_stored = h;
      as_stored.key = key.values;
      as_stored.value = value.values;
      std::vector<expectation> expected;
      if (ordinary) expected = test::attention(as_stored, softcap, sink, has_scales(type.key));
      for (const int page : {7, 64, 1000}) {
        if (page == 1000 && type.key != kv_type::f16) continue;
        test.compare("attend", "", agreement::bounded, expected, [&](const kernel_table& table) {
          return test::attend(table, h, key, value, page, softcap, sink);
        });
      }
    }
  };
  const struct {
    int key, value, tokens;
  } sizes[] = {{64, 64, 1}, {8, 8, 65},    {72, 40, 130}, {96, 5, 64},
               {5, 3, 9},   {512, 512, 3}, {8, 8, 2100}};  // the last of two segments
  for (const auto& s : sizes) {
    for (const float size : {0.05f, 5.0f, 0.0f, 1e-42f}) {
      const test::head h = test::make_head(s.key, s.value, s.tokens, size, random);
      const float sinks[] = {-3.0f, 90.0f, -1e30f};
      check(h, 0, nullptr, true);
      check(h, 30, sinks, true);
      check(h, 0, sinks + 1, true);
      check(h, 0, sinks + 2, true);
    }
    // logits of thousands: one token takes all, and the greatest keys are the least numbers
    test::head h = test::make_head(s.key, s.value, s.tokens, 1.0f, random);
    for (std::size_t i = 0; i < h.key.size(); ++i) {
      h.key[i] = i / static_cast<std::size_t>(s.key) % 2 ? -1024.0f : 0x1p-24f;
    }
    for (float& q : h.q) q = 16;
    for (std::size_t i = 0; i < h.value.size(); i += 3) h.value[i] = i % 2 ? 65504.0f : 0x1p-24f;
    check(h, 0, nullptr, true);
    h.key[h.key.size() / 2] = std::nanf("");
    check(h, 0, nullptr, false);
  }
}

// Parts of a sequence, one of which the query does not see.
void compare_joining(differential& test, test::random_source& random) {
  const float none = -HUGE_VALF, sinks[] = {-2.0f, 80.0f};
  for (const std::int64_t length : {1, 5, 64, 72}) {
    for (const float* const sink : {static_cast<const float*>(nullptr), sinks, sinks + 1}) {
      const std::vector<nibble::cpu::softmax_state> states = {
          {none, 0}, {1.5f, 3.0f}, {-70.0f, 2048.0f}, {none, 0}, {2.5f, 700.0f}};
      const auto parts = random.normals(states.size() * static_cast<std::size_t>(length), 20.0f);
      double total = sink ? std::exp(double{*sink}) : 0;
      for (const auto& s : states) total += std::exp(double{s.greatest}) * s.sum;
      std::vector<expectation> expected(static_cast<std::size_t>(length));
      for (std::size_t i = 0; i < parts.size(); ++i) {
        const auto& s = states[i / static_cast<std::size_t>(length)];
        const double term = std::exp(double{s.greatest}) / total * parts[i];
        expectation& e = expected[i % static_cast<std::size_t>(length)];
        e.value += term;
        // three factors, each of a difference that is rounded below 128 and of an exponential
        e.tolerance += test::unit_roundoff * (3 * (64 + 4) + 6) * std::fabs(term);
      }
      test.compare("join_segments", "", agreement::exact, expected, [&](const kernel_table& table) {
        std::vector<float> out(static_cast<std::size_t>(length) + 1, -7.0f);
        table.join_segments(states.data(), parts.data(), static_cast<std::int64_t>(states.size()),
                            sink, length, out.data());
        REQUIRE(out.back() == -7.0f);
        out.pop_back();
        return out;
      });
    }
  }
}

}  // namespace

TEST_CASE("all instruction sets agree on every kernel and every format") {
  differential test;
  test::random_source random(29);
  nibble::for_each_format([&]<typename F>(F) {
    compare_decoding<F>(test, random);
    if constexpr (nibble::block_format<F>) {
      compare_packing<F>(test, random);
      compare_int8_products<F>(test, random);
    }
    compare_float_products<F>(test, random);
  });
  test::compare_quantising(test, random);
  test::compare_norms(test, random);
  test::compare_rotations(test, random);
  test::compare_gates(test, random);
  test::compare_sums(test, random);
  test::compare_storing(test, random);
  test::compare_transforms(test, random);
  compare_attention(test, random);
  compare_joining(test, random);

  const auto all = test::all_combinations();
  const auto isas = test::tables().size();
  std::cout << "instruction sets compared: " << test.tested().size()
            << " combinations of kernel, format and instruction set, of " << all.size() << " = "
            << all.size() / isas << " x " << isas << '\n';
  CHECK(test.tested() == all);
}

TEST_CASE("kernel tables have the kernels that formats ask for, and no others") {
  test::for_each_isa([](const kernel_table& table) {
    int present = 0, wanted = 0;
    for (int i = 0; i < nibble::cpu::max_formats; ++i) {
      present += (table.matmul_q8[i] != nullptr) + (table.matmul_f32[i] != nullptr) +
                 (table.decode[i] != nullptr) + (table.pack[i] != nullptr) +
                 (table.unpack_row[i] != nullptr);
    }
    nibble::for_each_format([&]<typename F>(F) {
      const int i = nibble::index_of<F>;
      wanted += nibble::block_format<F> ? 5 : 2;
      CHECK((table.matmul_q8[i] != nullptr) == nibble::block_format<F>);
      CHECK((table.pack[i] != nullptr) == nibble::block_format<F>);
      CHECK((table.unpack_row[i] != nullptr) == nibble::block_format<F>);
      CHECK(table.matmul_f32[i] != nullptr);
      CHECK(table.decode[i] != nullptr);
    });
    CHECK(present == wanted);
  });
}

TEST_CASE("the instruction sets are those expected") {
  const auto tables = nibble::cpu::available_kernels();
  std::string names;
  std::size_t next = 0;
  for (const auto& built : nibble::cpu::built_isas()) {
    REQUIRE((nibble::cpu::find_kernels(built.name) != nullptr) == built.runs());
    if (!built.runs()) continue;
    REQUIRE(next < tables.size());
    REQUIRE(tables[next]->isa == built.name);
    REQUIRE(nibble::cpu::find_kernels(built.name) == tables[next]);
    names += (next++ == 0 ? "" : ", ") + std::string(built.name);
  }
  CHECK(next == tables.size());
  REQUIRE(tables.back()->isa == std::string_view("scalar"));
  CHECK(nibble::cpu::find_kernels("") == nullptr);
  std::cout << "instruction sets here: " << names << '\n';
  // set by whoever knows the processor, as tests on emulated ones do
  if (const char* const expected = std::getenv("NIBBLE_EXPECTED_ISAS")) CHECK(names == expected);
}
