// Small changes of a placement that make it faster: what a search that keeps few labels misses.
#include "plan/solver_parts.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace solving {

usage::usage(const placement_problem& problem, const std::vector<std::int32_t>& place)
    : p_(problem),
      place_(place.size(), problem.places.size()),
      at_(problem.places.size()),
      used_(problem.memories.size()) {
  for (std::size_t b = 0; b < place.size(); ++b) add(b, static_cast<std::size_t>(place[b]));
}

bool usage::both_ends_at(std::size_t place) const {
  return place_.size() > 1 && place_.front() == place && place_.back() == place;
}

void usage::add(std::size_t block, std::size_t place) {
  const auto& option = p_.blocks[block][place];
  wide& used = used_[static_cast<std::size_t>(p_.places[place].memory)];
  at_place& here = at_[place];
  if (here.blocks++ == 0) used.add(p_.places[place].opening);
  if (!here.scratch.empty()) used.subtract(here.scratch.rbegin()->first);
  ++here.scratch[option.scratch];
  used.add(here.scratch.rbegin()->first);
  used.add(option.bytes);
  place_[block] = place;
  const bool end = block == 0 || block + 1 == place_.size();
  if (end && both_ends_at(place)) used.subtract(saving_at(p_, place));
}

void usage::remove(std::size_t block) {
  const std::size_t place = place_[block];
  const auto& option = p_.blocks[block][place];
  wide& used = used_[static_cast<std::size_t>(p_.places[place].memory)];
  at_place& here = at_[place];
  const bool end = block == 0 || block + 1 == place_.size();
  if (end && both_ends_at(place)) used.add(saving_at(p_, place));
  used.subtract(option.bytes);
  used.subtract(here.scratch.rbegin()->first);
  const auto same = here.scratch.find(option.scratch);
  if (--same->second == 0) here.scratch.erase(same);
  if (!here.scratch.empty()) used.add(here.scratch.rbegin()->first);
  if (--here.blocks == 0) used.subtract(p_.places[place].opening);
  place_[block] = p_.places.size();
}

void usage::move(std::size_t block, std::size_t to) {
  remove(block), add(block, to);
}

bool usage::fits() const {
  for (std::size_t m = 0; m < used_.size(); ++m) {
    if (used_[m].high != 0 || used_[m].low > p_.memories[m].budget) return false;
  }
  return true;
}

std::uint64_t usage::lacking(std::size_t begin, std::size_t end, std::size_t to) const {
  const auto m = static_cast<std::size_t>(p_.places[to].memory);
  if (begin == 0 || end == place_.size() || used_[m].high != 0) return 0;
  wide sum = used_[m];
  for (std::size_t b = begin; b < end; ++b) {
    const std::size_t q = place_[b];
    if (q == to) continue;
    sum.add(p_.blocks[b][to].bytes);
    if (static_cast<std::size_t>(p_.places[q].memory) != m) continue;
    sum.subtract(p_.blocks[b][q].bytes);
    // what is shared where it was may get less
    const auto& [scratch, blocks] = *at_[q].scratch.rbegin();
    if (blocks <= end - begin) sum.subtract(scratch), sum.subtract(p_.places[q].opening);
  }
  if (sum.high == most) return 0;  // less than nothing
  return sum.high != 0 ? most : minus(sum.low, p_.memories[m].budget);
}

std::vector<std::uint64_t> usage::used() const {
  std::vector<std::uint64_t> bytes;
  for (const wide& sum : used_) bytes.push_back(sum.low);
  return bytes;
}

namespace {

constexpr std::size_t max_move = 4;  // blocks that are moved together

// Blocks [begin, end) going to one place.
struct change {
  std::size_t begin = 0, end = 0, to = 0;
  double seconds = 0;         // that all takes longer by
  std::uint64_t bytes = 0;    // that it makes free in the memory that is looked at
  std::uint64_t lacking = 0;  // that there are too few of where it goes

