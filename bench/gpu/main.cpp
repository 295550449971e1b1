// nibble-gpu-bench: the kernels of one GPU beside what its memory can do, measured in the same run.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <exception>
#include <functional>
#include <iomanip>
#include <iostream>
#include <nibble/device/gpu.hpp>
#include <nibble/formats/list.hpp>
#include <string>
#include <vector>

#include "device/gpu_device.hpp"
#include "device/gpu_open.hpp"
#include "emulated/emulated.hpp"
#include "gpu/matrix_layout.hpp"

namespace {

namespace gpu = nibble::gpu;
using nibble::gpu_device;
using nibble::gpu_memory;

constexpr auto queue = gpu::queue_id::compute;

struct options {
  std::string device = "cuda0";
  std::size_t memory = std::size_t{1}
                       << 30;  // weights that a benchmark goes through, more than caches hold
  int repetitions = 5;
};

class bench {
 public:
  bench(std::shared_ptr<gpu_device> device, const options& o)
      : device_(std::move(device)), options_(o) {
    weights_ = make(o.memory, "weights");
    work_ = make(o.memory, "vectors");
    const auto lock = device_->lock();
    // scales of 0x3c3c, a little more than 1, and codes that are neither all zero nor extreme
    device_->fill(queue, weights_.data(), 0x3c, weights_.bytes());
    device_->fill(queue, work_.data(), 0x3c, work_.bytes());
    device_->finish(queue);
  }

  void run() {
    copy_bandwidth();
    table_head("product, few vectors", "GB/s", "of copying");
    for (const char* const format :
         {"q4_0", "q8_0", "q4_k", "q5_k", "q6_k", "iq4_xs", "mxfp4", "q2_k", "q3_k", "tq2_0"}) {
      for (const std::int32_t tokens : {1, 8}) matvec(format, tokens);
    }
    table_head("product, many vectors", "TOPS", "");
    for (const char* const format : {"q4_0", "q8_0", "q4_k", "q6_k"}) {
      for (const std::int64_t tokens : {64, 512, 2048}) matmul(format, tokens);
    }
  }

 private:
  static constexpr std::int64_t columns = 4096, rows = 14336;

  gpu_memory make(std::size_t bytes, const char* what) {
    return {device_, gpu_memory::kind::workspace, bytes, what};
  }

  // Seconds of the fastest of some repetitions; `work` launches, `n` times a repetition.
  double fastest(int n, const std::function<void(int)>& work) {
    const auto lock = device_->lock();
    double best = HUGE_VAL;
    for (int r = 0; r <= options_.repetitions; ++r) {
      const gpu::event_id begin = device_->mark(queue);
      for (int i = 0; i < n; ++i) work(i);
      device_->check_launches("a benchmark");
      const gpu::event_id end = device_->mark(queue);
      device_->finish(queue);
      const double seconds = device_->seconds_between(begin, end) / n;
      if (r > 0) best = std::min(best, seconds);  // the first one warms up
    }
    return best;
  }

  void copy_bandwidth() {
    const std::size_t bytes = options_.memory;
    const double seconds =
        fastest(4, [&](int) { device_->copy(queue, work_.data(), weights_.data(), bytes); });
    copied_ = 2.0 * static_cast<double>(bytes) / seconds;
    std::cout << "copying: " << std::fixed << std::setprecision(1) << copied_ / 1e9
              << " GB/s, read and written, of " << bytes / (1 << 20) << " MiB\n";
  }

  static void table_head(const char* what, const char* unit, const char* share) {
    std::cout << '\n'
              << std::left << std::setw(26) << what << std::right << std::setw(8) << "vectors"
              << std::setw(12) << "us" << std::setw(10) << unit << std::setw(12) << share << '\n';
  }

  gpu::packed_matrix matrix_at(int format, std::size_t at, std::size_t bytes) const {
    return {.data = weights_.data() + at,
            .format = format,
            .columns = columns,
            .rows = rows,
            .matrix_bytes = bytes,
            .matrices = 1};
  }

