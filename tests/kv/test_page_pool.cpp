// What a page pool does, one operation at a time.
#include <algorithm>

#include "fake_cache.hpp"

namespace {

using nibble::errc;
using nibble::no_page;
using nibble::token;
using test::fake_cache;
using test::fake_sequence;
using test::text;

std::span<const token> part(const std::vector<token>& tokens, std::size_t from, std::size_t count) {
  return std::span(tokens).subspan(from, count);
}

fake_sequence with_text(fake_cache& cache, std::size_t count, std::uint64_t number = 0,
                        std::int32_t keep = 0) {
  fake_sequence s = cache.make(keep);
  cache.write(s, text(count, number));
  return s;
}

// What the pool would find of a text, by one who looks and gives it back.
std::int64_t found(fake_cache& cache, const std::vector<token>& tokens) {
  fake_sequence s = cache.make();
  const std::int64_t n = cache.adopt(s, tokens, static_cast<std::int64_t>(tokens.size()));
  CHECK(cache.reads_back(s, s.n()));
  cache.release(s);
  return n;
}

void check_use(fake_cache& cache, std::int32_t used, std::int32_t cached, std::size_t group = 0) {
  const auto use = cache.pool.in_use(group);
  CHECK(use.used == used);
  CHECK(use.cached == cached);
  CHECK(cache.pool.consistent());
}

// All pages of all groups can be had by one sequence.
void check_no_leaks(fake_cache& cache) {
  for (std::size_t g = 0; g < cache.windows.size(); ++g) CHECK(cache.pool.in_use(g).used == 0);
  CHECK(cache.pool.consistent());
}

}  // namespace

TEST_CASE("a sequence takes pages as it grows and gives them back") {
  fake_cache cache({0}, {4});
  CHECK(cache.pool.in_use(0).total == 4);
  fake_sequence s = cache.make();
  check_use(cache, 0, 0);
  const auto tokens = text(200);
  cache.write(s, part(tokens, 0, 1));
  check_use(cache, 1, 0);
  cache.write(s, part(tokens, 1, 63));
  check_use(cache, 1, 0);
  cache.write(s, part(tokens, 64, 1));
  check_use(cache, 2, 0);
  cache.write(s, part(tokens, 65, 135));
  check_use(cache, 4, 0);
  cache.release(s);
  check_use(cache, 0, 3);  // those that are full could be found again
  cache.release(s);        // harmless
  check_use(cache, 0, 3);
  CHECK(cache.copies.empty());
}

TEST_CASE("a page is copied when it is written and another sequence has it") {
  fake_cache cache({0, 70}, {8, 8});
  fake_sequence a = with_text(cache, 100);
  const fake_sequence before = a;
  fake_sequence b = cache.fork(a);
  check_use(cache, 2, 0);
  CHECK(cache.copies.empty());
  cache.write(b, text(1, 7));
  REQUIRE(cache.copies.size() == 2);
  for (std::size_t g = 0; g < 2; ++g) {
    CHECK(cache.copies[g].group == g);
    CHECK(cache.copies[g].from == a.pages.table.groups[g].at(1));
    CHECK(cache.copies[g].to == b.pages.table.groups[g].at(1));
  }
  CHECK(a.pages.table.groups[0].at(0) == b.pages.table.groups[0].at(0));
  CHECK(cache.reads_back(a, a.n()));
  cache.write(b, text(1, 8));
  cache.write(a, text(1, 9));  // its page is its own again
  CHECK(cache.copies.size() == 2);
  CHECK(cache.reads_back(a, a.n()));
  CHECK(cache.reads_back(b, b.n()));
  check_use(cache, 3, 0);
  cache.release(a);
  cache.release(b);
  check_no_leaks(cache);
}

TEST_CASE("nothing is copied where sequences part at the end of a page") {
  fake_cache cache({0}, {8});
  fake_sequence a = with_text(cache, 128);
  fake_sequence b = cache.fork(a), c = cache.fork(b);
  for (fake_sequence* s : {&a, &b, &c}) {
    cache.write(*s, text(3, static_cast<std::uint64_t>(s->n())));
    CHECK(cache.reads_back(*s, s->n()));
  }
  CHECK(cache.copies.empty());
  check_use(cache, 5, 0);
}

