// The kernels' results by definition, in double, each with a bound of what a float kernel may be
// off by; and the problems that several tests pose.
#pragma once

#include <algorithm>
#include <limits>
#include <nibble/base/half.hpp>
#include <nibble/device/kv_type.hpp>
#include <nibble/formats/concepts.hpp>
#include <span>

#include "cpu/attend_scratch.hpp"
#include "kernel_test.hpp"

namespace test {

struct expectation {
  double value;
  double tolerance;
};

// int8 activations of some tokens.
struct tokens_q8 {
  std::int64_t columns;
  std::vector<std::int8_t> q;
  std::vector<float> scale;
  std::vector<std::int16_t> sum;

  nibble::cpu::q8_matrix from(std::int64_t token) const {
    const std::int64_t at = token * columns;
    return {q.data() + at, scale.data() + at / 32, sum.data() + at / 16, columns};
  }
};

// Scales are multiples of a power of two by up to 2^13 - 1, as quantise_q8 makes them; the greatest
// are about 2 * scale.
template <typename Code>
tokens_q8 make_tokens(std::int64_t tokens, std::int64_t columns, Code code, float scale) {
  tokens_q8 x{columns, {}, {}, {}};
  const float step = std::isnormal(scale) ? std::ldexp(1.0f, std::ilogb(scale) - 12) : scale;
  std::int64_t steps = 4095;
  for (std::int64_t i = 0; i < tokens * columns; ++i) {
    x.q.push_back(static_cast<std::int8_t>(code(i)));
    if (i % 32 == 0) {
      steps = (steps * 3 + 4096) % 8191 + 1;
      x.scale.push_back(step * static_cast<float>(steps));
    }
    if (i % 16 == 0) x.sum.push_back(0);
    x.sum.back() = static_cast<std::int16_t>(x.sum.back() + x.q.back());
  }
  return x;
}

// Weights times int8 activations. Each float operation is off by half a unit in the last place of
// something no greater than the sum of all magnitudes. A term meets three roundings of its own
// (scales multiplied, the sum of a group as a float, the product where it is not fused), then an
// addition for each group, and one for its offset.
template <typename F>
expectation dot_q8(const typename F::block* row, const tokens_q8& x, std::int64_t token) {
  double value = 0, magnitude = 0;
  for (std::int64_t at = 0; at < x.columns; at += F::group_size) {
    const auto& b = row[at / F::block_size];
    const int group = static_cast<int>(at % F::block_size) / F::group_size;
    std::int8_t codes[F::group_size];
    F::codes(b, group, codes);
    const nibble::affine map = F::scale(b, group);
    const double scale = x.scale[static_cast<std::size_t>((token * x.columns + at) / 32)];
    double sum = 0;
    for (int i = 0; i < F::group_size; ++i) {
      const double q = x.q[static_cast<std::size_t>(token * x.columns + at + i)];
      value += (static_cast<double>(map.scale) * codes[i] + map.offset) * scale * q;
      magnitude += std::fabs(static_cast<double>(map.scale) * codes[i] * scale * q);
      sum += q;
    }
    magnitude += std::fabs(static_cast<double>(map.offset) * scale * sum);
  }
  const double additions = double(x.columns) / F::group_size * (F::has_offset ? 2 : 1);
  return {value, unit_roundoff * (additions + 4) * magnitude + 1e-36};
}

// Rows as `table` packs them.
inline std::vector<std::uint8_t> packed(const nibble::cpu::kernel_table& table, int format,
                                        const nibble::cpu::weight_rows& rows,
                                        std::size_t row_bytes) {
  std::vector<std::uint8_t> together(static_cast<std::size_t>(rows.count) * row_bytes);
  for (std::size_t r = 0; r < static_cast<std::size_t>(rows.count); ++r) {
    std::memcpy(together.data() + r * row_bytes,
                static_cast<const std::uint8_t*>(rows.data) + r * rows.stride, row_bytes);
  }
  const auto strip = static_cast<std::size_t>(table.strip_rows);
  const std::size_t all = (static_cast<std::size_t>(rows.count) + strip - 1) / strip * strip;
  std::vector<std::uint8_t> out(all * row_bytes, 0xee);
  table.pack[format](together.data(), rows.count, rows.columns, out.data());
  return out;
}

// [tokens, rows.count], from a kernel that must not write beyond the rows.
inline std::vector<float> multiply_q8(const nibble::cpu::kernel_table& table, int format,
                                      const nibble::cpu::weight_rows& rows,
                                      const nibble::cpu::q8_matrix& x, std::int64_t tokens) {
  const std::int64_t stride = rows.count + 3;
  std::vector<float> out(static_cast<std::size_t>(tokens * stride), -7.0f), results;
  const auto& info = nibble::format_infos[static_cast<std::size_t>(format)];
  const auto weights =
      packed(table, format, rows,
             static_cast<std::size_t>(rows.columns) / info.block_size * info.block_bytes);
  alignas(64) static std::byte scratch[nibble::cpu::product_scratch_bytes];
  table.matmul_q8[format]({weights.data(), rows.count}, x, tokens, {out.data(), stride, false},
                          scratch);
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t r = 0; r < stride; ++r) {
      const float value = out[static_cast<std::size_t>(t * stride + r)];
      if (r < rows.count) results.push_back(value);
      if (r >= rows.count) REQUIRE(value == -7.0f);
    }
  }
  return results;
}

