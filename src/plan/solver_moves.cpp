// Small changes of a placement that make it faster: what a search that keeps few labels misses.
#include "plan/solver_parts.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace solving {

usage::usage(const placement_problem& problem, const std::vector<std::int32_t>& place)
    : p_(problem),
      place_(place.size(), problem.places.size()),
      at_(problem.places.size()),
      used_(problem.memories.size()),
      lying_(problem.memories.size()) {
  for (const auto& q : problem.places) ++lying_[static_cast<std::size_t>(q.memory)];
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

bool usage::may_take(std::size_t begin, std::size_t end, std::size_t to) const {
  const auto m = static_cast<std::size_t>(p_.places[to].memory);
  if (begin == 0 || end == place_.size() || lying_[m] > 1 || used_[m].high != 0) return true;
  wide sum = used_[m];  // what is shared there can only grow
  for (std::size_t b = begin; b < end; ++b) {
    if (place_[b] != to) sum.add(p_.blocks[b][to].bytes);
  }
  return sum.high == 0 && sum.low <= p_.memories[m].budget;
}

std::vector<std::uint64_t> usage::used() const {
  std::vector<std::uint64_t> bytes;
  for (const wide& sum : used_) bytes.push_back(sum.low);
  return bytes;
}

namespace {

constexpr std::size_t max_move = 4;  // blocks that are moved together

class mover {
 public:
  mover(const placement_problem& p, found_placement& best)
      : p_(p), best_(best), now_(p, best.place) {}

  // Moves the blocks [begin, end) if that fits and is faster.
  bool move_run(std::size_t begin, std::size_t end, std::size_t to);

 private:
  double seconds_if(std::size_t begin, std::size_t end, std::size_t to) const;
  double seconds_now(std::size_t begin, std::size_t end) const;
  bool allowed(std::size_t begin, std::size_t end, std::size_t to) const;
  void accept();

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
  return now_.may_take(begin, end, to);
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
  if (!allowed(begin, end, to)) return false;
  std::array<std::size_t, max_move> old{};
  for (std::size_t b = begin; b < end; ++b) old[b - begin] = now_.place(b), now_.move(b, to);
  if (now_.fits()) {
    accept();
    return true;
  }
  for (std::size_t b = begin; b < end; ++b) now_.move(b, old[b - begin]);
  return false;
}

}  // namespace

void settle(const placement_problem& p, found_placement& best) {
  const std::size_t blocks = p.blocks.size();
  mover moves(p, best);
  for (bool better = true; better;) {
    better = false;
    for (std::size_t n = 1; n <= std::min(max_move, blocks); ++n) {
      for (std::size_t b = 0; b + n <= blocks; ++b) {
        for (std::size_t q = 0; q < p.places.size(); ++q) better |= moves.move_run(b, b + n, q);
      }
    }
  }
}

}  // namespace solving

}  // namespace nibble::inline NIBBLE_ABI
