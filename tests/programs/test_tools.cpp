// nibble-inspect, nibble-tokenize, nibble-logits and nibble-bench on the model that comes with the
// project, beside what the library says.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <iterator>
#include <map>
#include <nibble/formats/list.hpp>
#include <nibble/gguf/writer.hpp>
#include <nibble/nibble.hpp>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "process.hpp"

namespace {

using strings = std::vector<std::string>;
const std::string model = test::tales.string();

std::string tokenize(strings more, std::string_view input) {
  more.insert(more.begin(), model);
  return test::run_well("tokenize", more, input);
}

std::vector<float> read_floats(const std::filesystem::path& path) {
  const std::string bytes = test::read_file(path);
  std::vector<float> out(bytes.size() / sizeof(float));
  REQUIRE(out.size() * sizeof(float) == bytes.size());
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

}  // namespace

TEST_CASE("tokenize: ids on one line, and back byte for byte") {
  const nibble::tokenizer tokenizer{nibble::gguf::file{model}};
  using namespace std::string_literals;
  const std::string texts[] = {
      "",
      "Once upon a time",
      " two  spaces, \t tab\n\n\nlines\n",
      "no end of line",
      "caf\xc3\xa9 \xf0\x9f\x98\x80 \xe4\xbd\xa0",
      "not UTF-8: \xff\xc3 \x80",
      "zero: \0."s,
      "<|im_end|> is text here",
  };
  for (const std::string& text : texts) {
    INFO(text);
    const std::string line = tokenize({"--no-special"}, text);
    REQUIRE(line.ends_with('\n'));
    CHECK(std::count(line.begin(), line.end(), '\n') == 1);
    std::istringstream words(line);
    const std::vector<nibble::token> ids{std::istream_iterator<nibble::token>(words), {}};
    CHECK(ids == tokenizer.encode(text, {.add_special = false}));
    CHECK(tokenize({"--decode"}, line) == text);
  }
  // every token but the first ones of a text is printed the same way by --pieces
  CHECK(tokenize({"--no-special", "--pieces"}, "a\n").find("\\x0a\n") != std::string::npos);
  const std::string markup = tokenize({"--no-special", "--parse-special"}, "<|im_end|>");
  CHECK(markup == std::to_string(tokenizer.find("<|im_end|>").value()) + '\n');
  CHECK(tokenize({"--decode", "--parse-special"}, markup) == "<|im_end|>");
  CHECK(tokenize({"--decode"}, markup) == "");
}

TEST_CASE("tokenize: what is no token id is refused") {
  const char* inputs[] = {"1 x", "12abc", "1.5", "-", "5 -", "99999999999999", "0x10"};
  for (const char* input : inputs) {
    INFO(input);
    test::check_refused(test::run("tokenize", {model, "--decode"}, input),
                        {"standard input", "not a token id"}, 1);
  }
  // an error is a short sentence, whatever was read
  const auto found =
      test::run("tokenize", {model, "--decode"}, "\x1b[2J" + std::string(100000, 'x'));
  test::check_refused(found, {"'\\x1b[2Jxxx", "...' is not a token id"}, 1);
  CHECK(found.err.size() < 300);
  for (const char* input : {"-1", "1 1000000"}) {
    for (const strings& more : {strings{"--decode"}, strings{"--decode", "--pieces"}}) {
      strings words{model};
      words.insert(words.end(), more.begin(), more.end());
      test::check_refused(test::run("tokenize", words, input), {"no token", "ids 0 to"}, 1);
    }
  }
}

TEST_CASE("logits: n_tokens x n_vocab floats, as the library computes them") {
  const test::temporary_folder folder;
  const auto ids = test::write_file(folder / "ids", "1 20\n300\t4 5\n").string();
  const std::vector<nibble::token> tokens{1, 20, 300, 4, 5};
  const auto run = [&](const strings& more) {
    strings words{model, ids, (folder / "out").string()};
    words.insert(words.end(), more.begin(), more.end());
    CHECK(test::run_well("logits", words) == "");
    return read_floats(folder / "out");
  };
  for (const bool exact : {true, false}) {
    nibble::model_options options;
    options.cpu.activations =
        exact ? nibble::activation_type::float32 : nibble::activation_type::int8;
    options.plan.key = options.plan.value = nibble::kv_type::f32;
    options.plan.all_logits = true;
    options.plan.context = 5;
    const nibble::model loaded(nibble::gguf::file{model}, options);
    nibble::session session(loaded);
    std::vector<float> wanted;
    session.append(tokens, [&](std::size_t, std::span<const float> logits) {
      wanted.insert(wanted.end(), logits.begin(), logits.end());
    });
    REQUIRE(wanted.size() == 5 * static_cast<std::size_t>(loaded.hparams().n_vocab));
    const std::string name = exact ? "float" : "int8";
    INFO(name);
    CHECK(run({"--activations", name, "-t", "1"}) == wanted);
    CHECK(run({"--activations", name, "-t", "2", "--context", "50"}) == wanted);
    // parts of a prompt may be summed in another order
    const auto parts = run({"--activations", name, "--batch", "2"});
    REQUIRE(parts.size() == wanted.size());
    float most = 0;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      most = std::max(most, std::abs(parts[i] - wanted[i]));
    }
    CHECK(most < 1e-3f);
  }
}

