// A cache whose pages hold numbers instead of keys and values, and sequences that know what they
// must find in it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <nibble/kv/page_pool.hpp>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "errors.hpp"

namespace test {

// What is stored of a token. Like keys and values it depends on all tokens before.
using stamp = std::uint64_t;

inline stamp stamp_after(stamp before, nibble::token id) {
  std::uint64_t h = before * 0x9e3779b97f4a7c15u + static_cast<std::uint32_t>(id) + 1;
  h ^= h >> 29;
  return h * 0xbf58476d1ce4e5b9u ^ h >> 32;
}

struct fake_sequence {
  nibble::kv_sequence pages;
  std::vector<nibble::token> tokens;
  std::vector<stamp> stamps;  // of the tokens
  std::int64_t n() const { return static_cast<std::int64_t>(tokens.size()); }
};

class fake_cache {
 public:
  struct copy {
    std::size_t group;
    nibble::page_id from, to;
  };

  fake_cache(const std::vector<std::int32_t>& seen, std::vector<std::int32_t> pages)
      : windows(seen), pool(groups_of(seen), pages, [this](auto group, auto from, auto to) {
          copies.push_back({group, from, to});
          at(group, to) = at(group, from);
        }) {
    for (const std::int32_t n : pages) held_.emplace_back(static_cast<std::size_t>(n));
  }
  fake_cache(const fake_cache&) = delete;
  fake_cache& operator=(const fake_cache&) = delete;

  using page = std::array<stamp, nibble::kv_page_tokens>;
  page& at(std::size_t group, nibble::page_id p) {
    return held_.at(group).at(static_cast<std::size_t>(p));
  }

  std::int64_t first_seen(std::size_t group, std::int64_t n) const {
    return windows[group] > 0 ? std::max<std::int64_t>(n + 1 - windows[group], 0) : 0;
  }

  // Whether a sequence has pages for all that its token n would see, of the first n.
  bool sees_all(const nibble::kv_table& table, std::int64_t n) const {
    for (std::size_t g = 0; g < windows.size(); ++g) {
      for (std::int64_t i = first_seen(g, n); i < n; ++i) {
        if (page_of(table, g, i) == nibble::no_page) return false;
      }
    }
    return true;
  }

  static nibble::page_id page_of(const nibble::kv_table& table, std::size_t g, std::int64_t i) {
    return table.groups[g].at(table.place(i) / nibble::kv_page_tokens);
  }

  // Whether the sequence finds what its next token, with index n, sees: `count` tokens of it.
  bool reads_back(const fake_sequence& s, std::int64_t n) {
    for (std::size_t g = 0; g < windows.size(); ++g) {
      for (std::int64_t i = first_seen(g, n); i < s.n(); ++i) {
        const nibble::page_id p = page_of(s.pages.table, g, i);
        if (p == nibble::no_page) return false;
        const auto row = static_cast<std::size_t>(s.pages.table.place(i) % nibble::kv_page_tokens);
        if (at(g, p)[row] != s.stamps[static_cast<std::size_t>(i)]) return false;
      }
    }
    return true;
  }

  // Tokens that the cache does not hold yet, computed in one batch. salt: makes these stamps other
  // ones than a sequence would have that holds the same tokens, but never held others between them.
  void write(fake_sequence& s, std::span<const nibble::token> tokens, stamp salt = 0) {
    const std::int64_t past = s.n();
    pool.prepare(s.pages, past, static_cast<std::int64_t>(tokens.size()));
    for (const nibble::token id : tokens) {
      const stamp before = s.stamps.empty() ? 0 : s.stamps.back();
      s.tokens.push_back(id);
      s.stamps.push_back(stamp_after(before, id) ^ salt);
    }
    for (std::size_t g = 0; g < windows.size(); ++g) {
      for (std::int64_t i = past; i < s.n(); ++i) {
        const auto row = static_cast<std::size_t>(s.pages.table.place(i) % nibble::kv_page_tokens);
        at(g, page_of(s.pages.table, g, i))[row] = s.stamps[static_cast<std::size_t>(i)];
      }
    }
    REQUIRE(reads_back(s, past));
    pool.complete(s.pages, s.tokens);
  }

