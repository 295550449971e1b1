// A hash table from text to a token id, over strings that lie in one block of memory.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <nibble/base/config.hpp>
#include <nibble/text/tokenizer.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::inline NIBBLE_ABI::text {

// 64 bits from bytes, eight at a time: multiply, fold, and a final mix.
inline std::uint64_t hash_bytes(std::string_view bytes) noexcept {
  constexpr std::uint64_t factor = 0x9e3779b97f4a7c15u;
  std::uint64_t hash = bytes.size() * factor;
  const char* at = bytes.data();
  std::size_t left = bytes.size();
  const auto mix = [&](std::uint64_t chunk) {
    hash = (hash ^ chunk) * factor;
    hash ^= hash >> 29;
  };
  for (; left >= 8; at += 8, left -= 8) {
    std::uint64_t chunk;
    std::memcpy(&chunk, at, 8);
    mix(chunk);
  }
  std::uint64_t rest = 0;
  if (left != 0) std::memcpy(&rest, at, left);
  mix(rest);
  return hash ^ hash >> 32;
}

// Strings one after the other, by index. Small beside a vector of strings, and copied at once.
class text_list {
 public:
  void push_back(std::string_view text) {
    bytes_.append(text);
    ends_.push_back(bytes_.size());
  }
  std::string_view operator[](std::size_t i) const {
    const std::size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(bytes_).substr(begin, ends_[i] - begin);
  }
  std::size_t size() const { return ends_.size(); }

 private:
  std::string bytes_;
  std::vector<std::size_t> ends_;
};

// Open addressing with linear probing, at most half full. Holds indices into a text_list.
class text_table {
 public:
  explicit text_table(std::size_t most_entries = 0)
      : slots_(std::bit_ceil(most_entries * 2 + 2), slot{}) {}

  // Keeps the first id of equal texts.
  void insert(const text_list& texts, token id) {
    const std::uint64_t hash = hash_bytes(texts[id]);
    const std::size_t i = probe(texts, texts[id], hash);
    if (slots_[i].id == empty) slots_[i] = {static_cast<std::uint32_t>(hash >> 32), id};
  }

  // The id, or `absent`.
  token find(const text_list& texts, std::string_view text) const {
    return slots_[probe(texts, text, hash_bytes(text))].id;
  }

  static constexpr token absent = -1;

 private:
  static constexpr token empty = absent;
  struct slot {
    std::uint32_t tag = 0;
    token id = empty;
  };

  std::size_t probe(const text_list& texts, std::string_view text, std::uint64_t hash) const {
    const std::size_t mask = slots_.size() - 1;
    const auto tag = static_cast<std::uint32_t>(hash >> 32);
    std::size_t i = hash & mask;
    while (slots_[i].id != empty && (slots_[i].tag != tag || texts[slots_[i].id] != text)) {
      i = (i + 1) & mask;
    }
    return i;
  }

  std::vector<slot> slots_;
};

}  // namespace nibble::inline NIBBLE_ABI::text