TEST_CASE("logits: bad token files are refused by name") {
  const test::temporary_folder folder;
  const std::string out = (folder / "out").string();
  const auto refused = [&](const char* contents, std::initializer_list<std::string_view> parts,
                           const strings& more = {}) {
    INFO(contents);
    strings words{model, test::write_file(folder / "ids", contents).string(), out, "-t", "1"};
    words.insert(words.end(), more.begin(), more.end());
    test::check_refused(test::run("logits", words), parts, 1);
  };
  const std::string file = (folder / "ids").string();
  refused("1 two 3", {file, "'two'", "not a token id"});
  refused("1 2.5", {file, "'2.5'"});
  refused("99999999999", {file, "'99999999999'"});
  refused("", {file, "no token ids"});
  refused(" \n", {file, "no token ids"});
  refused("1 999999", {"999999", "vocabulary"});
  refused("1 -1", {"-1", "vocabulary"});
  refused("1 2 3 4 5", {"5 tokens do not fit", "holds 4"}, {"--context", "4"});
  const std::string missing = (folder / "missing").string();
  test::check_refused(test::run("logits", {model, missing, out}), {missing}, 1);
  test::check_refused(test::run("logits", {model, folder.path().string(), out}),
                      {folder.path().string(), "cannot be read"}, 1);
  CHECK(names_in(folder) == std::set<std::string>{"ids"});
}

TEST_CASE("logits: an input is not replaced, nor an output by a part of another") {
  const test::temporary_folder folder;
  const auto ids = test::write_file(folder / "ids", "1 2 3");
  const std::string contents = test::read_file(test::tales);
  const auto copy = test::write_file(folder / "model.gguf", contents);
  std::filesystem::create_symlink(copy, folder / "link");
  for (const auto& out : {ids, copy, folder / "link"}) {
    test::check_refused(test::run("logits", {copy.string(), ids.string(), out.string()}),
                        {out.string(), "is an input"}, 1);
  }
  test::check_refused(test::run("inspect", {copy.string(), "--json", copy.string()}),
                      {copy.string(), "is an input"}, 1);
  CHECK(test::read_file(ids) == "1 2 3");
  CHECK(test::read_file(copy) == contents);

  const auto out = test::write_file(folder / "out", "before");
  const auto bad = test::write_file(folder / "bad", "1 999999");
  CHECK(test::run("logits", {model, bad.string(), out.string()}).status == 1);
  CHECK(test::read_file(out) == "before");
  test::run_well("logits", {model, ids.string(), out.string()});
  CHECK(test::run_well("logits", {model, ids.string(), "/dev/stdout"}) == test::read_file(out));
  CHECK(names_in(folder) == std::set<std::string>{"bad", "ids", "link", "model.gguf", "out"});
}

