// Many sequences in a pool that is too small for them, as random numbers want it: each finds its
// own tokens after every step, and the counts are right.
#include <algorithm>
#include <random>

#include "fake_cache.hpp"

namespace {

using nibble::errc;
using nibble::page_id;
using nibble::token;
using test::fake_sequence;
using test::stamp;

// How often what happened.
struct counts {
  int appended = 0, found = 0, full = 0, copied = 0, shifted = 0, gone = 0, loaded = 0;
};

class random_pool {
 public:
  random_pool(const std::vector<std::int32_t>& windows, std::int32_t pages, unsigned seed,
              counts& all)
      : cache_(windows, std::vector<std::int32_t>(windows.size(), pages)),
        random_(seed),
        seen_(all) {
    for (std::size_t i = 0; i < 6; ++i) add();
  }

  void step() {
    const auto i = static_cast<std::size_t>(below(static_cast<std::int64_t>(all_.size())));
    fake_sequence& s = all_[i];
    const std::int64_t what = below(100);
    if (what < 45) {
      append(i, below(3) == 0 ? 1 + below(150) : 1 + below(3));
    } else if (what < 60) {
      truncate(i);
    } else if (what < 75) {
      shift(i);
    } else if (what < 83) {
      fork(i);
    } else if (what < 90) {
      save_and_load(i);
    } else if (s.n() > 0 && (what < 96 || all_.size() > 10)) {
      cache_.release(s);
      if (all_.size() > 6) remove(i);
    } else {
      add();
    }
    check();
  }

  void end() {
    while (!all_.empty()) {
      cache_.release(all_.back());
      remove(all_.size() - 1);
      check();
    }
    for (std::size_t g = 0; g < cache_.windows.size(); ++g) {
      CHECK(cache_.pool.in_use(g).used == 0);
    }
  }

 private:
  std::int64_t below(std::int64_t n) {
    return std::uniform_int_distribution<std::int64_t>(0, n - 1)(random_);
  }

  void add() {
    constexpr std::int32_t keeps[] = {0, 0, 3, 64, 70, 130};
    all_.push_back(cache_.make(keeps[below(6)]));
    text_.push_back(static_cast<std::uint64_t>(below(3)));
  }
  void remove(std::size_t i) {
    all_.erase(all_.begin() + static_cast<std::ptrdiff_t>(i));
    text_.erase(text_.begin() + static_cast<std::ptrdiff_t>(i));
  }

  // Sequences mostly follow one of three texts, so that there is something to find.
  std::vector<token> next_tokens(std::size_t i, std::int64_t count) {
    static const std::vector<token> texts[] = {test::text(4000, 0), test::text(4000, 1),
                                               test::text(4000, 2)};
    const auto at = static_cast<std::size_t>(all_[i].n());
    const auto& from = texts[text_[i]];
    std::vector<token> tokens(from.begin() + static_cast<std::ptrdiff_t>(at),
                              from.begin() + static_cast<std::ptrdiff_t>(at) + count);
    if (below(20) == 0) tokens[static_cast<std::size_t>(below(count))] = 1;
    return tokens;
  }

  // Who has a page, of all sequences.
  std::int32_t users(std::size_t g, page_id page) const {
    std::int32_t n = 0;
    for (const fake_sequence& s : all_) {
      n += static_cast<std::int32_t>(test::fake_cache::pages_in(s.pages.table, g).count(page));
    }
    return n;
  }

  struct need {
    std::vector<std::int32_t> pages;  // by group
    std::size_t copies = 0;
    bool fits = true;
  };
  need need_of(const fake_sequence& s, std::int64_t count) const {
    need out;
    const nibble::kv_table& table = s.pages.table;
    for (std::size_t g = 0; g < cache_.windows.size(); ++g) {
      std::int32_t wanted = 0;
      const std::int64_t first = table.place(s.n()) / 64,
                         last = table.place(s.n() + count - 1) / 64;
      for (std::int64_t p = first; p <= last; ++p) {
        const page_id page = table.groups[g].at(p);
        if (page == nibble::no_page) {
          ++wanted;
        } else if (users(g, page) > 1) {
          ++wanted;
          ++out.copies;
        }
      }
      const auto use = cache_.pool.in_use(g);
      out.fits = out.fits && wanted <= use.total - use.used;
      out.pages.push_back(wanted);
    }
    return out;
  }

