#include <fstream>

#include "catch.hpp"
#include "include_floors.hpp"
#include "temporary_folder.hpp"

namespace {

namespace fs = std::filesystem;

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const auto& line : lines) text += line + "\n";
  return text;
}

class made_tree {
 public:
  void write(const std::string& name, const std::string& text) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
  }
  test::source_tree tree() const { return test::source_tree(folder_.path()); }

 private:
  test::temporary_folder folder_;
};

}  // namespace

TEST_CASE("no file includes a file of a higher floor") {
  const test::source_tree tree(NIBBLE_SOURCE_DIR);
  REQUIRE(tree.files("include").size() > 20);
  REQUIRE(tree.files("src").size() > 20);
  REQUIRE(tree.files("kernels").size() > 5);
  const auto wrong = test::upward_includes(tree);
  INFO(joined(wrong));
  CHECK(wrong.empty());
}

TEST_CASE("units for one instruction set include the two lowest floors only") {
  const auto wrong = test::isa_includes(test::source_tree(NIBBLE_SOURCE_DIR));
  INFO(joined(wrong));
  CHECK(wrong.empty());
}

TEST_CASE("the check of floors finds what it looks for") {
  made_tree made;
  made.write("include/nibble/nibble.hpp", "#include <nibble/engine/model.hpp>\n");
  made.write("include/nibble/base/error.hpp", "#include <string>\n");
  made.write("include/nibble/gguf/file.hpp", "#include <nibble/base/error.hpp>\n");
  made.write("include/nibble/engine/model.hpp", "#include <nibble/gguf/file.hpp>\n");
  made.write("include/nibble/device/cpu.hpp", "#include <nibble/gguf/file.hpp>\n");
  made.write("src/device/cpu.cpp",
             "#include <nibble/device/cpu.hpp>\n#include \"cpu/table.hpp\"\n");
  made.write("kernels/cpu/table.hpp", "#include <nibble/base/error.hpp>\n");
  made.write("kernels/cpu/isa_one.cpp", "#include <xsimd/xsimd.hpp>\n#include \"cpu/table.hpp\"\n");
  CHECK(joined(test::upward_includes(made.tree())) == "");
  CHECK(joined(test::isa_includes(made.tree())) == "");

  SECTION("upward, also with spaces") {
    made.write("include/nibble/gguf/file.hpp", "\n# include  <nibble/engine/model.hpp>\n");
    CHECK(joined(test::upward_includes(made.tree())) ==
          "include/nibble/gguf/file.hpp:2 (floor 2) includes nibble/engine/model.hpp of floor 5\n");
  }
  SECTION("private headers have floors too") {
    made.write("src/engine/state.hpp", "");
    made.write("src/model/layers.cpp", "#include \"engine/state.hpp\"\n");
    CHECK(test::upward_includes(made.tree()).size() == 1);
  }
  SECTION("a public header that is not there") {
    made.write("src/device/cpu.cpp", "#include <nibble/device/none.hpp>\n");
    CHECK(test::upward_includes(made.tree()).size() == 1);
  }
  SECTION("a folder without a floor") {
    made.write("include/nibble/misc/all.hpp", "");
    CHECK(test::upward_includes(made.tree()).size() == 1);
  }
  SECTION("the umbrella") {
    made.write("src/device/cpu.cpp", "#include <nibble/nibble.hpp>\n");
    CHECK(test::upward_includes(made.tree()).size() == 1);
  }
  SECTION("kernels do not read files") {
    made.write("kernels/cpu/select.cpp", "#include <nibble/gguf/file.hpp>\n");
    CHECK(test::upward_includes(made.tree()).size() == 1);
  }
  SECTION("models do not call kernels") {
    made.write("src/model/layers.cpp", "#include \"cpu/table.hpp\"\n");
    CHECK(test::upward_includes(made.tree()).size() == 1);
  }
  SECTION("a unit for one instruction set, at second hand") {
    made.write("kernels/cpu/table.hpp", "#include <nibble/device/cpu.hpp>\n");
    CHECK(joined(test::upward_includes(made.tree())) == "");
    CHECK(joined(test::isa_includes(made.tree()))
              .find("kernels/cpu/table.hpp:1 includes nibble/device/cpu.hpp") == 0);
  }
  SECTION("a unit for one instruction set, another library") {
    made.write("kernels/cpu/table.hpp", "#include <Eigen/Core>\n");
    CHECK(test::isa_includes(made.tree()).size() == 1);
  }
}