  bool touches(const change& other) const { return begin <= other.end && other.begin <= end; }
};

class mover {
 public:
  mover(const placement_problem& p, found_placement& best)
      : p_(p), best_(best), now_(p, best.place) {}

  // Makes each change that fits and is faster, until there is none.
  void settle();
  // Makes the best pair of changes of which one gives the other its room; whether there is one.
  bool exchange(std::int64_t& work);

 private:
  using run = std::array<std::size_t, max_move>;

  bool move_run(std::size_t begin, std::size_t end, std::size_t to);
  double seconds_if(std::size_t begin, std::size_t end, std::size_t to) const;
  double seconds_now(std::size_t begin, std::size_t end) const;
  bool allowed(std::size_t begin, std::size_t end, std::size_t to) const;
  run apply(const change& c);
  void revert(const change& c, const run& old);
  std::vector<change> changes() const;
  std::uint64_t freed(const change& c, std::size_t memory) const;
  // Those that take bytes out of a memory, the cheapest first.
  std::vector<change> leaving(const std::vector<change>& all, std::size_t memory) const;
  // Seconds that both together take longer by; `never` if they do not fit.
  double together(const change& one, const change& other);
  void accept();

  std::size_t memory_of(std::size_t place) const {
    return static_cast<std::size_t>(p_.places[place].memory);
  }

