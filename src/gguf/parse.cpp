#include "gguf/parse.hpp"

#include <algorithm>
#include <bit>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/formats/list.hpp>
#include <unordered_set>

#include "gguf/cursor.hpp"
#include "gguf/limits.hpp"

namespace nibble::inline NIBBLE_ABI::gguf {
namespace {

// Versions 2 and 3 do not differ in little-endian files; 1 had 32-bit counts.
std::uint32_t read_version(cursor& in) {
  if (const auto found = in.number<std::uint32_t>("the magic"); found != magic) {
    in.fail(errc::bad_file, "the file does not begin with GGUF: it is not a GGUF file", 0);
  }
  const auto version = in.number<std::uint32_t>("the version");
  if (version == 2 || version == newest_version) return version;
  if (version == 0) {
    in.fail(errc::bad_file, "version 0 does not exist; 2 and 3 can be read", 4);
  }
  if (version == 1) {
    in.fail(errc::unsupported,
            "version 1 is read no more, 2 and 3 are: convert it again from the original weights",
            4);
  }
  if ((version & 0xffff) == 0) {
    in.fail(errc::unsupported, "this is a big-endian file; convert it to a little-endian one", 4);
  }
  in.fail(errc::unsupported,
          concat("version ", version, " is newer than 3, the newest that can be read"), 4);
}

value_type read_type(cursor& in) {
  const std::uint64_t start = in.position();
  const auto id = in.number<std::uint32_t>("the type");
  if (id > static_cast<std::uint32_t>(value_type::f64)) {
    in.fail(errc::bad_file, concat("value type ", id, " does not exist; the types are 0 to 12"),
            start);
  }
  return static_cast<value_type>(id);
}

// The specification: 0 or 1, anything else is an invalid file.
void check_bools(const cursor& in, std::span<const std::byte> bytes, std::uint64_t start) {
  const auto bad =
      std::find_if(bytes.begin(), bytes.end(), [](std::byte b) { return b > std::byte{1}; });
  if (bad == bytes.end()) return;
  in.fail(errc::bad_file,
          concat("a bool has the value ", std::to_integer<int>(*bad), "; only 0 and 1 are allowed"),
          start + static_cast<std::uint64_t>(bad - bytes.begin()));
}

class metadata_reader {
 public:
  explicit metadata_reader(cursor& in) : in_(in) {}

  value read_value() {
    const value_type type = read_type(in_);
    switch (type) {
      case value_type::u8:
        return number<std::uint8_t>();
      case value_type::i8:
        return number<std::int8_t>();
      case value_type::u16:
        return number<std::uint16_t>();
      case value_type::i16:
        return number<std::int16_t>();
      case value_type::u32:
        return number<std::uint32_t>();
      case value_type::i32:
        return number<std::int32_t>();
      case value_type::f32:
        return number<float>();
      case value_type::u64:
        return number<std::uint64_t>();
      case value_type::i64:
        return number<std::int64_t>();
      case value_type::f64:
        return number<double>();
      case value_type::string:
        return {in_.string(max_header_bytes, "the string")};
      case value_type::array:
        return read_array(1);
      case value_type::boolean:
        break;
    }
    const std::uint64_t start = in_.position();
    const auto byte = in_.take(1, "the value");
    check_bools(in_, byte, start);
    return {byte[0] != std::byte{0}};
  }

 private:
  template <typename T>
  value number() {
    return {in_.number<T>("the value")};
  }

  value read_array(int depth) {
    auto out = std::make_shared<array_view>();
    out->element = read_type(in_);
    out->count = in_.number<std::uint64_t>("the array's length");
    const std::uint64_t start = in_.position();
    switch (out->element) {
      case value_type::string:
        read_strings(*out);
        break;
      case value_type::array:
        read_arrays(*out, depth);
        break;
      default: {
        in_.expect_room(out->count, size_of(out->element), "array elements");
        out->bytes = in_.take(out->count * size_of(out->element), "the array");
        if (out->element == value_type::boolean) check_bools(in_, out->bytes, start);
      }
    }
    return {std::shared_ptr<const array_view>(std::move(out))};
  }

  void read_strings(array_view& out) {
    in_.expect_room(out.count, min_string_bytes, "strings");
    out.strings.reserve(out.count);
    for (std::uint64_t i = 0; i < out.count; ++i) {
      out.strings.push_back(in_.string(max_header_bytes, "a string of the array"));
    }
  }

