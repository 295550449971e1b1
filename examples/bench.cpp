// nibble-bench: how fast a model reads prompts and generates, beside what the machine could do.

#include <algorithm>
#include <functional>
#include <iomanip>
#include <nibble/base/bytes.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "bench_tests.hpp"
#include "common.hpp"
#include "peaks/peaks.hpp"

namespace {

struct bench_options {
  common::load_options load;
  bench::test_choice tests;
  std::int32_t repetitions = 5;
  std::string json_path;
  bool roofline = false;
};

using bench::result;

// What of this process lies in memory, as Linux tells; 0 elsewhere.
std::uint64_t resident_bytes() {
  std::ifstream in("/proc/self/status");
  for (std::string word; in >> word;) {
    std::uint64_t kib = 0;
    if (word == "VmRSS:" && in >> kib) return kib << 10;
  }
  return 0;
}

struct report {
  std::string model_path;
  std::string device;
  std::int32_t threads = 0;
  double load_seconds = 0;
  std::uint64_t resident = 0;
  double bandwidth = 0, integer_rate = 0, narrow_rate = 0;  // GB/s, GMAC/s
  std::string integer_instructions = {}, narrow_instructions = {};
  std::vector<result> results = {};
  std::vector<bench::first_token> first_tokens = {};
};

std::string fixed(double x, int digits) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(digits) << x;
  return out.str();
}
std::string percent(double share) {
  return fixed(100 * share, 1) + " %";
}

// One column of the table: its heading, and its text for a result.
struct column {
  const char* heading;
  int width;
  std::function<std::string(const result&)> text;
};

std::vector<column> make_columns(const report& r, bool roofline) {
  std::vector<column> columns{
      {"test", 14, [](const result& x) { return x.what.name(); }},
      {"tokens/s", 12, [](const result& x) { return fixed(x.tokens_per_second, 2); }},
      {"spread", 10, [](const result& x) { return percent(x.spread); }},
      {"bandwidth", 11, [&](const result& x) { return percent(x.gb_s() / r.bandwidth); }},
      {"integer", 10, [&](const result& x) { return percent(x.gmac_s() / r.integer_rate); }},
      {"4-bit", 9, [&](const result& x) { return percent(x.gmac_s() / r.narrow_rate); }},
  };
  if (!roofline) return columns;
  const auto most = [&](const result& x) {
    return std::min(r.bandwidth * 1e9 / x.bytes_per_token, r.narrow_rate * 1e9 / x.macs_per_token);
  };
  columns.insert(
      columns.end(),
      {{"MB/token", 12, [](const result& x) { return fixed(x.bytes_per_token / 1e6, 2); }},
       {"MMAC/token", 12, [](const result& x) { return fixed(x.macs_per_token / 1e6, 1); }},
       {"GB/s", 9, [](const result& x) { return fixed(x.gb_s(), 1); }},
       {"GMAC/s", 9, [](const result& x) { return fixed(x.gmac_s(), 1); }},
       {"roof", 11, [most](const result& x) { return fixed(most(x), 1); }},
       {"of roof", 10,
        [most](const result& x) { return percent(x.tokens_per_second / most(x)); }}});
  return columns;
}

void print_table(const report& r, bool roofline) {
  const auto columns = make_columns(r, roofline);
  for (const column& c : columns) std::cout << std::setw(c.width) << c.heading;
  std::cout << '\n';
  for (const result& x : r.results) {
    for (const column& c : columns) std::cout << std::setw(c.width) << c.text(x);
    std::cout << '\n';
  }
  std::cout << "\ntokens/s: median; spread: (fastest - slowest) / median; bandwidth, integer, "
               "4-bit: share of the limits\n";
  if (roofline)
    std::cout << "roof: tokens/s that the nearer of the limits allows (memory; products of 8 by 4 "
                 "bits)\n";
}