  const placement_problem& p_;
  found_placement& best_;
  usage now_;
};

// That depend on where the blocks [begin, end) lie. place(b): of those and their neighbours.
template <typename Place>
double seconds_of_run(const placement_problem& p, std::size_t begin, std::size_t end,
                      Place&& place) {
  const std::size_t blocks = p.blocks.size();
  double sum = 0;
  for (std::size_t b = begin; b < end; ++b) {
    const std::size_t q = place(b);
    sum += p.blocks[b][q].seconds + (b == 0 ? p.places[q].entering : 0);
    sum += b + 1 == blocks ? p.places[q].leaving : 0;
  }
  for (std::size_t b = std::max<std::size_t>(begin, 1); b < std::min(end + 1, blocks); ++b) {
    sum += p.crossing[place(b - 1) * p.places.size() + place(b)];
  }
  return sum;
}

double mover::seconds_now(std::size_t begin, std::size_t end) const {
  return seconds_of_run(p_, begin, end, [&](std::size_t b) { return now_.place(b); });
}

double mover::seconds_if(std::size_t begin, std::size_t end, std::size_t to) const {
  return seconds_of_run(p_, begin, end,
                        [&](std::size_t b) { return b >= begin && b < end ? to : now_.place(b); });
}

bool mover::allowed(std::size_t begin, std::size_t end, std::size_t to) const {
  for (std::size_t b = begin; b < end; ++b) {
    if (!p_.blocks[b][to].allowed) return false;
  }
  return true;
}

mover::run mover::apply(const change& c) {
  run old{};
  for (std::size_t b = c.begin; b < c.end; ++b) {
    old[b - c.begin] = now_.place(b);
    now_.move(b, c.to);
  }
  return old;
}

void mover::revert(const change& c, const run& old) {
  for (std::size_t b = c.begin; b < c.end; ++b) now_.move(b, old[b - c.begin]);
}

void mover::accept() {
  for (std::size_t b = 0; b < best_.place.size(); ++b) {
    best_.place[b] = static_cast<std::int32_t>(now_.place(b));
  }
  best_.seconds = seconds_of(p_, best_.place);
  best_.share = greatest_share(p_, now_.used().data());
}

bool mover::move_run(std::size_t begin, std::size_t end, std::size_t to) {
  if (!(seconds_if(begin, end, to) < seconds_now(begin, end) - equal * best_.seconds)) return false;
  if (!allowed(begin, end, to) || now_.lacking(begin, end, to) > 0) return false;
  const change c{.begin = begin, .end = end, .to = to};
  const run old = apply(c);
  if (now_.fits()) {
    accept();
    return true;
  }
  revert(c, old);
  return false;
}

void mover::settle() {
  const std::size_t blocks = p_.blocks.size();
  for (bool better = true; better;) {
    better = false;
    for (std::size_t n = 1; n <= std::min(max_move, blocks); ++n) {
      for (std::size_t b = 0; b + n <= blocks; ++b) {
        for (std::size_t q = 0; q < p_.places.size(); ++q) better |= move_run(b, b + n, q);
      }
    }
  }
}

std::vector<change> mover::changes() const {
  const std::size_t blocks = p_.blocks.size();
  std::vector<change> all;
  for (std::size_t n = 1; n <= std::min(max_move, blocks); ++n) {
    for (std::size_t b = 0; b + n <= blocks; ++b) {
      for (std::size_t q = 0; q < p_.places.size(); ++q) {
        // ends that stay would make it the change of a shorter run
        if (now_.place(b) == q || now_.place(b + n - 1) == q || !allowed(b, b + n, q)) continue;
        all.push_back({.begin = b,
                       .end = b + n,
                       .to = q,
                       .seconds = seconds_if(b, b + n, q) - seconds_now(b, b + n),
                       .lacking = now_.lacking(b, b + n, q)});
      }
    }
  }
  std::sort(all.begin(), all.end(), [](const change& a, const change& b) {
    return std::tie(a.seconds, a.begin, a.end, a.to) < std::tie(b.seconds, b.begin, b.end, b.to);
  });
  return all;
}

std::uint64_t mover::freed(const change& c, std::size_t memory) const {
  std::uint64_t before = 0, after = 0;
  for (std::size_t b = c.begin; b < c.end; ++b) {
    const std::size_t q = now_.place(b);
    if (memory_of(q) == memory) before = plus(before, p_.blocks[b][q].bytes);
    if (memory_of(c.to) == memory) after = plus(after, p_.blocks[b][c.to].bytes);
  }
  return minus(before, after);
}

std::vector<change> mover::leaving(const std::vector<change>& all, std::size_t memory) const {
  std::vector<change> found;
  for (change c : all) {
    c.bytes = freed(c, memory);
    if (c.bytes > 0) found.push_back(c);
  }
  return found;
}

double mover::together(const change& one, const change& other) {
  const run first = apply(one);
  double seconds = one.seconds + seconds_if(other.begin, other.end, other.to) -
                   seconds_now(other.begin, other.end);
  const run second = apply(other);
  if (!now_.fits()) seconds = never;
  revert(other, second);
  revert(one, first);
  return seconds;
}

bool mover::exchange(std::int64_t& work) {
  const std::vector<change> all = changes();
  std::vector<std::vector<change>> out;
  for (std::size_t m = 0; m < p_.memories.size(); ++m) out.push_back(leaving(all, m));
  work -= static_cast<std::int64_t>(all.size() * (1 + p_.memories.size()));
  change best_in, best_out;
  double best = -equal * best_.seconds;
  for (const change& in : all) {
    const auto& others = out[memory_of(in.to)];
    if (others.empty() || work < 0) continue;
    if (!(in.seconds < 0)) break;
    for (const change& o : others) {
      --work;
      if (!(in.seconds + o.seconds < best) || work < 0) break;
      if (o.bytes < in.lacking || o.touches(in)) continue;
      if (o.lacking > 0 && freed(in, memory_of(o.to)) < o.lacking) continue;
      work -= 300;  // about what this takes
      const double seconds = together(o, in);
      if (seconds < best) best = seconds, best_in = in, best_out = o;
    }
  }
  if (best_in.end == 0) return false;
  apply(best_out), apply(best_in);
  accept();
  return true;
}

}  // namespace

void settle(const placement_problem& p, found_placement& best) {
  mover(p, best).settle();
}

void exchange(const placement_problem& p, found_placement& best, std::int64_t work) {
  mover moves(p, best);
  moves.settle();
  while (work > 0 && moves.exchange(work)) moves.settle();
}

}  // namespace solving

}  // namespace nibble::inline NIBBLE_ABI