// Decoded weights times float activations. The bound: the chain of a lane (256 / 4 columns at
// worst), the lanes, the stretches of 256 columns or more.
inline expectation dot_f32(const float* weights, const float* x, std::int64_t columns) {
  double value = 0, magnitude = 0;
  for (std::int64_t i = 0; i < columns; ++i) {
    const double product = static_cast<double>(weights[i]) * x[i];
    value += product;
    magnitude += std::fabs(product);
  }
  const double roundings = 64 + 8 + static_cast<double>(columns) / 256;
  return {value, unit_roundoff * roundings * magnitude + 1e-36};
}

inline double gate_value(int kind, double g, double u) {
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  switch (kind) {
    case 0:
      return g * sigmoid(g) * u;
    case 1: {
      // the argument is rounded to binary16 between -10 and 10; below 2^-14 the kernel keeps more
      // bits than binary16 has
      if (std::fabs(g) < 10 && std::fabs(g) >= 0x1p-14) {
        g = nibble::to_float(nibble::to_half(static_cast<float>(g)));
      }
      const double inner = std::sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g);
      return g * sigmoid(2 * inner) * u;  // (1 + tanh(y)) / 2 without cancellation
    }
    case 2:
      if (g <= 0) return 0;
      return (g * g > std::numeric_limits<float>::max() ? HUGE_VAL : g * g) * u;
    default: {
      const double x = std::min(g, 7.0), y = std::max(-7.0, std::min(7.0, u));
      return x * sigmoid(static_cast<double>(1.702f) * x) * (y + 1);
    }
  }
}

inline expectation gate_by_definition(int kind, float g, float u) {
  const double expected = gate_value(kind, g, u);
  // e^y is off by |y| units when y is rounded; beyond 100 the result is 0 or g
  const double size = std::fabs(g);
  const double y = kind == 1 ? 1.6 * (size + 0.0448 * std::pow(size, 3)) : 1.702 * size;
  // gelu: argument (below 2^-14) and result are rounded to 11 bits
  const double coarse = kind == 1 ? 0x1.01p-11 * (size < 0x1p-14 ? 2 : 1) : 0;
  const double relative = coarse + unit_roundoff * (10 + 4 * std::min(100.0, y));
  return {expected, relative * std::fabs(expected) + 1e-35};
}

// One query head and its keys and values.
struct head {
  std::int32_t key_length, value_length, tokens;
  std::vector<float> q, key, value;  // keys and values as stored, exactly representable
};

inline head make_head(std::int32_t key_length, std::int32_t value_length, std::int32_t tokens,
                      float q_size, random_source& random) {
  head h{key_length, value_length, tokens, {}, {}, {}};
  h.q = random.normals(static_cast<std::size_t>(key_length), q_size);
  h.key = random.normals(static_cast<std::size_t>(key_length * tokens));
  h.value = random.normals(static_cast<std::size_t>(value_length * tokens));
  for (auto* x : {&h.key, &h.value}) {
    for (float& v : *x) v = nibble::to_float(nibble::to_half(v));
  }
  return h;
}

