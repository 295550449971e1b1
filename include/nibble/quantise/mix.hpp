// Type mixes: which tensor of a model gets which format when it is quantised to "q4_k_m" and the
// like. The names are those of llama.cpp, and so are the choices, so that files are the size that
// people expect. The table of all mixes is in src/quantise/mix_table.hpp.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/base/error.hpp>
#include <nibble/formats/format_id.hpp>
#include <nibble/gguf/file.hpp>
#include <nibble/tensor/view.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

struct type_mix {
  std::string_view name;        // "q4_k_m"
  format_id base{};             // what most tensors get
  std::uint32_t file_type = 0;  // the value of general.file_type
  std::string_view about;       // one line for people
};

// By name, in either case; formats that have no mix of their own are one: every tensor gets them.
// Empty if there is none.
NIBBLE_API std::optional<type_mix> find_type_mix(std::string_view name);
NIBBLE_API std::vector<type_mix> all_type_mixes();

// The numbers of a model that mixes depend on.
struct mix_model {
  std::uint64_t layers = 0, heads = 0, kv_heads = 0, experts = 0;  // 0: not known, or none
};
// From "<architecture>.block_count" and so on; of lists by layer, the first that is not 0.
NIBBLE_API mix_model read_mix_model(const gguf::file& file);

struct mix_tensor {
  std::string_view name;
  nibble::shape shape;
};

// Patterns are globs over a tensor's whole name: * stands for any characters, ? for one, [0-3] for
// one of these, [!0-3] for one other. They take no more time than the product of both lengths.
struct tensor_rule {
  std::string pattern;
  format_id to{};
};
NIBBLE_API bool glob_matches(std::string_view pattern, std::string_view text);
// Throws error(invalid_argument) for a pattern that is empty, or has a set without an end.
NIBBLE_API void check_glob(std::string_view pattern);

struct mix_options {
  std::string type = "q4_k_m";
  // The first rule that matches a tensor decides, before the mix does.
  std::vector<tensor_rule> rules = {};
  std::vector<std::string> leave =
      {};  // patterns of tensors that stay as they are, before all else
  // Of output.weight (also where token_embd.weight is used as such), and of token_embd.weight;
  // before rules.
  std::optional<format_id> output = {}, embedding = {};
  bool pure = false;        // the base format for all, without the mix's exceptions
  bool importance = false;  // whether errors will be weighted; some mixes then spend fewer bits
};

struct tensor_choice {
  std::optional<format_id> to;  // empty: the tensor stays as it is
  // The format that was chosen first, if rows of this length cannot have it.
  std::optional<format_id> instead_of;
};

// One choice for each tensor, in their order. These stay as they are: tensors of one dimension,
// those whose names do not end in "weight", norms, routers, and the small ones of recurrent and
// convolutional layers. Throws error(invalid_argument): no such type, a pattern that cannot be
// one, or that matches no tensor which may be converted.
NIBBLE_API std::vector<tensor_choice> choose_formats(const mix_model& model,
                                                     std::span<const mix_tensor> tensors,
                                                     const mix_options& options);

}  // namespace nibble::inline NIBBLE_ABI
