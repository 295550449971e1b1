// Who has which page of a cache: reference counts, copies on write, and pages found again by what
// they hold.
//
// A page that is full is filed under its tokens and all tokens before them. A sequence that begins
// with the same tokens takes such pages instead of computing them; also after the sequence that
// made them is gone, until somebody needs the room (least recently used ones go first). Tokens are
// compared, not just their hashes, so what is found is what was asked for.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <nibble/base/config.hpp>
#include <nibble/device/batch.hpp>
#include <nibble/device/kv_table.hpp>
#include <span>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// The pages of one sequence. Made and changed by a page_pool; release() before it ends.
struct kv_sequence {
  kv_table table;
  // What each of the first pages holds, as the pool has it filed; empty once tokens were dropped.
  std::vector<std::uint64_t> contents;
};

// Pages of each group that so many sequences need, if all of them fill their context and at most
// `batch` tokens are computed at once.
NIBBLE_API std::vector<std::int32_t> pages_of_sessions(std::span<const kv_group> groups,
                                                       std::int32_t context, std::int32_t batch,
                                                       std::int32_t sessions);

// Safe to use from several threads; each sequence by one at a time.
class NIBBLE_API page_pool {
 public:
  // Copies a page on the device.
  using page_copier = std::function<void(std::size_t group, page_id from, page_id to)>;

  struct usage {
    std::int32_t total = 0;
    std::int32_t used = 0;    // by sequences
    std::int32_t cached = 0;  // by nobody, but could be found again
  };

  // pages: of each group, as in the cache.
  page_pool(std::span<const kv_group> groups, std::span<const std::int32_t> pages,
            page_copier copy);
  ~page_pool();

  // An empty sequence. Its first `keep` tokens will stay when others are dropped (shift).
  // `context`: tokens that it may grow to without allocating memory.
  kv_sequence make_sequence(std::int32_t keep = 0, std::int32_t context = 0) const;

  // Gives the sequence, which holds n_past tokens, pages of its own for the next `count`.
  // Throws error (out_of_memory) if there are not enough; nothing has changed then.
  void prepare(kv_sequence& sequence, std::int64_t n_past, std::int64_t count);
  // After they were computed: files full pages, gives up those behind sliding windows. tokens: all
  // that the sequence holds.
  void complete(kv_sequence& sequence, std::span<const token> tokens);

  // The number of leading tokens whose pages were found and now are the sequence's; 0 if those are
  // not more than the n_past that it holds, and then nothing has changed. At most `limit`.
  std::int64_t adopt(kv_sequence& sequence, std::span<const token> tokens, std::int64_t n_past,
                     std::int64_t limit);

  // Another sequence with the same tokens.
  kv_sequence fork(const kv_sequence& sequence);
  // Forgets all but the first n of the tokens that it holds, which are more. False: tokens that the
  // next one would see behind a sliding window are gone, or there is a state, which cannot go back;
  // the sequence is empty then.
  bool truncate(kv_sequence& sequence, std::int64_t n);
  // Drops `drop` tokens after the first `keep` of n. False as truncate.
  // Throws error (invalid_argument) for more than there are, and if another number was kept before.
  bool shift(kv_sequence& sequence, std::int32_t keep, std::int64_t drop, std::int64_t n);
  void release(kv_sequence& sequence);

  // A page with its first tokens, as far as a sequence of n tokens may still look there.
  struct held_page {
    std::size_t group;
    page_id page;
    std::int32_t tokens;
  };
  // In an order that depends on keep, dropped and n alone.
  std::vector<held_page> pages_of(const kv_sequence& sequence, std::int64_t n) const;
  // Gives an empty sequence pages for n tokens, with a gap of `dropped` after the first `keep`, as
  // one would have that grew to be so. Throws error (out_of_memory); nothing has changed then.
  void restore(kv_sequence& sequence, std::int32_t keep, std::int64_t dropped, std::int64_t n);

  // What pages hold is lost: none is found again by its tokens. Sequences keep theirs.
  void forget_contents();

  // Whether others use the page that token n will be written to, so that it is to be copied first.
  bool copies_before(const kv_sequence& sequence, std::int64_t n, std::size_t group) const;

  usage in_use(std::size_t group) const;
  // Whether all counts agree with each other; for tests.
  bool consistent() const;

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace nibble::inline NIBBLE_ABI