using nibble::kv_type;
static_assert(nibble::all_kv_types.size() == nibble::cpu::kv_types);

// Rows of keys or values, stored by definition.
struct stored_rows {
  kv_type type;
  std::int64_t length;
  std::vector<std::uint8_t> codes;
  std::vector<nibble::half> scales;
  std::vector<float> values;  // what is stored

  nibble::cpu::kv_rows from(std::int64_t row) const {
    const auto n = static_cast<std::size_t>(row);
    return {codes.data() + n * nibble::code_bytes(type, length),
            scales.data() + n * nibble::scale_bytes(type, length) / 2};
  }
};

inline void store_row(kv_type type, const float* x, std::int64_t n, std::uint8_t* codes,
                      nibble::half* scales) {
  const nibble::kv_type_info& info = nibble::info_of(type);
  if (has_scales(type)) {
    nibble::quantise_head_row(x, n, info.bits, info.values_of_scale, codes, scales);
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    const nibble::half h = nibble::to_half(x[i]);
    const nibble::bfloat16 b = nibble::to_bfloat16(x[i]);
    if (type == kv_type::f32) std::memcpy(codes + 4 * i, x + i, 4);
    if (type == kv_type::f16) std::memcpy(codes + 2 * i, &h, 2);
    if (type == kv_type::bf16) std::memcpy(codes + 2 * i, &b, 2);
  }
}

inline void load_row(kv_type type, const std::uint8_t* codes, const nibble::half* scales,
                     std::int64_t n, float* out) {
  const nibble::kv_type_info& info = nibble::info_of(type);
  if (has_scales(type)) {
    nibble::decode_head_row(codes, scales, n, info.bits, info.values_of_scale, out);
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    nibble::half h;
    nibble::bfloat16 b;
    if (type == kv_type::f32) std::memcpy(out + i, codes + 4 * i, 4);
    if (type != kv_type::f32) std::memcpy(&h, codes + 2 * i, 2);
    if (type != kv_type::f32) std::memcpy(&b, codes + 2 * i, 2);
    if (type == kv_type::f16) out[i] = nibble::to_float(h);
    if (type == kv_type::bf16) out[i] = nibble::to_float(b);
  }
}

inline stored_rows store(kv_type type, const std::vector<float>& x, std::int64_t length) {
  const std::size_t rows = x.size() / static_cast<std::size_t>(length);
  stored_rows out{type, length, {}, {}, std::vector<float>(x.size())};
  const std::size_t codes = nibble::code_bytes(type, length);
  const std::size_t scales = nibble::scale_bytes(type, length) / 2;
  out.codes.resize(rows * codes);
  out.scales.resize(rows * scales);
  for (std::size_t r = 0; r < rows; ++r) {
    const std::size_t at = r * static_cast<std::size_t>(length);
    std::uint8_t* const to = out.codes.data() + r * codes;
    nibble::half* const to_scales = out.scales.data() + r * scales;
    store_row(type, x.data() + at, length, to, to_scales);
    load_row(type, to, to_scales, length, out.values.data() + at);
  }
  return out;
}

// Pages of so many tokens.
inline std::vector<nibble::cpu::kv_page> pages_of(const stored_rows& key, const stored_rows& value,
                                                  int tokens, int page_tokens) {
  std::vector<nibble::cpu::kv_page> pages;
  for (int first = 0; first < tokens; first += page_tokens) {
    pages.push_back(
        {key.from(first), value.from(first), std::min(page_tokens, tokens - first), false});
  }
  return pages;
}

