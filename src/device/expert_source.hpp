// Who brings the matrices of routed experts that are not always in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <span>

namespace nibble::inline NIBBLE_ABI {

// Of one block.
class expert_source {
 public:
  virtual ~expert_source() = default;

  // Has these experts brought, the first of them first, and keeps them until the run is over. By
  // one thread, before others wait(); asking again for one of them does nothing. passing: so many
  // tokens go through them that which experts come next cannot be told from it.
  virtual void ask(std::span<const std::int32_t> experts, bool passing) = 0;
  // Where the matrices of an expert that was asked for lie, once they are there. From any thread.
  // Throws error: io, invalid_argument (it was not asked for).
  virtual const std::byte* wait(std::int64_t expert) = 0;
};

}  // namespace nibble::inline NIBBLE_ABI
