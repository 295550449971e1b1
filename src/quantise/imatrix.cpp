#include <algorithm>
#include <cmath>
#include <cstring>
#include <nibble/base/concat.hpp>
#include <nibble/base/utf8.hpp>
#include <nibble/formats/list.hpp>
#include <nibble/gguf/file.hpp>
#include <nibble/gguf/writer.hpp>
#include <nibble/quantise/imatrix.hpp>
#include <optional>
#include <string_view>

#include "base/memory_for.hpp"
#include "gguf/limits.hpp"
#include "gguf/mapping.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

constexpr const char* datasets_key = "imatrix.datasets";
constexpr const char* chunk_count_key = "imatrix.chunk_count";
constexpr const char* chunk_size_key = "imatrix.chunk_size";
constexpr const char* model_key = "nibble.imatrix.model";
constexpr const char* chunks_key = "nibble.imatrix.chunks";
constexpr std::string_view sums_ending = ".in_sum2";
constexpr std::string_view counts_ending = ".counts";

bool all_usable(const std::vector<float>& numbers) {
  return std::all_of(numbers.begin(), numbers.end(),
                     [](float x) { return std::isfinite(x) && x >= 0; });
}

// What is wrong with an entry; empty if nothing is.
std::string fault_of(const importance& entry) {
  if (entry.in_sum2.empty()) return "it has no sums";
  if (entry.counts.empty() || entry.in_sum2.size() % entry.counts.size() != 0) {
    return concat("its ", entry.in_sum2.size(), " sums do not divide by its ", entry.counts.size(),
                  " counts of tokens");
  }
  if (!all_usable(entry.in_sum2)) return "a sum of squares is negative or not finite";
  if (!all_usable(entry.counts)) return "a count of tokens is negative or not finite";
  return {};
}

// Walks over a .dat file; every read is bounded by the bytes that are left.
class dat_cursor {
 public:
  dat_cursor(std::span<const std::byte> bytes, const std::string& file)
      : bytes_(bytes), file_(file) {}

  bool at_end() const { return position_ == bytes_.size(); }
  std::uint64_t left() const { return bytes_.size() - position_; }
  void about(std::string_view tensor) { tensor_ = tensor; }

  std::int32_t number(const char* what, std::int32_t least) {
    std::int32_t n = 0;
    const std::uint64_t at = position_;
    std::memcpy(&n, take(sizeof n, what).data(), sizeof n);
    if (n < least) fail(concat(what, " is ", n, "; ", least, " or more was expected"), at);
    return n;
  }

