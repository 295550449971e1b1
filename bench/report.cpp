#include "report.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ostream>

namespace bench {
namespace {

std::vector<std::string> split(const std::string& name) {
  std::vector<std::string> parts(1);
  for (const char c : name) {
    if (c == '/') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

std::string format(const char* pattern, double x) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), pattern, x);
  return text.data();
}

// The share of the nearer limit; without limits a rate, or the time.
std::string cell_of(const benchmark::BenchmarkReporter::Run& run) {
  double most = -1;
  const char* unit = "";
  for (const auto& [counter, letter] :
       {std::pair{"of_peak", " % c"}, {"of_memory", " % m"}, {"of_cache", " % l"}}) {
    const auto at = run.counters.find(counter);
    if (at == run.counters.end() || at->second.value <= most) continue;
    most = at->second.value;
    unit = letter;
  }
  if (most >= 0) return format("%.0f", 100 * most) + unit;
  if (const auto at = run.counters.find("Mvalues/s"); at != run.counters.end()) {
    return format("%.1f M/s", at->second.value);
  }
  return format("%.1f ", run.GetAdjustedCPUTime()) + benchmark::GetTimeUnitString(run.time_unit);
}

void add_once(std::vector<std::string>& list, const std::string& x) {
  if (std::find(list.begin(), list.end(), x) == list.end()) list.push_back(x);
}

std::size_t width_of(const std::vector<std::string>& texts) {
  std::size_t width = 3;
  for (const std::string& text : texts) width = std::max(width, text.size());
  return width;
}

}  // namespace

void table_reporter::ReportRuns(const std::vector<Run>& runs) {
  ConsoleReporter::ReportRuns(runs);
  for (const Run& run : runs) {
    if (run.error_occurred || run.run_type != Run::RT_Iteration) continue;
    std::vector<std::string> parts = split(run.run_name.function_name);
    if (parts.size() < 3) continue;
    if (parts.size() == 3) parts.insert(parts.begin() + 2, "");  // no instruction set
    std::string title = parts[0];
    if (!parts[2].empty()) title += ", " + parts[2];
    if (run.threads > 1) title += ", " + std::to_string(run.threads) + " threads";
    add_once(titles_, title);
    table& t = tables_[title];
    add_once(t.rows, parts[1]);
    add_once(t.columns, parts[3]);
    t.cells[{parts[1], parts[3]}].push_back(cell_of(run));
  }
}

void table_reporter::Finalize() {
  ConsoleReporter::Finalize();
  std::ostream& out = GetOutputStream();
  if (titles_.empty()) return;
  out << "\nShares of the nearer limit, measured right before and after. c: multiply-adds in "
         "registers; m: reading\nmemory; l: loads from the nearest cache. Else values a second, or "
         "time.\n";
  for (const std::string& title : titles_) {
    const table& t = tables_[title];
    const std::size_t first = width_of(t.rows);
    out << "\n### " << title << "\n\n|" << std::string(first + 2, ' ') << '|';
    std::string rule = "|" + std::string(first + 2, '-') + "|";
    std::vector<std::size_t> widths;
    for (const std::string& column : t.columns) {
      std::vector<std::string> texts{column};
      for (const std::string& row : t.rows) {
        const auto at = t.cells.find({row, column});
        if (at != t.cells.end()) texts.push_back(at->second.front());
      }
      widths.push_back(width_of(texts));
      out << ' ' << std::string(widths.back() - column.size(), ' ') << column << " |";
      rule += std::string(widths.back() + 1, '-') + ":|";
    }
    out << '\n' << rule << '\n';
    for (const std::string& row : t.rows) {
      out << "| " << row << std::string(first - row.size() + 1, ' ') << '|';
      for (std::size_t i = 0; i < t.columns.size(); ++i) {
        const auto at = t.cells.find({row, t.columns[i]});
        const std::string text = at == t.cells.end() ? "" : at->second.front();
        out << ' ' << std::string(widths[i] - std::min(widths[i], text.size()), ' ') << text
            << " |";
      }
      out << '\n';
    }
  }
  out << std::flush;
}

}  // namespace bench
