// Reads GGUF v2 and v3: maps the file (or all parts of a split one), checks every count, offset and
// size, and gives views. Tensor data is never copied.
// Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/base/error.hpp>
#include <nibble/gguf/value.hpp>
#include <nibble/tensor/view.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::inline NIBBLE_ABI::gguf {

// One entry of the tensor directory.
struct tensor_info {
  std::string_view name;
  // Format, shape and a pointer into the mapping, aligned as the file says; null in a file that was
  // opened for its header only.
  tensor_view view;
  std::uint64_t offset = 0;  // of the data, from the start of its part
  std::uint64_t bytes = 0;
  std::uint32_t part = 0;  // which part of a split file, from 0
};

struct key_value {
  std::string_view key;
  gguf::value value;
};

// A part as it was when it was opened: who opens it again can tell whether it is still the same.
struct opened_part {
  std::filesystem::path path;
  std::uint64_t bytes = 0;
  std::int64_t modified = 0;  // when it had been written to last: nanoseconds since 1970
};

struct open_options {
  // Opens a file for its metadata and its tensors' names, types and shapes. Its data need not be
  // there: a part may end where its data would begin, as those do that gguf::writer writes with the
  // option of the same name. Data of which only a piece is there is damage all the same.
  bool header_only = false;
};

// An open file. Everything that it gives out points into its memory or a mapping, and lives as long
// as it does; moving it moves nothing. All bounds are checked when it is opened, against the size
// that the file has then. Truncating a file makes the system raise SIGBUS at the next touch of a
// lost page of a mapping: that is so for data() alone, for read() and all else it is an error.
// Replace files by renaming, as gguf::writer does.
//
// Refused beyond what the specification says: headers above 64 MiB, alignments above 1 MiB, arrays
// nested more than 4 deep or more than 65536 of them, empty keys and tensor names, types without a
// weight format, tensors whose data is not where the padded sizes of those before it put it.
class NIBBLE_API file {
 public:
  // Opens PATH; for a split file any part's name will do (…-00001-of-00003.gguf).
  // Throws error: io, bad_file, unsupported. The message names the file and the byte.
  explicit file(const std::filesystem::path& path, const open_options& options = {});
  // Reads from memory that outlives this object; `name` stands for the path in errors.
  file(std::span<const std::byte> bytes, std::string name, const open_options& options = {});
  file(file&&) noexcept;
  file& operator=(file&&) noexcept;
  ~file();

  const std::string& name() const noexcept;   // path as given
  std::uint32_t version() const noexcept;     // 2 or 3
  std::uint64_t alignment() const noexcept;   // of the first part
  std::uint64_t size_bytes() const noexcept;  // of all parts
  std::uint32_t part_count() const noexcept;
  // Of every part, in order; none for a file in memory. What is written must not be one of them.
  std::vector<std::filesystem::path> paths() const;
  // Throws error(invalid_argument) for a file in memory and a part that it does not have.
  opened_part opened(std::uint32_t index) const;

  std::span<const key_value> metadata() const noexcept;   // in file order; of the first part
  std::span<const tensor_info> tensors() const noexcept;  // in file order, parts in order

  const value* find(std::string_view key) const noexcept;                // null if absent
  const tensor_info* find_tensor(std::string_view name) const noexcept;  // null if absent

  // Scalars. Integers convert between widths and signs when the value fits, floats accept f32 and
  // f64; anything else is an error that names the key, the type found and the type wanted.
  // T: bool, std::int32_t, std::uint32_t, std::int64_t, std::uint64_t, float, double,
  // std::string_view.
  template <typename T>
  std::optional<T> get(std::string_view key) const;
  template <typename T>
  T require(std::string_view key) const;  // an absent key is an error, too

  // Arrays, converted by the same rule; an absent key gives an empty optional.
  template <typename T>
  std::optional<std::vector<T>> get_array(std::string_view key) const;

  // False if the file was opened for its header only; then no tensor has data, and data() throws.
  bool has_data() const noexcept;
  // Bytes of tensor data, padding between tensors included, that the parts lack.
  std::uint64_t absent_bytes() const noexcept;
  // The bytes of a tensor. Throws error(invalid_argument) unless has_data().
  std::span<const std::byte> data(const tensor_info& tensor) const;
  // Bytes of a tensor, `offset` bytes into it, read into `buffer` unless the file lies in memory.
  // Throws error: io (the file was cut off, or written to since it was opened), out_of_memory,
  // invalid_argument.
  std::span<const std::byte> read(const tensor_info& tensor, std::uint64_t offset,
                                  std::size_t bytes, std::vector<std::byte>& buffer) const;

  // Tells the system that the pages of this tensor will be read soon, or will not be needed again.
  void prefetch(const tensor_info& tensor) const noexcept;
  void release(const tensor_info& tensor) const noexcept;
  // The same for some of its bytes, `offset` bytes into the tensor.
  void release(const tensor_info& tensor, std::uint64_t offset, std::uint64_t bytes) const noexcept;

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace nibble::inline NIBBLE_ABI::gguf
