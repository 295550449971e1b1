// A model that is three times as large as the memory that the system grants.
#include "process.hpp"

TEST_CASE("a model three times as large as the memory limit gives the same text") {
  const test::temporary_folder folder;
  const auto model = (folder / "model.gguf").string();
  // many layers, so that three of their halves are a small part of it
  test::run_well("synth", {model, "--arch", "llama", "--n-layer", "48", "--n-embd", "512", "--n-ff",
                           "1024", "--n-head", "8", "--n-head-kv", "4", "--n-vocab", "2000",
                           "--context", "1024", "--type", "q8_0"});
  const auto programs = std::filesystem::path(test::program_path("generate")).parent_path();
  for (const bool of_process : {false, true}) {
    std::vector<std::string> words = {NIBBLE_SOURCE_DIR "/scripts/memory-limit.sh",
                                      "--programs",
                                      programs.string(),
                                      "--limit",
                                      "38M",
                                      "--ram",
                                      "26M"};
    if (of_process) words.push_back("--rlimit");
    words.insert(words.end(), {model, "--", "-t", "1", "-n", "4", "-c", "64", "-b", "16"});
    const auto found = test::run("/bin/bash", words);
    INFO(found.out << found.err);
    CHECK(found.status == 0);
    CHECK(test::contains(found.out, "memory-limit: passed"));
  }
}
