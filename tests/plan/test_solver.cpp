// Placements against all placements of small chains, and what holds of large ones.
#include <cmath>
#include <cstdio>
#include <ctime>
#include <functional>
#include <nibble/base/bytes.hpp>
#include <nibble/base/error.hpp>
#include <random>
#include <string>

#include "catch.hpp"
#include "plan/solver.hpp"
#include "plan/solver_parts.hpp"

namespace {

using namespace nibble::literals;
using problem = nibble::placement_problem;

std::uint64_t at_random(std::mt19937_64& random, std::uint64_t below) {
  return random() % below;
}

// ---- small chains ----

struct reference {
  bool fits = false;
  double seconds = 0, share = 0;
};

double share_of(const problem& p, const std::vector<std::uint64_t>& used) {
  double share = 0;
  for (std::size_t m = 0; m < used.size(); ++m) {
    if (!p.memories[m].even || used[m] == 0) continue;
    share = std::max(share, double(used[m]) / double(p.memories[m].budget));
  }
  return share;
}

// Bytes in long double and seconds in the order of the definition, not as the solver has them.
bool count(const problem& p, const std::vector<std::int32_t>& place,
           std::vector<std::uint64_t>& used) {
  std::vector<long double> sum(p.memories.size());
  for (std::size_t q = 0; q < p.places.size(); ++q) {
    long double bytes = 0, scratch = 0;
    bool open = false;
    for (std::size_t b = 0; b < place.size(); ++b) {
      if (place[b] != std::int32_t(q)) continue;
      if (!p.blocks[b][q].allowed) return false;
      open = true, bytes += p.blocks[b][q].bytes;
      scratch = std::max(scratch, (long double)(p.blocks[b][q].scratch));
    }
    if (!open) continue;
    if (!p.common_ends.empty() && place.size() > 1 && place.front() == std::int32_t(q) &&
        place.back() == std::int32_t(q)) {
      bytes -= std::min({p.common_ends[q], p.blocks.front()[q].bytes, p.blocks.back()[q].bytes});
    }
    sum[std::size_t(p.places[q].memory)] += bytes + scratch + p.places[q].opening;
  }
  used.resize(sum.size());
  for (std::size_t m = 0; m < sum.size(); ++m) {
    if (sum[m] > p.memories[m].budget) return false;
    used[m] = std::uint64_t(sum[m]);
  }
  return true;
}

reference best_of_all(const problem& p) {
  reference best;
  std::vector<std::uint64_t> used;
  std::vector<std::pair<double, double>> fitting;  // seconds, share
  std::vector<std::int32_t> place(p.blocks.size());
  for (bool more = true; more;) {
    if (count(p, place, used)) {
      fitting.emplace_back(nibble::seconds_of(p, place), share_of(p, used));
    }
    more = false;
    for (auto& q : place) {
      if (++q < std::int32_t(p.places.size())) {
        more = true;
        break;
      }
      q = 0;
    }
  }
  if (fitting.empty()) return best;
  best = {true, std::min_element(fitting.begin(), fitting.end())->first, 1e300};
  for (const auto& [seconds, share] : fitting) {
    if (seconds <= best.seconds * (1 + 1e-9)) best.share = std::min(best.share, share);
  }
  return best;
}

// `coarse`: few different values, so that many placements are equal; `huge`: bytes near 2^64.
problem small_problem(std::mt19937_64& random, bool coarse, bool huge) {
  problem p;
  const auto blocks = 1 + at_random(random, 7), places = 1 + at_random(random, 4);
  const auto memories = 1 + at_random(random, places);
  const std::uint64_t unit = huge ? (std::uint64_t{1} << 61) : 1;
  const std::uint64_t sizes = huge ? 6 : coarse ? 4 : 50;
  const auto bytes = [&] { return at_random(random, sizes) * unit; };
  const auto rare = [&] { return at_random(random, 3) == 0 ? bytes() : 0; };
  const auto seconds = [&] {
    return coarse ? double(at_random(random, 4)) : double(at_random(random, 1000)) / 7;
  };
  const bool alike = at_random(random, 3) == 0;  // all places but the last
  for (std::size_t m = 0; m < memories; ++m) {
    // one draw a statement: the order of operands is the compiler's choice
    const std::uint64_t many = 1 + at_random(random, blocks);
    const std::uint64_t total = sizes * many / (1 + at_random(random, 3));
    p.memories.push_back({huge ? std::uint64_t(-1) - at_random(random, 5) * unit : total,
                          at_random(random, 2) == 0});
  }
  for (std::size_t q = 0; q < places; ++q) {
    const auto m = q < memories ? q : at_random(random, memories);
    p.places.push_back({std::int32_t(m), rare(), seconds() / 4, seconds() / 4});
  }
  for (std::size_t b = 0; b < blocks; ++b) {
    p.blocks.emplace_back();
    for (std::size_t q = 0; q < places; ++q) {
      p.blocks[b].push_back({at_random(random, 8) != 0, bytes(), rare(), seconds()});
    }
  }
  for (std::size_t i = 0; i < places * places; ++i) {
    p.crossing.push_back(i / places == i % places ? 0 : seconds() / 2);
  }
  if (at_random(random, 2) == 0) {
    for (std::size_t q = 0; q < places; ++q) p.common_ends.push_back(rare());
  }
  if (!alike) return p;
  const double crossing = seconds() / 2;
  for (std::size_t q = 1; q + 1 < places; ++q) {
    const auto m = std::size_t(p.places[q].memory);
    if (q < memories) p.memories[m] = p.memories[0], p.places[q] = p.places[0];
    p.places[q].memory = std::int32_t(m);
    for (auto& options : p.blocks) options[q] = options[0];
    if (!p.common_ends.empty()) p.common_ends[q] = p.common_ends[0];
  }
  for (std::size_t i = 0; i < places * places; ++i) {
    if (p.crossing[i] > 0) p.crossing[i] = crossing;
  }
  // and perhaps one thing that makes one of them different after all
  const auto q = at_random(random, places), b = at_random(random, blocks);
  switch (at_random(random, 10)) {
    case 0:
      p.places[q].leaving += 3;
      break;
    case 1:
      p.places[q].entering += 3;
      break;
    case 2:
      p.places[q].opening += unit;
      break;
    case 3:
      p.blocks[b][q].seconds += 1;
      break;
    case 4:
      p.blocks[b][q].bytes += unit;
      break;
    case 5:
      p.blocks[b][q].scratch += unit;
      break;
    case 6:
      if (q > 0) p.crossing[q] += 1;
      break;
    case 7:
      if (q > 0) p.crossing[q * places] += 1;
      break;
    case 8:
      p.memories[std::size_t(p.places[q].memory)].budget += huge ? 0 : 1;
      break;
    case 9:
      if (!p.common_ends.empty()) p.common_ends[q] += 1;
      break;
    default:
      break;
  }
  return p;
}

void check_against_all(const problem& p) {
  const auto answer = nibble::solve(p);
  const reference best = best_of_all(p);
  REQUIRE(answer.solution.has_value() == best.fits);
  REQUIRE(answer.impossible == !best.fits);
  if (!best.fits) return;
  const auto& s = *answer.solution;
  std::vector<std::uint64_t> used;
  REQUIRE(count(p, s.place, used));
  REQUIRE(used == s.used);
  REQUIRE(s.proven);
  REQUIRE(s.least == s.seconds);
  REQUIRE(s.seconds == nibble::seconds_of(p, s.place));
  REQUIRE(std::abs(s.seconds - best.seconds) <= 2e-9 * best.seconds);
  REQUIRE(s.proven_even);
  REQUIRE(s.share == share_of(p, used));
  REQUIRE(s.share <= best.share * (1 + 2e-9));
  REQUIRE(nibble::solve(p).solution->place == s.place);
}

}  // namespace