TEST_CASE("logits: no part of a split model is replaced") {
  const test::temporary_folder folder;
  const nibble::gguf::file whole(model);
  nibble::gguf::writer w;
  w.copy_metadata(whole);
  for (const auto& t : whole.tensors()) {
    w.add_tensor(t.name, t.view.format, t.view.shape, std::span(t.view.data, t.bytes));
  }
  const auto parts = w.write(folder / "m.gguf", {.max_part_bytes = 1500000});
  REQUIRE(parts.size() >= 3);
  const auto ids = test::write_file(folder / "ids", "1 2 3");
  const std::string last = test::read_file(parts.back());
  std::filesystem::create_hard_link(parts.back(), folder / "link");
  for (const auto& out : {parts.back(), folder / "link"}) {
    test::check_refused(test::run("logits", {parts[0].string(), ids.string(), out.string()}),
                        {out.string(), "is an input"}, 1);
    CHECK(test::read_file(out) == last);
  }
  test::check_refused(test::run("inspect", {parts[0].string(), "--json", parts[1].string()}),
                      {"is an input"}, 1);
}

TEST_CASE("logits: a signal leaves no file, and is how the program ends") {
  const test::temporary_folder folder;
  std::string ids;
  for (int i = 0; i < 4000; ++i) ids += "1 ";
  test::write_file(folder / "ids", ids);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    test::process running("logits",
                          {model, (folder / "ids").string(), (folder / "out").string(), "-t", "1"},
                          "/dev/null");
    for (int i = 0; i < 3000 && names_in(folder).size() < 2; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    CHECK(names_in(folder).size() == 2);  // the temporary file
    running.send(signal);
    CHECK(running.wait().status == -signal);
    CHECK(names_in(folder) == std::set<std::string>{"ids"});
  }
}

TEST_CASE("logits: more tokens than the model was trained for are pointed out") {
  const test::temporary_folder folder;
  std::string ids;
  for (int i = 0; i < 600; ++i) ids += "1 ";
  const auto found = test::run(
      "logits", {model, test::write_file(folder / "ids", ids).string(), "/dev/null", "-t", "1"});
  CHECK(found.status == 0);
  CHECK(test::contains(found.err, "600 tokens is longer than the 512"));
}

TEST_CASE("inspect: its figures are the file's") {
  const nibble::gguf::file file{test::tales};
  const std::string text = test::run_well("inspect", {model});
  for (const auto& [key, value] : file.metadata()) CHECK(test::contains(text, key));
  for (const auto& tensor : file.tensors()) CHECK(test::contains(text, tensor.name));
  CHECK(test::contains(text, "Metadata: " + std::to_string(file.metadata().size()) + " keys"));
  CHECK(test::contains(text, "Tensors: " + std::to_string(file.tensors().size())));
  CHECK(test::contains(text, "By format:"));

  const test::temporary_folder folder;
  const std::string path = (folder / "all.json").string();
  CHECK(test::run_well("inspect", {model, "--json", path}) == "");
  const auto json = nlohmann::json::parse(test::read_file(path));
  CHECK(json["bytes"] == std::filesystem::file_size(test::tales));
  CHECK(json["version"] == file.version());
  CHECK(json["metadata"].size() == file.metadata().size());
  CHECK(json["metadata"]["general.architecture"] == "llama");
  CHECK(json["metadata"]["llama.block_count"] == file.require<std::uint32_t>("llama.block_count"));
  CHECK(json["metadata"]["tokenizer.ggml.tokens"].size() ==
        file.get_array<std::string_view>("tokenizer.ggml.tokens")->size());
  REQUIRE(json["tensors"].size() == file.tensors().size());
  std::map<std::string, std::uint64_t> bytes;
  for (std::size_t i = 0; i < file.tensors().size(); ++i) {
    const auto& tensor = file.tensors()[i];
    const auto& found = json["tensors"][i];
    CHECK(found["name"] == tensor.name);
    CHECK(found["format"] == nibble::format_name(tensor.view.format));
    CHECK(found["offset"] == tensor.offset);
    CHECK(found["bytes"] == tensor.bytes);
    bytes[std::string(nibble::format_name(tensor.view.format))] += tensor.bytes;
  }
  REQUIRE(json["formats"].size() == bytes.size());
  for (const auto& [name, sum] : bytes) {
    CHECK(json["formats"][name]["bytes"] == sum);
    CHECK(test::contains(text, name));
  }
}