  void read_arrays(array_view& out, int depth) {
    if (depth == max_array_depth) {
      in_.fail(errc::bad_file, concat("arrays are nested more than ", max_array_depth, " deep"),
               in_.position());
    }
    in_.expect_room(out.count, min_array_bytes, "arrays");
    if (out.count > max_nested_arrays - nested_) {
      in_.fail(errc::bad_file,
               concat("the file has more than ", max_nested_arrays, " nested arrays"),
               in_.position());
    }
    nested_ += out.count;
    out.arrays.reserve(out.count);
    for (std::uint64_t i = 0; i < out.count; ++i) out.arrays.push_back(read_array(depth + 1));
  }

  cursor& in_;
  std::uint64_t nested_ = 0;  // arrays within arrays so far
};

std::vector<key_value> read_metadata(cursor& in, std::uint64_t count) {
  std::vector<key_value> out;
  out.reserve(count);
  std::unordered_set<std::string_view> keys;
  keys.reserve(count);
  metadata_reader reader(in);
  for (std::uint64_t i = 0; i < count; ++i) {
    in.about("the metadata");
    const std::uint64_t start = in.position();
    const std::string_view key = in.string(max_key_bytes, "a key");
    if (key.empty()) in.fail(errc::bad_file, concat("key number ", i, " is empty"), start);
    in.about("key", key);
    if (!keys.insert(key).second) in.fail(errc::bad_file, "the key occurs twice", start);
    out.push_back({key, reader.read_value()});
  }
  return out;
}

std::uint64_t read_alignment(cursor& in, std::span<const std::byte> header,
                             const std::vector<key_value>& metadata) {
  const auto found = std::find_if(metadata.begin(), metadata.end(),
                                  [](const key_value& kv) { return kv.key == alignment_key; });
  if (found == metadata.end()) return default_alignment;
  in.about("key", found->key);
  const auto offset = static_cast<std::uint64_t>(
      reinterpret_cast<const std::byte*>(found->key.data()) - header.data());
  const auto* alignment = std::get_if<std::uint32_t>(&found->value.data);
  if (alignment == nullptr) {
    in.fail(errc::bad_file,
            concat("its type is ", to_text(found->value.type()), ", and must be u32"), offset);
  }
  if (!std::has_single_bit(*alignment) || *alignment > max_alignment) {
    in.fail(errc::bad_file,
            concat("the alignment is ", *alignment, ", and must be a power of two of at most ",
                   max_alignment),
            offset);
  }
  return *alignment;
}

// extent: [dimensions]; the number of elements stays <= INT64_MAX. An extent of zero is valid and
// makes a tensor without data.
shape read_shape(cursor& in) {
  const std::uint64_t start = in.position();
  const auto dimensions = in.number<std::uint32_t>("the number of dimensions");
  if (dimensions < 1 || dimensions > max_dimensions) {
    in.fail(errc::bad_file, concat("it has ", dimensions, " dimensions; 1 to 4 are possible"),
            start);
  }
  shape out;
  std::uint64_t elements = 1;  // of the extents that are not zero: their product is bounded as well
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    const std::uint64_t at = in.position();
    const auto extent = in.number<std::uint64_t>("an extent");
    if (extent > max_elements) {
      in.fail(errc::bad_file,
              concat("extent ", i, " is negative: ", static_cast<std::int64_t>(extent)), at);
    }
    const auto product = checked_mul(elements, std::max<std::uint64_t>(extent, 1));
    if (!product || *product > max_elements) {
      in.fail(errc::bad_file, "the number of its elements exceeds 2^63 - 1", at);
    }
    elements = *product;
    out.extent[i] = extent;
  }
  return out;
}

// The data's size; `start`: where the type stands.
std::uint64_t data_bytes(cursor& in, format_id format, const shape& s, std::uint64_t start) {
  const format_info* const info = find_format_info(format);
  if (!info) {
    in.fail(errc::unsupported,
            concat("its type has the id ", static_cast<std::uint32_t>(format),
                   ", for which there is no weight format; there are: ", format_names()),
            start);
  }
  const std::uint64_t block = info->block_size;
  if (s.columns() % block != 0) {
    in.fail(errc::bad_file,
            concat("its rows have ", s.columns(), " elements, and with type ", format_name(format),
                   " must have a multiple of ", block),
            start);
  }
  const auto row = checked_row_bytes(format, s.columns());
  const auto bytes = row ? checked_mul(*row, s.rows()) : std::nullopt;
  if (!bytes) {
    in.fail(errc::bad_file,
            concat("a shape of ", to_text(s), " in type ", format_name(format),
                   " takes more than 2^64 bytes"),
            start);
  }
  return *bytes;
}

// An entry as the file states it, before the place of the data is known.
struct entry {
  tensor_info info;      // info.offset still counts from the beginning of the data
  std::uint64_t at = 0;  // of the offset, in the file
};

entry read_entry(cursor& in, std::unordered_set<std::string_view>& names) {
  in.about("the tensor directory");
  const std::uint64_t start = in.position();
  entry out;
  tensor_info& info = out.info;
  info.name = in.string(max_tensor_name_bytes, "a tensor's name");
  if (info.name.empty()) in.fail(errc::bad_file, "a tensor has no name", start);
  in.about("tensor", info.name);
  if (!names.insert(info.name).second) in.fail(errc::bad_file, "the name occurs twice", start);
  info.view.shape = read_shape(in);
  const std::uint64_t type_at = in.position();
  info.view.format = static_cast<format_id>(in.number<std::uint32_t>("the type"));
  info.bytes = data_bytes(in, info.view.format, info.view.shape, type_at);
  out.at = in.position();
  info.offset = in.number<std::uint64_t>("the offset");
  return out;
}

// The end of a tensor's data, from the beginning of the data section, padded.
std::uint64_t padded_end(const cursor& in, const entry& e, std::uint64_t alignment) {
  const auto end = checked_add(e.info.offset, e.info.bytes);
  const auto padded = end ? checked_align(*end, alignment) : std::nullopt;
  if (!padded) {
    in.fail(errc::bad_file, "the tensors up to this one take more than 2^64 bytes together", e.at);
  }
  return *padded;
}

// Every tensor's data begins where the one before it, padded to the alignment, ends. Padding after
// the last one may be missing; all data may be where only the header is asked for.
void place_tensors(cursor& in, std::span<const std::byte> bytes, const std::vector<entry>& entries,
                   const open_options& options, std::uint32_t index, part& out) {
  const std::uint64_t data = align_up(in.position(), out.alignment);
  const bool absent = options.header_only && bytes.size() <= data;
  std::uint64_t expected = 0;
  out.tensors.reserve(entries.size());
  for (const entry& e : entries) {
    tensor_info info = e.info;
    in.about("tensor", info.name);
    if (info.offset != expected) {
      in.fail(errc::bad_file,
              concat("its data is said to begin at ", info.offset, " of the data section; at ",
                     "alignment ", out.alignment, " the tensors before it end at ", expected),
              e.at);
    }
    const auto begin = checked_add(data, info.offset);
    const auto end = begin ? checked_add(*begin, info.bytes) : std::nullopt;
    if (info.bytes > 0 && bytes.size() <= data && !absent) {
      in.fail(errc::bad_file,
              "its data is not there: the file holds the header only, or is cut off behind it",
              e.at);
    }
    if (!end || (*end > bytes.size() && !absent)) {
      in.fail(errc::bad_file,
              concat("its data takes ", info.bytes, " bytes from byte ", begin.value_or(0),
                     " on, and the file has ", bytes.size(), ": it is cut off or damaged"),
              e.at);
    }
    expected = padded_end(in, e, out.alignment);
    if (absent) out.absent_bytes = *end - bytes.size();
    info.offset = *begin;
    info.part = index;
    if (!options.header_only) info.view.data = bytes.data() + *begin;
    out.tensors.push_back(info);
  }
}

}  // namespace

