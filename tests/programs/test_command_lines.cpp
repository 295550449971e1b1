// What all programs have in common: help, missing arguments, files that are no models, output that
// cannot be written.

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <map>
#include <thread>

#include "environment.hpp"
#include "process.hpp"

namespace {

using strings = std::vector<std::string>;

// The arguments that make a program work on this model.
strings arguments(const std::string& program, const std::string& model,
                  const test::temporary_folder& folder) {
  if (program == "generate") return {model, "Once", "-n", "2"};
  if (program == "embed-in-app") return {model, "Who are you?"};
  if (program == "batch") {
    return {model, test::write_file(folder / "prompts", "Once\nThe\n").string(), "-n", "2"};
  }
  if (program == "bench") return {model, "-p", "4", "-n", "0", "-r", "1", "-t", "1"};
  if (program == "logits") {
    return {model, test::write_file(folder / "ids", "1 2 3").string(), (folder / "out").string()};
  }
  if (program == "imatrix") {
    const auto text = test::write_file(folder / "text", "Once upon a time");
    return {model, "-o", (folder / "out").string(), "--text", text.string(), "--documents", "%%"};
  }
  if (program == "perplexity") return {model, "--chunks", "1", "-t", "1"};
  if (program == "quantize") return {model, (folder / "out").string(), "q8_0"};
  return {model};
}

const std::map<std::string, strings> options_of = {
    {"generate",
     {"model",
      "prompt",
      "--chat",
      "--system",
      "--max-tokens",
      "--stop",
      "--temperature",
      "--top-k",
      "--top-p",
      "--min-p",
      "--seed",
      "--samplers",
      "--sampler-order",
      "--logit-bias",
      "--repeat-last-n",
      "--repeat-penalty",
      "--presence-penalty",
      "--frequency-penalty",
      "--dry-multiplier",
      "--dry-base",
      "--dry-allowed-length",
      "--dry-penalty-last-n",
      "--dry-sequence-breaker",
      "--typical",
      "--top-n-sigma",
      "--xtc-probability",
      "--xtc-threshold",
      "--dynatemp-range",
      "--dynatemp-exp",
      "--mirostat",
      "--mirostat-ent",
      "--mirostat-lr",
      "--verbose",
      "--threads",
      "--batch",
      "--context",
      "--activations",
      "--kv",
      "--isa"}},
    {"plan",
     {"model", "--device", "--measure", "--context", "--kv", "--sessions", "--vram", "--ram",
      "--headroom", "--gpu-layers", "--pin", "--if-short", "--json", "--svg"}},
    {"inspect", {"file", "--json", "--width"}},
    {"tokenize", {"model", "--decode", "--no-bos", "--no-special", "--parse-special", "--pieces"}},
    {"logits", {"model", "tokens", "out", "--threads", "--batch", "--context", "--activations"}},
    {"bench",
     {"model", "--prompt", "--generate", "--depth", "--sessions", "--shared-prefix",
      "--repetitions", "--json", "--roofline", "--threads", "--context", "--activations"}},
    {"perplexity",
     {"model", "--text", "--tokens", "--documents", "--chunk", "--stride", "--warm-up", "--against",
      "--against-activations", "--kl-against", "--against-isa", "--activations", "--kv", "--isa",
      "--batch", "--json", "--threads", "--parse-special", "--chunks"}},
    {"imatrix",
     {"model", "--out", "--text", "--tokens", "--documents", "--chunk", "--chunks", "--skip",
      "--from", "--resume", "--save-every", "--activations", "--kv", "--isa", "--batch", "--json"}},
    {"quantize",
     {"in", "out", "type", "--imatrix", "--tensor", "--leave", "--output-type", "--embedding-type",
      "--pure", "--split-max-size", "--dry-run", "--verbose", "--json", "--threads", "q4_k_m"}},
    {"batch",
     {"model", "prompts", "--sessions", "--max-tokens", "--stop", "--jsonl", "--temperature",
      "--seed", "--threads", "--batch", "--context", "--activations", "--kv", "--isa"}},
    {"embed-in-app", {"MODEL", "QUESTION"}},
};

}  // namespace

TEST_CASE("programs: --help names every option") {
  for (const auto& [program, options] : options_of) {
    const std::string help = test::run_well(program, {"--help"});
    for (const std::string& option : options) {
      INFO(program << " " << option);
      CHECK(test::contains(help, option));
    }
  }
}

TEST_CASE("programs: without arguments they say what is missing") {
  for (const auto& [program, options] : options_of) {
    INFO(program);
    test::check_refused(test::run(program, {}), {options.front()}, 2);
    test::check_refused(test::run(program, {"--no-such-option"}), {}, 2);
  }
  test::check_refused(test::run("generate", {test::tales.string()}), {"prompt"}, 2);
  test::check_refused(test::run("embed-in-app", {test::tales.string()}), {"QUESTION"}, 2);
  test::check_refused(test::run("logits", {test::tales.string()}), {"tokens"}, 2);
}

