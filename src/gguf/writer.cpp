#include <algorithm>
#include <bit>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/replace.hpp>
#include <nibble/formats/list.hpp>
#include <nibble/gguf/writer.hpp>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "gguf/cursor.hpp"
#include "gguf/encode.hpp"
#include "gguf/limits.hpp"
#include "gguf/output_file.hpp"
#include "gguf/split.hpp"

namespace nibble::inline NIBBLE_ABI::gguf {
namespace {

struct entry {
  std::string key;
  byte_vector encoded;  // type and value
};

struct planned_tensor {
  std::string name;
  format_id format;
  nibble::shape shape;
  std::uint64_t bytes;
  tensor_source source;
};

// Tensors [begin, end) of the writer, as part `number` of `count`.
struct planned_part {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::uint64_t number = 0;
  std::uint64_t count = 1;
};

bool describes_file(std::string_view key) {
  return key == alignment_key || key.starts_with("split.");
}

[[noreturn]] void refuse(std::string_view kind, std::string_view name,
                         const std::string& sentence) {
  throw error(errc::invalid_argument, concat(kind, " '", printable(name), "': ", sentence));
}

std::uint32_t dimensions(const shape& s) {
  std::uint32_t n = max_dimensions;
  while (n > 1 && s.extent[n - 1] == 1) --n;
  return n;
}

std::uint64_t directory_bytes(const planned_tensor& t) {
  return 8 + t.name.size() + 4 + 8 * std::uint64_t{dimensions(t.shape)} + 4 + 8;
}

// "models/x.gguf" itself, or "models/x-00001-of-00003.gguf".
std::filesystem::path part_path(const std::filesystem::path& path, const planned_part& part) {
  if (part.count == 1) return path;
  std::string prefix = path.string();
  if (prefix.ends_with(".gguf")) prefix.resize(prefix.size() - 5);
  return split_name(prefix, part.number, part.count);
}

void append_entry(byte_vector& out, std::string_view key, const value& v) {
  append(out, key);
  append(out, v);
}

}  // namespace

struct writer::state {
  std::uint32_t alignment;
  std::vector<entry> metadata;
  std::unordered_map<std::string, std::size_t> key_index;
  std::vector<planned_tensor> tensors;
  std::unordered_set<std::string> names;

