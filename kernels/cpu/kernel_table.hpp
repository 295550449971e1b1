// The CPU kernels as function pointers: one table per instruction set, chosen once.
//
// This header is seen both by the units compiled for one instruction set and by those that are not.
// It therefore holds plain data only: an inline function here would be compiled twice under one
// name, and the linker might keep the copy that an older CPU cannot run.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nibble::inline v0::cpu {

inline constexpr int max_formats = 32;  // asserted against the list where tables are filled
inline constexpr int max_strip_rows = 16;

// Columns of a token whose scales are multiples of one power of two, by less than 2^13
// (formats/dot.hpp).
inline constexpr std::int64_t q8_stretch = 512;

// Activations as eight-bit integers, [tokens, columns]; columns is a multiple of 32.
struct q8_matrix {
  const std::int8_t* q;     // [tokens, columns], each in [-127, 127]
  const float* scale;       // [tokens, columns / 32], not negative; a NaN of blocks with a fault
  const std::int16_t* sum;  // [tokens, columns / 16]: sums of 16 values of q
  std::int64_t columns;
};

// `count` rows of a weight matrix, each `stride` bytes after the one before.
struct weight_rows {
  const void* data;
  std::size_t stride;
  std::int64_t count;
  std::int64_t columns;
};

// `count` rows of a packed weight matrix (kernel_table::pack). The first one starts a strip.
struct packed_rows {
  const void* data;
  std::int64_t count;
};

// Where a product goes: result r of token t to data[t * stride + r], or added to what is there.
struct product_output {
  float* data;
  std::int64_t stride;
  bool accumulate;
};

// Up to so many tokens rows are multiplied as they are read; beyond, they are unpacked first.
inline constexpr std::int64_t few_tokens = 8;

// What matmul_q8 needs of memory beside, aligned to 64 bytes, if there are more tokens.
inline constexpr std::size_t product_scratch_bytes = 128 * 1024;

// out = rows[r] . x[t]. The result for a token does not depend on how many tokens are given, nor on
// how rows are shared out.
using matmul_q8_fn = void (*)(const packed_rows& rows, const q8_matrix& x, std::int64_t tokens,
                              const product_output& out, void* scratch);
// out[t * out_stride + r] = rows[r] . x[t], with float activations x [tokens, columns], `x_stride`
// floats apart.
using matmul_f32_fn = void (*)(const weight_rows& rows, const float* x, std::int64_t x_stride,
                               std::int64_t tokens, float* out, std::int64_t out_stride);

// How many types keys and values may have, and which; kv_type in device/kv_type.hpp.
inline constexpr int kv_types = 7;

// Rows of one head: consecutive tokens' codes, and their scales (f16) if the type has some.
struct kv_rows {
  const void* codes;
  const void* scales;
};

// One head's page of keys and values, or a part of it.
struct kv_page {
  kv_rows key, value;
  std::int32_t count;  // of tokens
  bool turned;         // its logits are made with attend_query::q_turned
};

// Tokens of a page whose logits are held at once, and queries that are worked on at once.
inline constexpr int attend_block = 64, attend_queries = 64;

// Tokens that are attended to in one go; a multiple of attend_block. See attend.hpp.
inline constexpr std::int64_t attend_segment = 2048;

// Of the logits seen so far.
struct softmax_state {
  float greatest;
  float sum;  // of exp(logit - greatest)
};

// A query head of a token.
struct attend_query {
  const float* q;           // [key_length], already scaled
  const float* q_turned;    // the same for pages that are `turned`; null if there are none
  float* out;               // [value_length]
  std::int64_t begin, end;  // of the pages' tokens, those that it sees: at least one
  const float* sink;        // a logit without a value; null: none
};

// Queries over pages of the key/value head that they share.
struct attend_args {
  std::int32_t key_type, value_type;  // kv_type
  const attend_query* queries;
  std::int32_t n_queries;  // at most attend_queries
  const kv_page* pages;    // none lies in two segments
  std::int64_t n_pages;
  std::int64_t first;  // index of the pages' first token in its sequence; segments go by it
  std::int32_t key_length, value_length;
  float softcap;   // 0: none
  float* scratch;  // attend_scratch_floats (attend_scratch.hpp)
  // null, or [n_queries]: the pages are of one segment, and what `out` gets is a part for
  // join_segments(), without sinks
  softmax_state* states;
};

struct kernel_table {
  const char* isa;
  // Rows of a strip, which lie packed together: at most max_strip_rows.
  std::int32_t strip_rows;

  // by format index (formats/list.hpp)
  matmul_q8_fn matmul_q8[max_formats];    // null for F32, F16, BF16
  matmul_f32_fn matmul_f32[max_formats];  // every format
  void (*decode[max_formats])(const void* row, std::int64_t n, float* out);
  // Rows of blocks, one after another, to strips of rows, the last one filled up with zeros. The
  // bytes are those of the rows, reordered (strip_layout.hpp). Null for F32, F16, BF16.
  void (*pack[max_formats])(const void* rows, std::int64_t n_rows, std::int64_t columns, void* to);
  // Row `row` of packed ones, back to blocks.
  void (*unpack_row[max_formats])(const void* packed, std::int64_t row, std::int64_t columns,
                                  void* to);

  // x [n] -> q [n], scale [n / 32], sum [n / 16]; x starts a stretch
  void (*quantise_q8)(const float* x, std::int64_t n, std::int8_t* q, float* scale,
                      std::int16_t* sum);

  // out = x / sqrt(mean(x^2) + epsilon) * gain; out may be x
  void (*rms_norm)(const float* x, const float* gain, float epsilon, std::int64_t n, float* out);
  // Rotates the first 2 * n_pairs of x in place, cosine and sine [n_pairs].
  void (*rope_norm)(float* x, const float* cosine, const float* sine, std::int64_t n_pairs);
  void (*rope_neox)(float* x, const float* cosine, const float* sine, std::int64_t n_pairs);
  // out = activation(gate) * up, indexed by gate_kind
  void (*gate[4])(const float* gate, const float* up, std::int64_t n, float* out);
  // out += scale * x
  void (*add_scaled)(const float* x, float scale, std::int64_t n, float* out);

  // By kv_type: a row of n values to codes and scales, and back.
  void (*store_row[kv_types])(const float* x, std::int64_t n, void* codes, void* scales);
  void (*load_row[kv_types])(const void* codes, const void* scales, std::int64_t n, float* out);
  // The Walsh-Hadamard transform of each block of the greatest power of two that divides n, in
  // place; orthonormal, so it undoes itself.
  void (*hadamard)(float* x, std::int64_t n);
  void (*attend)(const attend_args& args);
  // out = what a query sees of its n segments, in order; parts: [n, value_length]
  void (*join_segments)(const softmax_state* states, const float* parts, std::int64_t n,
                        const float* sink, std::int64_t value_length, float* out);
};

// One function per kernels/cpu/isa_<name>.cpp; only those of one processor family are compiled.
const kernel_table& kernels_scalar();
const kernel_table& kernels_sse42();
const kernel_table& kernels_avx2();
const kernel_table& kernels_avxvnni();
const kernel_table& kernels_avx512();
const kernel_table& kernels_avx512vnni();
const kernel_table& kernels_neon();
const kernel_table& kernels_neon_dotprod();

}  // namespace nibble::inline v0::cpu
