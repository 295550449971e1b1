// The GPU kernels as a table of launchers. All pointers are the device's unless said otherwise.
//
// Shapes are [rows, columns], columns adjacent. Launchers only put kernels into a queue; they
// allocate nothing and do not wait. They may be recorded into a graph.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nibble::inline v0::gpu {

struct device_facts;

// Where launchers launch.
struct launch_target {
  void* stream;  // cudaStream_t, hipStream_t; the emulated device's own
  const device_facts* facts;
};

// Columns that share an activation scale.
inline constexpr std::int32_t unit_columns = 32;

// Rows of activations as eight-bit integers (formats/dot.hpp); columns is a multiple of 32.
struct q8_rows {
  std::int8_t* codes = {};  // [rows, columns]
  float* scales = {};       // [rows, columns / 32]
  std::int16_t* sums = {};  // [rows, columns / 16], of 16 codes each
};

// How a row becomes the input of a product.
enum class input_kind : std::int32_t {
  plain,
  norm,  // x / sqrt(mean(x^2) + epsilon) * gain
  gate   // activation(x) * up
};
struct input_rows {
  const float* x = {};  // [rows, columns]
  std::int64_t columns = {};
  input_kind kind = {};
  const float* gain = {};  // norm: [columns]
  float epsilon = {};
  const float* up = {};         // gate: [rows, columns]
  std::int32_t gate_kind = {};  // nibble::gate_kind
};

// A weight as matrix_layout.hpp lays it out.
struct packed_matrix {
  const std::byte* data = {};
  std::int32_t format = {};  // index in all_formats
  std::int64_t columns = {}, rows = {};
  std::size_t matrix_bytes = {};  // from one expert's matrix to the next
  std::int64_t matrices = {};
};

// out (+)= scale * (matrix * in) + bias
struct product {
  packed_matrix matrix = {};
  const float* bias = {};   // [rows], of experts [matrices, rows], or null
  const float* scale = {};  // [1] or null
  float* out = {};          // [tokens, rows]
  // Of experts: from one's biases to the next one's.
  std::int64_t bias_stride = {};
};
inline constexpr int max_products = 4;

// Tokens up to which `matvec` is made for.
inline constexpr std::int32_t max_matvec_tokens = 8;

// Quantises rows, after what `in.kind` asks for.
struct quantise_args {
  input_rows in = {};
  std::int64_t rows = {};
  q8_rows out = {};
};

// The same without quantising. out may be in.x.
struct transform_args {
  input_rows in = {};
  std::int64_t rows = {};
  float* out = {};  // [rows, columns]
};

// Products of up to max_matvec_tokens rows with matrices of block formats. The input is either
// `in`, which every block of threads brings into shared memory by itself, or, if in.x is null,
// `ready`. Whether `in` fits a block's shared memory: matvec_fits().
struct matvec_args {
  input_rows in = {};
  q8_rows ready = {};
  std::int32_t tokens = {};
  std::int64_t columns = {};
  std::int32_t n_products = {};
  product products[max_products] = {};
  bool accumulate = {};
};

// Products of any number of rows, in tiles of matrix instructions.
struct matmul_args {
  q8_rows in = {};
  std::int64_t tokens = {};
  std::int64_t columns = {};
  std::int32_t n_products = {};
  product products[max_products] = {};
  bool accumulate = {};
};

// Products with float activations and any format.
struct matmul_f32_args {
  const float* in = {};  // [tokens, columns]
  std::int64_t tokens = {};
  std::int64_t columns = {};
  std::int32_t n_products = {};
  product products[max_products] = {};
  bool accumulate = {};
};

// Products with the matrices of chosen experts. A pair is a token and one of its slots.
struct expert_args {
  q8_rows in = {};  // [tokens, columns], or [tokens * n_used, columns] if per_slot
  const float* in_f32 =
      {};  // instead of `in`, if in.codes is null: the same with float activations
  bool per_slot = {};
  std::int64_t tokens = {};
  std::int32_t n_used = {}, n_expert = {};
  std::int64_t columns = {};
  const std::int32_t* selection = {};  // [tokens, n_used]
  std::int32_t n_products = {};
  product products[max_products] = {};  // out [tokens * n_used, rows]
  // Filled by group_pairs; null for few tokens: each pair is a product of its own then.
  const std::int32_t* pair_order = {};  // [tokens * n_used]: pairs by expert
  const std::int32_t* pair_start = {};  // [n_expert + 1]: where each expert's begin
};

struct group_pairs_args {
  const std::int32_t* selection = {};  // [pairs]
  std::int64_t pairs = {};
  std::int32_t n_expert = {};
  std::int32_t* pair_order = {};
  std::int32_t* pair_start = {};
};

struct embed_args {
  packed_matrix table = {};
  const std::int32_t* tokens = {};  // [rows]
  std::int64_t rows = {};
  float scale = {};
  float* out = {};  // [rows, table.columns]
};

// out += norm(in), or in
struct add_args {
  input_rows in = {};  // plain or norm
  std::int64_t rows = {};
  float* out = {};
};

struct route_args {
  const float* logits = {};  // [rows, n_expert]
  std::int64_t rows = {};
  std::int32_t n_expert = {}, n_used = {};
  std::int32_t kind = {};  // nibble::route_kind
  bool normalise = {};
  float scale = {};
  std::int32_t* selection = {};  // [rows, n_used]
  float* weights = {};           // [rows, n_used]
};

