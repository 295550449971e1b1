// The parts of the solver: a problem in flat tables, bounds, and one search. See solver.cpp.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <nibble/base/checked.hpp>
#include <nibble/base/error.hpp>
#include <numeric>
#include <tuple>

#include "plan/solver.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace solving {

constexpr std::size_t max_places = 32;  // bits of a mask
constexpr double never = std::numeric_limits<double>::infinity();
constexpr double equal = 1e-9;  // what is relatively less apart is the same
constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();

constexpr std::uint64_t plus(std::uint64_t a, std::uint64_t b) {
  return checked_add(a, b).value_or(most);
}
constexpr std::uint64_t minus(std::uint64_t a, std::uint64_t b) {
  return a > b ? a - b : 0;
}
constexpr std::uint32_t bit(std::size_t i) {
  return std::uint32_t{1} << i;
}

constexpr std::uint32_t lowest_bits(std::size_t n) {
  return n < max_places ? bit(n) - 1 : ~std::uint32_t{0};
}

template <typename Visit>
void for_bits(std::uint32_t mask, Visit&& visit) {
  for (; mask != 0; mask &= mask - 1) visit(static_cast<std::size_t>(std::countr_zero(mask)));
}

inline double share_of(std::uint64_t used, std::uint64_t budget) {
  return used == 0 ? 0 : static_cast<double>(used) / static_cast<double>(budget);
}

inline double greatest_share(const placement_problem& p, const std::uint64_t* used) {
  double share = 0;
  for (std::size_t m = 0; m < p.memories.size(); ++m) {
    if (p.memories[m].even) share = std::max(share, share_of(used[m], p.memories[m].budget));
  }
  return share;
}

inline std::uint64_t saving_at(const placement_problem& p, std::size_t place) {
  if (p.common_ends.empty() || p.blocks.size() < 2) return 0;
  return std::min(
      {p.common_ends[place], p.blocks.front()[place].bytes, p.blocks.back()[place].bytes});
}

// ---- the problem in flat tables, and what may come after each block ----

struct chain {
  chain(const placement_problem& of, std::vector<std::uint64_t> budgets);

  std::size_t at(std::size_t block, std::size_t place) const { return block * places + place; }
  std::size_t in(std::size_t block, std::size_t m) const { return block * memories + m; }
  // what is added up if the block lies there and the first block lies at the place of `first`
  std::uint64_t bytes_at(std::size_t block, std::size_t place, std::size_t first) const {
    const bool both =
        block + 1 == blocks && first == kind[place] + 1 && leader[kind[place]] == place;
    return bytes[at(block, place)] - (both ? saving[place] : 0);
  }

  double weight(std::size_t block, std::size_t place, std::size_t first) const {
    const std::uint64_t more = block + 1 == blocks ? extra[place] : 0;
    return static_cast<double>(plus(bytes_at(block, place, first), more));
  }

  const placement_problem& problem;
  std::vector<std::uint64_t> budget;
  std::size_t blocks, places, memories;
  std::int64_t work;  // counted for a label: about what it takes grows with the memories

  // Places that can be swapped without any change are of one kind. The first of each is its leader,
  // and each is entered for the first time after its `before`.
  std::vector<std::size_t> kind, memory, leader, members;
  std::vector<std::int32_t> before;
  std::vector<std::size_t> price;     // of each memory: that of its kind's leader
  std::vector<std::uint32_t> lying;   // by memory: its places
  std::vector<std::uint64_t> saving;  // by place
  // The last block's scratch is counted as that of the others (`usual`) and bytes of its own
  // (`extra`).
  std::vector<std::uint64_t> usual, extra;  // by place
  std::vector<std::size_t> firsts;          // 0, and kind + 1 of kinds with a saving

  std::vector<char> allowed;                  // [block, place]
  std::vector<std::uint64_t> bytes, scratch;  // [block, place]
  std::vector<double> seconds;                // [block, place]

  // Of the blocks after a block, at a place or in a memory:
  std::vector<std::uint64_t> most_scratch, reachable;         // [block, place]
  std::vector<std::uint64_t> most_bytes, least_bytes, entry;  // [block, memory]; least of one block
  std::vector<std::uint64_t> need;                            // [block]: bytes at least, anywhere

 private:
  void read_options();
  bool twins(std::size_t a, std::size_t b) const;
  void find_kinds();
  void look_ahead();
};
// ---- labels ----

struct label {
  double seconds = 0, bound = 0;
  std::int32_t parent = -1;
  std::uint32_t place = 0, first = 0;  // first: 0, or kind + 1 of the first block's place
  std::uint32_t opened = 0;            // places
  std::uint32_t closed = 0;            // memories that nothing more can or should enter
  std::uint32_t ample = 0;             // memories that have room for all that may come
};

// The bytes of labels: used by memory, scratch by place, and how much worse each place can get in
// opening and scratch.
struct layer {
  std::vector<label> labels;
  std::vector<std::uint64_t> used, scratch, growth;

  void clear() { labels.clear(), used.clear(), scratch.clear(), growth.clear(); }
};

// Of a label that is being considered.
struct state {
  const std::uint64_t* used = nullptr;
  const std::uint64_t* scratch = nullptr;
};

// ---- the least that completes a label ----

struct worth_of {
  double seconds;
  std::size_t memory;
};

