// The usual lines of Google Benchmark, and tables of what they say at the end.
#pragma once

#include <benchmark/benchmark.h>

#include <map>
#include <string>
#include <vector>

namespace bench {

class table_reporter final : public benchmark::ConsoleReporter {
 public:
  table_reporter() : ConsoleReporter(OO_None) {}

  void ReportRuns(const std::vector<Run>& runs) override;
  void Finalize() override;

 private:
  struct table {
    std::vector<std::string> rows, columns;  // in the order of their first run
    std::map<std::pair<std::string, std::string>, std::vector<std::string>> cells;
  };

  std::vector<std::string> titles_;
  std::map<std::string, table> tables_;
};

}  // namespace bench
