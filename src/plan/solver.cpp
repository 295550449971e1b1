// Labels: partial placements of the first blocks, extended block by block. A label is dropped if
// another at the same place is as fast and leaves as much room, or if the least that could complete
// it is no better than a placement already known. That least comes from prices on the bytes of each
// memory (Lagrangian multipliers), found once for the whole chain.
#include "plan/solver_parts.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

using namespace solving;

// ---- prices ----

// Comparisons of pairs of small changes.
constexpr std::int64_t most_exchanges = 700'000;
// What finding prices may take, unless that allows fewer steps than these.
constexpr std::int64_t most_tuning = 1'000'000, least_steps = 6;

struct pricing {
  std::vector<double> prices;
  double least = -never;  // seconds that any placement takes
  std::int64_t work = 0;
};

// Steps along the excess (a subgradient) until the least can no longer be less than the limit.
pricing tune(const chain& c, std::vector<double> start, double limit, int steps) {
  pricing best{start};
  // an entry of the table of bounds takes about a tenth of what a label takes for a memory
  const auto table = c.firsts.size() * c.blocks * c.leader.size() * c.leader.size();
  const auto work = static_cast<std::int64_t>(table * (c.memories + 1) / 10);
  // thousands of layers have no more time than others
  const std::int64_t most_steps =
      std::max(least_steps, most_tuning / std::max<std::int64_t>(work, 1));
  steps = static_cast<int>(std::min<std::int64_t>(steps, most_steps));
  std::int64_t spent = 0;
  double stride = 1;
  int failures = 0;
  for (int step = 0; step <= steps; ++step) {
    spent += work;
    const bounds b(c, start);
    search s(c, b, never, max_places);
    s.begin();
    const layer& front = s.front();
    const auto lowest =
        std::min_element(front.labels.begin(), front.labels.end(),
                         [](const label& x, const label& y) { return x.bound < y.bound; });
    if (lowest == front.labels.end()) return {start, never, spent};
    if (lowest->bound > best.least) {
      best = {start, lowest->bound, 0}, failures = 0;
    } else if (++failures % 3 == 0) {
      stride /= 2;
    }
    if (!(best.least < limit)) break;
    std::vector<double> excess(c.memories);
    const auto index = static_cast<std::size_t>(lowest - front.labels.begin());
    b.add_excess(*lowest, 0, {&front.used[index * c.memories], &front.scratch[index * c.places]},
                 excess);
    double length = 0;
    for (std::size_t m = 0; m < c.memories; ++m) {
      excess[m] /= std::max(1.0, static_cast<double>(c.budget[m]));
      length += excess[m] * excess[m];
    }
    if (!(length > 0)) break;
    const double far = limit < never ? limit : 2 * lowest->bound;
    const double goal = far + std::max(0.1 * (far - lowest->bound), 1e-6 * far);
    const double scale = stride * (goal - lowest->bound) / length;
    for (std::size_t m = 0; m < c.memories; ++m) {
      const double price = start[c.price[m]] + scale * excess[c.price[m]] /
                                                   std::max(1.0, static_cast<double>(c.budget[m]));
      if (c.price[m] == m) start[m] = std::max(0.0, price);
    }
    for (std::size_t m = 0; m < c.memories; ++m) start[m] = start[c.price[m]];
  }
  best.work = spent;
  return best;
}

// ---- the two stages ----

struct progress {
  found_placement best;
  pricing at;
  bool exhausted = false;  // nothing below the limit is left
  std::int64_t work = 0;
};

class solver {
 public:
  solver(const chain& c, std::vector<double> prices, double limit, bool any);
  // Looks for placements below the limit, or for one if `any`, until there are none or the work
  // is done.
  void run(std::int64_t work, std::int64_t work_to_fit);

  progress result;

