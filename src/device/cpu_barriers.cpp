#include "device/cpu_barriers.hpp"

#include <nibble/device/step_values.hpp>

namespace nibble::inline NIBBLE_ABI {
namespace {

// What was touched since the threads last met.
struct touch {
  value v;
  bool written;
  bool whole;  // a thread may have touched any column
};

class barrier_placer {
 public:
  barrier_placer(const recording& r, program_limits limits, const workspace_layout& layout)
      : r_(r), limits_(limits), layout_(layout) {}

  bool needed_before(const step& s, const cpu_step& compiled, bool single) {
    const bool needed = left_ == sharing::other || compiled.enters(single) == sharing::other ||
                        conflicts(s, compiled.meets_inside(single));
    if (needed) touched_.clear();
    if (compiled.meets_inside(single)) touched_.clear();
    for_each_value(s, [&](value v, value_access access) {
      const bool written = access != value_access::read;
      const sharing how = written ? compiled.leaves(single) : compiled.enters(single);
      touched_.push_back({v, written, how == sharing::other});
    });
    left_ = compiled.leaves(single);
    return needed;
  }

 private:
  // Where threads meet inside the step, its writes come after the meeting and harm nobody.
  bool conflicts(const step& s, bool meets_inside) const {
    bool found = false;
    for_each_value(s, [&](value v, value_access access) {
      if (meets_inside && access != value_access::read) return;
      for (const touch& t : touched_) {
        if (access == value_access::read && !t.written) continue;
        found = found || (t.v == v ? t.whole : overlap(t.v, v));
      }
    });
    return found;
  }

  bool overlap(value a, value b) const {
    const std::size_t a_begin = layout_.offset[static_cast<std::size_t>(a.id)];
    const std::size_t b_begin = layout_.offset[static_cast<std::size_t>(b.id)];
    return a_begin < b_begin + value_bytes(r_.info(b), limits_) &&
           b_begin < a_begin + value_bytes(r_.info(a), limits_);
  }

  const recording& r_;
  program_limits limits_;
  const workspace_layout& layout_;
  std::vector<touch> touched_;
  sharing left_ = sharing::columns;
};

}  // namespace

std::vector<bool> place_barriers(const recording& r, program_limits limits,
                                 const workspace_layout& layout,
                                 const std::vector<std::unique_ptr<cpu_step>>& steps, bool single) {
  barrier_placer placer(r, limits, layout);
  std::vector<bool> before;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    before.push_back(placer.needed_before(r.steps[i], *steps[i], single));
  }
  if (!before.empty()) before[0] = false;  // the start of a run is a meeting
  return before;
}

}  // namespace nibble::inline NIBBLE_ABI
