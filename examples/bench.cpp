// nibble-bench: how fast a model reads prompts and generates, beside what the machine could do.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <iomanip>
#include <nibble/base/bytes.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <sstream>

#include "common.hpp"
#include "peaks/peaks.hpp"

namespace {

using nibble::concat;

struct bench_options {
  common::load_options load;
  std::vector<std::int32_t> prompts, generations, depths{0};
  std::int32_t repetitions = 5;
  std::string json_path;
  bool roofline = false;
};

enum class test_kind { prompt, generation };

struct test {
  test_kind kind;
  std::int32_t tokens;
  std::int32_t depth;  // tokens that the cache holds before

  std::string name() const {
    return concat(kind == test_kind::prompt ? "pp" : "tg", tokens,
                  depth > 0 ? concat("@d", depth) : "");
  }
};

struct result {
  test what;
  double tokens_per_second = 0;  // median of the repetitions
  double spread = 0;             // (fastest - slowest) / median
  double bytes_per_token = 0, macs_per_token = 0;

  double gb_s() const { return tokens_per_second * bytes_per_token / 1e9; }
  double gmac_s() const { return tokens_per_second * macs_per_token / 1e9; }
};

[[noreturn]] void refuse(const std::string& sentence) {
  throw nibble::error(nibble::errc::invalid_argument, sentence);
}

// Lengths that were not asked for are cut to what the model's context leaves at the depth.
void add_tests(std::vector<test>& tests, test_kind kind, const std::vector<std::int32_t>& lengths,
               std::int32_t usual, std::int32_t depth, std::int32_t context) {
  if (!lengths.empty()) {
    for (const std::int32_t n : lengths) {
      if (n > 0) tests.push_back({kind, n, depth});  // 0: no such test
    }
  } else if (depth < context) {
    tests.push_back({kind, std::min(usual, context - depth), depth});
  }
}

std::vector<test> choose_tests(const bench_options& options, std::int32_t context) {
  std::vector<test> tests;
  for (const std::int32_t depth : options.depths) {
    // the depth alone may fill the context only if nothing was asked for at it
    if (depth >= context) {
      refuse(concat("a depth of ", depth, " tokens leaves no room in a context of ", context,
                    "; choose a smaller one, or a longer --context."));
    }
    add_tests(tests, test_kind::prompt, options.prompts, 512, depth, context);
    add_tests(tests, test_kind::generation, options.generations, 128, depth, context);
  }
  for (const test& t : tests) {
    if (t.tokens <= context - t.depth) continue;
    refuse(concat(t.name(), " needs ", std::int64_t{t.tokens} + t.depth,
                  " tokens of context, but it holds ", context,
                  "; choose shorter tests, or a longer --context."));
  }
  if (tests.empty()) {
    throw common::usage_error("no test is left: give -p or -n a length above 0.");
  }
  return tests;
}

// Weights are read once for each batch of a prompt, and for each token that is generated; keys and
// values of earlier tokens once for each batch.
void count_costs(result& r, const nibble::placement& plan) {
  const std::int32_t batch = r.what.kind == test_kind::prompt ? plan.limits.max_tokens : 1;
  double bytes = 0, heads = 0;
  for (std::int32_t done = 0; done < r.what.tokens; done += batch) {
    const std::int32_t count = std::min(batch, r.what.tokens - done);
    bytes += static_cast<double>(plan.cost.weight_bytes(count) +
                                 plan.cost.kv_bytes(r.what.depth + done + count));
    heads += 1;  // logits are computed after the last token of a batch
  }
  r.bytes_per_token = bytes / r.what.tokens;
  r.macs_per_token = static_cast<double>(plan.cost.macs) +
                     static_cast<double>(plan.cost.head_macs) * heads / r.what.tokens;
}

class runner {
 public:
  explicit runner(const nibble::model& model)
      : model_(model), session_(model), random_(1), vocabulary_(0, model.hparams().n_vocab - 1) {}