 private:
  bool pass(std::size_t width, std::int64_t work, double scale = 1, double more = 0,
            const std::vector<std::int32_t>* only = nullptr);
  void retune(int steps);
  void vary(std::int64_t work);
  void make_room();
  void improve(std::int64_t work);
  void polish(std::int64_t work);
  bool done() const { return result.exhausted || (any_ && !result.best.place.empty()); }

  const chain& c_;
  double limit_;
  const bool any_;
};

solver::solver(const chain& c, std::vector<double> prices, double limit, bool any)
    : c_(c), limit_(limit), any_(any) {
  result.at.prices = std::move(prices);
  retune(limit < never ? 15 : 40);
}

void solver::retune(int steps) {
  if (done()) return;
  const double known = result.at.least;
  result.at = tune(c_, std::move(result.at.prices), limit_, steps);
  result.at.least = std::max(result.at.least, known);
  result.work += result.at.work;
  result.exhausted = !(result.at.least < limit_);
}

// One search with the prices scaled and raised; whether it found something better.
bool solver::pass(std::size_t width, std::int64_t work, double scale, double more,
                  const std::vector<std::int32_t>* only) {
  auto prices = result.at.prices;
  for (std::size_t m = 0; m < c_.memories; ++m) {
    prices[m] = scale * prices[m] + more / std::max(1.0, static_cast<double>(c_.budget[m]));
  }
  const bounds b(c_, prices);
  search s(c_, b, limit_, width);
  s.only = only;
  s.allowance = work / c_.work;
  s.run();
  result.work += s.labels * c_.work;
  const bool found = !s.best.place.empty();
  if (found) {
    result.best = s.best;
    if (!any_) settle(c_.problem, result.best);
    limit_ = result.best.seconds * (1 - 0.5 * equal);
  }
  if (only != nullptr) return found;
  result.exhausted = s.dropped == never;
  result.at.least = std::max(result.at.least, std::min(s.dropped, result.best.seconds));
  return found;
}

// Prices that are too low or too high fill the memories in other ways.
void solver::vary(std::int64_t work) {
  for (const double scale : {0.7, 1.4, 0.9, 0.3}) {
    if (!done() && result.work < work / 3) pass(8, work / 8, scale);
  }
  for (const double more : {1.0, 1e3, 1e6}) {  // bytes before seconds
    if (!done() && result.best.place.empty()) {
      pass(8, work, 1, more * (1e-9 + result.at.least));
    }
  }
}

// Where memories are so full that no pass finds a way through: the blocks that may lie at one place
// lie there, and the others where they take the fewest bytes.
void solver::make_room() {
  const placement_problem& p = c_.problem;
  found_placement best;
  for (std::size_t q = 0; q < c_.places; ++q) {
    found_placement f;
    for (std::size_t b = 0; b < c_.blocks; ++b) {
      std::size_t to = q;
      for (std::size_t r = 0; r < c_.places; ++r) {
        if (c_.allowed[c_.at(b, q)] || !c_.allowed[c_.at(b, r)]) continue;
        if (!c_.allowed[c_.at(b, to)] || c_.bytes[c_.at(b, r)] < c_.bytes[c_.at(b, to)]) to = r;
      }
      f.place.push_back(static_cast<std::int32_t>(to));
    }
    const auto used = bytes_used(p, f.place);
    if (!used) continue;
    f.seconds = seconds_of(p, f.place);
    f.share = greatest_share(p, used->data());
    settle(p, f);
    if (f.seconds < best.seconds) best = std::move(f);
  }
  if (best.place.empty()) return;
  result.best = std::move(best);
  limit_ = result.best.seconds * (1 - 0.5 * equal);
}

// Tries everything near the crossings of the best placement.
void solver::polish(std::int64_t work) {
  constexpr std::size_t reach = 4, width = 64;
  bool better = !result.best.place.empty();
  for (int round = 0; round < 4 && better && !done() && result.work < work; ++round) {
    std::vector<std::int32_t> only = result.best.place;
    for (std::size_t b = 1; b < c_.blocks; ++b) {
      if (result.best.place[b] == result.best.place[b - 1]) continue;
      const std::size_t end = std::min(c_.blocks, b + reach);
      for (std::size_t k = b - std::min(b, reach); k < end; ++k) only[k] = -1;
    }
    better = pass(width, work / 4, 1, 0, &only);
  }
}