TEST_CASE("inspect: what a file holds does not command the terminal") {
  const std::string bad = "\x1b[2J\nx\x7f\xc2\x9b\xc3\xa9";  // ends in a letter, U+00E9
  const std::string shown = "\\x1b[2J\\x0ax\\x7f\\xc2\\x9b\xc3\xa9";
  nibble::gguf::writer w;
  w.set("key" + bad, "value" + bad);
  const std::vector<std::byte> data(4);
  w.add_tensor("tensor" + bad, nibble::format_id{0}, {}, data);
  const test::temporary_folder folder;
  const std::string path = (folder / "hostile.gguf").string();
  w.write(path);
  const std::string text = test::run_well("inspect", {path});
  CHECK(test::contains(text, "key" + shown));
  CHECK(test::contains(text, "tensor" + shown));
  // a value is shown as JSON, which has names of its own for the first ones
  CHECK(test::contains(text, "\"value\\u001b[2J\\nx\\x7f\\xc2\\x9b\xc3\xa9\""));
  for (const char* raw : {"\x1b", "\x7f", "\xc2\x9b"}) CHECK(!test::contains(text, raw));

  test::check_refused(test::run("inspect", {model, "--width", "-1"}), {"--width", "-1"});
  test::check_refused(test::run("inspect", {model, "--json", ""}), {"--json", "empty"});
}

TEST_CASE("bench: a table, and JSON with every key") {
  const test::temporary_folder folder;
  const std::string path = (folder / "results.json").string();
  const std::string text = test::run_well(
      "bench", {model, "-p", "8", "-n", "2", "-d", "0,3", "-r", "2", "-t", "1", "--json", path});
  for (const char* heading : {"test", "tokens/s", "spread", "bandwidth", "integer", "4-bit"}) {
    CHECK(test::contains(text, heading));
  }
  const auto json = nlohmann::json::parse(test::read_file(path));
  REQUIRE(json.is_array());
  std::set<std::string> names;
  for (const auto& result : json) {
    names.insert(result["test"]);
    CHECK(test::contains(text, result["test"].get<std::string>()));
    CHECK(result["model"] == model);
    CHECK(result["threads"] == 1);
    CHECK(result["spread"].get<double>() >= 0);
    for (const char* key :
         {"tokens_per_second", "bandwidth_gb_s", "bandwidth_share", "integer_gmac_s",
          "integer_share", "narrow_gmac_s", "narrow_share", "load_seconds", "resident_bytes"}) {
      INFO(key);
      CHECK(result[key].get<double>() > 0);
    }
    CHECK_FALSE(result["integer_instructions"].get<std::string>().empty());
    CHECK_FALSE(result["narrow_instructions"].get<std::string>().empty());
    CHECK(result.size() == 15);
  }
  CHECK(names == std::set<std::string>{"pp8", "tg2", "pp8@d3", "tg2@d3"});
}

TEST_CASE("bench: what cannot be measured is refused before anything is") {
  const test::temporary_folder folder;
  const std::string nowhere = (folder / "no-such-folder" / "results.json").string();
  test::check_refused(test::run("bench", {model, "--json", nowhere}), {nowhere}, 1);
  test::check_refused(test::run("bench", {model, "-p", "0", "-n", "0"}), {"no test is left"}, 2);
  test::check_refused(test::run("bench", {model, "-p", "99999"}), {"pp99999", "context"}, 1);
  test::check_refused(test::run("bench", {model, "-d", "99999"}), {"depth", "99999"}, 1);
  test::check_refused(test::run("bench", {model, "-p", "-1"}), {"--prompt", "-1"});
  test::check_refused(test::run("bench", {model, "-r", "0"}), {"--repetitions", "0"});
  test::check_refused(test::run("bench", {model, "-c", "-4"}), {"--context", "-4"});
  test::check_refused(test::run("bench", {model, "--json", ""}), {"--json", "empty"});
}

TEST_CASE("bench: results that cannot be written are reported") {
  if (!std::filesystem::exists("/dev/full")) return;
  const auto found = test::run(
      "bench", {model, "-p", "2", "-n", "0", "-r", "1", "-t", "1", "--json", "/dev/full"});
  CHECK(found.status == 1);
  CHECK(test::contains(found.err, "/dev/full: cannot be written"));
}