TEST_CASE("solver: the best of all placements of small chains") {
  for (const bool coarse : {true, false}) {
    for (std::uint64_t seed = 0; seed < 5000; ++seed) {
      std::mt19937_64 random(seed);
      CAPTURE(coarse, seed);
      check_against_all(small_problem(random, coarse, seed % 8 == 7));
    }
  }
}

TEST_CASE("solver: more memory is never slower") {
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    std::mt19937_64 random(seed);
    CAPTURE(seed);
    problem p = small_problem(random, seed % 2 == 0, false);
    const auto before = nibble::solve(p);
    p.memories[at_random(random, p.memories.size())].budget += 1 + at_random(random, 20);
    const auto after = nibble::solve(p);
    if (!before.solution) continue;
    REQUIRE(after.solution);
    REQUIRE(after.solution->seconds <= before.solution->seconds * (1 + 1e-9));
  }
}

TEST_CASE("solver: with next to no work it claims only what it knows") {
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    std::mt19937_64 random(seed);
    CAPTURE(seed);
    const problem p = small_problem(random, seed % 2 == 0, seed % 8 == 7);
    const auto answer = nibble::solve(p, {.work = 0, .even_work = 0, .work_to_fit = 0});
    const reference best = best_of_all(p);
    if (answer.impossible) REQUIRE(!best.fits);
    if (!answer.solution) continue;
    REQUIRE(best.fits);
    const auto& s = *answer.solution;
    std::vector<std::uint64_t> used;
    REQUIRE(count(p, s.place, used));
    REQUIRE(s.least <= best.seconds * (1 + 1e-9));
    REQUIRE(s.seconds >= best.seconds * (1 - 1e-9));
    if (s.proven) REQUIRE(s.seconds <= best.seconds * (1 + 2e-9));
    if (s.proven_even && s.proven) REQUIRE(s.share <= best.share * (1 + 2e-9));
  }
}