void solver::run(std::int64_t work, std::int64_t work_to_fit) {
  if (done()) return;
  pass(8, work);
  if (!any_ && !done()) {
    vary(work);
    if (result.best.place.empty()) make_room();
    retune(20);
    polish(work / 2);
  }
  for (std::int64_t width = 32; !done();) {
    const auto left = [&] {
      return (result.best.place.empty() ? work_to_fit : work) - result.work;
    };
    if (left() <= 0) break;
    const std::int64_t before = result.work;
    const bool better = pass(static_cast<std::size_t>(width), left());
    const std::int64_t spent = std::max<std::int64_t>(result.work - before, 1);
    if (better) retune(20);
    // as wide as what is left allows, up to four times this
    const std::int64_t next =
        std::min(4 * width, width * std::max<std::int64_t>(left(), 0) / spent);
    if (next <= width && !result.best.place.empty()) break;
    width = std::max(next, width + 1);
  }
  if (!any_) polish(work + work / 8);
  if (!any_) improve(work);
}

// What passes that keep few labels miss: pairs of small changes, and what is near them.
void solver::improve(std::int64_t work) {
  for (int round = 0; round < 2 && !done() && !result.best.place.empty(); ++round) {
    const double before = result.best.seconds;
    exchange(c_.problem, result.best, most_exchanges);
    if (!(result.best.seconds < before)) break;
    limit_ = std::min(limit_, result.best.seconds * (1 - 0.5 * equal));
    result.exhausted = !(result.at.least < limit_);
    if (round == 0) polish(result.work + work / 8);
  }
}

// Of all bytes of the even memories that are used.
double mean_share(const placement_problem& problem, const std::vector<std::int32_t>& place) {
  double used = 0, budget = 0;
  const auto use = bytes_used(problem, place);
  for (std::size_t m = 0; use && m < use->size(); ++m) {
    if (!problem.memories[m].even || (*use)[m] == 0) continue;
    used += static_cast<double>((*use)[m]);
    budget += static_cast<double>(problem.memories[m].budget);
  }
  return budget > 0 ? used / budget : 0;
}

// Placements as fast whose greatest share is less, until there is none.
bool even_out(const placement_problem& problem, const std::vector<std::uint64_t>& budgets,
              const pricing& at, std::int64_t cap, progress& out) {
  const double limit = out.best.seconds + std::max(equal * out.best.seconds, 1e-300);
  double low = mean_share(problem, out.best.place);  // most likely none is less
  std::int64_t spent = 0;
  while (out.best.share > 0) {
    if (spent >= cap) return false;
    const bool last = out.best.share - low < 0.01 * out.best.share;
    const double share = last ? out.best.share * (1 - equal) : (low + out.best.share) / 2;
    auto scaled = budgets;
    for (std::size_t m = 0; m < budgets.size(); ++m) {
      if (problem.memories[m].even)
        scaled[m] = static_cast<std::uint64_t>(share * static_cast<double>(budgets[m]));
    }
    const chain c(problem, scaled);
    solver again(c, at.prices, limit, true);
    again.run(cap - spent, cap - spent);
    const progress& p = again.result;
    spent += p.work, out.work += p.work;
    if (!p.best.place.empty()) {
      const double seconds = std::min(out.best.seconds, p.best.seconds);
      out.best = p.best, out.best.seconds = seconds;
      continue;
    }
    if (last) return p.exhausted;
    low = share;
  }
  return true;
}

