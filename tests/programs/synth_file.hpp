// Files that nibble-synth makes for a test.
#pragma once

#include <nibble/gguf/file.hpp>

#include "process.hpp"

namespace test {

class synth_file {
 public:
  explicit synth_file(std::vector<std::string> arguments) {
    arguments.push_back(path());
    run_well("synth", arguments);
  }
  std::string path() const { return (folder_ / "synthetic.gguf").string(); }
  nibble::gguf::file header() const { return nibble::gguf::file(path(), {.header_only = true}); }
  nibble::gguf::file open() const { return nibble::gguf::file(path()); }

 private:
  temporary_folder folder_;
};

}  // namespace test
