// The rule of floors: a file includes only files of its own floor and below. Read from the text of
// the #include lines, so a slip is found even where it would compile.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace test {

namespace fs = std::filesystem;

struct include_line {
  std::string path;  // as written between <> or ""
  int line;
};

inline std::vector<include_line> includes_of(const fs::path& file) {
  static const std::regex pattern(R"(^\s*#\s*include\s*[<"]([^>"]+)[>"])");
  std::ifstream in(file);
  std::vector<include_line> found;
  std::string text;
  for (int line = 1; std::getline(in, text); ++line) {
    std::smatch match;
    if (std::regex_search(text, match, pattern)) found.push_back({match[1], line});
  }
  return found;
}

inline std::vector<fs::path> sources_under(const fs::path& folder) {
  std::vector<fs::path> found;
  if (!fs::exists(folder)) return found;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const auto extension = entry.path().extension();
    if (extension == ".hpp" || extension == ".cpp") found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

// The project's files as the compiler finds them: "nibble/x" in include/, the rest in src/ and
// kernels/.
class source_tree {
 public:
  explicit source_tree(fs::path root) : root_(std::move(root)) {}

  std::vector<fs::path> files(const char* folder) const { return sources_under(root_ / folder); }

  // Where an #include leads, if to a file of the project.
  std::optional<fs::path> find(const std::string& included) const {
    for (const char* folder : {"include", "src", "kernels"}) {
      if (fs::is_regular_file(root_ / folder / included)) return root_ / folder / included;
    }
    return std::nullopt;
  }

  // The floor of a file; nothing for the umbrella header (which may include all) and for a file in
  // a folder that has no floor.
  std::optional<int> floor(const fs::path& file) const {
    // src/arch holds one model family a file; kernels belong to the device that runs them.
    static const std::map<std::string, int> floors = {
        {"base", 0},   {"formats", 1}, {"gguf", 2},  {"tensor", 2}, {"quantise", 3},
        {"device", 3}, {"kernels", 3}, {"kv", 4},    {"model", 4},  {"arch", 4},
        {"plan", 4},   {"text", 4},    {"engine", 5}};
    const fs::path relative = file.lexically_relative(root_);
    auto part = relative.begin();
    if (*part == "include") ++part;  // then "nibble"
    if (*part != "kernels") ++part;
    const auto found = floors.find(part->string());
    if (found == floors.end()) return std::nullopt;
    return found->second;
  }

  bool is_kernel(const fs::path& file) const { return name(file).rfind("kernels/", 0) == 0; }
  std::string name(const fs::path& file) const {
    return file.lexically_relative(root_).generic_string();
  }

 private:
  fs::path root_;
};

// One sentence for each include that breaks the rule.
inline std::vector<std::string> upward_includes(const source_tree& tree) {
  std::vector<std::string> wrong;
  for (const char* folder : {"include", "src", "kernels"}) {
    for (const auto& file : tree.files(folder)) {
      const auto own = tree.floor(file);
      if (!own) {
        if (tree.name(file) != "include/nibble/nibble.hpp") {
          wrong.push_back(tree.name(file) + " stands in a folder that has no floor");
        }
        continue;
      }
      for (const auto& include : includes_of(file)) {
        const auto target = tree.find(include.path);
        const bool ours = include.path.rfind("nibble/", 0) == 0;
        if (!target && !ours) continue;  // the standard library's or another project's
        const std::string where = tree.name(file) + ":" + std::to_string(include.line) +
                                  " (floor " + std::to_string(*own) + ") includes " + include.path;
        const auto floor = target ? tree.floor(*target) : std::nullopt;
        if (!floor) {
          wrong.push_back(where + ", which has no floor");
        } else if (*floor > *own) {
          wrong.push_back(where + " of floor " + std::to_string(*floor));
        } else if (tree.is_kernel(file) && *floor == 2) {
          wrong.push_back(where + " of floor 2; kernels include floors 0, 1 and 3");
        } else if (tree.is_kernel(*target) && *own != 3) {
          wrong.push_back(where + "; only devices include kernels");
        }
      }
    }
  }
  return wrong;
}

// The same for everything that a unit compiled for one instruction set (kernels/cpu/isa_*.cpp)
// includes, however indirectly: floors 0 and 1, kernels/cpu, xsimd, and headers without a folder
// (the standard library's, the compiler's).
inline std::vector<std::string> isa_includes(const source_tree& tree) {
  std::vector<std::string> wrong;
  std::set<fs::path> seen;
  std::vector<fs::path> left;
  for (const auto& file : tree.files("kernels/cpu")) {
    if (file.filename().string().rfind("isa_", 0) == 0) left.push_back(file);
  }
  while (!left.empty()) {
    const auto file = left.back();
    left.pop_back();
    if (!seen.insert(file).second) continue;
    for (const auto& include : includes_of(file)) {
      const auto target = tree.find(include.path);
      if (target) left.push_back(*target);
      const bool allowed = target ? tree.name(*target).rfind("kernels/cpu/", 0) == 0 ||
                                        tree.floor(*target).value_or(99) <= 1
                                  : include.path.find('/') == std::string::npos ||
                                        include.path.rfind("xsimd/", 0) == 0;
      if (!allowed) {
        wrong.push_back(tree.name(file) + ":" + std::to_string(include.line) + " includes " +
                        include.path + ", but is part of a unit for one instruction set");
      }
    }
  }
  return wrong;
}

}  // namespace test