void print_first_tokens(const report& r) {
  std::cout << '\n';
  const auto row = [](const std::string& name, const auto&... columns) {
    std::cout << std::setw(14) << name;
    ((std::cout << std::setw(14) << columns), ...);
    std::cout << '\n';
  };
  row("first token", "prompt", "alone, s", "shared, s", "times sooner");
  for (const bench::first_token& t : r.first_tokens) {
    row(t.name(), t.prompt, fixed(t.seconds, 4), fixed(t.seconds_shared, 4), fixed(t.ratio(), 1));
  }
  std::cout << "\nseconds from a prompt to the first token, medians; shared: another session holds "
               "the prompt's\nfirst tokens, as many as the name says\n";
}

void print(const report& r, bool roofline) {
  std::cout << r.model_path << "\n"
            << r.device << ", " << common::counted(r.threads, "thread") << "; loaded in "
            << fixed(r.load_seconds, 2) << " s, " << nibble::to_text(r.resident) << " resident\n"
            << "limits measured before and after: memory read " << fixed(r.bandwidth, 1)
            << " GB/s, 8-bit integers " << fixed(r.integer_rate, 1) << " GMAC/s ("
            << r.integer_instructions << "), 8 by 4 bits " << fixed(r.narrow_rate, 1) << " GMAC/s ("
            << r.narrow_instructions << ")\n\n";
  if (!r.results.empty()) print_table(r, roofline);
  if (!r.first_tokens.empty()) print_first_tokens(r);
}

nlohmann::ordered_json to_json(const report& r) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const result& x : r.results) {
    all.push_back({{"model", r.model_path},
                   {"test", x.what.name()},
                   {"threads", r.threads},
                   {"tokens_per_second", x.tokens_per_second},
                   {"spread", x.spread},
                   {"bandwidth_gb_s", r.bandwidth},
                   {"bandwidth_share", x.gb_s() / r.bandwidth},
                   {"integer_gmac_s", r.integer_rate},
                   {"integer_instructions", r.integer_instructions},
                   {"integer_share", x.gmac_s() / r.integer_rate},
                   {"narrow_gmac_s", r.narrow_rate},
                   {"narrow_instructions", r.narrow_instructions},
                   {"narrow_share", x.gmac_s() / r.narrow_rate},
                   {"load_seconds", r.load_seconds},
                   {"resident_bytes", r.resident}});
  }
  for (const bench::first_token& t : r.first_tokens) {
    all.push_back({{"model", r.model_path},
                   {"test", t.name()},
                   {"threads", r.threads},
                   {"prompt_tokens", t.prompt},
                   {"shared_tokens", t.found},
                   {"seconds", t.seconds},
                   {"seconds_shared", t.seconds_shared},
                   {"ratio", t.ratio()},
                   {"load_seconds", r.load_seconds},
                   {"resident_bytes", r.resident}});
  }
  return all;
}

// "avx2" of "CPU (2 cores, avx2)": the limit of 8-bit integers is that of the kernels in use.
std::string isa_of(const nibble::device_info& device) {
  const std::string& name = device.name;
  const auto comma = name.rfind(", "), end = name.rfind(')');
  return comma < end && end != std::string::npos ? name.substr(comma + 2, end - comma - 2) : "";
}

// Tasks of the scheduler make text.
void check_vocabulary(const std::vector<bench::test>& tests, const nibble::gguf::file& file) {
  for (const bench::test& t : tests) {
    if (t.sessions == 1 || nibble::has_tokenizer(file)) continue;
    throw nibble::error(nibble::errc::unsupported,
                        nibble::concat(t.name(),
                                       " needs a vocabulary, as several sessions "
                                       "generate text together; this file has none. "
                                       "Leave --sessions at 1."),
                        {.file = file.name()});
  }
}