TEST_CASE("a page that is filed and written again is not found any more") {
  fake_cache cache({0}, {8});
  fake_sequence s = with_text(cache, 128);
  CHECK(found(cache, text(128)) == 128);
  cache.truncate(s, 100);
  CHECK(found(cache, text(128)) == 128);  // nobody has changed it yet
  cache.write(s, text(1, 5));
  CHECK(cache.copies.empty());
  CHECK(found(cache, text(128)) == 64);
  CHECK(cache.reads_back(s, s.n()));
}

TEST_CASE("a page that is filed and used is copied, and still found") {
  fake_cache cache({0}, {8});
  fake_sequence a = with_text(cache, 128), b = cache.fork(a);
  cache.truncate(b, 100);
  cache.write(b, text(1, 5));
  CHECK(cache.copies.size() == 1);
  CHECK(found(cache, text(128)) == 128);
  CHECK(cache.reads_back(a, a.n()));
}

TEST_CASE("without enough pages nothing changes, in any group") {
  fake_cache cache({0, 0}, {8, 3});
  fake_sequence a = with_text(cache, 100);
  fake_sequence b = cache.fork(a);
  // its shared page, and two more; the second group has one
  const auto table = b.pages.table.groups;
  const auto e = test::thrown([&] { cache.write(b, text(130, 3)); });
  test::check_error(e, errc::out_of_memory, {"130 tokens", "2 of its 3 pages"});
  for (std::size_t g = 0; g < 2; ++g) {
    CHECK(b.pages.table.groups[g].head == table[g].head);
    CHECK(b.pages.table.groups[g].tail == table[g].tail);
    check_use(cache, 2, 0, g);
  }
  CHECK(cache.copies.empty());
  CHECK(cache.reads_back(b, b.n()));
  cache.write(b, text(28, 3));  // a copy of the shared page is all that fits
  CHECK(cache.copies.size() == 2);
  test::thrown([&] { cache.write(b, text(1, 3)); });
  cache.release(a);
  cache.write(b, text(1, 3));
  CHECK(cache.reads_back(b, b.n()));
}

TEST_CASE("a restored sequence that does not fit takes nothing") {
  fake_cache cache({0, 70}, {6, 4});
  fake_sequence a = with_text(cache, 200), b = cache.make();
  test::check_error(test::thrown([&] { cache.pool.restore(b.pages, 0, 0, 200); }),
                    errc::out_of_memory, {"200 tokens"});
  check_use(cache, 4, 0, 0);
  check_use(cache, 2, 2, 1);
  cache.truncate(a, 0);
  cache.write(a, text(200));
  cache.truncate(a, 150);  // tokens before its window are gone
  CHECK(a.n() == 0);
}

TEST_CASE("sequences find what others with the same beginning have computed") {
  fake_cache cache({0}, {8});
  fake_sequence a = with_text(cache, 200);
  auto tokens = text(200);
  fake_sequence b = cache.make();
  CHECK(cache.adopt(b, tokens, 200) == 192);  // whole pages
  check_use(cache, 4, 0);
  CHECK(cache.reads_back(b, b.n()));
  CHECK(cache.adopt(b, tokens, 200) == 0);  // it has them
  cache.release(b);
  CHECK(cache.adopt(b, tokens, 191) == 128);  // at most the limit
  CHECK(cache.adopt(b, tokens, 192) == 192);  // more than it has
  cache.release(b);
  tokens.resize(150);
  CHECK(cache.adopt(b, tokens, 1000) == 128);
  cache.release(b);
  cache.release(a);
  tokens = text(200);
  CHECK(cache.adopt(b, tokens, 200) == 192);  // also when those are gone who computed it
  CHECK(cache.reads_back(b, b.n()));
  check_use(cache, 3, 0);
  cache.release(b);
  check_no_leaks(cache);
}

TEST_CASE("a sequence that has computed part of a page itself takes the found one instead") {
  fake_cache cache({0}, {8});
  fake_sequence a = with_text(cache, 128), b = cache.make();
  const auto tokens = text(128);
  cache.write(b, part(tokens, 0, 70));
  check_use(cache, 4, 0);  // nothing was looked for
  CHECK(cache.adopt(b, tokens, 127) == 0);
  CHECK(cache.adopt(b, tokens, 128) == 128);
  CHECK(b.pages.table.groups[0].at(1) == a.pages.table.groups[0].at(1));
  check_use(cache, 2, 0);
}