  std::string_view text(const char* what, std::int32_t least) {
    const auto size = static_cast<std::uint64_t>(number("the length of a text", least));
    const auto bytes = take(size, what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  std::vector<float> floats(std::uint64_t count, const char* what) {
    const auto bytes = take(count * sizeof(float), what);
    std::vector<float> out(count);
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }

  [[noreturn]] void fail(const std::string& sentence, std::uint64_t at) const {
    throw error(errc::bad_file, sentence,
                {.file = file_, .offset = at, .tensor = gguf::printable(tensor_)});
  }
  [[noreturn]] void fail(const std::string& sentence) const { fail(sentence, position_); }

 private:
  std::span<const std::byte> take(std::uint64_t size, const char* what) {
    if (size > left()) {
      fail(concat(what, " takes ", size, " bytes, and the file has ", left(), " left"));
    }
    const auto out = bytes_.subspan(position_, size);
    position_ += size;
    return out;
  }

  std::span<const std::byte> bytes_;
  const std::string& file_;
  std::string_view tensor_;
  std::uint64_t position_ = 0;
};

// The kind without a magic number: i32 entries; for each i32 length, name, i32 calls, i32 values,
// F32 values (means times calls); and in newer files i32 chunks, i32 length, name of the text.
imatrix read_dat(std::span<const std::byte> bytes, const std::string& name) {
  constexpr std::uint64_t least_entry = 4 + 1 + 4 + 4;
  dat_cursor in(bytes, name);
  if (bytes.size() < 4) {
    in.fail("this is no importance matrix: neither a GGUF file nor a .dat file, too short for both",
            0);
  }
  const std::int32_t entries = in.number("the number of tensors", 1);
  if (static_cast<std::uint64_t>(entries) > in.left() / least_entry) {
    in.fail(concat("this is no importance matrix: it does not begin as a GGUF file, and as a .dat ",
                   "file it announces ", entries, " tensors in ", bytes.size(), " bytes"),
            0);
  }
  imatrix out;
  for (std::int32_t i = 0; i < entries; ++i) {
    in.about({});
    const std::string_view tensor = in.text("the name of a tensor", 1);
    in.about(tensor);
    importance entry;
    entry.counts = {static_cast<float>(in.number("the number of calls", 0))};
    const std::int32_t values = in.number("the number of values", 1);
    entry.in_sum2 = in.floats(static_cast<std::uint64_t>(values), "the list of values");
    if (const std::string fault = fault_of(entry); !fault.empty()) in.fail(fault);
    if (!out.tensors.emplace(tensor, std::move(entry)).second) {
      in.fail("an earlier entry has this name");
    }
  }
  in.about({});
  if (in.at_end()) return out;
  out.chunk_count = static_cast<std::uint32_t>(in.number("the number of chunks", 0));
  if (const auto text = in.text("the name of the text", 0); !text.empty()) {
    out.datasets.emplace_back(text);
  }
  if (!in.at_end()) in.fail(concat(in.left(), " bytes follow after the last entry"));
  return out;
}

[[noreturn]] void fail(const gguf::file& file, const gguf::tensor_info& tensor,
                       const std::string& sentence) {
  throw error(
      errc::bad_file, sentence,
      {.file = file.name(), .offset = tensor.offset, .tensor = gguf::printable(tensor.name)});
}

std::vector<float> floats_of(const gguf::file& file, const gguf::tensor_info& tensor) {
  if (tensor.view.format != id_of<formats::f32>) {
    fail(file, tensor,
         concat("its type is ", format_name(tensor.view.format), "; f32 was expected"));
  }
  std::vector<float> out(tensor.bytes / sizeof(float));
  std::vector<std::byte> buffer;
  const auto stored = file.read(tensor, 0, out.size() * sizeof(float), buffer);
  if (!out.empty()) std::memcpy(out.data(), stored.data(), stored.size());
  return out;
}

imatrix read_gguf(const gguf::file& file) {
  if (const auto type = file.get<std::string_view>("general.type"); type && *type != "imatrix") {
    throw error(errc::bad_file,
                concat("general.type is '", gguf::printable(*type), "'; 'imatrix' was expected"),
                {.file = file.name()});
  }
  imatrix out;
  for (const gguf::tensor_info& sums : file.tensors()) {
    if (!sums.name.ends_with(sums_ending) || sums.name.size() == sums_ending.size()) continue;
    const auto name = sums.name.substr(0, sums.name.size() - sums_ending.size());
    const auto* const counts = file.find_tensor(concat(name, counts_ending));
    if (counts == nullptr) {
      fail(file, sums, concat("there is no ", gguf::printable(name), counts_ending, " beside it"));
    }
    importance entry{floats_of(file, sums), floats_of(file, *counts)};
    if (entry.counts.size() != sums.view.shape.rows() && entry.counts.size() != 1) {
      fail(file, sums,
           concat("its shape is ", to_text(sums.view.shape), ", and there are counts for ",
                  entry.counts.size(), " matrices"));
    }
    if (const std::string fault = fault_of(entry); !fault.empty()) fail(file, sums, fault);
    out.tensors.emplace(name, std::move(entry));
  }
  if (out.tensors.empty()) {
    throw error(errc::bad_file,
                concat("this is no importance matrix: no tensor's name ends in ", sums_ending),
                {.file = file.name()});
  }
  if (const auto texts = file.get_array<std::string_view>(datasets_key)) {
    out.datasets.assign(texts->begin(), texts->end());
  }
  out.chunk_count = file.get<std::uint32_t>(chunk_count_key).value_or(0);
  out.chunk_size = file.get<std::uint32_t>(chunk_size_key).value_or(0);
  out.model = file.get<std::string_view>(model_key).value_or("");
  out.chunks = file.get<std::string_view>(chunks_key).value_or("");
  return out;
}

bool begins_as_gguf(std::span<const std::byte> bytes) {
  std::uint32_t magic = 0;
  if (bytes.size() < sizeof magic) return false;
  std::memcpy(&magic, bytes.data(), sizeof magic);
  return magic == gguf::magic;
}

// Its tensors' data point into `m`.
gguf::writer writer_of(const imatrix& m) {
  gguf::writer out;
  out.set("general.type", "imatrix");
  std::vector<std::string> datasets;
  for (const std::string& name : m.datasets) datasets.push_back(as_utf8(name));
  out.set_array(datasets_key, std::span<const std::string>(datasets));
  out.set(chunk_count_key, m.chunk_count);
  out.set(chunk_size_key, m.chunk_size);
  if (!m.model.empty()) out.set(model_key, as_utf8(m.model));
  if (!m.chunks.empty()) out.set(chunks_key, as_utf8(m.chunks));
  for (const auto& [name, entry] : m.tensors) {
    if (const std::string fault = fault_of(entry); !fault.empty()) {
      throw error(errc::invalid_argument, concat("its importance cannot be written: ", fault),
                  {.tensor = gguf::printable(name)});
    }
    const std::uint64_t matrices = entry.counts.size();
    out.add_tensor(concat(name, sums_ending), id_of<formats::f32>,
                   {{entry.in_sum2.size() / matrices, matrices, 1, 1}},
                   std::as_bytes(std::span(entry.in_sum2)));
    out.add_tensor(concat(name, counts_ending), id_of<formats::f32>, {{1, matrices, 1, 1}},
                   std::as_bytes(std::span(entry.counts)));
  }
  return out;
}

}  // namespace

std::vector<float> importance::weights(std::uint64_t index, std::uint64_t matrices) const {
  if (matrices == 0 || index >= matrices || in_sum2.size() % matrices != 0 ||
      (counts.size() != matrices && counts.size() != 1)) {
    throw error(
        errc::invalid_argument,
        concat("matrix ", index, " of ", matrices, " was asked for, and the importance has ",
               in_sum2.size(), " sums and ", counts.size(), " counts."));
  }
  const std::uint64_t columns = in_sum2.size() / matrices;
  const float count = counts[counts.size() == 1 ? 0 : index];
  if (!(count > 0)) return std::vector<float>(columns, 1.0f);
  std::vector<float> out(columns);
  for (std::uint64_t i = 0; i < columns; ++i) out[i] = in_sum2[index * columns + i] / count;
  return out;
}

bool importance::says_nothing() const {
  const auto all_zero = [](const std::vector<float>& numbers) {
    return std::all_of(numbers.begin(), numbers.end(), [](float x) { return x == 0; });
  };
  return all_zero(in_sum2) || all_zero(counts);
}

imatrix read_imatrix(const std::filesystem::path& path) {
  return with_memory_for("the importance matrix", [&] {
    gguf::mapping file(path);
    if (begins_as_gguf(file.read_header(4))) return read_gguf(gguf::file(path));
    return read_dat(file.read_header(file.bytes().size()), path.string());
  });
}

imatrix read_imatrix(std::span<const std::byte> bytes, const std::string& name) {
  return with_memory_for("the importance matrix", [&] {
    if (begins_as_gguf(bytes)) return read_gguf(gguf::file(bytes, name));
    return read_dat(bytes, name);
  });
}

void write_imatrix(const imatrix& m, const std::filesystem::path& path) {
  with_memory_for("the importance matrix", [&] { writer_of(m).write(path); });
}

std::vector<std::byte> imatrix_bytes(const imatrix& m) {
  return with_memory_for("the importance matrix", [&] { return writer_of(m).to_bytes(); });
}

}  // namespace nibble::inline NIBBLE_ABI
