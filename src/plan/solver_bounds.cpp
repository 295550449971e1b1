// What may come after each block, and the least that completes a label.
#include "plan/solver_parts.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace solving {

chain::chain(const placement_problem& of, std::vector<std::uint64_t> budgets)
    : problem(of),
      budget(std::move(budgets)),
      blocks(of.blocks.size()),
      places(of.places.size()),
      memories(of.memories.size()),
      work(static_cast<std::int64_t>(memories) + 4) {
  read_options();
  find_kinds();
  look_ahead();
}

void chain::read_options() {
  lying.resize(memories);
  for (std::size_t q = 0; q < places; ++q) {
    memory.push_back(static_cast<std::size_t>(problem.places[q].memory));
    lying[memory[q]] |= bit(q);
    saving.push_back(saving_at(problem, q));
  }
  for (std::size_t b = 0; b < blocks; ++b) {
    for (std::size_t q = 0; q < places; ++q) {
      const auto& option = problem.blocks[b][q];
      // a last block that shares all its bytes with the first may still fit
      const std::uint64_t least = option.bytes - (b + 1 == blocks ? saving[q] : 0);
      const auto opening = checked_add(problem.places[q].opening, option.scratch);
      const auto alone = opening ? checked_add(*opening, least) : std::nullopt;
      allowed.push_back(option.allowed && alone && *alone <= budget[memory[q]]);
      bytes.push_back(option.bytes);
      scratch.push_back(option.scratch);
      seconds.push_back(option.seconds);
    }
  }
}

bool chain::twins(std::size_t a, std::size_t b) const {
  const auto& [p, q] = std::tie(problem.places[a], problem.places[b]);
  const auto& [m, n] = std::tie(problem.memories[memory[a]], problem.memories[memory[b]]);
  if (lying[memory[a]] != bit(a) || lying[memory[b]] != bit(b) || m.even != n.even ||
      budget[memory[a]] != budget[memory[b]] || p.opening != q.opening || saving[a] != saving[b] ||
      p.entering != q.entering || p.leaving != q.leaving) {
    return false;
  }
  const auto& cross = problem.crossing;
  if (cross[a * places + b] != cross[b * places + a]) return false;
  for (std::size_t r = 0; r < places; ++r) {
    if (r == a || r == b) continue;
    if (cross[a * places + r] != cross[b * places + r]) return false;
    if (cross[r * places + a] != cross[r * places + b]) return false;
  }
  return std::all_of(problem.blocks.begin(), problem.blocks.end(), [&](const auto& options) {
    const auto& [s, t] = std::tie(options[a], options[b]);
    return s.allowed == t.allowed && s.bytes == t.bytes && s.scratch == t.scratch &&
           s.seconds == t.seconds;
  });
}

void chain::find_kinds() {
  price.resize(memories);
  std::iota(price.begin(), price.end(), std::size_t{0});
  firsts = {0};
  for (std::size_t q = 0; q < places; ++q) {
    std::size_t found = leader.size();
    std::int32_t previous = -1;
    for (std::size_t k = 0; k < leader.size() && previous < 0; ++k) {
      for (std::size_t r = 0; r < q; ++r) {
        if (kind[r] != k) continue;
        if (!twins(r, q)) break;  // all of a kind must be twins of each other
        previous = static_cast<std::int32_t>(r), found = k;
      }
    }
    if (found == leader.size()) {
      leader.push_back(q), members.push_back(0);
      if (saving[q] > 0) firsts.push_back(found + 1);
    }
    kind.push_back(found), before.push_back(previous), ++members[found];
    if (previous >= 0) price[memory[q]] = memory[leader[found]];
  }
}

void chain::look_ahead() {
  for (std::size_t q = 0; q < places; ++q) {
    std::uint64_t others = 0;
    for (std::size_t b = 0; b + 1 < blocks; ++b) {
      if (allowed[at(b, q)]) others = std::max(others, scratch[at(b, q)]);
    }
    usual.push_back(others), extra.push_back(minus(scratch[at(blocks - 1, q)], others));
  }
  most_scratch.resize(blocks * places), reachable.resize(blocks * places);
  most_bytes.resize(blocks * memories), need.resize(blocks);
  least_bytes.assign(blocks * memories, most), entry.assign(blocks * memories, most);
  std::vector<std::uint64_t> least_scratch(places, most);
  for (std::size_t b = blocks - 1; b-- > 0;) {
    std::vector<std::uint64_t> greatest(memories);
    std::uint64_t least = most;
    for (std::size_t m = 0; m < memories; ++m) least_bytes[in(b, m)] = least_bytes[in(b + 1, m)];
    for (std::size_t q = 0; q < places; ++q) {
      const std::size_t m = memory[q], next = at(b + 1, q);
      most_scratch[at(b, q)] = most_scratch[next], reachable[at(b, q)] = reachable[next];
      if (allowed[next]) {
        const auto few = bytes[next] - (b + 2 == blocks ? saving[q] : 0);
        reachable[at(b, q)] = 1;
        most_scratch[at(b, q)] = std::max(most_scratch[at(b, q)], scratch[next]);
        least_scratch[q] = std::min(least_scratch[q], scratch[next]);
        greatest[m] = std::max(greatest[m], plus(bytes[next], b + 2 == blocks ? extra[q] : 0));
        least_bytes[in(b, m)] = std::min(least_bytes[in(b, m)], few);
        least = std::min(least, few);
      }
      if (!reachable[at(b, q)]) continue;
      entry[in(b, m)] = std::min(
          entry[in(b, m)], plus(problem.places[q].opening, std::min(least_scratch[q], usual[q])));
    }
    need[b] = plus(need[b + 1], least);
    for (std::size_t m = 0; m < memories; ++m) {
      most_bytes[in(b, m)] = plus(most_bytes[in(b + 1, m)], greatest[m]);
    }
  }
}

