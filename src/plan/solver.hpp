// Which block of a chain lies where: the least predicted seconds that fit the memories. It knows
// nothing of models and devices; whoever plans describes them as numbers.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <optional>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// Seconds are finite and not negative. Bytes may be any 64-bit numbers: what overflows does not
// fit.
struct placement_problem {
  struct place {
    std::int32_t memory = 0;    // where its bytes lie; places may share one (CPU and disk: RAM)
    std::uint64_t opening = 0;  // bytes there once any block lies here
    double entering = 0, leaving = 0;  // seconds if the first / the last block lies here
  };
  struct memory {
    std::uint64_t budget = 0;
    bool even = false;  // its share (used / budget) should not exceed those of others by much
  };
  struct option {  // a block at a place
    bool allowed = true;
    std::uint64_t bytes = 0;    // added up
    std::uint64_t scratch = 0;  // shared by the blocks at one place: the greatest counts
    double seconds = 0;
  };

  std::vector<memory> memories;
  std::vector<place> places;                // 1 to 32
  std::vector<std::vector<option>> blocks;  // [block][place]; at least one block
  std::vector<double> crossing;  // [from * places + to], between neighbours; 0 on the diagonal
  // By place: bytes that the first and the last block have in common, counted once if both lie
  // there. At most what either of them takes there counts. Empty: none.
  std::vector<std::uint64_t> common_ends;
};

struct placement_solution {
  std::vector<std::int32_t> place;  // of each block
  double seconds = 0;
  double least = 0;                 // no placement takes less; equals seconds when proven
  bool proven = false;              // seconds are the least there are
  double share = 0;                 // the greatest used / budget of an even memory
  bool proven_even = false;         // among placements as fast, no share is less
  std::vector<std::uint64_t> used;  // by memory
};

// Counts, not times, so that the same problem has the same answer on every machine: partial
// placements looked at, times the memories and four. A million takes about 40 ms.
struct solver_limits {
  std::int64_t work = 220'000;       // for the least seconds
  std::int64_t even_work = 100'000;  // and after that for even shares
  // As long as no placement is found: without one there is no answer at all.
  std::int64_t work_to_fit = 20'000'000;
};

struct placement_answer {
  std::optional<placement_solution> solution;
  bool impossible = false;  // proven that nothing fits; if false without a solution: not known
  std::int64_t work = 0;
};

// The placement of least seconds (less than a 1e-9th apart counts as equal); of those, the one
// whose greatest share of an even memory is least (again to a 1e-9th). Which of several such
// placements is returned depends on the problem alone. Both are exact unless a limit was reached,
// which `proven` and `proven_even` then say. Throws error (invalid_argument) if the sizes of the
// lists disagree.
placement_answer solve(const placement_problem& problem, const solver_limits& limits = {});

// False if there is too little memory however it is shared out, which need not be searched for: in
// all, or for blocks that may lie in one memory only.
bool may_fit(const placement_problem& problem);

// Bytes by memory if the blocks lie there; none if that does not fit or a block may not be there.
std::optional<std::vector<std::uint64_t>> bytes_used(const placement_problem& problem,
                                                     const std::vector<std::int32_t>& place);
double seconds_of(const placement_problem& problem, const std::vector<std::int32_t>& place);

}  // namespace nibble::inline NIBBLE_ABI