TEST_CASE("solver: a chain whose ends share bytes at one place only if both lie there") {
  problem p;
  p.memories = {{100, false}, {1000, false}};
  p.places = {{0, 0, 0, 0}, {1, 0, 0, 0}};
  p.blocks = {{{true, 60, 0, 1}, {true, 60, 0, 5}}, {{true, 60, 0, 1}, {true, 60, 0, 5}}};
  p.crossing = {0, 1, 1, 0};
  CHECK(nibble::solve(p).solution->seconds == 7);
  p.common_ends = {60, 60};
  CHECK(nibble::solve(p).solution->seconds == 2);
  CHECK(nibble::solve(p).solution->used == std::vector<std::uint64_t>{60, 0});
}

TEST_CASE("solver: lists that disagree are refused") {
  std::mt19937_64 random(1);
  const problem good = small_problem(random, true, false);
  CHECK_NOTHROW(nibble::solve(good));
  const auto refused = [&](auto&& spoil) {
    problem p = good;
    spoil(p);
    CHECK_THROWS_AS(nibble::solve(p), nibble::error);
  };
  refused([](problem& p) { p.blocks.clear(); });
  refused([](problem& p) { p.blocks[0].pop_back(); });
  refused([](problem& p) { p.crossing.push_back(0); });
  refused([](problem& p) { p.places.clear(); });
  refused([](problem& p) { p.places[0].memory = 99; });
  refused([](problem& p) { p.places[0].memory = -1; });
  refused([](problem& p) { p.common_ends.assign(p.places.size() + 1, 0); });
}

// ---- large chains, as models give them ----

