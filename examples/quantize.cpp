// nibble-quantize: writes a model file in another weight format.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <iomanip>
#include <limits>
#include <nibble/base/bytes.hpp>
#include <nibble/formats/list.hpp>
#include <nibble/quantise/file.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common.hpp"
#include "progress.hpp"

namespace {

struct options {
  std::string in, out, imatrix_path, json_path;
  nibble::quantise_options work;
  bool dry_run = false, verbose = false;
};

nibble::format_id format_named(const std::string& option, const std::string& name) {
  std::string lower = name;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (const auto id = nibble::find_format(lower)) return *id;
  throw CLI::ValidationError(option, "there is no format '" + nibble::gguf::printable(name) +
                                         "'; formats are " + nibble::format_names());
}

std::string is_pattern(const std::string& text) {
  return common::refusal_of([&] { nibble::check_glob(text); });
}

// What is wrong with the text of a size, which CLI::AsSizeValue would cut down or wrap silently.
std::string is_size(const std::string& text) {
  std::uint64_t bytes = 0;
  const char* const end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, bytes);
  const auto of_unit = [](unsigned char c) { return c == ' ' || std::isalpha(c) != 0; };
  if (read.ec == std::errc{} && std::all_of(read.ptr, end, of_unit)) return "";
  return "a whole number of bytes from 0 up was expected, or one with a unit, such as 4GB, not '" +
         nibble::gguf::printable(text) + "'";
}

void add_rules(CLI::App& app, nibble::mix_options& mix) {
  app.add_option_function<std::vector<std::string>>(
         "--tensor",
         [&mix](const std::vector<std::string>& all) {
           for (const std::string& text : all) {
             const auto at = text.rfind('=');
             if (at == std::string::npos || at == 0) {
               throw CLI::ValidationError(
                   "--tensor", "'" + nibble::gguf::printable(text) + "' is not PATTERN=FORMAT");
             }
             const std::string fault = is_pattern(text.substr(0, at));
             if (!fault.empty()) throw CLI::ValidationError("--tensor", fault);
             mix.rules.push_back(
                 {text.substr(0, at), format_named("--tensor", text.substr(at + 1))});
           }
         },
         "PATTERN=FORMAT: tensors whose whole name fits the glob (*, ?, [0-3]) get this format, "
         "such as '*ffn_down*=q6_k'; may be repeated, the first that fits decides")
      ->allow_extra_args(false);
  app.add_option("--leave", mix.leave, "glob of tensors that stay as they are; may be repeated")
      ->allow_extra_args(false)
      ->check(is_pattern);
  app.add_option_function<std::string>(
      "--output-type",
      [&mix](const std::string& name) { mix.output = format_named("--output-type", name); },
      "format of the output matrix");
  app.add_option_function<std::string>(
      "--embedding-type",
      [&mix](const std::string& name) { mix.embedding = format_named("--embedding-type", name); },
      "format of the token embedding");
  app.add_flag("--pure", mix.pure, "one format for all, without the type's exceptions");
}

void add_options(CLI::App& app, options& o) {
  app.add_option("in", o.in, "GGUF file (any part of a split one), in any format")
      ->required()
      ->check(common::not_empty);
  app.add_option("out", o.out, "file to write")->required()->check(common::is_separate_output);
  app.add_option("type", o.work.mix.type, "type to write, such as q4_k_m; listed below")
      ->required()
      ->check(common::is_type);
  app.add_option("--imatrix", o.imatrix_path, "importance matrix that weights the errors")
      ->check(common::not_empty);
  add_rules(app, o.work.mix);
  app.add_option("--split-max-size", o.work.max_part_bytes,
                 "write parts of at most this size, such as 4GB (0: one file)")
      ->transform(CLI::AsSizeValue(true))
      ->transform(CLI::Validator(is_size, ""));  // looks first
  app.add_flag("-n,--dry-run", o.dry_run,
               "say what would be written, to the byte, and stop; a file's header is enough");
  app.add_flag("-v,--verbose", o.verbose, "a line for each tensor, not for each kind");
  common::add_json(app, o.json_path, "also write the report to this file as JSON");
  common::add_threads(app, o.work.threads);
  std::ostringstream types;
  types << "Types:\n";
  for (const nibble::type_mix& mix : nibble::all_type_mixes()) {
    types << "  " << std::left << std::setw(11) << mix.name << mix.about << '\n';
  }
  app.footer(types.str());
}

// "blk.17.attn_q.weight" is one of "blk.*.attn_q.weight".
std::string kind_of(const std::string& name) {
  const std::string mark = "blk.";
  const auto begin = name.find(mark);
  if (begin == std::string::npos) return name;
  const auto end = name.find_first_not_of("0123456789", begin + mark.size());
  return name.substr(0, begin + mark.size()) + "*" +
         (end == std::string::npos ? "" : name.substr(end));
}

