// The one exception type of the library.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <optional>
#include <stdexcept>
#include <string>

namespace nibble::inline NIBBLE_ABI {

enum class errc {
  invalid_argument,  // the caller asked for something that cannot be
  io,                // the operating system refused: open, read, write, map
  bad_file,          // the bytes are not what the format demands
  unsupported,       // valid, but nothing here can run it
  out_of_memory,     // a device or the host has too little
  device,            // a device failed while working
  cancelled,         // the caller stopped the work
};

// Where an error happened, as far as it is known.
struct error_context {
  std::string file = {};
  std::optional<std::uint64_t> offset = {};  // bytes from the start of the file
  std::string tensor = {};
  std::string device = {};
};

// what() is a full sentence that already names the context; the accessors are for programs.
class NIBBLE_API error : public std::runtime_error {
 public:
  error(errc code, const std::string& sentence, error_context where = {});
  ~error() override;

  errc code() const noexcept { return code_; }
  const std::string& file() const noexcept { return where_.file; }
  std::optional<std::uint64_t> offset() const noexcept { return where_.offset; }
  const std::string& tensor() const noexcept { return where_.tensor; }
  const std::string& device() const noexcept { return where_.device; }

 private:
  errc code_;
  error_context where_;
};

}  // namespace nibble::inline NIBBLE_ABI