namespace {

struct card {
  std::uint64_t memory = 0;
  double bytes_per_second = 1e12;
};

struct shape {
  const char* name = "";
  std::size_t layers = 80;
  double attention = 151e6, feed_forward = 705e6, vocabulary = 1051e6;  // weights
  double active = 1;          // share of the feed-forward half's weights that a token reads
  int mix = 1;                // 0: all layers alike; 1, 2: some halves larger
  std::uint64_t kv = 32_MiB;  // per layer
  bool tied = false;
};

// Bytes of a layer's halves: the mixes of K-quants give some layers more bits.
std::pair<double, double> halves(const shape& s, std::size_t layer) {
  const std::size_t n = s.layers;
  const bool more = layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
  double attention = s.attention * 4.5 / 8, feed_forward = s.feed_forward * 4.5 / 8;
  if (s.mix > 0 && more) attention *= 1.03, feed_forward *= 1.153;
  if (s.mix > 1 && layer % 5 == 1) attention *= 1.07;
  if (s.mix > 1 && layer < 3) feed_forward *= 0.7;
  return {attention, feed_forward};
}

// Cards, the CPU, and the disk, whose blocks take room in RAM too, but less.
problem large_problem(const shape& s, const std::vector<card>& cards, std::uint64_t ram,
                      double crossing = 30e-6) {
  problem p;
  const std::size_t n = cards.size();
  for (const card& c : cards) p.memories.push_back({c.memory, true});
  p.memories.push_back({ram, false});
  for (std::size_t q = 0; q < n; ++q) p.places.push_back({std::int32_t(q), 300_MiB, 10e-6, 10e-6});
  for (int i = 0; i < 2; ++i) p.places.push_back({std::int32_t(n), 0, 0, 0});
  const auto add = [&](double weights, double read, std::uint64_t kv, std::uint64_t scratch) {
    auto& options = p.blocks.emplace_back();
    const auto bytes = std::uint64_t(weights) / 4096 * 4096;
    for (std::size_t q = 0; q < n + 2; ++q) {
      const bool disk = q == n + 1;
      const double speed = q < n ? cards[q].bytes_per_second : q == n ? 50e9 : 2.5e9;
      const double seconds = (disk ? 0 : q == n ? 5e-6 : 15e-6) + (read + double(kv) / 2) / speed;
      options.push_back({true, (disk ? 0 : bytes) + kv, scratch, seconds});
    }
  };
  const double ends = s.vocabulary * 6.5 / 8;
  add(ends, 10e3, 0, 20_MiB);
  for (std::size_t i = 0; i < s.layers; ++i) {
    const auto [attention, feed_forward] = halves(s, i);
    add(attention, attention, s.kv, 60_MiB);
    add(feed_forward, feed_forward * s.active, 0, 110_MiB);
  }
  add(ends, ends, 0, 250_MiB);
  for (std::size_t i = 0; i < (n + 2) * (n + 2); ++i) {
    const bool disk = i / (n + 2) > n || i % (n + 2) > n;
    p.crossing.push_back(i / (n + 2) == i % (n + 2) ? 0 : disk ? crossing * 1.5 : crossing);
  }
  if (s.tied) p.common_ends.assign(n + 2, std::uint64_t(ends) / 4096 * 4096);
  return p;
}

double total_bytes(const problem& p) {
  double sum = 0;
  for (const auto& options : p.blocks) sum += double(options[0].bytes);
  return sum;
}

struct named_problem {
  std::string name;
  problem p;
};

std::uint64_t part(double bytes, double share) {
  return std::uint64_t(bytes * share);
}

std::vector<named_problem> large_problems() {
  const std::vector<shape> shapes = {{.name = "8B-32",
                                      .layers = 32,
                                      .attention = 42e6,
                                      .feed_forward = 176e6,
                                      .vocabulary = 525e6},
                                     {.name = "70B-80"},
                                     {.name = "70B-80-mix2", .mix = 2},
                                     {.name = "3B-28-tied",
                                      .layers = 28,
                                      .attention = 25e6,
                                      .feed_forward = 75e6,
                                      .vocabulary = 394e6,
                                      .kv = 16_MiB,
                                      .tied = true},
                                     {.name = "405B-126",
                                      .layers = 126,
                                      .attention = 570e6,
                                      .feed_forward = 2617e6,
                                      .vocabulary = 2101e6,
                                      .mix = 0},
                                     {.name = "MoE-48",
                                      .layers = 48,
                                      .attention = 38e6,
                                      .feed_forward = 604e6,
                                      .vocabulary = 311e6,
                                      .active = 1.0 / 16},
                                     {.name = "MoE-94-mix2",
                                      .layers = 94,
                                      .attention = 71e6,
                                      .feed_forward = 2416e6,
                                      .vocabulary = 622e6,
                                      .active = 1.0 / 16,
                                      .mix = 2}};
  std::vector<named_problem> out;
  for (const shape& s : shapes) {
    const double all = total_bytes(large_problem(s, {{1, 1e12}}, 1));
    const auto add = [&](const std::string& name, std::vector<card> cards, double ram,
                         double crossing = 30e-6) {
      out.push_back({s.name + (" " + name), large_problem(s, cards, part(all, ram), crossing)});
    };
    for (const double share : {0.05, 0.2, 0.37, 0.5, 0.73, 0.9, 0.97, 1.2}) {
      add("1 card " + std::to_string(int(share * 100)) + " %", {{part(all, share), 1e12}}, 1.2,
          share > 0.5 ? 20e-6 : 50e-6);
    }
    add("1 card 30 %, RAM 50 %", {{part(all, 0.3), 1e12}}, 0.5);
    for (const double share : {0.2, 0.4, 0.6, 0.8}) {
      add("2 equal of " + std::to_string(int(share * 100)) + " %",
          {{part(all, share), 1e12}, {part(all, share), 1e12}}, 1.2);
    }
    add("24+8: 45 %, 15 %", {{part(all, 0.45), 1e12}, {part(all, 0.15), 4e11}}, 1.2);
    add("24+8: 75 %, 35 %", {{part(all, 0.75), 1e12}, {part(all, 0.35), 4e11}}, 1.2);
    for (const double share : {0.08, 0.16, 0.4}) {
      add("8 equal of " + std::to_string(int(share * 100)) + " %",
          std::vector<card>(8, card{part(all, share) + 600_MiB, 1e12}), 1.2);
    }
  }
  return out;
}

}  // namespace

