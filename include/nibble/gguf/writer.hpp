// Writes GGUF v3: metadata of every type, tensors from memory or as a stream, one file or parts.
// Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/base/error.hpp>
#include <nibble/gguf/file.hpp>
#include <nibble/gguf/value.hpp>
#include <nibble/tensor/view.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::inline NIBBLE_ABI::gguf {

// Takes the next bytes of a tensor.
using byte_sink = std::function<void(std::span<const std::byte>)>;
// Gives all bytes of a tensor, in order and in pieces of any size, each time that it is called.
using tensor_source = std::function<void(const byte_sink&)>;

// The types of single values and of array elements, exactly as they are stored.
template <typename T>
concept number = std::same_as<T, std::uint8_t> || std::same_as<T, std::int8_t> ||
    std::same_as<T, std::uint16_t> || std::same_as<T, std::int16_t> ||
    std::same_as<T, std::uint32_t> || std::same_as<T, std::int32_t> || std::same_as<T, float> ||
    std::same_as<T, std::uint64_t> || std::same_as<T, std::int64_t> || std::same_as<T, double>;

struct write_options {
  // The most bytes that a part may have; 0 writes one file. A tensor that is larger than that by
  // itself gets a part of its own.
  std::uint64_t max_part_bytes = 0;
  // Writes metadata and the tensor directory, and leaves the data out; no source is called. Such a
  // file opens with open_options::header_only.
  bool header_only = false;
};

// One file of those that a write makes.
struct output_part {
  std::filesystem::path path;
  std::uint64_t bytes = 0;
};

class NIBBLE_API writer {
 public:
  // Every tensor's data begins at a multiple of `alignment`: a power of two up to 1 MiB.
  explicit writer(std::uint32_t alignment = 32);
  writer(writer&&) noexcept;
  writer& operator=(writer&&) noexcept;
  ~writer();

  // Sets a key; one that is set already keeps its place and gets the new value. The value is
  // copied. Keys that describe the file itself (general.alignment, split.*) are written by this
  // class alone. Throws error(invalid_argument): key empty, too long or reserved, array whose
  // parts contradict each other or that is nested more than four deep.
  void set(std::string_view key, const value& v);
  template <typename T>
  requires(number<T> || std::same_as<T, bool>) void set(std::string_view key, T v) {
    set(key, value{v});
  }
  void set(std::string_view key, std::string_view text) { set(key, value{text}); }
  void set(std::string_view key, const char* text) { set(key, std::string_view(text)); }

  template <number T>
  void set_array(std::string_view key, std::span<const T> elements) {
    set_array(key, value{T{}}.type(), elements.size(), std::as_bytes(elements));
  }
  void set_array(std::string_view key, std::span<const std::string_view> elements);
  void set_array(std::string_view key, std::span<const std::string> elements);

  // Sets all keys of `from` but those that describe the file itself.
  void copy_metadata(const file& from);

  // Adds a tensor; they are written in the order of these calls. `data` must live until the last
  // write; a source is called by every write. Throws error(invalid_argument): name empty, longer
  // than 64 bytes or given before, shape that the format cannot have, data of another size;
  // error(unsupported): no such format.
  void add_tensor(std::string_view name, format_id format, const shape& s,
                  std::span<const std::byte> data);
  void add_tensor(std::string_view name, format_id format, const shape& s, tensor_source source);

  // Writes `path`, or, if more than one part is needed, <stem>-00001-of-0000N.gguf beside it, and
  // returns what was written. The bytes go to temporary names first; only when all are safely
  // written do they get their names, the first part last, and existing files are replaced; a link
  // stays one, and what it leads to is replaced. Throws error(io) if the system refuses (such as a
  // full disk; nothing is left behind then) or a name belongs to what is no regular file,
  // error(invalid_argument) if a source gives another number of bytes than its tensor has, the
  // metadata exceeds what a reader takes (64 MiB), or more than 65535 parts would be needed.
  std::vector<std::filesystem::path> write(const std::filesystem::path& path,
                                           const write_options& options = {}) const;

  // The files that write() would make, without making them.
  std::vector<output_part> parts(const std::filesystem::path& path,
                                 const write_options& options = {}) const;

  // What write() writes, as one file in memory.
  std::vector<std::byte> to_bytes() const;

 private:
  void set_array(std::string_view key, value_type element, std::uint64_t count,
                 std::span<const std::byte> bytes);
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace nibble::inline NIBBLE_ABI::gguf
