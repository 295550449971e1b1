// One pass over the blocks, with at most `width` labels of each.
#include "plan/solver_parts.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace solving {

// Adds the block's bytes; false if they do not fit or the rest cannot.
bool search::charge(label& l, std::size_t block, std::size_t place) {
  const std::size_t m = c_.memory[place];
  const std::uint64_t scratch = c_.scratch[c_.at(block, place)];
  const bool open = l.opened & bit(place);
  const auto once =
      open ? minus(scratch, scratch_[place]) : c_.problem.places[place].opening + scratch;
  const auto more = checked_add(once, c_.bytes_at(block, place, l.first));
  const auto sum = more ? checked_add(used_[m], *more) : std::nullopt;
  if (!sum || *sum > c_.budget[m]) return false;
  l.opened |= bit(place);
  scratch_[place] = std::max(scratch_[place], scratch);
  used_[m] = *sum;
  std::uint64_t room = 0;
  for (std::size_t k = 0; k < c_.memories; ++k) room = plus(room, minus(c_.budget[k], used_[k]));
  return c_.need[block] <= room;
}

// Sets bound and masks; false if nothing below the limit can come of the label.
bool search::judge(label& l, std::size_t block) {
  for (std::size_t m = 0; m < c_.memories; ++m) {
    const std::uint64_t room = c_.budget[m] - used_[m];
    if (room < c_.least_bytes[c_.in(block, m)]) l.closed |= bit(m);
    std::uint64_t coming = c_.most_bytes[c_.in(block, m)];
    const std::uint64_t* growth = &to_.growth[to_.growth.size() - c_.places];
    for_bits(c_.lying[m], [&](std::size_t q) { coming = plus(coming, growth[q]); });
    if (coming <= room && coming < most) l.ample |= bit(m);
  }
  const credit worth = bounds_.credit_of(l, block, {used_.data(), scratch_.data()});
  l.bound = bounds_.of(l, block, worth);
  if (!(l.bound < limit_)) return false;
  if (limit_ == never) return true;
  // what is worth less is even less worth entering
  for (std::size_t i = worth.count; i-- > 0 && bounds_.through(l, block, worth, i) >= limit_;) {
    l.closed |= bit(worth.others[i].memory);
  }
  return true;
}

void search::consider(std::size_t index, std::size_t block, std::size_t place) {
  const std::size_t m = c_.memory[place];
  if (!c_.allowed[c_.at(block, place)]) return;
  if (only != nullptr && (*only)[block] >= 0 &&
      (*only)[block] != static_cast<std::int32_t>(place)) {
    return;
  }
  label l;
  if (block == 0) {
    std::fill(used_.begin(), used_.end(), 0), std::fill(scratch_.begin(), scratch_.end(), 0);
    if (c_.saving[place] > 0) l.first = static_cast<std::uint32_t>(c_.kind[place] + 1);
    l.seconds = c_.problem.places[place].entering;
  } else {
    l = from_.labels[index];
    if (c_.memory[l.place] != m && (l.closed & bit(m))) return;
    std::copy_n(&from_.used[index * c_.memories], c_.memories, used_.begin());
    std::copy_n(&from_.scratch[index * c_.places], c_.places, scratch_.begin());
    l.seconds += c_.problem.crossing[l.place * c_.places + place];
    l.parent = static_cast<std::int32_t>(index);
  }
  if (c_.before[place] >= 0 && !(l.opened & bit(static_cast<std::size_t>(c_.before[place]))))
    return;
  l.seconds += c_.seconds[c_.at(block, place)];
  l.place = static_cast<std::uint32_t>(place);
  if (!charge(l, block, place)) return;
  ++labels;
  for (std::size_t q = 0; q < c_.places; ++q) {
    const std::size_t i = c_.at(block, q);
    const bool open = l.opened & bit(q);
    to_.growth.push_back(!c_.reachable[i] ? 0
                         : open           ? minus(c_.most_scratch[i], scratch_[q])
                                          : c_.problem.places[q].opening + c_.most_scratch[i]);
  }
  if (!judge(l, block)) {
    to_.growth.resize(to_.growth.size() - c_.places);
    return;
  }
  to_.labels.push_back(l);
  to_.used.insert(to_.used.end(), used_.begin(), used_.end());
  to_.scratch.insert(to_.scratch.end(), scratch_.begin(), scratch_.end());
}

// Whether a label has as much room in a memory as another, whatever follows.
bool search::takes_less(std::size_t better, std::size_t worse, std::size_t m) const {
  const auto& growth = to_.growth;
  std::uint64_t a = to_.used[better * c_.memories + m];
  const std::uint64_t b = to_.used[worse * c_.memories + m];
  if (a > b) return false;
  for_bits(c_.lying[m], [&](std::size_t q) {
    a = plus(a, minus(growth[better * c_.places + q], growth[worse * c_.places + q]));
  });
  return a <= b;
}