TEST_CASE("programs: what an option cannot be exits with 2, and names the option") {
  const test::temporary_folder folder;
  const auto refused = [&](const std::string& program, const strings& more,
                           std::initializer_list<std::string_view> parts) {
    strings words = arguments(program, test::tales.string(), folder);
    words.insert(words.end(), more.begin(), more.end());
    INFO(program << ' ' << more.front() << ' ' << more.back());
    test::check_refused(test::run(program, words), parts, 2);
  };
  for (const auto& [program, options] : options_of) {
    const auto has = [&](const char* name) {
      return std::find(options.begin(), options.end(), name) != options.end();
    };
    if (has("--threads") && program != "bench" && program != "perplexity") {
      refused(program, {"-t", "-1"}, {"--threads", "-1", "0 to 1024"});
      refused(program, {"-t", "1", "-t", "2"}, {"--threads is given 2 times", "once was expected"});
    }
    if (has("--activations")) {
      refused(program, {"--isa", "foo"}, {"--isa", "'foo'", "there are: ", "scalar"});
      refused(program, {"--kv", "q8,q9"}, {"--kv", "'q9' is not a type", "f16, bf16, q8_0"});
      refused(program, {"--kv-rotation", "on,maybe"}, {"--kv-rotation", "'maybe'"});
    }
    if (has("--json")) refused(program, {"--json", "-"}, {"--json", "no name of a file"});
    if (has("--json") && program != "inspect") {
      for (const char* const name : {"/dev/stdout", "/dev/stderr", "/dev/fd/1"}) {
        refused(program, {"--json", name}, {"--json", name, "is the standard"});
      }
    }
  }
  for (const char* const out : {"-", "/dev/stdout"}) {
    refused("imatrix", {"-o", out}, {"--out", out});
    const std::string model = test::tales.string();
    test::check_refused(test::run("quantize", {model, out, "q8_0"}), {"out", out}, 2);
    test::check_refused(test::run("synth", {"--preset", "qwen2.5-0.5b", out}), {"out", out}, 2);
  }
  test::check_refused(test::run("logits", {test::tales.string(), "ids", "-"}), {"out", "-"}, 2);
  CHECK(names_in(folder).count("out") == 0);
}

TEST_CASE("programs: whole numbers are no octal ones") {
  const std::string model = test::tales.string();
  const auto refused = [](const std::string& program, const strings& words) {
    const std::string& number = words.back();
    INFO(program << ' ' << number);
    test::check_refused(test::run(program, words), {number, "without 0 before it"}, 2);
  };
  refused("perplexity", {model, "--chunk", "010"});
  refused("imatrix", {model, "-o", "out", "--text", "text", "--skip", "007"});
  refused("quantize", {model, "out", "q8_0", "--split-max-size", "0100000"});
  refused("quantize", {model, "out", "q8_0", "--split-max-size", "010KB"});
  refused("generate", {model, "Once", "-n", "-01"});
  refused("generate", {model, "Once", "--top-k", "010"});
  refused("bench", {model, "-p", "010"});
  refused("inspect", {model, "--width", "+010"});
  refused("synth", {"out", "--preset", "qwen2.5-0.5b", "--n-layer", "010"});
  test::run_well("generate", {model, "Once", "-n", "1", "--temp", "00.5", "--top-k", "0"});
}

TEST_CASE("programs: what goes to the standard output's file is appended to it") {
  const test::temporary_folder folder;
  const std::string model = test::tales.string();
  const auto ids = test::write_file(folder / "ids", "1 2 3").string();
  const auto log = test::write_file(folder / "log", "before\n").string();
  const std::string json = test::run_well("inspect", {model, "--json", "/dev/stdout"});
  const auto appended = [&](const std::string& command) {
    return ::system(("exec " + command + " >>" + log).c_str());
  };
  const std::string inspect = test::program_path("inspect") + " " + model + " --json ";
  CHECK(appended(inspect + "/dev/stdout") == 0);
  CHECK(test::read_file(log) == "before\n" + json);
  CHECK(appended(inspect + log) == 0);
  CHECK(test::read_file(log) == "before\n" + json + json);
  CHECK(appended(test::program_path("perplexity") + " " + model + " --chunks 1 --json " + log +
                 " 2>/dev/null") != 0);
  CHECK(test::read_file(log) == "before\n" + json + json);
}

TEST_CASE("programs: a signal ends the waiting for whoever reads from a pipe") {
  const test::temporary_folder folder;
  const std::string model = test::tales.string(), pipe = (folder / "pipe").string();
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  const std::pair<std::string, strings> cases[] = {
      {"perplexity", {model, "--json", pipe}},
      {"logits", {model, test::write_file(folder / "ids", "1 2 3").string(), pipe}}};
  for (const auto& [program, words] : cases) {
    for (const int signal : {SIGINT, SIGTERM}) {
      test::process running(program, words, "/dev/null");
      std::this_thread::sleep_for(std::chrono::milliseconds(700));
      running.send(signal);
      const auto found = running.wait();
      INFO(program << ": " << found.err);
      CHECK(found.status == -signal);
      CHECK(test::contains(found.err, "interrupted while '" + pipe + "' was opened"));
    }
  }
}