  result run(const test& t, std::int32_t repetitions) {
    reach(t.depth);
    // wakes threads and touches memory
    once({t.kind, std::min(t.tokens, t.kind == test_kind::prompt ? 64 : 4), t.depth});
    std::vector<double> speeds;
    for (std::int32_t i = 0; i < repetitions; ++i) speeds.push_back(t.tokens / once(t));
    result r{.what = t, .tokens_per_second = bench::median(speeds)};
    const auto [least, most] = std::minmax_element(speeds.begin(), speeds.end());
    r.spread = (*most - *least) / r.tokens_per_second;
    count_costs(r, model_.plan());
    return r;
  }

 private:
  std::vector<nibble::token> draw(std::int32_t count) {
    std::vector<nibble::token> tokens(static_cast<std::size_t>(count));
    for (nibble::token& id : tokens) id = vocabulary_(random_);
    return tokens;
  }

  // Fills the cache up to `depth`, or cuts it back to that.
  void reach(std::int32_t depth) {
    const auto held = static_cast<std::int32_t>(session_.tokens().size());
    if (held < depth) session_.append(draw(depth - held));
    session_.truncate(depth);
  }

  // Seconds; the cache is as it was before.
  double once(const test& t) {
    const std::vector<nibble::token> tokens = draw(t.tokens);
    const auto start = std::chrono::steady_clock::now();
    if (t.kind == test_kind::prompt) {
      session_.append(tokens);
    } else {
      for (const nibble::token& id : tokens) session_.append({&id, 1});
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    session_.truncate(t.depth);
    return seconds.count();
  }

  const nibble::model& model_;
  nibble::session session_;
  std::mt19937 random_;  // the same tokens in every run of this program
  std::uniform_int_distribution<nibble::token> vocabulary_;
};

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

void print(const report& r, bool roofline) {
  std::cout << r.model_path << "\n"
            << r.device << ", " << common::counted(r.threads, "thread") << "; loaded in "
            << fixed(r.load_seconds, 2) << " s, " << nibble::to_text(r.resident) << " resident\n"
            << "limits measured before and after: memory read " << fixed(r.bandwidth, 1)
            << " GB/s, 8-bit integers " << fixed(r.integer_rate, 1) << " GMAC/s ("
            << r.integer_instructions << "), 8 by 4 bits " << fixed(r.narrow_rate, 1) << " GMAC/s ("
            << r.narrow_instructions << ")\n\n";
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
  return all;
}

// "avx2" of "CPU (2 cores, avx2)": the limit of 8-bit integers is that of the kernels in use.
std::string isa_of(const nibble::device_info& device) {
  const std::string& name = device.name;
  const auto comma = name.rfind(", "), end = name.rfind(')');
  return comma < end && end != std::string::npos ? name.substr(comma + 2, end - comma - 2) : "";
}

report measure(bench_options& options) {
  const nibble::gguf::file file(options.load.path);
  nibble::plan_options& plan = options.load.model.plan;
  const std::int32_t most =
      plan.context > 0 ? plan.context : nibble::read_hparams(file).n_ctx_train;
  const auto tests = choose_tests(options, most);
  plan.context = 0;
  for (const test& t : tests) plan.context = std::max(plan.context, t.depth + t.tokens);

  std::cerr << "loading " << options.load.path << '\n';
  const nibble::model model(file, options.load.model);
  const nibble::device_info& device = model.plan().devices[0].device;
  report r{.model_path = options.load.path,
           .device = device.name,
           .threads = device.threads,
           .load_seconds = model.loading().seconds};
  bench::peaks peaks(device.threads, isa_of(device));
  r.integer_instructions = peaks.integer_instructions();
  r.narrow_instructions = peaks.narrow_instructions();
  std::cerr << "measuring the machine\n";
  peaks.measure();
  runner run(model);
  for (const test& t : tests) {
    std::cerr << t.name() << ": " << options.repetitions << " repetitions\n";
    r.results.push_back(run.run(t, options.repetitions));
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
  const auto lengths = [&](const char* name, std::vector<std::int32_t>& to, const char* help) {
    app.add_option(name, to, help)->delimiter(',')->check(CLI::Range(0, 1 << 28));
  };
  lengths("-p,--prompt", options.prompts,
          "lengths of prompts, 512,1024 (default: 512, or what the context allows; 0: none)");
  lengths("-n,--generate", options.generations,
          "tokens to generate, one by one (default: 128, or what the context allows; 0: none)");
  lengths("-d,--depth", options.depths, "tokens in the cache before each test (default: 0)");
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
