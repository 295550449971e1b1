// What encoding costs: the root mean square error of every format on three kinds of rows, and the
// time, as tables in Markdown. With --peer, beside another encoder: a shared library that exports
// `ggml_quantize_chunk`, of which an application of ggml has one.
//
//   nibble-encoder-errors --model weights-f32.gguf [--peer libggml-base.so] [--format q4_k ...]
#include <dlfcn.h>
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <nibble/formats/decode.hpp>
#include <nibble/gguf/file.hpp>
#include <nibble/quantise/rows.hpp>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace {

// Signature of ggml.h: type, source, destination, first value, rows, values a row, importance.
using peer_function = std::size_t (*)(int, const float*, void*, std::int64_t, std::int64_t,
                                      std::int64_t, const float*);

// Rows of one width, and how much the error of each column counts where that is asked for.
struct row_set {
  std::int64_t columns = 0;
  std::vector<float> values;
  std::vector<float> importance;
};

struct row_kind {
  std::string name;
  std::vector<row_set> sets;
};

// Importances as a calibration finds them: positive, spread over a few orders of magnitude.
std::vector<float> made_importance(std::int64_t columns, std::mt19937& random) {
  std::lognormal_distribution<float> importance(0.0f, 1.0f);
  std::vector<float> out(static_cast<std::size_t>(columns));
  for (auto& v : out) v = importance(random);
  return out;
}

template <typename Distribution>
row_kind made_rows(const char* name, Distribution distribution, std::int64_t rows) {
  std::mt19937 random(7);
  row_set set{4096, std::vector<float>(static_cast<std::size_t>(rows * 4096)), {}};
  for (auto& v : set.values) v = 0.02f * distribution(random);
  set.importance = made_importance(set.columns, random);
  return {name, {std::move(set)}};
}

// The matrices of a file that every format can hold.
row_kind rows_of_model(const std::string& path) {
  const nibble::gguf::file file(path);
  std::mt19937 random(7);
  row_kind kind{"real matrices", {}};
  for (const auto& tensor : file.tensors()) {
    const auto& shape = tensor.view.shape;
    if (shape.rows() < 2 || shape.columns() % 256 != 0) continue;
    if (!nibble::has_format(tensor.view.format)) continue;
    row_set set{
        static_cast<std::int64_t>(shape.columns()), std::vector<float>(shape.elements()), {}};
    nibble::decode_row(tensor.view.format, tensor.view.data, shape.elements(), set.values.data());
    set.importance = made_importance(set.columns, random);
    kind.sets.push_back(std::move(set));
  }
  return kind;
}

// Encodes a set; the importance may be null.
using encoder = void (*)(peer_function, nibble::format_id, const row_set&, const float*,
                         std::span<std::byte>);

void encode_here(peer_function, nibble::format_id format, const row_set& set,
                 const float* importance, std::span<std::byte> out) {
  std::span<const float> weights;
  if (importance != nullptr) weights = set.importance;
  nibble::quantise_rows(format, set.values, set.columns, weights, out);
}

void encode_there(peer_function peer, nibble::format_id format, const row_set& set,
                  const float* importance, std::span<std::byte> out) {
  const auto rows = static_cast<std::int64_t>(set.values.size()) / set.columns;
  peer(static_cast<int>(format), set.values.data(), out.data(), 0, rows, set.columns, importance);
}

// Root of the weighted mean square error over that of the values themselves.
double relative_error(peer_function peer, encoder encode, nibble::format_id format,
                      const row_kind& kind, bool weighted) {
  double error = 0.0, total = 0.0;
  for (const auto& set : kind.sets) {
    const auto columns = static_cast<std::size_t>(set.columns);
    const std::size_t rows = set.values.size() / columns;
    const std::size_t bytes = nibble::row_bytes(format, columns);
    std::vector<std::byte> out(rows * bytes);
    encode(peer, format, set, weighted ? set.importance.data() : nullptr, out);
    std::vector<float> back(columns);
    for (std::size_t row = 0; row < rows; ++row) {
      nibble::decode_row(format, out.data() + row * bytes, columns, back.data());
      for (std::size_t i = 0; i < columns; ++i) {
        const double x = set.values[row * columns + i];
        const double w = weighted ? set.importance[i] : 1.0;
        error += w * (x - back[i]) * (x - back[i]);
        total += w * x * x;
      }
    }
  }
  return std::sqrt(error / total);
}