bounds::bounds(const chain& of, std::vector<double> prices_of)
    : prices(std::move(prices_of)), c_(of) {
  for (std::size_t m = 0; m < c_.memories; ++m) {
    if (prices[m] > 0) dearest_.push_back(m);
  }
  std::stable_sort(dearest_.begin(), dearest_.end(),
                   [&](auto a, auto b) { return prices[a] > prices[b]; });
  coming_.resize(c_.blocks);
  for (std::size_t b = c_.blocks - 1; b-- > 0;) {
    std::uint64_t greatest = 0;
    for (std::size_t q = 0; q < c_.places; ++q) {
      if (!c_.allowed[c_.at(b + 1, q)] || prices[c_.memory[q]] <= 0) continue;
      greatest =
          std::max(greatest, plus(c_.bytes[c_.at(b + 1, q)], b + 2 == c_.blocks ? c_.extra[q] : 0));
    }
    coming_[b] = coming_[b + 1] + static_cast<double>(greatest);
  }
  for (std::size_t from = 0; from < c_.leader.size(); ++from) {
    for (std::size_t to = 0; to < c_.leader.size(); ++to) cross_.push_back(find_cross(from, to));
  }
  table_.resize((c_.firsts.back() + 1) * c_.blocks * c_.leader.size() * (c_.memories + 1));
  for (const std::size_t first : c_.firsts) fill(first);
}

double bounds::cost(std::size_t first, std::size_t block, std::size_t kind) const {
  const std::size_t q = c_.leader[kind];
  return c_.seconds[c_.at(block, q)] + prices[c_.memory[q]] * c_.weight(block, q, first);
}

// Between kinds, or, if they are the same, between two places of the kind.
double bounds::find_cross(std::size_t from, std::size_t to) const {
  const std::size_t a = c_.leader[from];
  std::size_t b = c_.leader[to];
  if (from == to) {
    if (c_.members[from] < 2) return never;
    do ++b;
    while (c_.kind[b] != to);
  }
  return c_.problem.crossing[a * c_.places + b];
}

void bounds::relax(std::size_t from, std::size_t to, double here, const double* next,
                   double* out) const {
  const std::size_t last = c_.memories;
  const double over = here + cross(from, to);
  const bool same = c_.memory[c_.leader[from]] == c_.memory[c_.leader[to]];
  if (same) {
    const double staying = from == to ? here : over;
    for (std::size_t j = 0; j <= last; ++j) out[j] = std::min(out[j], next[j] + staying);
    if (from != to || over == never) return;
  }
  for (std::size_t j = 0; j < last; ++j) out[j + 1] = std::min(out[j + 1], next[j] + over);
  out[last] = std::min(out[last], next[last] + over);
}

void bounds::fill(std::size_t first) {
  std::vector<double> costs(c_.leader.size());  // of the block behind
  for (std::size_t b = c_.blocks; b-- > 0;) {
    for (std::size_t to = 0; b + 1 < c_.blocks && to < costs.size(); ++to) {
      costs[to] = cost(first, b + 1, to);
    }
    for (std::size_t k = 0; k < c_.leader.size(); ++k) {
      double* out = const_cast<double*>(row(first, b, k));
      std::fill(out, out + c_.memories + 1, never);
      if (b + 1 == c_.blocks) {
        out[0] = c_.problem.places[c_.leader[k]].leaving;
        continue;
      }
      for (std::size_t to = 0; to < c_.leader.size(); ++to) {
        if (!c_.allowed[c_.at(b + 1, c_.leader[to])]) continue;
        relax(k, to, costs[to], row(first, b + 1, to), out);
      }
    }
  }
}

