// nibble-inspect: what a GGUF file holds. Metadata, tensors, bytes by weight format.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <iomanip>
#include <limits>
#include <nibble/base/bytes.hpp>
#include <nibble/formats/list.hpp>
#include <nlohmann/json.hpp>

#include "common.hpp"

namespace gguf = nibble::gguf;
using json = nlohmann::ordered_json;

namespace {

// Calls f(element) for the first `most` elements of an array; numbers arrive with their own type.
template <typename Function>
void for_elements(const gguf::array_view& array, std::size_t most, Function&& f) {
  const auto count = std::min<std::uint64_t>(array.count, most);
  const auto numbers = [&]<typename T>(T number) {
    for (std::uint64_t i = 0; i < count; ++i) {
      std::memcpy(&number, array.bytes.data() + i * sizeof(T), sizeof(T));
      f(number);
    }
  };
  switch (array.element) {
    case gguf::value_type::u8:
      return numbers(std::uint8_t{});
    case gguf::value_type::i8:
      return numbers(std::int8_t{});
    case gguf::value_type::u16:
      return numbers(std::uint16_t{});
    case gguf::value_type::i16:
      return numbers(std::int16_t{});
    case gguf::value_type::u32:
      return numbers(std::uint32_t{});
    case gguf::value_type::i32:
      return numbers(std::int32_t{});
    case gguf::value_type::f32:
      return numbers(float{});
    case gguf::value_type::boolean:
      return numbers(bool{});
    case gguf::value_type::u64:
      return numbers(std::uint64_t{});
    case gguf::value_type::i64:
      return numbers(std::int64_t{});
    case gguf::value_type::f64:
      return numbers(double{});
    case gguf::value_type::string:
      for (std::uint64_t i = 0; i < count; ++i) f(array.strings[i]);
      return;
    case gguf::value_type::array:
      for (std::uint64_t i = 0; i < count; ++i) f(array.arrays[i]);
  }
}

// The shortest decimal number that reads back as this float: 1e-06, not 9.999999974752427e-07.
double shortest(float x) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, x).ptr;
  double out = x;
  std::from_chars(text, end, out);
  return out;
}

// All of a value, or at most `most` elements of every array in it.
template <typename T>
json to_json(const T& x, std::size_t most) {
  if constexpr (std::is_same_v<T, gguf::value>) {
    return std::visit([most](const auto& inner) { return to_json(inner, most); }, x.data);
  } else if constexpr (std::is_same_v<T, std::shared_ptr<const gguf::array_view>>) {
    json out = json::array();
    for_elements(*x, most, [&](const auto& element) { out.push_back(to_json(element, most)); });
    return out;
  } else if constexpr (std::is_same_v<T, float>) {
    return shortest(x);
  } else {
    return x;
  }
}

// Bytes that are no UTF-8 (tokens may have such) are shown as U+FFFD.
std::string dump(const json& j, int indent = -1) {
  return j.dump(indent, ' ', false, json::error_handler_t::replace);
}

std::string line_of(const gguf::value& v, std::size_t longest) {
  const auto* array = std::get_if<std::shared_ptr<const gguf::array_view>>(&v.data);
  constexpr std::size_t shown = 8;
  std::string text = gguf::printable(dump(to_json(v, shown)), longest);
  if (array == nullptr) return text;
  if (text.back() == ']' && (*array)->count > shown) text.replace(text.size() - 1, 1, ",...]");
  return nibble::concat(text, "  (", (*array)->count, " x ", to_text((*array)->element), ")");
}

struct total {
  std::uint64_t tensors = 0;
  std::uint64_t elements = 0;
  std::uint64_t bytes = 0;
};

std::map<std::string, total> totals_by_format(const gguf::file& file) {
  std::map<std::string, total> out;
  for (const gguf::tensor_info& tensor : file.tensors()) {
    total& t = out[nibble::format_name(tensor.view.format)];
    ++t.tensors;
    t.elements += tensor.view.shape.elements();
    t.bytes += tensor.bytes;
  }
  return out;
}