  // Vectors in the work memory, and where results go.
  gpu::q8_rows vectors(std::int64_t tokens) const {
    const std::int64_t n = tokens * columns;
    std::byte* const base = work_.data();
    return {reinterpret_cast<std::int8_t*>(base), reinterpret_cast<float*>(base + n),
            reinterpret_cast<std::int16_t*>(base + n + n / 8)};
  }
  float* results(std::int64_t tokens) const {
    return reinterpret_cast<float*>(work_.data() + (tokens * columns * 2 + 255) / 256 * 256);
  }

  void matvec(const char* name, std::int32_t tokens) {
    const nibble::format_id id = *nibble::find_format(name);
    const std::size_t bytes = nibble::kernels::layout_of(id, columns, rows).bytes;
    const int matrices = static_cast<int>(std::max<std::size_t>(weights_.bytes() / bytes, 1));
    const double seconds = fastest(matrices, [&](int i) {
      gpu::matvec_args args{
          .ready = vectors(tokens), .tokens = tokens, .columns = columns, .n_products = 1};
      args.products[0] = {.matrix = matrix_at(*nibble::format_index(id),
                                              static_cast<std::size_t>(i) * bytes, bytes),
                          .out = results(tokens)};
      device_->kernels().matvec(device_->target(), args);
    });
    const double rate = static_cast<double>(bytes) / seconds;
    line(name, tokens, seconds, rate / 1e9, rate / copied_);
  }

  void matmul(const char* name, std::int64_t tokens) {
    const nibble::format_id id = *nibble::find_format(name);
    const std::size_t bytes = nibble::kernels::layout_of(id, columns, rows).bytes;
    const double seconds = fastest(4, [&](int i) {
      gpu::matmul_args args{
          .in = vectors(tokens), .tokens = tokens, .columns = columns, .n_products = 1};
      args.products[0] = {.matrix = matrix_at(*nibble::format_index(id),
                                              static_cast<std::size_t>(i) * bytes, bytes),
                          .out = results(tokens)};
      device_->kernels().matmul(device_->target(), args);
    });
    line(name, tokens, seconds, 2.0 * columns * rows * static_cast<double>(tokens) / seconds / 1e12,
         -1);
  }

  static void line(const char* what, std::int64_t tokens, double seconds, double rate,
                   double share) {
    std::cout << std::left << std::setw(26) << what << std::right << std::setw(8) << tokens
              << std::setw(12) << std::setprecision(1) << seconds * 1e6 << std::setw(10)
              << std::setprecision(1) << rate;
    if (share >= 0) std::cout << std::setw(11) << std::setprecision(0) << share * 100 << '%';
    std::cout << '\n';
  }

  std::shared_ptr<gpu_device> device_;
  options options_;
  gpu_memory weights_, work_;
  double copied_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Measures the kernels of a GPU on matrices of 4096 x 14336, beside the rate at which it "
      "copies "
      "memory."};
  options o;
  std::size_t mebibytes = o.memory >> 20;
  app.add_option(
         "--device", o.device,
         "its id, as nibble-devices shows it; or emulated: the kernels run on the CPU, which "
         "says nothing about speed")
      ->capture_default_str();
  app.add_option("--memory", mebibytes, "MiB of weights that are gone through")
      ->capture_default_str()
      ->check(CLI::Range(128, 1 << 20));
  app.add_option("-r,--repetitions", o.repetitions, "of which the fastest counts")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  CLI11_PARSE(app, argc, argv);
  o.memory = mebibytes << 20;
  try {
    if (o.device == "emulated") {
      gpu::emulated_module module(std::vector{gpu::emulated_options{.memory = 3 * o.memory}});
      bench(std::make_shared<gpu_device>(module, 0), o).run();
    } else {
      const nibble::gpu_modules modules;
      bench(nibble::open_gpu(modules, o.device), o).run();
    }
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "error: " << e.what() << '\n';
    return 1;
  }
}