double bounds::remaining(const label& l, std::size_t block, std::size_t m, state s) const {
  if (l.closed & bit(m)) return 0;
  std::uint64_t room = minus(c_.budget[m], s.used[m]);
  for_bits(c_.lying[m] & l.opened,
           [&](std::size_t q) { room = plus(room, minus(s.scratch[q], c_.usual[q])); });
  if ((l.opened & c_.lying[m]) == 0) room = minus(room, c_.entry[c_.in(block, m)]);
  return static_cast<double>(std::min(room, c_.most_bytes[c_.in(block, m)]));
}

credit bounds::credit_of(const label& l, std::size_t block, state s) const {
  credit c;
  const std::size_t here = c_.memory[l.place];
  double left = coming_[block];
  for (const std::size_t m : dearest_) {
    const double room = remaining(l, block, m, s);
    c.capped += prices[m] * std::min(room, left);
    left -= std::min(room, left);
    if (m == here) {
      c.current = prices[m] * room;
      continue;
    }
    std::size_t i = c.count++;
    for (; i > 0 && c.others[i - 1].seconds < prices[m] * room; --i) c.others[i] = c.others[i - 1];
    c.others[i] = {prices[m] * room, m};
  }
  for (std::size_t m = 0; m < c_.memories; ++m) {
    if (prices[m] <= 0 && m != here) c.others[c.count++] = {0, m};
  }
  return c;
}

double bounds::of(const label& l, std::size_t block, const credit& c, std::size_t* entries) const {
  const double* v = row(l.first, block, c_.kind[l.place]);
  double best = never, worth = c.current;
  for (std::size_t j = 0; j <= c_.memories; ++j) {
    const double seconds = v[j] - std::min(worth, c.capped);
    if (seconds < best && entries != nullptr) *entries = j;
    best = std::min(best, seconds);
    if (j < c.count) worth += c.others[j].seconds;
  }
  return l.seconds + best - 1e-13 * c.capped;  // less than the sums above were rounded by
}

double bounds::through(const label& l, std::size_t block, const credit& c, std::size_t i) const {
  const double* v = row(l.first, block, c_.kind[l.place]);
  double best = never, worth = c.current + c.others[i].seconds;
  std::size_t next = 0;
  for (std::size_t j = 1; j <= c_.memories; ++j) {
    best = std::min(best, v[j] - std::min(worth, c.capped));
    if (next == i) ++next;
    if (next < c.count) worth += c.others[next++].seconds;
  }
  return l.seconds + best - 1e-13 * c.capped;
}

void bounds::follow(const label& l, std::size_t block, std::size_t entries,
                    std::vector<double>& use) const {
  std::size_t kind = c_.kind[l.place];
  std::vector<double> out(c_.memories + 1);
  for (std::size_t b = block + 1; b < c_.blocks; ++b) {
    double best = never;
    std::size_t best_kind = kind, best_entries = entries;
    for (std::size_t to = 0; to < c_.leader.size(); ++to) {
      // all ways are relaxed one by one: which value of the next row did this one come from?
      if (!c_.allowed[c_.at(b, c_.leader[to])]) continue;
      std::fill(out.begin(), out.end(), never);
      relax(kind, to, cost(l.first, b, to), row(l.first, b, to), out.data());
      if (!(out[entries] < best)) continue;
      best = out[entries], best_kind = to;
      const double* next = row(l.first, b, to);
      const double here = cost(l.first, b, to), over = here + cross(kind, to);
      const bool same = c_.memory[c_.leader[kind]] == c_.memory[c_.leader[to]];
      best_entries = entries;
      if ((same && best == next[entries] + (kind == to ? here : over)) || entries == 0) continue;
      if (best == next[entries - 1] + over) best_entries = entries - 1;
    }
    kind = best_kind, entries = best_entries;
    const std::size_t q = c_.leader[kind];
    use[c_.price[c_.memory[q]]] += c_.weight(b, q, l.first);
  }
}

void bounds::add_excess(const label& l, std::size_t block, state s,
                        std::vector<double>& excess) const {
  const credit c = credit_of(l, block, s);
  std::size_t entries = 0;
  of(l, block, c, &entries);
  follow(l, block, entries, excess);
  double worth = c.current;
  for (std::size_t j = 0; j < std::min(entries, c.count); ++j) worth += c.others[j].seconds;
  double left = worth < c.capped ? static_cast<double>(most) * 2 : coming_[block];
  const auto pay = [&](std::size_t m) {
    const double bytes = std::min(left, remaining(l, block, m, s));
    excess[c_.price[m]] -= bytes;
    left -= bytes;
  };
  if (worth < c.capped) {
    pay(c_.memory[l.place]);
    for (std::size_t j = 0; j < std::min(entries, c.count); ++j) pay(c.others[j].memory);
  } else {
    for (const std::size_t m : dearest_) pay(m);
    for (std::size_t m = 0; m < c_.memories; ++m) {
      if (prices[m] <= 0) pay(m);
    }
  }
}

}  // namespace solving

}  // namespace nibble::inline NIBBLE_ABI
