// Which kernels were launched, on which device and with what: noted by test::run(), and compared
// with the lists of kernels, formats and types by the test that runs last (test_coverage.cpp).
#pragma once

#include <nibble/device/kv_type.hpp>
#include <nibble/formats/list.hpp>
#include <string>
#include <string_view>

#include "gpu/kernel_table.hpp"

namespace test {

// Kept for this process, and written to the folder that NIBBLE_GPU_COVERAGE names when it ends.
void note_launch(const std::string& device, const std::string& what);

namespace gpu = nibble::gpu;

inline std::string format_name(std::int32_t index) {
  return std::string(nibble::format_infos[static_cast<std::size_t>(index)].name);
}

// "q8 with q4"
inline std::string name_of_pair(nibble::kv_type key, nibble::kv_type value) {
  return std::string(nibble::info_of(key).name) + " with " +
         std::string(nibble::info_of(value).name);
}

inline std::string name_of_pair(const gpu::cache_layer& cache) {
  return name_of_pair(static_cast<nibble::kv_type>(cache.key_type),
                      static_cast<nibble::kv_type>(cache.value_type));
}

template <typename Args>
void note_products(const std::string& device, const std::string& kernel, const Args& args) {
  for (std::int32_t i = 0; i < args.n_products; ++i) {
    note_launch(device, kernel + " " + format_name(args.products[i].matrix.format));
  }
}

// One overload for each launcher's arguments: what is counted of them.
inline void note(const std::string& device, const gpu::quantise_args&) {
  note_launch(device, "quantise");
}
inline void note(const std::string& device, const gpu::transform_args&) {
  note_launch(device, "transform");
}
inline void note(const std::string& device, const gpu::matvec_args& args) {
  note_products(device, "matvec", args);
}
inline void note(const std::string& device, const gpu::matmul_args& args) {
  note_products(device, "matmul", args);
}
inline void note(const std::string& device, const gpu::matmul_f32_args& args) {
  note_products(device, "matmul_f32", args);
}
inline void note(const std::string& device, const gpu::expert_args& args) {
  const std::string kernel = args.in_f32 ? "expert_matmul of floats" : "expert_matmul of q8";
  note_products(device, kernel + (args.pair_order ? ", grouped" : ""), args);
}
inline void note(const std::string& device, const gpu::group_pairs_args&) {
  note_launch(device, "group_pairs");
}
inline void note(const std::string& device, const gpu::embed_args& args) {
  note_launch(device, "embed " + format_name(args.table.format));
}
inline void note(const std::string& device, const gpu::add_args&) {
  note_launch(device, "add");
}
inline void note(const std::string& device, const gpu::route_args&) {
  note_launch(device, "route");
}
inline void note(const std::string& device, const gpu::combine_args&) {
  note_launch(device, "combine");
}
inline void note(const std::string& device, const gpu::select_args&) {
  note_launch(device, "select");
}
inline void note(const std::string& device, const gpu::softcap_args&) {
  note_launch(device, "softcap");
}
inline void note(const std::string& device, const gpu::rope_args&) {
  note_launch(device, "rope");
}
inline void note(const std::string& device, const gpu::attend_prepare_args& args) {
  note_launch(device, "attend_prepare " + name_of_pair(args.cache));
}
inline void note(const std::string& device, const gpu::attend_args& args) {
  // as launch_attend.cpp chooses
  const bool tiles = args.run_tokens >= 16 && args.tokens >= 16;
  note_launch(device, (tiles ? "attend in tiles " : "attend ") + name_of_pair(args.cache));
}

}  // namespace test