  void append(std::size_t i, std::int64_t count) {
    fake_sequence& s = all_[i];
    if (s.n() + count > 1000) return;
    std::vector<token> more = next_tokens(i, count);
    if (s.pages.table.dropped == 0 && below(4) > 0) {
      std::vector<token> whole = s.tokens;
      whole.insert(whole.end(), more.begin(), more.end());
      const std::int64_t before = s.n();
      const std::int64_t limit = static_cast<std::int64_t>(whole.size()) - below(2);
      const std::int64_t found = cache_.adopt(s, whole, limit);
      REQUIRE((found == 0 || (found > before && found <= limit && found % 64 == 0)));
      seen_.found += found > 0;
      more.assign(whole.begin() + s.n(), whole.end());
      if (more.empty()) return;
    }
    const need needed = need_of(s, static_cast<std::int64_t>(more.size()));
    const std::size_t copies = cache_.copies.size();
    const nibble::kv_table table = s.pages.table;
    const stamp salt = table.dropped > 0 ? ++last_salt_ : 0;
    try {
      cache_.write(s, more, salt);
      ++seen_.appended;
      REQUIRE(needed.fits);
      REQUIRE(cache_.copies.size() - copies == needed.copies);
      seen_.copied += needed.copies > 0;
    } catch (const nibble::error& e) {
      ++seen_.full;
      REQUIRE(e.code() == errc::out_of_memory);
      REQUIRE_FALSE(needed.fits);
      REQUIRE(cache_.copies.size() == copies);
      check_same(s.pages.table, table);
    }
  }

  static void check_same(const nibble::kv_table& a, const nibble::kv_table& b) {
    REQUIRE(a.keep == b.keep);
    REQUIRE(a.dropped == b.dropped);
    for (std::size_t g = 0; g < a.groups.size(); ++g) {
      REQUIRE(a.groups[g].head == b.groups[g].head);
      REQUIRE(a.groups[g].tail == b.groups[g].tail);
    }
  }

  void check_emptied(const fake_sequence& s) {
    ++seen_.gone;
    REQUIRE(s.pages.table.dropped == 0);
    for (std::size_t g = 0; g < cache_.windows.size(); ++g) {
      REQUIRE(test::fake_cache::pages_in(s.pages.table, g).empty());
    }
  }

  void truncate(std::size_t i) {
    fake_sequence& s = all_[i];
    const std::int64_t n = below(3) == 0 ? below(s.n() + 1) : s.n() - std::min(s.n(), below(30));
    const bool there = cache_.sees_all(s.pages.table, n);
    REQUIRE(cache_.truncate(s, n) == there);
    if (!there) check_emptied(s);
  }

  void shift(std::size_t i) {
    fake_sequence& s = all_[i];
    const nibble::kv_table& table = s.pages.table;
    const bool other = table.dropped == 0 && below(3) == 0;
    const std::int64_t keep = other ? below(200) : table.keep;
    if (keep > s.n()) return;
    const std::int64_t most = s.n() - keep;
    const std::int64_t drop = below(10) == 0 ? most : below(std::min<std::int64_t>(most, 150) + 1);
    // with the new gap all that is seen must be there
    bool there = true;
    for (std::size_t g = 0; g < cache_.windows.size(); ++g) {
      for (std::int64_t k = cache_.first_seen(g, s.n() - drop); k < s.n() - drop; ++k) {
        const std::int64_t before = k < keep ? k : k + drop;
        there = there && test::fake_cache::page_of(table, g, before) != nibble::no_page;
      }
    }
    REQUIRE(cache_.shift(s, static_cast<std::int32_t>(keep), drop) == (there || drop == 0));
    if (!there && drop > 0) check_emptied(s);
    ++seen_.shifted;
  }

