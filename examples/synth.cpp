// nibble-synth: a GGUF file of any supported architecture and shape with random weights, to measure
// speed and memory without a download.

#include <chrono>
#include <cmath>
#include <iomanip>
#include <nibble/base/bytes.hpp>
#include <nibble/formats/list.hpp>
#include <nibble/gguf/writer.hpp>
#include <nibble/model/arch.hpp>
#include <nibble/quantise/mix.hpp>
#include <thread>

#include "common.hpp"
#include "synth_options.hpp"
#include "synth_presets.hpp"
#include "synth_vocabulary.hpp"
#include "synth_weights.hpp"

namespace gguf = nibble::gguf;

namespace {

constexpr auto f32 = nibble::id_of<nibble::formats::f32>;

// The tensors that the model will have, each with the format that the type gives it.
std::vector<std::pair<nibble::tensor_need, nibble::format_id>> choose_tensors(
    const gguf::file& metadata, const synth::model_numbers& numbers, const nibble::arch_spec& arch,
    const nibble::hparams& hp, const synth::options& o) {
  std::vector<std::pair<nibble::tensor_need, nibble::format_id>> out;
  std::vector<nibble::mix_tensor> tensors;
  for (nibble::tensor_need& need : nibble::declare_tensors(arch, hp)) {
    if (need.present == nibble::presence::optional &&
        !synth::has_optional_tensor(numbers, need.name)) {
      continue;
    }
    out.emplace_back(std::move(need), f32);
  }
  for (const auto& [need, format] : out) tensors.push_back({need.name, need.shape});
  const auto choices = nibble::choose_formats(nibble::read_mix_model(metadata), tensors,
                                              {.type = o.type, .pure = o.pure});
  std::map<std::pair<std::string, std::string>, int> replaced;
  for (std::size_t i = 0; i < out.size(); ++i) {
    auto& [need, format] = out[i];
    if (need.as_float || !choices[i].to) continue;
    format = *choices[i].to;
    if (const auto wanted = choices[i].instead_of) {
      ++replaced[{nibble::format_name(*wanted), nibble::format_name(format)}];
    }
  }
  for (const auto& [formats, count] : replaced) {
    std::cerr << nibble::concat(common::counted(count, "tensor"), count == 1 ? " is " : " are ",
                                formats.second, " instead of ", formats.first, ", of which ",
                                count == 1 ? "its" : "their", " rows are no whole blocks.\n");
  }
  return out;
}

// Outputs of a matrix are about 1 if its inputs are. Logits are spread more, as those of trained
// models are.
synth::random_tensor random_of(const nibble::tensor_need& need, const nibble::hparams& hp,
                               nibble::format_id format) {
  synth::random_tensor t{.name = need.name, .format = format, .shape = need.shape};
  constexpr float logit_spread = 3;
  const float by_width = 1 / std::sqrt(static_cast<float>(need.shape.columns()));
  if (!need.as_float) {
    const bool head = need.name == "output.weight" ||
                      (need.name == "token_embd.weight" && hp.embedding_scale == 1);
    t.spread = head ? logit_spread * by_width : by_width;
  } else if (need.name.ends_with(".bias") || need.name.ends_with("sinks.weight")) {
    t.spread = 0.02f;
  } else {
    t.mean = 1;
    t.spread = 0.1f;
  }
  return t;
}

struct totals {
  std::uint64_t tensors = 0, parameters = 0, bytes = 0;
};

// Adds all tensors that the architecture declares for the metadata that `out` has.
totals add_tensors(gguf::writer& out, const synth::model_numbers& numbers, const synth::options& o,
                   const synth::random_options& random) {
  const auto header = out.to_bytes();
  const gguf::file metadata(header, o.out);
  const nibble::arch_spec& arch = nibble::find_arch(numbers.arch);
  const nibble::hparams hp = nibble::read_hparams(metadata, arch);
  totals sum;
  const auto count = [&](const nibble::shape& shape, nibble::format_id format) {
    ++sum.tensors;
    sum.parameters += shape.elements();
    sum.bytes += nibble::row_bytes(format, shape.columns()) * shape.rows();
  };
  for (const auto& [need, format] : choose_tensors(metadata, numbers, arch, hp, o)) {
    const auto tensor = random_of(need, hp, format);
    out.add_tensor(tensor.name, format, tensor.shape, synth::random_source(tensor, random));
    count(tensor.shape, format);
  }
  if (auto factors = synth::rope_factors(numbers, hp.n_rot); !factors.empty()) {
    const nibble::shape shape = nibble::rope_factors_shape(hp);
    out.add_tensor(nibble::rope_factors_name, f32, shape,
                   [factors = std::move(factors)](const gguf::byte_sink& sink) {
                     sink(std::as_bytes(std::span(factors)));
                   });
    count(shape, f32);
  }
  return sum;
}

// Shows on a terminal how much is written, and ends the work after a signal.
class watcher {
 public:
  watcher() = default;
  watcher(const watcher&) = delete;
  watcher& operator=(const watcher&) = delete;
  ~watcher() {
    if (shown_) std::fputs("\r\033[K", stderr);
  }

