// A weight as one backend holds it.
#pragma once

#include <cstddef>
#include <nibble/base/config.hpp>
#include <nibble/formats/format_id.hpp>
#include <nibble/tensor/view.hpp>
#include <string>

namespace nibble::inline NIBBLE_ABI {

class expert_source;

// What `data` points at is the backend's own affair: it may be packed, and it may lie on a device.
// The values are those of the file, in the file's format.
struct weight {
  format_id format{};
  nibble::shape shape;  // [columns, rows, matrices]: a matrix per expert
  const std::byte* data = nullptr;
  std::size_t matrix_bytes = 0;  // from one expert's matrix to the next
  std::string name = {};         // the tensor's in its file, if it came from one
  // Of experts that are in memory only while they are asked for: who brings them. Each one's matrix
  // is then so many bytes behind the start of what is brought, and there is no `data`.
  expert_source* experts = nullptr;
  std::size_t in_expert = 0;
};

}  // namespace nibble::inline NIBBLE_ABI
