#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/gguf/file.hpp>
#include <unordered_map>

#include "base/memory_for.hpp"
#include "gguf/convert.hpp"
#include "gguf/cursor.hpp"
#include "gguf/mapping.hpp"
#include "gguf/parse.hpp"
#include "gguf/split.hpp"

namespace nibble::inline NIBBLE_ABI::gguf {

struct file::state {
  std::string name;
  open_options options;
  std::vector<std::filesystem::path> paths;  // of the parts that are files
  std::vector<mapping> parts;
  part first;  // its metadata is the file's
  std::vector<tensor_info> tensors;
  std::uint64_t absent_bytes = 0;
  std::unordered_map<std::string_view, std::size_t> key_index;
  std::unordered_map<std::string_view, std::size_t> tensor_index;

  void open(const std::filesystem::path& path);
  void open(std::span<const std::byte> bytes);
  void append(const part& p, const std::string& part_name);
  void open_parts(const std::string& path, part&& opened, const split_keys& keys);
  void index_keys();
};

// Headers have some KiB, and some MiB with a vocabulary.
constexpr std::uint64_t first_header_bytes = 1 << 20;

part read_part(mapping& from, const std::string& name, std::uint32_t index,
               const open_options& options) {
  for (std::uint64_t size = first_header_bytes;; size *= 2) {
    try {
      return parse_part(from.read_header(size), from.bytes(), name, index, options);
    } catch (const more_bytes_needed&) {
      // ends with all that there are, or with the limit for headers
    }
  }
}

// Adds the tensors of the next part.
void file::state::append(const part& p, const std::string& part_name) {
  absent_bytes += p.absent_bytes;  // a wrap would take parts of more than 2^64 bytes
  tensors.reserve(tensors.size() + p.tensors.size());
  tensor_index.reserve(tensor_index.size() + p.tensors.size());
  for (const tensor_info& info : p.tensors) {
    if (!tensor_index.emplace(info.name, tensors.size()).second) {
      throw error(errc::bad_file, "an earlier part has a tensor of this name",
                  {.file = part_name, .tensor = printable(info.name)});
    }
    tensors.push_back(info);
  }
}

void file::state::index_keys() {
  key_index.reserve(first.metadata.size());
  for (std::size_t i = 0; i < first.metadata.size(); ++i) {
    key_index.emplace(first.metadata[i].key, i);
  }
}

// `opened` is the part at `path`, already mapped as parts[0].
void file::state::open_parts(const std::string& path, part&& opened, const split_keys& keys) {
  const auto prefix = split_prefix(path, keys.number, keys.count);
  if (!prefix) {
    throw error(
        errc::bad_file,
        concat("this is part ", keys.number + 1, " of ", keys.count, ", and its name must end in ",
               split_name("", keys.number, keys.count), " for the others to be found"),
        {.file = path});
  }
  std::vector<mapping> opened_map = std::move(parts);
  parts.clear();
  for (std::uint64_t i = 0; i < keys.count; ++i) {
    const std::string part_name = split_name(*prefix, i, keys.count);
    const bool known = i == keys.number;
    parts.push_back(known ? std::move(opened_map[0]) : mapping(part_name));
    paths.emplace_back(part_name);
    part p = known && i == 0
                 ? std::move(opened)
                 : read_part(parts.back(), part_name, static_cast<std::uint32_t>(i), options);
    const split_keys found = read_split_keys(p, part_name);
    if (found.number != i || found.count != keys.count) {
      throw error(errc::bad_file,
                  concat("its keys say part ", found.number + 1, " of ", found.count,
                         ", its name and the other parts say ", i + 1, " of ", keys.count),
                  {.file = part_name});
    }
    append(p, part_name);
    if (i == 0) first = std::move(p);
  }
  if (keys.tensors && *keys.tensors != tensors.size()) {
    throw error(errc::bad_file,
                concat("split.tensors.count is ", *keys.tensors, ", and the parts have ",
                       tensors.size(), " tensors together"),
                {.file = path});
  }
}

void file::state::open(const std::filesystem::path& path) {
  name = path.string();
  parts.emplace_back(path);
  part p = read_part(parts[0], name, 0, options);
  const split_keys keys = read_split_keys(p, name);
  if (keys.count > 1) {
    open_parts(name, std::move(p), keys);
  } else {
    paths.emplace_back(path);
    append(p, name);
    first = std::move(p);
  }
  index_keys();
}

void file::state::open(std::span<const std::byte> bytes) {
  parts.emplace_back(bytes);
  part p = read_part(parts[0], name, 0, options);
  const split_keys keys = read_split_keys(p, name);
  if (keys.count > 1) {
    throw error(errc::unsupported,
                concat("this is part ", keys.number + 1, " of ", keys.count,
                       "; a split file can be opened by its path only"),
                {.file = name});
  }
  append(p, name);
  first = std::move(p);
  index_keys();
}

file::file(const std::filesystem::path& path, const open_options& options) {
  with_memory_for("the file's directory", [&] {
    state_ = std::make_unique<state>();
    state_->options = options;
    state_->open(path);
  });
}

file::file(std::span<const std::byte> bytes, std::string name, const open_options& options) {
  with_memory_for("the file's directory", [&] {
    state_ = std::make_unique<state>();
    state_->options = options;
    state_->name = std::move(name);
    state_->open(bytes);
  });
}

file::file(file&&) noexcept = default;
file& file::operator=(file&&) noexcept = default;
file::~file() = default;

const std::string& file::name() const noexcept {
  return state_->name;
}
std::uint32_t file::version() const noexcept {
  return state_->first.version;
}
std::uint64_t file::alignment() const noexcept {
  return state_->first.alignment;
}

std::uint64_t file::size_bytes() const noexcept {
  std::uint64_t sum = 0;
  for (const mapping& m : state_->parts) sum += m.bytes().size();
  return sum;
}

std::uint32_t file::part_count() const noexcept {
  return static_cast<std::uint32_t>(state_->parts.size());
}

std::vector<std::filesystem::path> file::paths() const {
  return with_memory_for("the names of the parts", [&] { return state_->paths; });
}

opened_part file::opened(std::uint32_t index) const {
  if (state_->paths.empty()) {
    throw error(
        errc::invalid_argument,
        "it lies in memory, and has no part on disk from which tensors could be read while a "
        "model runs",
        {.file = state_->name});
  }
  if (index >= state_->paths.size()) {
    throw error(errc::invalid_argument,
                concat("part ", index, " was asked for; there are ", state_->paths.size(),
                       ", numbered from 0"),
                {.file = state_->name});
  }
  return with_memory_for("the name of a part", [&] {
    const mapping& m = state_->parts[index];
    return opened_part{state_->paths[index], m.bytes().size(), m.modified()};
  });
}

std::span<const key_value> file::metadata() const noexcept {
  return state_->first.metadata;
}
std::span<const tensor_info> file::tensors() const noexcept {
  return state_->tensors;
}

const value* file::find(std::string_view key) const noexcept {
  const auto found = state_->key_index.find(key);
  if (found == state_->key_index.end()) return nullptr;
  return &state_->first.metadata[found->second].value;
}

const tensor_info* file::find_tensor(std::string_view name) const noexcept {
  const auto found = state_->tensor_index.find(name);
  return found == state_->tensor_index.end() ? nullptr : &state_->tensors[found->second];
}

bool file::has_data() const noexcept {
  return !state_->options.header_only;
}

std::uint64_t file::absent_bytes() const noexcept {
  return state_->absent_bytes;
}

std::span<const std::byte> file::data(const tensor_info& tensor) const {
  if (!has_data()) {
    throw error(errc::invalid_argument,
                "the file was opened for its header only; to read data, it must be opened whole",
                {.file = state_->name, .tensor = printable(tensor.name)});
  }
  return {tensor.view.data, tensor.bytes};
}

std::span<const std::byte> file::read(const tensor_info& tensor, std::uint64_t offset,
                                      std::size_t bytes, std::vector<std::byte>& buffer) const {
  const auto end = checked_add(offset, bytes);
  if (!has_data() || !end || *end > tensor.bytes) {
    throw error(errc::invalid_argument,
                concat(bytes, " bytes from byte ", offset, " on are not to be had of ",
                       has_data() ? tensor.bytes : 0),
                {.file = state_->name, .tensor = printable(tensor.name)});
  }
  return with_memory_for("a tensor's data", [&] {
    return state_->parts[tensor.part].read(tensor.offset + offset, bytes, buffer, tensor.name);
  });
}

// Without data the addresses may lie behind the mapping, where something else may be.
void file::prefetch(const tensor_info& tensor) const noexcept {
  if (has_data()) state_->parts[tensor.part].prefetch(tensor.offset, tensor.bytes);
}

void file::release(const tensor_info& tensor) const noexcept {
  release(tensor, 0, tensor.bytes);
}
void file::release(const tensor_info& tensor, std::uint64_t offset,
                   std::uint64_t bytes) const noexcept {
  if (has_data()) state_->parts[tensor.part].release(tensor.offset + offset, bytes);
}

template <typename T>
std::optional<T> file::get(std::string_view key) const {
  const auto found = state_->key_index.find(key);
  if (found == state_->key_index.end()) return std::nullopt;
  return convert<T>(state_->first.metadata[found->second], state_->name);
}

template <typename T>
T file::require(std::string_view key) const {
  if (auto found = get<T>(key)) return *found;
  throw error(errc::bad_file, concat("the key '", key, "' is missing"), {.file = state_->name});
}

template <typename T>
std::optional<std::vector<T>> file::get_array(std::string_view key) const {
  const auto found = state_->key_index.find(key);
  if (found == state_->key_index.end()) return std::nullopt;
  return convert_array<T>(state_->first.metadata[found->second], state_->name);
}

#define NIBBLE_INSTANTIATE(T)                                             \
  template NIBBLE_API std::optional<T> file::get(std::string_view) const; \
  template NIBBLE_API T file::require(std::string_view) const;            \
  template NIBBLE_API std::optional<std::vector<T>> file::get_array(std::string_view) const;
NIBBLE_INSTANTIATE(bool)
NIBBLE_INSTANTIATE(std::int32_t)
NIBBLE_INSTANTIATE(std::uint32_t)
NIBBLE_INSTANTIATE(std::int64_t)
NIBBLE_INSTANTIATE(std::uint64_t)
NIBBLE_INSTANTIATE(float)
NIBBLE_INSTANTIATE(double)
NIBBLE_INSTANTIATE(std::string_view)
#undef NIBBLE_INSTANTIATE

}  // namespace nibble::inline NIBBLE_ABI::gguf
