// nibble-microbench: the kernels one by one, beside what the machine can do.
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include "cpu/select.hpp"
#include "report.hpp"

namespace {

constexpr const char* help =
    R"(usage: nibble-microbench [OPTIONS OF GOOGLE BENCHMARK]

Measures the kernels: products of weights and activations, rows, attention, encoders, samplers.
Names are kernel/format/isa/size, for products with /threads:2 as a variant:

  nibble-microbench --benchmark_list_tests
  nibble-microbench --benchmark_filter='matmul_q8/q4_0/avx2'
  nibble-microbench --benchmark_filter='matmul_f32/.*/512' --benchmark_repetitions=5
  nibble-microbench --benchmark_out=result.json --benchmark_out_format=json

Without a filter the other instruction sets than the best are left out; '.' runs everything. The
time of a benchmark is 0.1 s unless --benchmark_min_time says otherwise.

Each is compared with limits that the same thread measures right before and after it: reading
memory (of_memory), multiply-adds in registers with the instructions of its instruction set
(of_peak), loads from the nearest cache (of_cache; a row that is read and written can come to
more than 1, stores being counted with loads). GB/s counts weights, keys and values, or rows, once;
GMAC/s multiply-adds. Rates are in processor time. Tables of the shares come at the end.
)";

// Everything but the names that have one of the other instruction sets in them.
std::string usual_filter() {
  const auto tables = nibble::cpu::available_kernels();
  std::string others;
  for (std::size_t i = 1; i < tables.size(); ++i) {
    others.append(others.empty() ? "" : "|").append(tables[i]->isa);
  }
  return others.empty() ? "." : "-/(" + others + ")/";
}

}  // namespace

int main(int argc, char** argv) {
  // before the user's, so that theirs count
  std::vector<std::string> words{argv[0], "--benchmark_min_time=0.1",
                                 "--benchmark_filter=" + usual_filter()};
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--help") == 0 || std::strcmp(argv[i], "-h") == 0) {
      std::cout << help;
      return 0;
    }
    words.emplace_back(argv[i]);
  }
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;
  bench::table_reporter reporter;
  const std::size_t ran = benchmark::RunSpecifiedBenchmarks(&reporter);
  benchmark::Shutdown();
  return ran > 0 ? 0 : 1;  // a filter that nothing matches has been reported
}
