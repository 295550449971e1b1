#include <fstream>
#include <sstream>
#include <string>

#include "catch.hpp"

namespace {

std::string read(const std::string& name) {
  std::ifstream in(std::string(NIBBLE_SOURCE_DIR) + "/" + name);
  REQUIRE(in);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace

TEST_CASE("README.md shows examples/embed_in_app.cpp as it is") {
  const std::string block = "\n```cpp\n" + read("examples/embed_in_app.cpp") + "```\n";
  CHECK(read("README.md").find(block) != std::string::npos);
}

TEST_CASE("README.md names every program") {
  const std::string readme = read("README.md");
  for (const char* name : {"generate", "inspect", "tokenize", "logits", "bench", "perplexity",
                           "imatrix", "quantize", "synth", "batch", "embed-in-app"}) {
    INFO(name);
    CHECK(readme.find("| `nibble-" + std::string(name) + "` |") != std::string::npos);
  }
}