TEST_CASE("programs: help that cannot be written is no success") {
  if (!std::filesystem::exists("/dev/full")) return;
  const auto found = test::run("quantize", {"--help"}, "", "/dev/full");
  test::check_refused(found, {"standard output", "cannot be written: No space left"}, 1);
}

TEST_CASE("programs: a file that is replaced keeps its permissions") {
  namespace fs = std::filesystem;
  const auto mode = [](const fs::path& path) { return fs::status(path).permissions(); };
  for (const std::string program : {"logits", "imatrix", "quantize"}) {
    const test::temporary_folder folder;
    INFO(program);
    const auto words = arguments(program, test::tales.string(), folder);
    const auto out = folder / "out";
    test::run_well(program, words);
    CHECK(mode(out) == mode(test::write_file(folder / "new", "")));  // as the umask says
    const fs::perms narrow = fs::perms::owner_read | fs::perms::owner_write;
    const fs::perms wide = narrow | fs::perms::group_write | fs::perms::others_write;
    for (const fs::perms permissions : {narrow, wide}) {
      fs::permissions(out, permissions);
      test::run_well(program, words);
      CHECK(mode(out) == permissions);
    }
  }
}

TEST_CASE("programs: what is no model is refused by name") {
  const test::temporary_folder folder;
  const std::string model = test::read_file(test::tales);
  const std::string files[] = {
      (folder / "missing.gguf").string(),
      folder.path().string(),
      test::write_file(folder / "empty.gguf", "").string(),
      test::write_file(folder / "text.gguf", "Once upon a time, there was no model.\n").string(),
      test::write_file(folder / "in-header.gguf", model.substr(0, 5000)).string(),
      test::write_file(folder / "in-data.gguf", model.substr(0, model.size() - 1000)).string(),
  };
  for (const auto& [program, options] : options_of) {
    for (const std::string& file : files) {
      INFO(program << " " << file);
      test::check_refused(test::run(program, arguments(program, file, folder), "text"), {file}, 1);
    }
  }
  CHECK(!std::filesystem::exists(folder / "out"));  // nothing was begun
}

TEST_CASE("programs: all that run models heed NIBBLE_ISA") {
  const test::temporary_folder folder;
  int checked = 0;
  for (const auto& [program, options] : options_of) {
    const bool runs_models =
        program == "embed-in-app" ||
        std::find(options.begin(), options.end(), "--activations") != options.end();
    if (!runs_models) continue;
    INFO(program);
    const test::variable unknown("NIBBLE_ISA", "sse9");
    test::check_refused(
        test::run(program, arguments(program, test::tales.string(), folder)),
        {"NIBBLE_ISA is 'sse9', which is not available here", "there are: ", "scalar"}, 1);
    const test::variable known("NIBBLE_ISA", "scalar");
    test::run_well(program, arguments(program, test::tales.string(), folder));
    ++checked;
  }
  CHECK(checked >= 4);
}

TEST_CASE("programs: input that cannot be read is no empty input") {
  const test::temporary_folder folder;
  const std::string model = test::tales.string(), in = folder.path().string();
  const strings cases[] = {
      {"tokenize"}, {"tokenize", "--decode"}, {"generate", "-"}, {"generate", "--chat"}};
  for (strings words : cases) {
    const std::string program = std::exchange(words.front(), model);
    INFO(program << ' ' << words.back());
    test::check_refused(test::process(program, words, in).wait(),
                        {"standard input: cannot be read."}, 1);
  }
}

TEST_CASE("programs: output that cannot be written is reported") {
  const test::temporary_folder folder;
  const std::string full = "/dev/full";
  if (!std::filesystem::exists(full)) return;
  const std::string model = test::tales.string();
  for (const std::string program :
       {"generate", "inspect", "tokenize", "embed-in-app", "perplexity", "batch"}) {
    INFO(program);
    const auto found = test::run(program, arguments(program, model, folder), "some text", full);
    test::check_refused(found, {"cannot be written"}, 1);
  }
  const auto ids = test::write_file(folder / "ids", "1 2 3").string();
  const std::string nowhere = (folder / "no-such-folder" / "out").string();
  const strings cases[] = {{"logits", model, ids}, {"inspect", model, "--json"}};
  for (strings words : cases) {
    const std::string program = words.front();
    words.erase(words.begin());
    for (const std::string& out : {full, nowhere}) {
      INFO(program << " to " << out);
      words.push_back(out);
      test::check_refused(test::run(program, words), {out, "cannot be"}, 1);
      words.pop_back();
    }
  }
}