TEST_CASE("one other token anywhere, and a page is not taken for another") {
  // two places in the table of pages: whatever is filed there meets everything else
  fake_cache cache({0}, {2});
  fake_sequence a = with_text(cache, 128);
  const auto tokens = text(128);
  for (std::size_t i = 0; i < 128; ++i) {
    auto other = tokens;
    other[i] ^= 1;
    CHECK(found(cache, other) == (i < 64 ? 0 : 64));
    std::swap(other[i] = tokens[i], other[(i + 1) % 128]);
    CHECK(found(cache, other) < 128);
  }
  // the second page without the first, and the first in the place of the second
  CHECK(found(cache, {tokens.begin() + 64, tokens.end()}) == 0);
  auto twice = std::vector<token>(tokens.begin(), tokens.begin() + 64);
  twice.insert(twice.end(), tokens.begin(), tokens.begin() + 64);
  CHECK(found(cache, twice) == 64);
  CHECK(found(cache, tokens) == 128);
}

TEST_CASE("texts that fall into the same places of the table do not meet") {
  fake_cache cache({0}, {3});
  for (std::uint64_t i = 0; i < 500; ++i) {
    fake_sequence s = cache.make();
    const auto tokens = text(128, i);
    CHECK(cache.adopt(s, tokens, 128) == 0);
    cache.write(s, tokens);
    cache.release(s);
    CHECK(found(cache, tokens) == 128);
    CHECK(cache.pool.consistent());
  }
}

TEST_CASE("of pages that nobody uses the oldest go first, a text's end before its beginning") {
  fake_cache cache({0}, {6});
  for (std::uint64_t i = 0; i < 3; ++i) {
    fake_sequence s = with_text(cache, 128, i);
    cache.release(s);
  }
  check_use(cache, 0, 6);
  // the first is used once more, and now the newest
  CHECK(found(cache, text(128, 0)) == 128);
  std::vector<fake_sequence> others;
  const auto take_one = [&] { others.push_back(with_text(cache, 1, 100 + others.size())); };
  const auto check_found = [&](std::int64_t zero, std::int64_t one, std::int64_t two) {
    // looking makes new: in the order that is there already
    if (one > 0) CHECK(found(cache, text(128, 1)) == one);
    if (two > 0) CHECK(found(cache, text(128, 2)) == two);
    CHECK(found(cache, text(128, 0)) == zero);
    check_use(cache, static_cast<std::int32_t>(others.size()),
              static_cast<std::int32_t>((zero + one + two) / 64));
  };
  check_found(128, 128, 128);
  take_one();
  check_found(128, 64, 128);
  take_one();
  CHECK(found(cache, text(128, 1)) == 0);
  check_found(128, 0, 128);
  take_one();
  check_found(128, 0, 64);
  take_one();
  take_one();
  CHECK(found(cache, text(128, 2)) == 0);
  check_found(64, 0, 0);
  take_one();
  check_use(cache, 6, 0);
  test::thrown(take_one);
}

TEST_CASE("pages behind a sliding window are given up") {
  fake_cache cache({70, 0, 200}, {16, 16, 16});
  fake_sequence s = cache.make();
  const auto tokens = text(900);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    cache.write(s, part(tokens, i, 1));
    REQUIRE(cache.reads_back(s, s.n()));
    for (std::size_t g = 0; g < 3; ++g) {
      const std::int64_t first = cache.first_seen(g, s.n()) / 64, last = (s.n() - 1) / 64;
      REQUIRE(cache.pool.in_use(g).used == last - first + 1);
    }
  }
  cache.release(s);
  check_no_leaks(cache);
}

TEST_CASE("what a window has left behind is found as far as it is there") {
  fake_cache cache({0, 70}, {16, 5});
  const auto tokens = text(320);
  fake_sequence s = cache.make(), other = cache.make();
  cache.write(s, tokens);
  CHECK(found(cache, tokens) == 320);
  // the window of token 192 begins in page 1
  CHECK(cache.adopt(other, tokens, 192) == 192);
  CHECK(other.pages.table.groups[1].at(0) == no_page);
  CHECK(other.pages.table.groups[1].at(1) != no_page);
  CHECK(cache.reads_back(other, 192));
  cache.release(other);
  // somebody takes all the pages that are not in use: only what s has is left of the second group
  std::vector<fake_sequence> others;
  while (cache.pool.in_use(1).cached > 0) {
    others.push_back(with_text(cache, 1, 50 + others.size()));
  }
  CHECK(others.size() == 3);
  CHECK(found(cache, tokens) == 320);
  CHECK(found(cache, {tokens.begin(), tokens.begin() + 319}) == 0);
  CHECK(cache.reads_back(s, s.n()));
}