// What the memories' remaining bytes are worth at their prices, by how many of them are entered.
struct credit {
  double current = 0;  // of the memory of the label's place
  double capped = 0;   // of all together, if no more than the coming blocks' bytes are paid
  std::size_t count = 0;
  std::array<worth_of, max_places> others;  // (worth, memory), falling
};

class bounds {
 public:
  bounds(const chain& of, std::vector<double> prices);

  // Seconds of the cheapest completion; `entries` receives how many memories it enters.
  double of(const label& l, std::size_t block, const credit& c,
            std::size_t* entries = nullptr) const;
  // The same if it enters the memory others[i] at least once.
  double through(const label& l, std::size_t block, const credit& c, std::size_t i) const;
  credit credit_of(const label& l, std::size_t block, state s) const;
  double remaining(const label& l, std::size_t block, std::size_t m, state s) const;
  // Adds to `excess`, by price, the bytes of the cheapest completion less those it was credited.
  void add_excess(const label& l, std::size_t block, state s, std::vector<double>& excess) const;

  const std::vector<double> prices;  // by memory, seconds per byte

 private:
  // by entries: those of memories other than the one before; the last stands for all higher ones
  const double* row(std::size_t first, std::size_t block, std::size_t kind) const {
    return &table_[((first * c_.blocks + block) * c_.leader.size() + kind) * (c_.memories + 1)];
  }
  double cost(std::size_t first, std::size_t block, std::size_t kind) const;
  double cross(std::size_t from, std::size_t to) const {
    return cross_[from * c_.leader.size() + to];
  }
  double find_cross(std::size_t from, std::size_t to) const;
  void fill(std::size_t first);
  // What comes of the row `next` of the kind `to`, whose block costs `here`.
  void relax(std::size_t from, std::size_t to, double here, const double* next, double* out) const;
  void follow(const label& l, std::size_t block, std::size_t entries,
              std::vector<double>& use) const;

  const chain& c_;
  std::vector<double> table_;
  std::vector<double> cross_;   // [kind, kind]
  std::vector<double> coming_;  // by block: bytes at priced memories that come after it, at most
  std::vector<std::size_t> dearest_;  // memories of positive price, falling
};

// ---- what a placement takes, while blocks move ----

class usage {
 public:
  usage(const placement_problem& problem, const std::vector<std::int32_t>& place);

  void move(std::size_t block, std::size_t to);
  std::size_t place(std::size_t block) const { return place_[block]; }
  // No budget is exceeded; what overflows 64 bits exceeds all.
  bool fits() const;
  // Bytes at least that blocks [begin, end) have too little room by at `to`, whatever becomes of
  // their places.
  std::uint64_t lacking(std::size_t begin, std::size_t end, std::size_t to) const;
  std::vector<std::uint64_t> used() const;  // by memory, if it fits

 private:
  struct wide {  // a sum of more than 64 bits
    std::uint64_t low = 0, high = 0;
    void add(std::uint64_t x) { low += x, high += low < x; }
    void subtract(std::uint64_t x) { high -= low < x, low -= x; }
  };
  struct at_place {
    std::size_t blocks = 0;
    std::map<std::uint64_t, std::size_t> scratch;  // and how many blocks take as much
  };

  void add(std::size_t block, std::size_t place);
  void remove(std::size_t block);
  bool both_ends_at(std::size_t place) const;

  const placement_problem& p_;
  std::vector<std::size_t> place_;  // by block
  std::vector<at_place> at_;        // by place
  std::vector<wide> used_;          // by memory
};

// ---- one pass over the blocks, with at most `width` labels of each ----

struct found_placement {
  std::vector<std::int32_t> place;  // empty: none
  double seconds = never, share = never;
};

class search {
 public:
  search(const chain& c, const bounds& b, double limit, std::size_t width)
      : c_(c), bounds_(b), limit_(limit), width_(width), used_(c.memories), scratch_(c.places) {}

  void begin();
  void run();

  const layer& front() const { return from_; }
  std::int64_t allowance = std::numeric_limits<std::int64_t>::max();  // of labels at full width
  const std::vector<std::int32_t>* only = nullptr;  // by block: the one place tried; -1: all
  found_placement best;                             // of seconds < limit
  double dropped = never;  // the least bound of a label that `width` had no room for
  std::int64_t labels = 0;

 private:
  void consider(std::size_t index, std::size_t block, std::size_t place);
  bool charge(label& l, std::size_t block, std::size_t place);
  bool judge(label& l, std::size_t block);
  bool dominated(std::size_t worse, const std::vector<std::size_t>& kept, std::size_t group) const;
  bool dominates(std::size_t better, std::size_t worse) const;
  bool takes_less(std::size_t better, std::size_t worse, std::size_t m) const;
  void narrow();
  void keep_best(std::vector<std::size_t>& kept);
  void finish();

  const chain& c_;
  const bounds& bounds_;
  const double limit_;
  const std::size_t width_;
  layer from_, to_;
  std::vector<std::uint64_t> used_, scratch_;  // of the label that is being considered
  std::vector<std::vector<std::pair<std::int32_t, std::uint32_t>>> trace_;  // (parent, place)
};

// Moves runs of blocks until no move of one run is better: passes keep labels that promise much,
// and may end with ones that kept less.
void settle(const placement_problem& p, found_placement& best);
// The same with two runs at a time, where one makes room for the other. `work`: a count, about that
// of comparisons.
void exchange(const placement_problem& p, found_placement& best, std::int64_t work);

}  // namespace solving

}  // namespace nibble::inline NIBBLE_ABI