TEST_CASE("solver: large chains") {
  for (const auto& [name, p] : large_problems()) {
    INFO(name);
    const auto answer = nibble::solve(p);
    REQUIRE(answer.solution);
    const auto& s = *answer.solution;
    std::vector<std::uint64_t> used;
    REQUIRE(count(p, s.place, used));
    CHECK(used == s.used);
    CHECK(s.least <= s.seconds);
    CHECK(s.proven == (s.least == s.seconds));
    CHECK(nibble::solve(p).solution->place == s.place);
    const std::int32_t cpu = std::int32_t(p.places.size()) - 2;
    // no block lies elsewhere that a card has room for and would be faster with
    auto moved = s.place;
    for (std::size_t b = 0; b < moved.size(); ++b) {
      for (std::int32_t card = 0; card < cpu; ++card) {
        moved[b] = card;
        if (!count(p, moved, used)) continue;
        CAPTURE(b, card);
        CHECK(nibble::seconds_of(p, moved) >= s.seconds * (1 - 1e-9));
      }
      moved[b] = s.place[b];
    }
  }
}

TEST_CASE("solver: two blocks change places if that is faster and neither fits alone") {
  problem p;
  p.memories = {{100, false}, {1000, false}};
  p.places = {{0, 0, 0, 0}, {1, 0, 0, 0}};
  p.blocks.assign(7, {{true, 60, 5, 1}, {true, 60, 5, 3}});
  p.blocks[4][1].seconds = 9;  // would gain most
  p.crossing = {0, 0.25, 0.25, 0};
  nibble::solving::found_placement f{.place = {1, 0, 1, 1, 1, 1, 1}};
  f.seconds = nibble::seconds_of(p, f.place);
  nibble::solving::settle(p, f);
  CHECK(f.place == std::vector<std::int32_t>{1, 0, 1, 1, 1, 1, 1});
  nibble::solving::exchange(p, f, 0);
  CHECK(f.place == std::vector<std::int32_t>{1, 0, 1, 1, 1, 1, 1});
  nibble::solving::exchange(p, f, 1 << 20);
  CHECK(f.place == std::vector<std::int32_t>{1, 1, 1, 1, 0, 1, 1});
  CHECK(f.seconds == nibble::seconds_of(p, f.place));
}

TEST_CASE("solver: small changes keep a placement within its budgets and make it no slower") {
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    std::mt19937_64 random(seed);
    CAPTURE(seed);
    const problem p = small_problem(random, seed % 2 == 0, seed % 8 == 7);
    nibble::solving::found_placement f;
    std::vector<std::uint64_t> used;
    for (int tries = 0; tries < 50; ++tries) {
      f.place.clear();
      for (std::size_t b = 0; b < p.blocks.size(); ++b) {
        f.place.push_back(static_cast<std::int32_t>(at_random(random, p.places.size())));
      }
      if (count(p, f.place, used)) break;
    }
    if (!count(p, f.place, used)) continue;
    const nibble::solving::usage before(p, f.place);
    REQUIRE(before.fits());
    REQUIRE(before.used() == used);
    const double seconds = f.seconds = nibble::seconds_of(p, f.place);
    nibble::solving::exchange(p, f, 100'000);
    REQUIRE(count(p, f.place, used));
    REQUIRE(f.seconds <= seconds);
    REQUIRE(f.seconds == nibble::seconds_of(p, f.place));
    REQUIRE(f.seconds >= best_of_all(p).seconds * (1 - 1e-9));
  }
}