void print(const gguf::file& file, std::size_t width) {
  std::cout << file.name() << ": GGUF v" << file.version() << ", "
            << nibble::to_text(file.size_bytes()) << " in " << file.part_count()
            << " file(s), alignment " << file.alignment() << '\n';
  if (file.absent_bytes() > 0) {
    std::cout << "Tensor data absent: " << file.absent_bytes() << " bytes ("
              << nibble::to_text(file.absent_bytes()) << ") are missing; this is a header only\n";
  }
  std::cout << "\nMetadata: " << file.metadata().size() << " keys\n";
  for (const auto& [key, value] : file.metadata()) {
    std::cout << "  " << std::left << std::setw(44) << gguf::printable(key) << ' ' << std::setw(6)
              << to_text(value.type()) << ' ' << line_of(value, width) << '\n';
  }

  std::cout << "\nTensors: " << file.tensors().size() << '\n';
  for (const gguf::tensor_info& tensor : file.tensors()) {
    std::cout << "  " << std::left << std::setw(44) << gguf::printable(tensor.name) << ' '
              << std::setw(8) << nibble::format_name(tensor.view.format) << std::setw(24)
              << to_text(tensor.view.shape) << std::right << std::setw(12)
              << nibble::to_text(tensor.bytes) << "  part " << tensor.part + 1 << ", byte "
              << tensor.offset << '\n';
  }

  if (file.tensors().empty()) return;
  std::cout << "\nBy format:\n";
  total all;
  const auto row = [](const std::string& name, const total& t) {
    const double bits =
        t.elements ? 8.0 * static_cast<double>(t.bytes) / static_cast<double>(t.elements) : 0;
    std::cout << "  " << std::left << std::setw(10) << name << std::right << std::setw(6)
              << t.tensors << " tensors " << std::setw(15) << t.elements << " weights "
              << std::setw(11) << nibble::to_text(t.bytes) << std::fixed << std::setprecision(2)
              << std::setw(8) << bits << " bits each\n";
  };
  for (const auto& [name, t] : totals_by_format(file)) {
    row(name, t);
    all.tensors += t.tensors;
    all.elements += t.elements;
    all.bytes += t.bytes;
  }
  row("all", all);
}

void write_json(const gguf::file& file, const std::string& path) {
  json out{{"file", file.name()},           {"version", file.version()},
           {"alignment", file.alignment()}, {"bytes", file.size_bytes()},
           {"parts", file.part_count()},    {"absent_bytes", file.absent_bytes()},
           {"metadata", json::object()},    {"tensors", json::array()},
           {"formats", json::object()}};
  for (const auto& [key, value] : file.metadata()) {
    out["metadata"][std::string(key)] = to_json(value, std::string::npos);
  }
  for (const gguf::tensor_info& tensor : file.tensors()) {
    out["tensors"].push_back({{"name", tensor.name},
                              {"format", nibble::format_name(tensor.view.format)},
                              {"shape", tensor.view.shape.extent},
                              {"part", tensor.part},
                              {"offset", tensor.offset},
                              {"bytes", tensor.bytes}});
  }
  for (const auto& [name, t] : totals_by_format(file)) {
    out["formats"][name] = {{"tensors", t.tensors}, {"elements", t.elements}, {"bytes", t.bytes}};
  }
  common::output to(path, file.paths());
  to.stream() << dump(out, 1) << '\n';
  to.finish();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Shows what a GGUF file holds: metadata, tensors, bytes by weight format."};
  std::string path, json_path;
  std::size_t width = 100;
  app.add_option("file", path, "GGUF file; any part of a split one")->required();
  app.add_option("--json", json_path, "Write everything to this file as JSON instead")
      ->check(common::is_output);
  app.add_option("--width", width, "Most characters of a value that are printed")
      ->capture_default_str()
      ->check(CLI::Range(0, std::numeric_limits<std::int32_t>::max()));
  if (const auto status = common::parse(app, argc, argv)) return *status;

  return common::run([&] {
    const gguf::file file(path, {.header_only = true});
    if (json_path.empty()) {
      print(file, width);
    } else {
      write_json(file, json_path);
    }
  });
}