  std::vector<planned_part> plan_parts(std::uint64_t max_bytes) const;
  byte_vector header(const planned_part& part) const;
  void emit(const planned_part& part, const byte_sink& sink) const;
  std::uint64_t padded(const planned_tensor& t) const { return align_up(t.bytes, alignment); }
};

writer::writer(std::uint32_t alignment) : state_(std::make_unique<state>()) {
  if (!std::has_single_bit(alignment) || alignment > max_alignment) {
    throw error(errc::invalid_argument,
                concat("the alignment is ", alignment, ", and must be a power of two of at most ",
                       max_alignment));
  }
  state_->alignment = alignment;
}

writer::writer(writer&&) noexcept = default;
writer& writer::operator=(writer&&) noexcept = default;
writer::~writer() = default;

void writer::set(std::string_view key, const value& v) {
  if (key.empty() || key.size() > max_key_bytes) {
    refuse("key", key, concat("keys have 1 to ", max_key_bytes, " bytes"));
  }
  if (describes_file(key)) refuse("key", key, "it is set by the writer itself");
  entry e{std::string(key), {}};
  append(e.encoded, v);
  const auto [at, added] = state_->key_index.emplace(e.key, state_->metadata.size());
  if (added) {
    state_->metadata.push_back(std::move(e));
  } else {
    state_->metadata[at->second] = std::move(e);
  }
}

void writer::set_array(std::string_view key, value_type element, std::uint64_t count,
                       std::span<const std::byte> bytes) {
  set(key, value{std::make_shared<const array_view>(array_view{element, count, bytes, {}, {}})});
}

void writer::set_array(std::string_view key, std::span<const std::string_view> elements) {
  set(key, value{std::make_shared<const array_view>(array_view{
               value_type::string, elements.size(), {}, {elements.begin(), elements.end()}, {}})});
}

void writer::set_array(std::string_view key, std::span<const std::string> elements) {
  const std::vector<std::string_view> views(elements.begin(), elements.end());
  set_array(key, std::span<const std::string_view>(views));
}

void writer::copy_metadata(const file& from) {
  for (const key_value& kv : from.metadata()) {
    if (!describes_file(kv.key)) set(kv.key, kv.value);
  }
}

void writer::add_tensor(std::string_view name, format_id format, const shape& s,
                        std::span<const std::byte> data) {
  add_tensor(name, format, s, [data](const byte_sink& sink) { sink(data); });
  // after the checks of the other overload, so that the size is known
  if (const std::uint64_t bytes = state_->tensors.back().bytes; bytes != data.size()) {
    state_->tensors.pop_back();
    state_->names.erase(std::string(name));
    refuse("tensor", name, concat("it has ", bytes, " bytes, and ", data.size(), " were given"));
  }
}

void writer::add_tensor(std::string_view name, format_id format, const shape& s,
                        tensor_source source) {
  if (name.empty() || name.size() > max_tensor_name_bytes) {
    refuse("tensor", name, concat("names have 1 to ", max_tensor_name_bytes, " bytes"));
  }
  const std::uint64_t row = row_bytes(format, s.columns());
  std::uint64_t elements = 1;
  for (const std::uint64_t extent : s.extent) {
    const auto product = checked_mul(elements, extent > 0 ? extent : 1);
    if (!product || *product > max_elements) refuse("tensor", name, "it has too many elements");
    elements = *product;
  }
  const auto bytes = checked_mul(row, s.rows());
  if (!bytes || !checked_align(*bytes, max_alignment)) {
    refuse("tensor", name, "it takes more than 2^64 bytes");
  }
  if (!state_->names.insert(std::string(name)).second) {
    refuse("tensor", name, "a tensor of this name was added before");
  }
  state_->tensors.push_back({std::string(name), format, s, *bytes, std::move(source)});
}

// Greedy in the order of the tensors: a part ends where the next tensor would exceed the limit.
std::vector<planned_part> writer::state::plan_parts(std::uint64_t max_bytes) const {
  std::vector<planned_part> parts{{0, tensors.size(), 0, 1}};
  if (max_bytes == 0) return parts;
  // room for the padding between directory and data as well
  const auto empty_size = [&](std::uint64_t number) {
    return header({0, 0, number, max_parts}).size() + alignment;
  };
  const std::uint64_t later_size = empty_size(1);
  std::uint64_t size = empty_size(0);
  parts[0].end = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::uint64_t more = directory_bytes(tensors[i]) + padded(tensors[i]);
    planned_part& last = parts.back();
    const auto sum = checked_add(size, more);
    if (last.end > last.begin && (!sum || *sum > max_bytes)) {
      parts.push_back({i, i + 1, parts.size(), 1});
      size = later_size + more;
    } else {
      last.end = i + 1;
      size += more;
    }
  }
  if (parts.size() > max_parts) {
    throw error(errc::invalid_argument,
                concat(parts.size(), " parts would be needed, and at most ", max_parts,
                       " are possible: allow more bytes in each"));
  }
  for (planned_part& part : parts) part.count = parts.size();
  return parts;
}

