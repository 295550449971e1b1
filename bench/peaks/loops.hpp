// Loops that do nothing but one kind of work, in registers or in the nearest cache: the rates that
// no kernel of an instruction set can exceed.
//
// They are written as instructions, not in C++: an array of vector variables may live in memory
// whatever its declaration says, and then the loop measures loads and stores. And a program that
// holds them still runs on a processor without them, as long as they are not called there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bench {

inline constexpr std::size_t read_step = 4096;

struct peak_loop {
  const char* instructions;  // of one step; null if the instruction set has no such loop
  void (*run)(std::int64_t rounds);
  double amount;  // multiply-accumulates, or bytes, of a round
};

// The loops of one instruction set, named as in cpu::kernel_table::isa.
struct peak_loops {
  std::string_view isa;
  peak_loop int8;     // products of 8-bit integers, added up in 32 bits
  peak_loop int8_16;  // the fastest products of codes of 4 bits: added up in 16 bits, or as above
  peak_loop fp32;     // products of floats, added up in floats
  peak_loop cache;    // bytes loaded from the nearest cache
  // Load all of it and do nothing else; bytes is a multiple of read_step. The second one asks for
  // memory ahead of its loads; null if there is no such loop.
  void (*read[2])(const void* from, std::size_t bytes);
};

// Loops in C++, for any machine: "scalar".
const peak_loops& portable_loops();

// The loops of that instruction set; the portable ones if it is "scalar" or there are none.
const peak_loops& loops_of(std::string_view isa);

}  // namespace bench
