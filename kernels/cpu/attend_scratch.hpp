// What attention needs of memory beside.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>

#include "cpu/kernel_table.hpp"

namespace nibble::inline NIBBLE_ABI {

// Where things lie in attend_args::scratch, in floats.
struct attend_scratch {
  std::int64_t rows;         // a block's keys as 16-bit integers, or its values as floats
  std::int64_t scales;       // [attend_block, scales of a row]: theirs
  std::int64_t codes;        // queries as 16-bit integers, [attend_queries, key_words]; and turned
  std::int64_t code_scales;  // [attend_queries]; and turned
  std::int64_t totals;       // [attend_queries, value_length]: results of segments
  std::int64_t size;
  std::int64_t key_words;  // key_length and what fills up the last 32

  // logits of all queries come first
  constexpr attend_scratch(std::int64_t key_length, std::int64_t value_length) {
    const std::int64_t longer = key_length > value_length ? key_length : value_length;
    const std::int64_t groups = (longer + 31) / 32;
    key_words = (key_length + 31) / 32 * 32;
    rows = std::int64_t{cpu::attend_queries} * cpu::attend_block;
    scales = rows + cpu::attend_block * groups * 32;
    codes = scales + cpu::attend_block * groups;
    code_scales = codes + cpu::attend_queries * key_words;
    totals = code_scales + 2 * cpu::attend_queries;
    size = totals + cpu::attend_queries * value_length;
  }
};

constexpr std::int64_t attend_scratch_floats(std::int64_t key_length, std::int64_t value_length) {
  return attend_scratch(key_length, value_length).size;
}

}  // namespace nibble::inline NIBBLE_ABI