// Everything before the data, padded.
byte_vector writer::state::header(const planned_part& part) const {
  byte_vector pairs;
  std::uint64_t pair_count = 0;
  const auto pair = [&](std::string_view key, const value& v) {
    append_entry(pairs, key, v);
    ++pair_count;
  };
  if (part.number == 0) {
    for (const entry& e : metadata) {
      append(pairs, std::string_view(e.key));
      append(pairs, std::span<const std::byte>(e.encoded));
    }
    pair_count = metadata.size();
  }
  if (alignment != default_alignment) pair(alignment_key, value{alignment});
  if (part.count > 1) {
    pair(split_no_key, value{static_cast<std::uint16_t>(part.number)});
    pair(split_count_key, value{static_cast<std::uint16_t>(part.count)});
    pair(split_tensors_key, value{static_cast<std::int32_t>(tensors.size())});
  }

  byte_vector out;
  append(out, magic);
  append(out, newest_version);
  append(out, static_cast<std::uint64_t>(part.end - part.begin));
  append(out, pair_count);
  append(out, std::span<const std::byte>(pairs));
  std::uint64_t offset = 0;
  for (std::size_t i = part.begin; i < part.end; ++i) {
    const planned_tensor& t = tensors[i];
    append(out, std::string_view(t.name));
    const std::uint32_t n = dimensions(t.shape);
    append(out, n);
    for (std::uint32_t d = 0; d < n; ++d) append(out, t.shape.extent[d]);
    append(out, t.format);
    append(out, offset);
    const auto next = checked_add(offset, padded(t));
    if (!next) refuse("tensor", t.name, "the tensors together take more than 2^64 bytes");
    offset = *next;
  }
  if (out.size() > max_header_bytes) {
    throw error(errc::invalid_argument, concat("metadata and tensor directory take ", out.size(),
                                               " bytes; readers take ", max_header_bytes));
  }
  out.resize(align_up(out.size(), alignment));
  return out;
}

void writer::state::emit(const planned_part& part, const byte_sink& sink) const {
  sink(header(part));
  const byte_vector zeros(alignment);
  for (std::size_t i = part.begin; i < part.end; ++i) {
    const planned_tensor& t = tensors[i];
    std::uint64_t given = 0;
    t.source([&](std::span<const std::byte> bytes) {
      if (bytes.size() > t.bytes - given) {
        refuse("tensor", t.name, concat("its source gives more than its ", t.bytes, " bytes"));
      }
      given += bytes.size();
      sink(bytes);
    });
    if (given != t.bytes) {
      refuse("tensor", t.name, concat("its source gave ", given, " bytes, and it has ", t.bytes));
    }
    sink(std::span(zeros).first(padded(t) - t.bytes));
  }
}

std::vector<output_part> writer::parts(const std::filesystem::path& path,
                                       const write_options& options) const {
  std::vector<output_part> out;
  for (const planned_part& part : state_->plan_parts(options.max_part_bytes)) {
    std::uint64_t bytes = state_->header(part).size();
    for (std::size_t i = part.begin; i < part.end && !options.header_only; ++i) {
      bytes += state_->padded(state_->tensors[i]);  // the header's offsets fit, so this does
    }
    out.push_back({part_path(path, part), bytes});
  }
  return out;
}

std::vector<std::filesystem::path> writer::write(const std::filesystem::path& path,
                                                 const write_options& options) const {
  const auto parts = state_->plan_parts(options.max_part_bytes);
  for (const planned_part& part : parts) output_file::check_name(part_path(path, part));
  std::uint64_t total = 0;
  for (const output_part& part : this->parts(path, options)) total += part.bytes;
  check_room(path, total);
  std::vector<output_file> files;
  for (const planned_part& part : parts) {
    files.emplace_back(part_path(path, part));
    output_file& out = files.back();
    const auto sink = [&](std::span<const std::byte> bytes) { out.write(bytes); };
    if (options.header_only) {
      sink(state_->header(part));
    } else {
      state_->emit(part, sink);
    }
    out.finish();
  }
  std::vector<std::filesystem::path> written;  // once they have their names, nothing may fail
  for (const output_file& out : files) written.push_back(out.path());
  // the first part last: whoever finds it finds the others
  std::for_each(files.rbegin(), files.rend(), [](output_file& out) { out.publish(); });
  return written;
}

std::vector<std::byte> writer::to_bytes() const {
  byte_vector out;
  state_->emit(state_->plan_parts(0)[0],
               [&](std::span<const std::byte> bytes) { append(out, bytes); });
  return out;
}

}  // namespace nibble::inline NIBBLE_ABI::gguf