report measure(bench_options& options) {
  const nibble::gguf::file file(options.load.path);
  nibble::plan_options& plan = options.load.model.plan;
  const std::int32_t most =
      plan.context > 0 ? plan.context : nibble::read_hparams(file).n_ctx_train;
  const auto tests = bench::choose_tests(options.tests, most);
  bench::fit(plan, tests, options.tests);
  check_vocabulary(tests, file);

  std::cerr << "loading " << options.load.path << '\n';
  const nibble::model model(file, options.load.model);
  const nibble::device_info& device = model.plan().devices[0].device;
  report r{.model_path = options.load.path,
           .device = common::device_names(model.plan()),
           .threads = device.threads,
           .load_seconds = model.loading().seconds};
  bench::peaks peaks(device.threads, isa_of(device));
  r.integer_instructions = peaks.integer_instructions();
  r.narrow_instructions = peaks.narrow_instructions();
  std::cerr << "measuring the machine\n";
  peaks.measure();
  bench::runner run(model);
  const std::string times = common::counted(options.repetitions, "repetition");
  for (const bench::test& t : tests) {
    std::cerr << t.name() << ": " << times << '\n';
    r.results.push_back(run.run(t, options.repetitions));
  }
  for (const std::int32_t shared : options.tests.shared_prefixes) {
    std::cerr << bench::first_token{.shared = shared}.name() << ": " << times << '\n';
    r.first_tokens.push_back(run.run_shared(shared, options.repetitions));
  }
  r.resident = resident_bytes();
  std::cerr << "measuring the machine again\n";
  peaks.measure();
  r.bandwidth = peaks.bandwidth();
  r.integer_rate = peaks.integer_rate();
  r.narrow_rate = peaks.narrow_rate();
  return r;
}

void add_options(CLI::App& app, bench_options& options) {
  options.load.add_to(app);
  const auto numbers = [&](const char* name, std::vector<std::int32_t>& to, std::int32_t least,
                           std::int32_t most, const char* help) {
    app.add_option(name, to, help)->delimiter(',')->check(CLI::Range(least, most));
  };
  const auto lengths = [&](const char* name, std::vector<std::int32_t>& to, const char* help) {
    numbers(name, to, 0, 1 << 28, help);
  };
  lengths("-p,--prompt", options.tests.prompts,
          "lengths of prompts, 512,1024 (default: 512, or what the context allows; 0: none)");
  lengths("-n,--generate", options.tests.generations,
          "tokens to generate, one by one (default: 128, or what the context allows; 0: none)");
  lengths("-d,--depth", options.tests.depths, "tokens in the cache before each test (default: 0)");
  numbers("-s,--sessions", options.tests.sessions, 1, 256,
          "sessions that generate together, 1,8 (default: 1); tokens/s are those of all. With "
          "more than 1 the scheduler runs them: tokens are drawn from their logits, too");
  numbers("--shared-prefix", options.tests.shared_prefixes, 1, 1 << 28,
          "also measure the time to the first token of a prompt of so many tokens and 16 more, "
          "with and without another session that holds the first ones");
  app.add_option("-r,--repetitions", options.repetitions, "of each test")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000000));
  common::add_json(app, options.json_path, "also write the results to this file as JSON");
  app.add_flag("--roofline", options.roofline,
               "more columns: bytes and products of a token, rates, the speed the limits allow");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Measures prompt processing (pp) and generation (tg) of random tokens, beside the machine's "
      "memory bandwidth and integer rate measured in the same run."};
  bench_options options;
  add_options(app, options);
  if (const auto status = common::parse(app, argc, argv)) return *status;

  return common::run([&] {
    // opened first: a name that cannot be written should not cost the results
    std::optional<common::output> json;
    if (!options.json_path.empty()) {
      json.emplace(options.json_path, nibble::gguf::file(options.load.path).paths());
    }
    const report r = measure(options);
    print(r, options.roofline);
    if (!json) return;
    json->stream() << to_json(r).dump(1, ' ', false, nlohmann::json::error_handler_t::replace)
                   << '\n';
    json->finish();
  });
}
