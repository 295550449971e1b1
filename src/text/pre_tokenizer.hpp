// Cuts text into the words inside which byte-pair merges happen, by the patterns that belong to a
// name in tokenizer.ggml.pre.
#pragma once

#include <cstdint>
#include <memory>
#include <nibble/base/config.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::inline NIBBLE_ABI::text {

// What a name stands for. Each pattern cuts every piece that the patterns before it left; both what
// it matches and what lies between become pieces.
struct pre_tokenizer_rules {
  std::string_view name;
  std::vector<std::string_view> patterns;
  bool ignore_merges = false;  // a word that is a token is that token, whatever the merges say
  bool add_bos = false;        // where the file does not say
  bool byte_level = true;      // false: tokens are UTF-8 with U+2581 for the space
};

// Throws error(unsupported) that lists the known names.
pre_tokenizer_rules find_pre_tokenizer(std::string_view name);
std::vector<std::string_view> pre_tokenizer_names();

// The patterns, compiled. Immutable; `scratch` belongs to one call.
class pre_tokenizer {
 public:
  class scratch {
   public:
    scratch();
    ~scratch();
    scratch(const scratch&) = delete;
    scratch& operator=(const scratch&) = delete;

   private:
    friend class pre_tokenizer;
    struct handles;
    std::unique_ptr<handles> handles_;  // PCRE2's, made on first use
    std::vector<std::uint32_t> spare_;
  };

  explicit pre_tokenizer(const pre_tokenizer_rules& rules);
  ~pre_tokenizer();

  // Fills `ends` with the end of each piece, in bytes; `text` is valid UTF-8 of less than 4 GiB.
  // Throws error(unsupported) when a pattern exceeds PCRE2's limits, error(out_of_memory).
  void split(std::string_view text, std::vector<std::uint32_t>& ends, scratch& work) const;

 private:
  struct pattern;
  void apply(const pattern& p, std::string_view text, const std::vector<std::uint32_t>& from,
             std::vector<std::uint32_t>& to, scratch& work) const;

  std::string name_;
  std::vector<pattern> patterns_;
};

}  // namespace nibble::inline NIBBLE_ABI::text
