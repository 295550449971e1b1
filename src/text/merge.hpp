// The core that byte-pair encoding and SentencePiece share: neighbours merge, the best pair first,
// until none may. A linked list and a heap make it O(n log n) for a word of n symbols.
#pragma once

#include <algorithm>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/text/tokenizer.hpp>
#include <vector>

namespace nibble::inline NIBBLE_ABI::text {

struct symbol {
  std::uint32_t offset;         // of its bytes in the word
  std::uint32_t size;           // 0: merged into the symbol at its left
  token id;                     // text_table::absent for a character that is no token
  std::int32_t previous, next;  // -1 at the ends
};

// A merged token, and how soon it merges: smaller first; among equals the leftmost pair.
template <typename Priority>
struct merge_rule {
  Priority priority;
  token merged;
};

template <typename Priority>
struct merge_candidate {
  Priority priority;
  std::int32_t left, right;
  std::uint32_t size;  // of both together; another value later means that one of them has changed
  token merged;

  // std::*_heap keep the greatest on top
  friend bool operator<(const merge_candidate& a, const merge_candidate& b) {
    return b.priority < a.priority || (a.priority == b.priority && b.left < a.left);
  }
};

// `find(left, right)` returns a pointer to a merge_rule<Priority>-like optional: an object that is
// false when the two symbols may not merge. Afterwards the list that starts at symbols[0] holds
// what is left. `heap` is scratch memory.
template <typename Priority, typename Find>
void merge_symbols(std::vector<symbol>& symbols, std::vector<merge_candidate<Priority>>& heap,
                   const Find& find) {
  heap.clear();
  const auto candidate = [&](std::int32_t left, std::int32_t right) {
    if (left < 0 || right < 0) return false;
    const symbol &a = symbols[left], &b = symbols[right];
    const auto rule = find(a, b);
    if (rule) heap.push_back({rule->priority, left, right, a.size + b.size, rule->merged});
    return static_cast<bool>(rule);
  };
  const auto push = [&](std::int32_t left, std::int32_t right) {
    if (candidate(left, right)) std::push_heap(heap.begin(), heap.end());
  };
  for (std::int32_t i = 1; i < static_cast<std::int32_t>(symbols.size()); ++i) candidate(i - 1, i);
  std::make_heap(heap.begin(), heap.end());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const auto best = heap.back();
    heap.pop_back();
    symbol &left = symbols[best.left], &right = symbols[best.right];
    // both start where they started, so the sum of sizes tells whether either has grown
    if (left.size == 0 || right.size == 0 || left.size + right.size != best.size) continue;
    left.size = best.size;
    left.id = best.merged;
    left.next = right.next;
    right.size = 0;
    if (right.next >= 0) symbols[right.next].previous = best.left;
    push(left.previous, best.left);
    push(best.left, left.next);
  }
}

// Links symbols in the order in which they stand.
inline void append_symbol(std::vector<symbol>& symbols, std::size_t offset, std::size_t size,
                          token id) {
  const auto index = static_cast<std::int32_t>(symbols.size());
  if (index > 0) symbols.back().next = index;
  symbols.push_back(
      {static_cast<std::uint32_t>(offset), static_cast<std::uint32_t>(size), id, index - 1, -1});
}

}  // namespace nibble::inline NIBBLE_ABI::text