void check(const placement_problem& p) {
  const std::size_t places = p.places.size();
  const auto lies = [&](const auto& q) {
    return q.memory >= 0 && static_cast<std::size_t>(q.memory) < p.memories.size();
  };
  if (places > 0 && places <= max_places && p.memories.size() <= max_places && !p.blocks.empty() &&
      p.crossing.size() == places * places &&
      (p.common_ends.empty() || p.common_ends.size() == places) &&
      std::all_of(p.places.begin(), p.places.end(), lies) &&
      std::all_of(p.blocks.begin(), p.blocks.end(),
                  [&](const auto& options) { return options.size() == places; })) {
    return;
  }
  throw error(errc::invalid_argument,
              "the lists of a placement problem disagree: each block needs an option for each of 1 "
              "to 32 places, and each place a memory.");
}

}  // namespace

std::optional<std::vector<std::uint64_t>> bytes_used(const placement_problem& problem,
                                                     const std::vector<std::int32_t>& place) {
  std::vector<std::uint64_t> used(problem.memories.size());
  bool overflow = false;
  const auto add = [&](std::size_t m, std::uint64_t bytes) {
    const auto sum = checked_add(used[m], bytes);
    overflow |= !sum;
    used[m] = sum.value_or(most);
  };
  for (std::size_t q = 0; q < problem.places.size(); ++q) {
    const auto m = static_cast<std::size_t>(problem.places[q].memory);
    std::uint64_t scratch = 0;
    bool open = false;
    for (std::size_t b = 0; b < problem.blocks.size(); ++b) {
      if (static_cast<std::size_t>(place[b]) != q) continue;
      const auto& option = problem.blocks[b][q];
      if (!option.allowed) return std::nullopt;
      const bool both = b + 1 == problem.blocks.size() && place[0] == place[b];
      add(m, option.bytes - (both ? solving::saving_at(problem, q) : 0));
      scratch = std::max(scratch, option.scratch), open = true;
    }
    if (open) add(m, problem.places[q].opening), add(m, scratch);
  }
  for (std::size_t m = 0; m < used.size(); ++m) overflow |= used[m] > problem.memories[m].budget;
  if (overflow) return std::nullopt;
  return used;
}

double seconds_of(const placement_problem& problem, const std::vector<std::int32_t>& place) {
  const auto at = [&](std::size_t b) { return static_cast<std::size_t>(place[b]); };
  double seconds = problem.places[at(0)].entering + problem.places[at(place.size() - 1)].leaving;
  for (std::size_t b = 0; b < place.size(); ++b) {
    seconds += problem.blocks[b][at(b)].seconds;
    if (b > 0) seconds += problem.crossing[at(b - 1) * problem.places.size() + at(b)];
  }
  return seconds;
}

placement_answer solve(const placement_problem& problem, const solver_limits& limits) {
  check(problem);
  std::vector<std::uint64_t> budgets;
  for (const auto& m : problem.memories) budgets.push_back(m.budget);
  const chain c(problem, budgets);
  solver fastest(c, std::vector<double>(c.memories), never, false);
  fastest.run(limits.work, limits.work_to_fit);
  progress p = std::move(fastest.result);
  placement_answer answer;
  answer.impossible = p.exhausted && p.best.place.empty();
  answer.work = p.work;
  if (p.best.place.empty()) return answer;
  placement_solution s;
  s.proven = p.exhausted;
  s.least = p.at.least;
  // evenness matters less where memories are full, as they are if a proof is hard
  s.proven_even = even_out(problem, budgets, p.at, limits.even_work / (s.proven ? 1 : 4), p);
  if (!s.proven) exchange(problem, p.best, most_exchanges);
  s.place = p.best.place;
  s.seconds = seconds_of(problem, s.place);
  s.least = s.proven ? s.seconds : std::min(std::max(s.least, 0.0), s.seconds);
  s.share = p.best.share;
  s.used = *bytes_used(problem, s.place);
  answer.work = p.work;
  answer.solution = s;
  return answer;
}

}  // namespace nibble::inline NIBBLE_ABI