TEST_CASE("solver: memories that are nearly full are filled nonetheless") {
  // on disk everything fits; a search that fills the memory first finds no way to do it
  problem p = large_problem({.name = "MoE",
                             .layers = 94,
                             .attention = 71e6,
                             .feed_forward = 2416e6,
                             .vocabulary = 622e6,
                             .active = 1.0 / 16},
                            {{22'000_MiB, 1e12}, {22'000_MiB, 1e12}}, 28'000_MiB);
  for (auto& options : p.blocks) options.back().scratch += 4'200_MiB;  // a ring of buffers
  p.blocks.front().back().allowed = false;
  const auto answer = nibble::solve(p);
  REQUIRE(answer.solution);
  CHECK(answer.work < 2'000'000);
  std::vector<std::uint64_t> used;
  CHECK(count(p, answer.solution->place, used));
}

TEST_CASE("solver: too little memory is seen without a search") {
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    std::mt19937_64 random(seed);
    CAPTURE(seed);
    const problem p = small_problem(random, seed % 2 == 0, seed % 8 == 7);
    if (!nibble::may_fit(p)) CHECK_FALSE(best_of_all(p).fits);
  }
  problem p;
  p.memories = {{100, false}, {1000, false}};
  p.places = {{0, 10, 0, 0}, {1, 0, 0, 0}};
  p.blocks = {{{true, 60, 0, 1}, {false, 0, 0, 0}}, {{true, 30, 5, 1}, {true, 30, 0, 1}}};
  p.crossing = {0, 1, 1, 0};
  CHECK(nibble::may_fit(p));
  p.blocks[1][1].allowed = false;
  CHECK(nibble::may_fit(p));
  p.places[0].opening = 11;
  CHECK_FALSE(nibble::may_fit(p));
}

TEST_CASE("solver: what fits the cards lies there, as evenly as layers allow") {
  for (const auto& [name, p] : large_problems()) {
    const double all = total_bytes(p), each = double(p.memories[0].budget);
    const std::size_t cards = p.memories.size() - 1;
    bool equal = true;
    for (std::size_t m = 1; m < cards; ++m) equal &= p.memories[m].budget == p.memories[0].budget;
    std::uint64_t largest = 0;
    for (const auto& options : p.blocks) largest = std::max(largest, options[0].bytes);
    // room enough even if each card lacks opening, scratch and the end of a block
    if (!equal || double(cards) * (each - double(550_MiB + largest)) < all) continue;
    INFO(name);
    const auto s = *nibble::solve(p).solution;
    CHECK(std::all_of(s.place.begin(), s.place.end(),
                      [&](std::int32_t q) { return std::size_t(q) < cards; }));
    if (cards != 2) continue;
    const auto [low, high] = std::minmax(s.used[0], s.used[1]);
    CHECK(high - low <= largest);
  }
}

TEST_CASE("solver: times of large chains", "[.timing]") {
  std::printf("%-34s %6s %8s %9s %10s %8s %s\n", "", "blocks", "ms", "work", "seconds", "gap %",
              "proven, evenness proven");
  for (const auto& [name, p] : large_problems()) {
    const auto start = std::clock();
    const auto answer = nibble::solve(p);
    const double ms = 1e3 * double(std::clock() - start) / CLOCKS_PER_SEC;
    if (!answer.solution) {
      std::printf("%-34s %6zu %8.1f %9lld %s\n", name.c_str(), p.blocks.size(), ms,
                  static_cast<long long>(answer.work),
                  answer.impossible ? "impossible" : "not known");
      continue;
    }
    const auto& s = *answer.solution;
    std::printf("%-34s %6zu %8.1f %9lld %10.6f %8.4f %s %s\n", name.c_str(), p.blocks.size(), ms,
                static_cast<long long>(answer.work), s.seconds, 100 * (1 - s.least / s.seconds),
                s.proven ? "yes" : "NO ", s.proven_even ? "yes" : "NO");
  }
}