TEST_CASE("truncating keeps what is needed, or says that it is gone") {
  fake_cache cache({0, 70}, {16, 16});
  const auto tokens = text(300);
  for (std::int64_t n = 0; n <= 300; ++n) {
    fake_sequence s = cache.make();
    cache.write(s, tokens);  // its window holds tokens from 231 on, its pages those from 192
    const bool there = n == 0 || std::max<std::int64_t>(n - 69, 0) >= 192;
    REQUIRE(cache.truncate(s, n) == there);
    REQUIRE(s.n() == (there ? n : 0));
    REQUIRE(cache.reads_back(s, s.n()));
    if (!there) {
      REQUIRE(cache.pool.in_use(0).used == 0);
      REQUIRE(cache.pool.in_use(1).used == 0);
    }
    cache.write(s, text(80, 4));
    REQUIRE(cache.reads_back(s, s.n()));
    cache.release(s);
    REQUIRE(cache.pool.consistent());
  }
  check_no_leaks(cache);
}

TEST_CASE("a gap moves no page, and gives up those inside it") {
  fake_cache cache({0}, {16});
  fake_sequence s = with_text(cache, 300);
  CHECK(cache.shift(s, 10, 140));
  CHECK(s.pages.table.place(9) == 9);
  CHECK(s.pages.table.place(10) == 150);
  check_use(cache, 4, 1);  // page 1 has nothing that is left
  CHECK(cache.reads_back(s, s.n()));
  cache.write(s, text(100, 3), 99);
  CHECK(cache.reads_back(s, s.n()));
  CHECK(cache.shift(s, 10, 100));
  CHECK(cache.reads_back(s, s.n()));
  const auto e = test::thrown([&] { cache.pool.shift(s.pages, 11, 1, s.n()); });
  test::check_error(e, errc::invalid_argument, {"11", "10 were kept"});
  test::thrown([&] { cache.pool.shift(s.pages, 10, s.n() - 9, s.n()); });
  test::thrown([&] { cache.pool.shift(s.pages, -1, 1, s.n()); });
  test::thrown([&] { cache.pool.shift(s.pages, 10, -1, s.n()); });
  CHECK(cache.reads_back(s, s.n()));
  CHECK(cache.shift(s, 10, 0));
  CHECK(s.n() == 160);
  cache.release(s);
  check_no_leaks(cache);
}

TEST_CASE("what a sequence with a gap computes is not found by others") {
  fake_cache cache({0}, {16});
  fake_sequence s = with_text(cache, 128);
  CHECK(cache.shift(s, 64, 63));
  auto tokens = s.tokens;
  const auto more = text(127, 2);
  cache.write(s, more, 77);  // others than without those between
  tokens.insert(tokens.end(), more.begin(), more.end());
  CHECK(found(cache, tokens) == 64);
  // a sequence without its gap is one like others again
  cache.truncate(s, 64);
  cache.write(s, part(tokens, 64, 128));
  CHECK(found(cache, tokens) == 192);
  cache.release(s);
  CHECK(found(cache, tokens) == 192);
}

TEST_CASE("dropping all tokens but those that stay leaves no gap") {
  fake_cache cache({0, 70}, {16, 16});
  for (const std::int32_t keep : {0, 5, 64, 70}) {
    fake_sequence s = with_text(cache, 133, static_cast<std::uint64_t>(keep));
    if (cache.shift(s, keep, 133 - keep)) {
      CHECK(s.n() == keep);
      CHECK(cache.reads_back(s, keep));
    }
    CHECK(s.pages.table.dropped == 0);
    cache.write(s, text(70, 9));
    CHECK(cache.reads_back(s, s.n()));
    // no page begins with tokens that nobody wrote
    for (const auto& p : cache.pool.pages_of(s.pages, s.n())) CHECK(p.tokens > 0);
    cache.release(s);
    check_no_leaks(cache);
  }
}