  // The sequence takes what is found of these tokens; the number of them.
  std::int64_t adopt(fake_sequence& s, std::span<const nibble::token> tokens, std::int64_t limit) {
    const std::int64_t found = pool.adopt(s.pages, tokens, s.n(), limit);
    for (std::int64_t i = s.n(); i < found; ++i) {
      const nibble::token id = tokens[static_cast<std::size_t>(i)];
      s.stamps.push_back(stamp_after(s.stamps.empty() ? 0 : s.stamps.back(), id));
      s.tokens.push_back(id);
    }
    return found;
  }

  fake_sequence make(std::int32_t keep = 0) const {
    return {.pages = pool.make_sequence(keep), .tokens = {}, .stamps = {}};
  }
  fake_sequence fork(const fake_sequence& s) {
    return {.pages = pool.fork(s.pages), .tokens = s.tokens, .stamps = s.stamps};
  }
  bool truncate(fake_sequence& s, std::int64_t n) {
    const bool held = pool.truncate(s.pages, n);
    s.tokens.resize(static_cast<std::size_t>(held ? n : 0));
    s.stamps.resize(s.tokens.size());
    return held;
  }
  bool shift(fake_sequence& s, std::int32_t keep, std::int64_t drop) {
    if (!pool.shift(s.pages, keep, drop, s.n())) {
      s.tokens.clear();
      s.stamps.clear();
      return false;
    }
    s.tokens.erase(s.tokens.begin() + keep, s.tokens.begin() + keep + drop);
    s.stamps.erase(s.stamps.begin() + keep, s.stamps.begin() + keep + drop);
    return true;
  }
  void release(fake_sequence& s) {
    pool.release(s.pages);
    s.tokens.clear();
    s.stamps.clear();
  }

  // Writes the sequence to a file, so to speak, and reads it into an empty one.
  void save_and_load(const fake_sequence& from, fake_sequence& to) {
    const auto saved = pool.pages_of(from.pages, from.n());
    std::vector<page> bytes;
    for (const auto& p : saved) bytes.push_back(at(p.group, p.page));
    const nibble::kv_table& table = from.pages.table;
    pool.restore(to.pages, table.keep, table.dropped, from.n());
    const auto loaded = pool.pages_of(to.pages, from.n());
    REQUIRE(loaded.size() == saved.size());
    for (std::size_t i = 0; i < loaded.size(); ++i) {
      REQUIRE(loaded[i].group == saved[i].group);
      REQUIRE(loaded[i].tokens == saved[i].tokens);
      std::copy_n(bytes[i].begin(), loaded[i].tokens, at(loaded[i].group, loaded[i].page).begin());
    }
    to.tokens = from.tokens;
    to.stamps = from.stamps;
  }

  // Pages that a sequence has, by group.
  static std::set<nibble::page_id> pages_in(const nibble::kv_table& table, std::size_t g) {
    std::set<nibble::page_id> pages;
    for (const auto* part : {&table.groups[g].head, &table.groups[g].tail}) {
      for (const nibble::page_id p : *part) {
        if (p == nibble::no_page) continue;
        REQUIRE(pages.insert(p).second);
      }
    }
    return pages;
  }

  std::vector<std::int32_t> windows;
  std::vector<copy> copies;
  nibble::page_pool pool;

 private:
  static std::vector<nibble::kv_group> groups_of(const std::vector<std::int32_t>& windows) {
    std::vector<nibble::kv_group> groups;
    for (const std::int32_t window : windows) groups.push_back({.window = window, .layers = {}});
    return groups;
  }
  std::vector<std::vector<page>> held_;  // [groups, pages]
};

// So many tokens of a text that no other number gives.
inline std::vector<nibble::token> text(std::size_t count, std::uint64_t number = 0) {
  std::vector<nibble::token> tokens(count);
  stamp h = stamp_after(0x1234567, static_cast<nibble::token>(number));
  for (nibble::token& id : tokens) {
    h = stamp_after(h, 0);
    id = static_cast<nibble::token>(h >> 33 & 0x3fffffff);
  }
  return tokens;
}

}  // namespace test