// Whether all that can follow `worse` can follow `better` too; that it is no slower is known.
bool search::dominates(std::size_t better, std::size_t worse) const {
  const std::uint32_t skip = to_.labels[better].ample | to_.labels[worse].closed;
  for (std::uint32_t left = lowest_bits(c_.memories) & ~skip; left != 0; left &= left - 1) {
    if (!takes_less(better, worse, static_cast<std::size_t>(std::countr_zero(left)))) return false;
  }
  return true;
}

bool search::dominated(std::size_t worse, const std::vector<std::size_t>& kept,
                       std::size_t group) const {
  constexpr std::size_t window = 64;  // those that came last are the likeliest
  const std::size_t stop = std::max(group, kept.size() - std::min(kept.size(), window));
  for (std::size_t i = kept.size(); i-- > stop;) {
    if (dominates(kept[i], worse)) return true;
  }
  return false;
}

// Moves the labels worth keeping from to_ to from_.
void search::narrow() {
  struct entry {
    std::uint32_t place, first;
    double seconds, bound;
    std::size_t index;
    auto group() const { return std::uint64_t{place} << 32 | first; }
  };
  std::vector<entry> order;
  order.reserve(to_.labels.size());
  for (const label& l : to_.labels) {
    order.push_back({l.place, l.first, l.seconds, l.bound, order.size()});
  }
  std::sort(order.begin(), order.end(), [](const entry& a, const entry& b) {
    if (a.group() != b.group()) return a.group() < b.group();
    return std::tie(a.seconds, a.bound, a.index) < std::tie(b.seconds, b.bound, b.index);
  });
  std::vector<std::size_t> kept;
  std::size_t group = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && order[i].group() != order[i - 1].group()) group = kept.size();
    if (!dominated(order[i].index, kept, group)) kept.push_back(order[i].index);
  }
  keep_best(kept);
  from_.clear();
  trace_.emplace_back();
  for (const std::size_t i : kept) {
    const auto move = [i](auto& in, auto& out, std::size_t n) {
      out.insert(out.end(), in.begin() + static_cast<std::ptrdiff_t>(i * n),
                 in.begin() + static_cast<std::ptrdiff_t>((i + 1) * n));
    };
    move(to_.labels, from_.labels, 1), move(to_.used, from_.used, c_.memories);
    move(to_.scratch, from_.scratch, c_.places);
    trace_.back().emplace_back(to_.labels[i].parent, to_.labels[i].place);
  }
  to_.clear();
}

// As many labels as there is room for, those of the least bounds.
void search::keep_best(std::vector<std::size_t>& kept) {
  const std::size_t width = labels > allowance ? std::min<std::size_t>(width_, 4) : width_;
  if (kept.size() <= width) return;
  std::vector<std::pair<double, std::size_t>> order;
  order.reserve(kept.size());
  for (const std::size_t i : kept) order.emplace_back(to_.labels[i].bound, i);
  const auto middle = order.begin() + static_cast<std::ptrdiff_t>(width);
  std::nth_element(order.begin(), middle, order.end());
  dropped = std::min(dropped, middle->first);
  kept.clear();
  for (auto o = order.begin(); o != middle; ++o) kept.push_back(o->second);
  std::sort(kept.begin(), kept.end());
}

void search::begin() {
  for (std::size_t q = 0; q < c_.places; ++q) consider(0, 0, q);
  narrow();
}

void search::run() {
  begin();
  for (std::size_t b = 1; b < c_.blocks && !from_.labels.empty(); ++b) {
    for (std::size_t i = 0; i < from_.labels.size(); ++i) {
      for (std::size_t q = 0; q < c_.places; ++q) consider(i, b, q);
    }
    narrow();
  }
  finish();
}

// The fastest of the complete labels; of equals, that of least share.
void search::finish() {
  std::size_t which = 0;
  for (std::size_t i = 0; i < from_.labels.size(); ++i) {
    const label& l = from_.labels[i];
    found_placement f;
    f.seconds = l.seconds + c_.problem.places[l.place].leaving;
    f.share = greatest_share(c_.problem, &from_.used[i * c_.memories]);
    const bool same = std::abs(f.seconds - best.seconds) <= equal * best.seconds;
    if (same ? f.share < best.share : f.seconds < best.seconds) best = f, which = i;
  }
  if (best.seconds == never) return;
  best.place.resize(c_.blocks);
  for (std::size_t b = c_.blocks; b-- > 0;) {
    const auto& [parent, place] = trace_[b][which];
    best.place[b] = static_cast<std::int32_t>(place);
    which = static_cast<std::size_t>(parent);
  }
}

}  // namespace solving

}  // namespace nibble::inline NIBBLE_ABI