TEST_CASE("pages where tokens of both sides of a gap lie are held once, and as long as needed") {
  // the gap begins at 70 or 2 and ends in the same page or the next
  for (const std::int32_t keep : {2, 70}) {
    for (const std::int64_t drop : {1, 10, 57, 58, 70}) {
      for (const std::int32_t window : {0, 70, 90}) {
        CAPTURE(keep, drop, window);
        fake_cache cache({window}, {12});
        fake_sequence s = with_text(cache, 150, 0, keep), other = cache.make();
        if (!cache.shift(s, keep, drop)) continue;
        for (int i = 0; i < 200; ++i) {
          REQUIRE(cache.reads_back(s, s.n()));
          const auto held = cache.pool.pages_of(s.pages, s.n());
          REQUIRE(held.size() == static_cast<std::size_t>(cache.pool.in_use(0).used));
          if (i % 10 == 0) {
            cache.save_and_load(s, other);
            REQUIRE(cache.reads_back(other, other.n()));
            cache.release(other);
          }
          cache.write(s, text(1, static_cast<std::uint64_t>(i)), 5);
        }
        cache.release(s);
        check_no_leaks(cache);
      }
    }
  }
}

TEST_CASE("a sequence may keep fewer tokens than it was made for") {
  for (const std::int32_t made : {0, 64, 70, 200}) {
    for (const std::int32_t keep : {0, 3, 64, 65, 130, 250}) {
      CAPTURE(made, keep);
      fake_cache cache({0}, {12});
      fake_sequence s = with_text(cache, 300, 0, made);
      CHECK(cache.shift(s, keep, 20));
      CHECK(s.n() == 280);
      CHECK(cache.reads_back(s, s.n()));
      cache.write(s, text(100, 3), 9);
      CHECK(cache.reads_back(s, s.n()));
      cache.release(s);
      check_no_leaks(cache);
    }
  }
}

TEST_CASE("a gap may be as wide as a file says, and takes neither time nor pages") {
  fake_cache cache({0, 70}, {6, 6});
  fake_sequence s = cache.make();
  cache.pool.restore(s.pages, 3, (std::int64_t{1} << 39) + 5, 100);
  CHECK(cache.pool.in_use(0).used == 3);
  CHECK(cache.pool.truncate(s.pages, 90));
  cache.pool.prepare(s.pages, 90, 60);
  CHECK(cache.pool.in_use(0).used == 4);
  cache.pool.release(s.pages);
  check_no_leaks(cache);
}

TEST_CASE("pages whose beginnings are gone do not fill the table of those that can be found") {
  // every sequence has a window, so that after loading there are no pages of the beginning
  fake_cache cache({70}, {7});
  for (std::uint64_t i = 0; i < 50; ++i) {
    fake_sequence s = with_text(cache, 250, i), loaded = cache.make();
    cache.save_and_load(s, loaded);
    cache.release(s);
    s = with_text(cache, 250, 100 + i);  // in the pages where the beginning was
    cache.release(s);
    cache.write(loaded, text(10, i));
    cache.release(loaded);
  }
  fake_sequence s = with_text(cache, 128, 1000);
  cache.release(s);
  CHECK(found(cache, text(128, 1000)) == 128);
}

TEST_CASE("sequences have what they were promised") {
  for (const std::int32_t context : {1, 64, 65, 300, 1000}) {
    for (const std::int32_t batch : {1, 16, 64, 200}) {
      CAPTURE(context, batch);
      const std::vector<std::int32_t> windows = {0, 1, 8, 64, 70, 200};
      std::vector<nibble::kv_group> groups;
      for (const std::int32_t w : windows) groups.push_back({.window = w, .layers = {}});
      const auto pages = nibble::pages_of_sessions(groups, context, batch, 3);
      REQUIRE(pages.size() == windows.size());
      CHECK(pages[0] == 3 * nibble::pages_for(context));
      fake_cache cache(windows, pages);
      std::vector<fake_sequence> all;
      for (std::uint64_t i = 0; i < 3; ++i) all.push_back(cache.make());
      const auto tokens = text(static_cast<std::size_t>(context), 1);
      for (std::size_t at = 0; at < tokens.size();) {
        const auto n = std::min(tokens.size() - at, static_cast<std::size_t>(batch));
        for (std::size_t i = 0; i < 3; ++i) {
          auto own = text(n, at * 3 + i);
          cache.write(all[i], own);
        }
        at += n;
      }
      for (const fake_sequence& s : all) CHECK(s.n() == context);
    }
  }
}
