#include <algorithm>
#include <limits>
#include <nibble/base/checked.hpp>

#include "plan/solver.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// Bytes of blocks that each memory has room for, at most: a place takes something of its own as
// soon as a block lies there.
std::vector<std::uint64_t> rooms_for_blocks(const placement_problem& p) {
  std::vector<std::uint64_t> rooms(p.memories.size(), 0);
  for (std::size_t q = 0; q < p.places.size(); ++q) {
    constexpr std::uint64_t none = std::numeric_limits<std::uint64_t>::max();
    std::uint64_t least = none;
    for (const auto& block : p.blocks) {
      if (block[q].allowed) least = std::min(least, block[q].scratch);
    }
    const auto m = static_cast<std::size_t>(p.places[q].memory);
    const std::uint64_t own = checked_add(p.places[q].opening, least).value_or(none);
    if (own < p.memories[m].budget) rooms[m] = std::max(rooms[m], p.memories[m].budget - own);
  }
  return rooms;
}

}  // namespace

bool may_fit(const placement_problem& p) {
  constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  const std::vector<std::uint64_t> rooms = rooms_for_blocks(p);
  std::vector<std::uint64_t> bound(p.memories.size(), 0);
  std::uint64_t needed = 0, room = 0, common = 0;
  for (const auto& block : p.blocks) {
    std::uint64_t least = most, places = 0;
    std::size_t memory = 0;
    bool one = true;  // memory
    for (std::size_t q = 0; q < block.size(); ++q) {
      if (!block[q].allowed) continue;
      least = std::min(least, block[q].bytes);
      const auto m = static_cast<std::size_t>(p.places[q].memory);
      one = one && (places++ == 0 || m == memory);
      memory = m;
    }
    needed = checked_add(needed, least).value_or(most);
    if (places > 0 && one) bound[memory] = checked_add(bound[memory], least).value_or(most);
  }
  for (const std::uint64_t bytes : p.common_ends) common = std::max(common, bytes);
  const auto fits = [&](std::uint64_t bytes, std::uint64_t into) {
    return bytes < common || bytes - common <= into;
  };
  for (std::size_t m = 0; m < rooms.size(); ++m) {
    if (!fits(bound[m], rooms[m])) return false;
    room = checked_add(room, rooms[m]).value_or(most);
  }
  return fits(needed, room);
}

}  // namespace nibble::inline NIBBLE_ABI