// out[t] += sum over slots of weights[t, slot] * in[t, slot]
struct combine_args {
  const float* in = {};  // [rows, n_used, width]
  const float* weights = {};
  std::int64_t rows = {}, width = {};
  std::int32_t n_used = {};
  float* out = {};  // [rows, width]
};

struct select_args {
  const float* in = {};            // [.., width]
  const std::int32_t* which = {};  // [rows]
  std::int64_t rows = {}, width = {};
  float* out = {};
};

struct softcap_args {
  float* x = {};
  std::int64_t n = {};
  float cap = {};
};

// What a batch says of each of its tokens and sequences. The arrays are written before each run;
// recorded kernels read them anew.
struct step_tokens {
  const std::int32_t* ids = {};    // [tokens]
  const std::int32_t* chunk = {};  // [tokens]: its sequence in `sequences`
  const std::int64_t* index = {};  // [tokens]: see kv_table.hpp
  const std::int64_t* place = {};  // [tokens]
};
// One sequence and one group of layers: where its pages are.
struct sequence_pages {
  std::int32_t first = {};       // of its page numbers in step_pages
  std::int32_t head = {};        // pages [0, head) are listed first
  std::int64_t tail_first = {};  // then those from here on
  std::int64_t keep = {};        // kv_table::keep, dropped
  std::int64_t dropped = {};
};
struct step_pages {
  const sequence_pages* sequences = {};  // [groups, max_sequences]
  std::int32_t max_sequences = {};
  const std::int32_t* numbers = {};
};

// One layer's keys and values in a cache; a page is as in kv_page_layout.hpp.
struct cache_layer {
  std::byte* pages = {};  // of its group
  std::size_t page_bytes = {};
  std::int32_t group = {};
  std::size_t keys = {}, values = {};           // offsets of this layer in a page
  std::int32_t key_type = {}, value_type = {};  // kv_type
  bool rotate_key = {}, rotate_value = {};
};

struct rope_args {
  step_tokens step = {};
  std::int64_t tokens = {};
  const double* frequencies = {};  // [n]
  std::int32_t n = {};
  float magnitude = {};
  step_pages pages = {};  // for kv_table::dropped
  std::int32_t group = {};
  float *cosine = {}, *sine = {};            // [tokens, n]
  float *back_cosine = {}, *back_sine = {};  // [tokens, n]; null: nothing is ever dropped
};

struct attend_shape {
  std::int32_t n_head = {}, n_head_kv = {}, key_length = {}, value_length = {};
  float scale = {}, softcap = {};
  std::int32_t window = {};
  const float* sinks = {};  // [n_head] or null
  // rope
  std::int32_t rope_style = {};  // nibble::rope_style
  std::int32_t rope_pairs = {};
  const float *cosine = {}, *sine = {}, *back_cosine = {}, *back_sine = {};  // of this batch
  // norms of heads; null: none
  const float *q_gain = {}, *k_gain = {};
  float q_epsilon = {}, k_epsilon = {};
  float temperature_scale = {};
  std::int32_t temperature_period = {};
};

// Longest heads that attention is made for.
inline constexpr std::int32_t longest_head = 512;

// Norm and rotation of queries, in place, and of keys; the store of keys and values to pages.
struct attend_prepare_args {
  attend_shape shape = {};
  step_tokens step = {};
  step_pages pages = {};
  cache_layer cache = {};
  std::int64_t tokens = {};
  float* q = {};
  const float *k = {}, *v = {};
  float* q_turned =
      {};  // as q, [tokens, n_head * key_length]: see kv_table.hpp; null: nothing dropped
};

// Attention of prepared queries.
struct attend_args {
  attend_shape shape = {};
  step_tokens step = {};
  step_pages pages = {};
  cache_layer cache = {};
  std::int64_t tokens = {};
  const float *q = {}, *q_turned = {};
  float* out = {};  // [tokens, n_head * value_length]
  // How many tokens of a sequence stand together, usually: with many, queries are worked on in
  // tiles. The result is right for any number.
  std::int32_t run_tokens = {};
  // Splits of the sequence, for few tokens: parts [tokens, n_head, splits, value_length], states
  // [tokens, n_head, splits, 2], counters [tokens, n_head] which are 0 between runs. With one split
  // they are not used.
  std::int32_t splits = {};
  float *parts = {}, *states = {};
  std::uint32_t* counters = {};
};

struct kernel_table {
  void (*quantise)(const launch_target&, const quantise_args&);
  void (*transform)(const launch_target&, const transform_args&);
  // Whether matvec_args::in can be used with so many tokens and columns.
  bool (*matvec_fits)(const device_facts&, std::int32_t tokens, std::int64_t columns);
  void (*matvec)(const launch_target&, const matvec_args&);
  void (*matmul)(const launch_target&, const matmul_args&);
  void (*matmul_f32)(const launch_target&, const matmul_f32_args&);
  void (*expert_matmul)(const launch_target&, const expert_args&);
  void (*group_pairs)(const launch_target&, const group_pairs_args&);
  void (*embed)(const launch_target&, const embed_args&);
  void (*add)(const launch_target&, const add_args&);
  void (*route)(const launch_target&, const route_args&);
  void (*combine)(const launch_target&, const combine_args&);
  void (*select)(const launch_target&, const select_args&);
  void (*softcap)(const launch_target&, const softcap_args&);
  void (*rope)(const launch_target&, const rope_args&);
  void (*attend_prepare)(const launch_target&, const attend_prepare_args&);
  void (*attend)(const launch_target&, const attend_args&);
};

}  // namespace nibble::inline v0::gpu