// The plain definition of attention. What a float kernel may be off by grows with the logits, since
// a logit is only known to |logit| units and moves a weight by as much. Keys that are codes meet
// queries rounded to 16 bits: each value is off by half of greatest / 32767 (and by less than
// 2^-100 if all of them are), and both a weight and the sum it is divided by may move.
inline std::vector<expectation> attention(const head& h, float softcap, const float* sink,
                                          bool rounded_queries = false) {
  std::vector<double> weight;
  double greatest = sink ? double{*sink} : -HUGE_VAL, magnitude = 0, largest_value = 0;
  double key_magnitude = 0, q_magnitude = 0;
  for (const float q : h.q) q_magnitude = std::max(q_magnitude, std::fabs(double{q}));
  for (int i = 0; i < h.tokens; ++i) {
    double logit = 0, sum = 0, keys = 0;
    for (int j = 0; j < h.key_length; ++j) {
      const double k = h.key[static_cast<std::size_t>(i * h.key_length + j)];
      const double p = double{h.q[static_cast<std::size_t>(j)]} * k;
      logit += p;
      sum += std::fabs(p);
      keys += std::fabs(k);
    }
    if (softcap != 0) logit = softcap * std::tanh(logit / softcap);
    magnitude = std::max(magnitude, sum + std::fabs(logit));
    key_magnitude = std::max(key_magnitude, keys);
    greatest = std::max(greatest, logit);
    weight.push_back(logit);
  }
  double total = sink ? std::exp(*sink - greatest) : 0;
  for (double& w : weight) total += w = std::exp(w - greatest);
  std::vector<expectation> out(static_cast<std::size_t>(h.value_length));
  for (int i = 0; i < h.tokens; ++i) {
    for (int j = 0; j < h.value_length; ++j) {
      const double v = h.value[static_cast<std::size_t>(i * h.value_length + j)];
      out[static_cast<std::size_t>(j)].value += weight[static_cast<std::size_t>(i)] / total * v;
      largest_value = std::max(largest_value, std::fabs(v));
    }
  }
  double bound = unit_roundoff * (4 * magnitude + 24 + h.tokens / 16);
  if (rounded_queries) {
    bound += std::expm1(2 * key_magnitude * (q_magnitude / 65534 * 1.001 + 0x1p-100));
  }
  // a mean of values is off by no more than their range
  for (expectation& e : out) e.tolerance = std::min(bound, 2.0) * largest_value;
  return out;
}

// Attention from a kernel that must not write beyond its memory.
inline void attend_queries(const nibble::cpu::kernel_table& table, kv_type key, kv_type value,
                           std::span<const nibble::cpu::attend_query> queries,
                           std::span<const nibble::cpu::kv_page> pages, std::int64_t key_length,
                           std::int64_t value_length, float softcap, std::int64_t first = 0,
                           nibble::cpu::softmax_state* states = nullptr) {
  const auto floats = nibble::attend_scratch_floats(key_length, value_length);
  std::vector<float> scratch(static_cast<std::size_t>(floats) + 1, -7.0f);
  table.attend({static_cast<std::int32_t>(key), static_cast<std::int32_t>(value), queries.data(),
                static_cast<std::int32_t>(queries.size()), pages.data(),
                static_cast<std::int64_t>(pages.size()), first,
                static_cast<std::int32_t>(key_length), static_cast<std::int32_t>(value_length),
                softcap, scratch.data(), states});
  REQUIRE(scratch.back() == -7.0f);
}

// A head's attention over pages of so many tokens.
inline std::vector<float> attend(const nibble::cpu::kernel_table& table, const head& h,
                                 const stored_rows& key, const stored_rows& value, int page_tokens,
                                 float softcap, const float* sink) {
  const auto pages = pages_of(key, value, h.tokens, page_tokens);
  std::vector<float> out(static_cast<std::size_t>(h.value_length) + 1, -7.0f);
  const nibble::cpu::attend_query query{h.q.data(), nullptr, out.data(), 0, h.tokens, sink};
  attend_queries(table, key.type, value.type, {&query, 1}, pages, h.key_length, h.value_length,
                 softcap);
  REQUIRE(out.back() == -7.0f);
  out.pop_back();
  return out;
}
inline std::vector<float> attend(const nibble::cpu::kernel_table& table, const head& h,
                                 kv_type type, int page_tokens, float softcap, const float* sink) {
  return attend(table, h, store(type, h.key, h.key_length), store(type, h.value, h.value_length),
                page_tokens, softcap, sink);
}

}  // namespace test