struct row {
  std::string name, shape, from, to;
  std::uint64_t tensors = 0, weights = 0, bytes_from = 0, bytes_to = 0;
};

std::vector<row> rows_of(const nibble::quantise_report& report, bool each) {
  std::vector<row> rows;
  std::map<std::string, std::size_t> known;
  for (const nibble::quantised_tensor& t : report.tensors) {
    row r;
    r.name = nibble::gguf::printable(each ? t.name : kind_of(t.name));
    r.shape = to_text(t.shape);
    r.from = nibble::format_name(t.from);
    r.to = t.converted ? nibble::format_name(t.to) : "as it is";
    if (t.instead_of) r.to += " (no " + nibble::format_name(*t.instead_of) + ")";
    const std::string key = r.name + r.shape + r.from + r.to;
    const auto [at, added] = known.emplace(each ? t.name : key, rows.size());
    if (added) rows.push_back(r);
    row& sum = rows[at->second];
    ++sum.tensors;
    sum.weights += t.shape.elements();
    sum.bytes_from += t.bytes_from;
    sum.bytes_to += t.bytes_to;
  }
  return rows;
}

double bits(std::uint64_t bytes, std::uint64_t weights) {
  return weights == 0 ? 0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(weights);
}

void print_row(const row& r) {
  std::cout << "  " << std::left << std::setw(32) << r.name << ' ' << std::setw(18) << r.shape
            << std::right << std::setw(5) << r.tensors << "  " << std::left << std::setw(9)
            << r.from << std::setw(16) << r.to << std::right << std::setw(11)
            << nibble::to_text(r.bytes_from) << std::setw(11) << nibble::to_text(r.bytes_to)
            << std::fixed << std::setprecision(2) << std::setw(8) << bits(r.bytes_to, r.weights)
            << '\n';
}

void print_table(const nibble::quantise_report& report, bool each) {
  std::cout << "  " << std::left << std::setw(32) << "tensor" << ' ' << std::setw(18) << "shape"
            << std::right << std::setw(5) << "count"
            << "  " << std::left << std::setw(9) << "from" << std::setw(16) << "to" << std::right
            << std::setw(11) << "bytes" << std::setw(11) << "bytes" << std::setw(8) << "bits\n";
  for (const row& r : rows_of(report, each)) print_row(r);
}

// Names on one line, of which "and 3 more" stands for those that are too many.
void print_names(const char* what, const std::vector<std::string>& names) {
  constexpr std::size_t most = 8;
  if (names.empty()) return;
  std::cout << what << ": ";
  for (std::size_t i = 0; i < std::min(most, names.size()); ++i) {
    std::cout << (i > 0 ? ", " : "") << nibble::gguf::printable(names[i]);
  }
  if (names.size() > most) std::cout << " and " << names.size() - most << " more";
  std::cout << '\n';
}

// Tensors whose errors the importance matrix could have weighed.
std::vector<std::string> unweighted(const nibble::quantise_report& report) {
  std::vector<std::string> names;
  for (const nibble::quantised_tensor& t : report.tensors) {
    if (t.has_errors && !t.weighted) names.push_back(t.name);
  }
  return names;
}

std::vector<std::string> all_zero(const nibble::imatrix& importance) {
  std::vector<std::string> names;
  for (const auto& [name, entry] : importance.tensors) {
    if (entry.says_nothing()) names.push_back(name);
  }
  return names;
}

void print_totals(const nibble::quantise_report& report, const options& o) {
  std::cout << "weights: " << report.weights() << "; " << nibble::to_text(report.bytes_from)
            << " -> " << nibble::to_text(report.bytes_to) << ", " << std::fixed
            << std::setprecision(2) << bits(report.bytes_from, report.weights()) << " -> "
            << bits(report.bytes_to, report.weights()) << " bits each\n";
  std::size_t other = 0, weighted = 0, converted = 0;
  for (const nibble::quantised_tensor& t : report.tensors) {
    if (t.instead_of) {
      ++other;
      std::cout << "instead of " << nibble::format_name(*t.instead_of) << ": "
                << nibble::gguf::printable(t.name) << " is " << nibble::format_name(t.to)
                << ", its rows of " << t.shape.columns() << " do not divide into such blocks\n";
    }
    if (t.weighted) ++weighted;
    if (t.converted) ++converted;
  }
  std::cout << "tensors: " << report.tensors.size() << ", of which " << converted << " converted, "
            << other << " to another format than the type has for them";
  if (o.work.importance != nullptr) std::cout << ", " << weighted << " weighted by importance";
  std::cout << '\n';
  if (o.work.importance != nullptr) {
    print_names("without importance", unweighted(report));
    print_names("importance that is all 0, as if there was none", all_zero(*o.work.importance));
    print_names("importance of no tensor here", report.unused_importance);
  }
  for (const auto& part : report.parts) {
    std::cout << (o.dry_run ? "would write " : "wrote ") << part.path.string() << ", " << part.bytes
              << " bytes\n";
  }
}

