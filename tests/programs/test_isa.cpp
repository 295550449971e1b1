// Which instruction set programs compute with: the one they are told, or the best of the processor,
// emulated ones that lack the newer ones among them.

#include <nibble/device/cpu.hpp>

#include "environment.hpp"
#include "process.hpp"

namespace {

using strings = std::vector<std::string>;

const strings one_text = {
    test::tales.string(), "Once upon a time", "-n", "24", "--temperature", "0"};

strings with_isa(std::string_view isa) {
  strings words = one_text;
  words.insert(words.end(), {"--isa", std::string(isa)});
  return words;
}

}  // namespace

TEST_CASE("isa: --isa and NIBBLE_ISA choose the same one, and the best one is the default") {
  const auto isas = nibble::available_isas();
  for (const std::string_view isa : isas) {
    INFO(isa);
    const std::string text = test::run_well("generate", with_isa(isa));
    if (isa == isas.front()) CHECK(test::run_well("generate", one_text) == text);
    const test::variable set("NIBBLE_ISA", std::string(isa).c_str());
    CHECK(test::run_well("generate", one_text) == text);
    const strings bench = {test::tales.string(), "-p", "4", "-n", "0", "-r", "1", "-t", "1"};
    CHECK(test::contains(test::run_well("bench", bench), ", " + std::string(isa) + ")"));
  }
}

TEST_CASE("isa: the option comes before the variable") {
  const test::variable set("NIBBLE_ISA", "sse9");
  test::run_well("generate", with_isa("scalar"));
}

#if defined(NIBBLE_QEMU_X86_64)
TEST_CASE("isa: an older processor never meets an instruction it lacks, and writes the same text") {
  const struct {
    const char *processor, *isas, *lacking;
  } cases[] = {{"Conroe", "scalar", "sse42"},
               {"Nehalem", "sse42, scalar", "avx2"},
               {"Haswell-noTSX", "avx2, sse42, scalar", "avx512"}};
  for (const auto& c : cases) {
    INFO(c.processor);
    const std::string best = std::string(c.isas).substr(0, std::string(c.isas).find(','));
    std::string native;
    for (const std::string_view isa : nibble::available_isas()) {
      if (isa == best) native = test::run_well("generate", with_isa(isa));
    }
    const std::string wanted = "(this processor lacks it); there are: " + std::string(c.isas);
    const test::variable set("QEMU_CPU", c.processor);
    const auto emulated = [&](strings words) {
      words.insert(words.begin(), test::program_path("generate"));
      return test::run(NIBBLE_QEMU_X86_64, words);
    };
    const auto found = emulated(one_text);
    INFO(found.err);
    CHECK(found.status == 0);
    CHECK(found.out.size() > 40);
    if (!native.empty()) CHECK(found.out == native);  // this machine may be older itself
    test::check_refused(emulated(with_isa(c.lacking)), {c.lacking, wanted}, 2);
  }
}
#endif