part parse_part(std::span<const std::byte> header, std::span<const std::byte> bytes,
                const std::string& name, std::uint32_t index, const open_options& options) {
  cursor in(header, bytes.size(), name);
  part out;
  out.version = read_version(in);
  const std::uint64_t counts_at = in.position();
  const auto tensor_count = in.number<std::uint64_t>("the number of tensors");
  const auto key_count = in.number<std::uint64_t>("the number of keys");
  in.expect_room(tensor_count, min_tensor_bytes, "tensors");
  in.expect_room(key_count, min_key_value_bytes, "keys");
  if (tensor_count * min_tensor_bytes + key_count * min_key_value_bytes > in.remaining()) {
    in.fail(errc::bad_file,
            concat(tensor_count, " tensors and ", key_count, " keys do not fit the ",
                   in.remaining(), " bytes that are left"),
            counts_at);
  }

  out.metadata = read_metadata(in, key_count);
  out.alignment = read_alignment(in, header, out.metadata);

  in.about("the tensor directory");
  in.expect_room(tensor_count, min_tensor_bytes, "tensors");
  std::vector<entry> entries;
  entries.reserve(tensor_count);
  std::unordered_set<std::string_view> names;
  names.reserve(tensor_count);
  for (std::uint64_t i = 0; i < tensor_count; ++i) entries.push_back(read_entry(in, names));
  place_tensors(in, bytes, entries, options, index, out);
  return out;
}

}  // namespace nibble::inline NIBBLE_ABI::gguf