nlohmann::ordered_json to_json(const nibble::quantise_report& report, const options& o,
                               double seconds) {
  nlohmann::ordered_json out{{"weights", report.weights()},
                             {"bytes_from", report.bytes_from},
                             {"bytes_to", report.bytes_to},
                             {"seconds", seconds},
                             {"parts", nlohmann::ordered_json::array()},
                             {"tensors", nlohmann::ordered_json::array()}};
  for (const auto& part : report.parts) {
    out["parts"].push_back({{"path", part.path.string()}, {"bytes", part.bytes}});
  }
  for (const nibble::quantised_tensor& t : report.tensors) {
    nlohmann::ordered_json tensor{{"name", t.name},
                                  {"shape", t.shape.extent},
                                  {"from", nibble::format_name(t.from)},
                                  {"to", nibble::format_name(t.to)},
                                  {"bytes_from", t.bytes_from},
                                  {"bytes_to", t.bytes_to},
                                  {"weighted", t.weighted}};
    if (t.instead_of) tensor["instead_of"] = nibble::format_name(*t.instead_of);
    out["tensors"].push_back(std::move(tensor));
  }
  if (o.work.importance != nullptr) {
    out["importance"] = {{"file", o.imatrix_path},
                         {"entries", o.work.importance->tensors.size()},
                         {"without", unweighted(report)},
                         {"all_zero", all_zero(*o.work.importance)},
                         {"unused", report.unused_importance}};
  }
  return out;
}

std::string progress_text(const nibble::quantise_progress& p, double seconds) {
  constexpr int width = 24;
  const double share =
      p.total == 0 ? 1 : static_cast<double>(p.done) / static_cast<double>(p.total);
  const int full = static_cast<int>(share * width);
  std::ostringstream text;
  text << '[' << std::string(static_cast<std::size_t>(full), '#')
       << std::string(static_cast<std::size_t>(width - full), '.') << "] " << std::fixed
       << std::setprecision(0) << share * 100 << " %  ";
  if (seconds > 0)
    text << std::setprecision(1) << static_cast<double>(p.done) / 1e6 / seconds << " MB/s  ";
  text << nibble::gguf::printable(p.tensor, 40);
  return text.str();
}

nibble::quantise_report quantise(const nibble::gguf::file& file, options& o, double& seconds) {
  common::graceful_stop stop;
  o.work.cancel = stop.token();
  common::progress_line line;
  const auto start = std::chrono::steady_clock::now();
  const auto used = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  auto report = nibble::quantise_file(file, o.out, o.work, [&](const auto& p) {
    stop.poll();
    line.show([&] {
      const std::string left =
          p.total == 0 ? ""
                       : line.remaining(static_cast<double>(p.done) / static_cast<double>(p.total));
      return progress_text(p, used()) + (left.empty() ? "" : ", " + left + " left");
    });
  });
  seconds = used();
  return report;
}

void work(options& o) {
  const nibble::gguf::file file(o.in, {.header_only = o.dry_run});
  nibble::imatrix importance;
  auto inputs = file.paths();
  if (!o.imatrix_path.empty()) {
    importance = nibble::read_imatrix(o.imatrix_path);
    o.work.importance = &importance;
    o.work.importance_name = o.imatrix_path;
    inputs.emplace_back(o.imatrix_path);
  }
  common::refuse_input_as_output(o.out, inputs);
  const auto plan = nibble::plan_quantise(file, o.out, o.work);
  for (const auto& part : plan.parts) common::refuse_input_as_output(part.path, inputs);
  for (const auto& part : plan.parts) inputs.push_back(part.path);
  std::optional<common::output> json;
  if (!o.json_path.empty()) json.emplace(o.json_path, inputs);
  double seconds = 0;
  if (!o.dry_run) quantise(file, o, seconds);
  print_table(plan, o.verbose);
  print_totals(plan, o);
  if (!o.dry_run) {
    std::cout << std::fixed << std::setprecision(1) << "in " << seconds << " s, "
              << static_cast<double>(plan.bytes_from) / 1e6 / std::max(seconds, 1e-3)
              << " MB/s of input\n";
  }
  if (!json) return;
  json->stream()
      << to_json(plan, o, seconds).dump(1, ' ', false, nlohmann::json::error_handler_t::replace)
      << '\n';
  json->finish();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Writes a model file in another weight format. All metadata is kept."};
  options o;
  add_options(app, o);
  if (const auto status = common::parse(app, argc, argv)) return *status;
  return common::run([&] { work(o); });
}