  void expect(std::uint64_t bytes) { total_ = bytes; }
  void add(std::uint64_t bytes) {
    check();
    done_ += bytes;
    if (shown_ && total_ > 0) {
      std::fprintf(stderr, "\rwriting %3.0f %%",
                   100 * static_cast<double>(done_) / static_cast<double>(total_));
    }
  }

  void check() {
    stop_.check([] { return "interrupted; nothing was written."; });
  }

 private:
  common::graceful_stop stop_;
  bool shown_ = isatty(STDERR_FILENO) != 0;
  std::uint64_t total_ = 0, done_ = 0;
};

void list_presets() {
  std::cout << std::left << std::setw(18) << "preset" << std::setw(10) << "arch" << std::right
            << std::setw(7) << "layers" << std::setw(8) << "width" << std::setw(8) << "ff"
            << std::setw(7) << "heads" << std::setw(5) << "kv" << std::setw(9) << "experts"
            << std::setw(9) << "vocab" << '\n';
  for (const synth::model_numbers& row : synth::presets()) {
    std::cout << std::left << std::setw(18) << row.name << std::setw(10) << row.arch << std::right
              << std::setw(7) << row.n_layer << std::setw(8) << row.n_embd << std::setw(8)
              << (row.n_expert > 0 ? row.n_ff_expert : row.n_ff) << std::setw(7) << row.n_head
              << std::setw(5) << row.n_head_kv << std::setw(9) << row.n_expert << std::setw(9)
              << row.n_vocab << '\n';
  }
}

void make(const synth::options& o) {
  const synth::model_numbers numbers = synth::numbers_of(o);
  watcher watch;
  gguf::writer out;
  synth::write_numbers(out, numbers);
  if (!o.no_vocabulary) {
    synth::write_vocabulary(out, synth::vocabulary_of(numbers.arch), numbers.n_vocab,
                            [&] { watch.check(); });
  }
  const unsigned threads = o.threads > 0 ? static_cast<unsigned>(o.threads)
                                         : std::max(1u, std::thread::hardware_concurrency());
  const totals sum = add_tensors(
      out, numbers, o,
      {.seed = o.seed, .threads = threads, .written = [&](std::uint64_t n) { watch.add(n); }});
  out.set("general.file_type", nibble::find_type_mix(o.type)->file_type);
  out.set("general.quantization_version", std::uint32_t{2});
  watch.expect(sum.bytes);
  watch.check();
  const auto start = std::chrono::steady_clock::now();
  out.write(o.out, {.header_only = o.header_only});
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::cout << o.out << ": " << numbers.name << " (" << numbers.arch << "), " << sum.tensors
            << " tensors, " << std::fixed << std::setprecision(3)
            << static_cast<double>(sum.parameters) / 1e9 << " billion parameters, " << o.type
            << '\n';
  if (o.header_only) {
    std::cout << "header only: " << nibble::to_text(sum.bytes) << " of tensor data left out\n";
  } else {
    std::cout << nibble::to_text(sum.bytes) << " in " << seconds
              << " s, until the disk had them: " << static_cast<double>(sum.bytes) / seconds / 1e9
              << " GB/s\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Writes a GGUF file with random weights: of a published shape (--preset), or of any\n"
      "(--arch and numbers)."};
  synth::options o;
  synth::add_options(app, o);
  app.final_callback([&] { synth::check_options(app, o); });
  if (const auto status = common::parse(app, argc, argv)) return *status;
  // a model made of options alone: what cannot be made was asked for
  return common::run([&] { common::as_usage([&] { o.list ? list_presets() : make(o); }); });
}
