// What nibble-synth refuses, and how a signal ends it.

#include <chrono>
#include <csignal>
#include <nibble/model/limits.hpp>
#include <thread>

#include "synth_file.hpp"

namespace {

using strings = std::vector<std::string>;
using says = std::initializer_list<std::string_view>;

// These, and the name of an output.
void check_refused(strings arguments, says parts, int status) {
  const test::temporary_folder folder;
  std::string shown;
  for (const std::string& word : arguments) shown += word + ' ';
  INFO(shown);
  arguments.push_back((folder / "x.gguf").string());
  test::check_refused(test::run("synth", arguments), parts, status);
  CHECK(names_in(folder).empty());
}

strings operator+(strings a, const strings& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

const strings preset = {"--preset", "qwen3-4b"};
const strings moe = {"--preset", "qwen3-30b-a3b"};
const strings narrow = {"--arch", "llama", "--n-layer", "1", "--n-ff", "64"};
const strings experts = {"--arch", "llama", "--n-layer", "1", "--n-embd", "64", "--n-head", "2"};

}  // namespace

TEST_CASE("synth: options that make no model are refused by name") {
  check_refused({}, {"--preset", "--arch"}, 2);
  check_refused({"--arch", "mamba"}, {"'mamba'", "llama", "gpt-oss"}, 2);
  check_refused({"--arch", "llama"}, {"--n-layer", "--n-embd", "--n-head", "--n-ff"}, 2);
  check_refused({"--arch", "qwen3moe", "--n-layer", "1", "--n-embd", "64", "--n-head", "2"},
                {"--n-expert", "--n-ff-expert", "--n-expert-used"}, 2);
  check_refused(preset + strings{"--type", "q9"}, {"'q9'", "q4_0"}, 2);
  check_refused(preset + strings{"--n-vocab", "100"}, {"at least", "--n-vocab is 100"}, 2);
  check_refused(preset + strings{"--rope-scaling", "more"}, {"--rope-scaling", "yarn"}, 2);
  check_refused(preset + strings{"--rope-scaling", "yarn"},
                {"--rope-factor", "--rope-original-context"}, 2);
  check_refused(preset + strings{"--tied", "--untied"}, {"--tied"}, 2);
  check_refused(preset + strings{"--name", "caf\xe9"}, {"--name", "UTF-8"}, 2);
  test::check_refused(test::run("synth", preset), {"out"}, 2);
  const test::temporary_folder folder;
  const std::string nowhere = (folder / "none" / "x.gguf").string();
  test::check_refused(test::run("synth", preset + strings{"--header-only", nowhere}),
                      {"x.gguf", "cannot be created"}, 1);
}

TEST_CASE("synth: numbers out of range are refused with the option and its range") {
  namespace limits = nibble::model_limits;
  const auto range = [](const char* option, std::int32_t most) {
    const std::string text = std::to_string(most);
    check_refused(preset + strings{option, std::to_string(most + 1)}, {option, text}, 2);
    check_refused(preset + strings{option, "0"}, {option, text}, 2);
    check_refused(preset + strings{option, "99999999999999999999"}, {option, text}, 2);
  };
  range("--n-layer", limits::layers);
  range("--n-embd", limits::width);
  range("--n-head", limits::heads);
  range("--head-length", limits::head_length);
  range("--n-vocab", limits::vocabulary);
  range("--context", limits::context);
  range("--n-expert", limits::experts);
  check_refused(preset + strings{"--n-vocab", "1048577"},
                {"1048576", "--n-vocab is 1048577", "--no-vocabulary"}, 2);
  const test::synth_file large(
      preset + strings{"--n-vocab", "16777216", "--no-vocabulary", "--header-only"});
  CHECK(large.header().find_tensor("token_embd.weight")->view.shape.rows() == 16777216);
  for (const char* number : {"nan", "inf", "0", "-1", "1.5x", "2"}) {
    check_refused(preset + strings{"--norm-epsilon", number}, {"--norm-epsilon", "to 1"}, 2);
  }
  check_refused(preset + strings{"--rope-base", "1"}, {"--rope-base", "from 2"}, 2);
  for (const char* seed : {"-1", "18446744073709551616", "1.5", "0x10", ""}) {
    check_refused(preset + strings{"--seed", seed}, {"--seed", "2^64 - 1"}, 2);
  }
  check_refused(preset + strings{"--threads", "-1"}, {"--threads", "1024"}, 2);
}

TEST_CASE("synth: shapes that cannot be are told in the words of the options") {
  check_refused(preset + strings{"--n-head", "7"}, {"--n-head is 7", "--n-head-kv 8", "multiple"},
                2);
  check_refused(narrow + strings{"--n-embd", "64", "--n-head", "3"},
                {"--n-embd 64", "--n-head 3", "--head-length"}, 2);
  check_refused(narrow + strings{"--n-embd", "66", "--n-head", "2"},
                {"--n-embd", "--n-head", "33", "even"}, 2);
  check_refused(narrow + strings{"--n-embd", "65536", "--n-head", "2"},
                {"--n-embd 65536", "32768", "at most 16384", "--head-length"}, 2);
  check_refused(preset + strings{"--head-length", "3"}, {"--head-length is 3", "even"}, 2);
  check_refused(experts + strings{"--n-expert", "2", "--n-expert-used", "3", "--n-ff-expert", "64"},
                {"--n-expert-used is 3", "--n-expert 2"}, 2);
}

TEST_CASE("synth: options that would do nothing are refused") {
  check_refused(preset + strings{"--n-expert", "4", "--n-ff-expert", "64"},
                {"--n-expert, --n-ff-expert would do nothing", "'qwen3' have no experts"}, 2);
  check_refused(experts + strings{"--n-ff", "64", "--n-expert-used", "2"},
                {"--n-expert-used would do nothing", "--n-expert"}, 2);
  check_refused(moe + strings{"--n-ff", "64"}, {"--n-ff would do nothing", "--n-ff-expert"}, 2);
  check_refused(preset + strings{"--sliding-window", "64"},
                {"--sliding-window would do nothing", "no windows"}, 2);
  check_refused(preset + strings{"--rope-factor", "2", "--rope-original-context", "64"},
                {"--rope-factor, --rope-original-context would do nothing", "--rope-scaling"}, 2);
  check_refused(preset + strings{"--rope-scaling", "none", "--rope-factor", "2"},
                {"--rope-factor would do nothing"}, 2);
  check_refused({"--preset", "gemma3-12b", "--rope-original-context", "64"},
                {"--rope-original-context would do nothing", "linear"}, 2);
  check_refused(preset + strings{"--header-only", "--seed", "1"}, {"--seed", "--header-only"}, 2);
  check_refused(preset + strings{"--header-only", "-t", "1"}, {"--threads", "--header-only"}, 2);
  check_refused({"--list"}, {"--list", "out"}, 2);
  test::check_refused(test::run("synth", preset + strings{"--list"}), {"--list", "--preset"}, 2);
  // what a preset has of it goes with its architecture
  const test::synth_file dense(
      moe + strings{"--arch", "qwen3", "--n-ff", "64", "--no-vocabulary", "--header-only"});
  CHECK(dense.header().find("qwen3.expert_count") == nullptr);
}

TEST_CASE("synth: an interrupt leaves no file behind") {
  const test::temporary_folder folder, input;
  const auto nothing = test::write_file(input / "in", "");
  for (const int signal : {SIGINT, SIGTERM}) {
    test::process running("synth",
                          {"--preset", "llama-3.2-1b", "--no-vocabulary", "--type", "f32",
                           (folder / "x.gguf").string()},
                          nothing.string());
    // until it writes
    for (int i = 0; std::filesystem::is_empty(folder.path()) && i < 2000; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    running.send(signal);
    const auto found = running.wait();
    INFO(found.err);
    CHECK(found.status != 0);
    CHECK(std::filesystem::is_empty(folder.path()));
  }
}

TEST_CASE("synth: an interrupt ends the making of a vocabulary at once") {
  const test::temporary_folder folder;
  const strings words = {"--preset", "qwen3-4b",      "--n-vocab",
                         "1048576",  "--header-only", (folder / "x.gguf").string()};
  for (const int signal : {SIGINT, SIGTERM}) {
    test::process running("synth", words, "/dev/null");
    std::this_thread::sleep_for(std::chrono::milliseconds(500));  // of some seconds
    const auto sent = std::chrono::steady_clock::now();
    running.send(signal);
    const auto found = running.wait();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - sent;
    INFO(taken.count() << " s, " << found.err);
    CHECK(found.status == -signal);
    CHECK(test::contains(found.err, "interrupted; nothing was written"));
    CHECK(taken.count() < 1);
    CHECK(names_in(folder).empty());
  }
}

TEST_CASE("synth: a disk without room is noticed before anything is written") {
  const test::temporary_folder folder;
  if (std::filesystem::space(folder.path()).available > 1'500'000'000'000) return;
  test::check_refused(test::run("synth", {"--preset", "llama-3.1-405b", "--no-vocabulary", "--type",
                                          "f32", (folder / "x.gguf").string()}),
                      {"x.gguf", "it takes 1.5 TiB", "the disk has"}, 1);
  CHECK(names_in(folder).empty());
}