void print_errors(const std::vector<std::string>& formats, const std::vector<row_kind>& kinds,
                  peer_function peer, bool weighted) {
  std::printf("| Format |");
  for (const auto& kind : kinds) {
    std::printf(" %s |%s", kind.name.c_str(), peer != nullptr ? " peer | ratio |" : "");
  }
  std::printf("\n|---|");
  for (std::size_t i = 0; i < kinds.size() * (peer != nullptr ? 3 : 1); ++i) std::printf("---:|");
  std::printf("\n");
  for (const auto& name : formats) {
    const auto format = *nibble::find_format(name);
    std::printf("| `%s` |", name.c_str());
    for (const auto& kind : kinds) {
      const double here = relative_error(peer, encode_here, format, kind, weighted);
      std::printf(" %.3g %% |", 100.0 * here);
      if (peer == nullptr) continue;
      const double there = relative_error(peer, encode_there, format, kind, weighted);
      std::printf(" %.3g %% | %.3f |", 100.0 * there, there > 0.0 ? here / there : 1.0);
    }
    std::printf("\n");
    std::fflush(stdout);
  }
}

double seconds(peer_function peer, encoder encode, nibble::format_id format, const row_set& set,
               std::span<std::byte> out) {
  const auto start = std::chrono::steady_clock::now();
  encode(peer, format, set, nullptr, out);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Millions of values a second on one thread: the best of interleaved passes, so that a busy machine
// disturbs both encoders alike.
void print_speeds(const std::vector<std::string>& formats, const row_set& set, peer_function peer,
                  int passes) {
  std::printf("| Format | Mvalues/s |%s\n|---|---:|%s\n", peer != nullptr ? " peer | ratio |" : "",
              peer != nullptr ? "---:|---:|" : "");
  const auto n = static_cast<double>(set.values.size());
  for (const auto& name : formats) {
    const auto format = *nibble::find_format(name);
    std::vector<std::byte> out(nibble::row_bytes(format, set.values.size()));
    double here = std::numeric_limits<double>::infinity(), there = here;
    for (int pass = 0; pass < passes; ++pass) {
      here = std::min(here, seconds(peer, encode_here, format, set, out));
      if (peer != nullptr) there = std::min(there, seconds(peer, encode_there, format, set, out));
    }
    std::printf("| `%s` | %.1f |", name.c_str(), n / here * 1e-6);
    if (peer != nullptr) std::printf(" %.1f | %.2f |", n / there * 1e-6, there / here);
    std::printf("\n");
    std::fflush(stdout);
  }
}

peer_function open_peer(const std::string& path) {
  if (path.empty()) return nullptr;
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error(dlerror());
  void* const symbol = dlsym(library, "ggml_quantize_chunk");
  if (symbol == nullptr) throw std::runtime_error(dlerror());
  return reinterpret_cast<peer_function>(symbol);
}

int run(int argc, char** argv) {
  CLI::App app("Errors and speed of the encoders of all weight formats, as Markdown");
  std::string model, peer_path;
  std::vector<std::string> formats;
  std::int64_t rows = 64;
  int passes = 5;
  app.add_option("--model", model, "GGUF file whose matrices are encoded, too");
  app.add_option("--peer", peer_path, "shared library with ggml_quantize_chunk, to compare with");
  app.add_option("--format", formats, "only these formats");
  app.add_option("--rows", rows, "made-up rows of each kind, of 4096 values")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_option("--passes", passes, "passes of which the fastest counts; 0: no speeds")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  for (const auto& name : formats) {
    if (!nibble::find_format(name)) throw std::runtime_error("there is no format " + name);
  }
  if (formats.empty()) {
    for (const auto& info : nibble::format_infos) formats.emplace_back(info.name);
  }
  const peer_function peer = open_peer(peer_path);
  std::vector<row_kind> kinds;
  kinds.push_back(made_rows("Gaussian", std::normal_distribution<float>(), rows));
  kinds.push_back(
      made_rows("Student t, 4 degrees", std::student_t_distribution<float>(4.0f), rows));
  if (!model.empty()) kinds.push_back(rows_of_model(model));
  std::printf("Error, all values alike:\n\n");
  print_errors(formats, kinds, peer, false);
  std::printf("\nError weighted with importances, which the encoders are given:\n\n");
  print_errors(formats, kinds, peer, true);
  if (passes == 0) return 0;
  std::printf("\nSpeed, one thread, Gaussian rows:\n\n");
  print_speeds(formats, kinds.front().sets.front(), peer, passes);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "nibble-encoder-errors: %s\n", e.what());
    return 1;
  }
}