  void fork(std::size_t i) {
    if (all_.size() >= 12) return;
    const std::vector<std::int32_t> before = used();
    fake_sequence made = cache_.fork(all_[i]);
    all_.push_back(std::move(made));
    text_.push_back(static_cast<std::uint64_t>(below(3)));
    REQUIRE(used() == before);
  }

  void save_and_load(std::size_t i) {
    fake_sequence to = cache_.make();
    const auto before = used();
    try {
      cache_.save_and_load(all_[i], to);
      ++seen_.loaded;
    } catch (const nibble::error& e) {
      REQUIRE(e.code() == errc::out_of_memory);
      REQUIRE(used() == before);
      return;
    }
    cache_.release(all_[i]);
    all_[i] = std::move(to);
  }

  std::vector<std::int32_t> used() const {
    std::vector<std::int32_t> n;
    for (std::size_t g = 0; g < cache_.windows.size(); ++g) {
      n.push_back(cache_.pool.in_use(g).used);
    }
    return n;
  }

  void check() {
    REQUIRE(cache_.pool.consistent());
    for (std::size_t g = 0; g < cache_.windows.size(); ++g) {
      std::set<page_id> all;
      for (const fake_sequence& s : all_) {
        const auto own = test::fake_cache::pages_in(s.pages.table, g);
        all.insert(own.begin(), own.end());
        // what it has is what it can still see
        std::set<page_id> needed;
        for (const auto& p : cache_.pool.pages_of(s.pages, s.n())) {
          if (p.group == g) REQUIRE(needed.insert(p.page).second);
        }
        REQUIRE(needed == own);
      }
      const auto use = cache_.pool.in_use(g);
      REQUIRE(use.used == static_cast<std::int32_t>(all.size()));
      REQUIRE(use.used + use.cached <= use.total);
    }
    for (const fake_sequence& s : all_) REQUIRE(cache_.reads_back(s, s.n()));
  }

  test::fake_cache cache_;
  std::minstd_rand random_;
  std::vector<fake_sequence> all_;
  std::vector<std::uint64_t> text_;  // that each follows
  stamp last_salt_ = 0;
  counts& seen_;
};

void run(const std::vector<std::int32_t>& windows, std::int32_t pages) {
  counts all;
  for (unsigned seed = 1; seed <= 12; ++seed) {
    CAPTURE(seed, pages);
    random_pool pool(windows, pages, seed, all);
    for (int step = 0; step < 1500; ++step) {
      CAPTURE(step);
      pool.step();
    }
    pool.end();
  }
  CAPTURE(pages);
  CHECK(all.appended > 3000);
  CHECK(all.found > 300);
  CHECK(all.copied > 50);
  CHECK(all.shifted > 500);
  CHECK(all.loaded > 300);
  if (pages < 20) CHECK(all.full > 100);
  const bool slides = std::any_of(windows.begin(), windows.end(), [](auto w) { return w > 0; });
  CHECK((all.gone > 5) == slides);
}

}  // namespace

TEST_CASE("random sequences find their tokens: all are seen") {
  run({0}, 10);
  run({0}, 40);
}
TEST_CASE("random sequences find their tokens: the last 70 are seen") {
  run({70}, 8);
  run({70}, 40);
}
TEST_CASE("random sequences find their tokens: the last 200 are seen") {
  run({200}, 12);
}
TEST_CASE("random sequences find their tokens: some layers see all, others the last 70") {
  run({0, 70}, 12);
  run({70, 0}, 40);
}
TEST_CASE("random sequences find their tokens: windows of 70 and 200, and one of 1") {
  run({70, 200}, 12);
  run({200, 8, 0}, 24);
}
