// nibble-batch: many texts at once, each as nibble-generate writes it.

#include <csignal>
#include <nlohmann/json.hpp>
#include <sstream>

#include "process.hpp"

namespace {

using strings = std::vector<std::string>;
const std::string model = test::tales.string();
const strings prompts = {
    "Once upon a time",         "The cat",       "", "Tom and his dog went to the sea",
    "\"Look!\" said the bird.", "One day, a boy"};

std::string lines() {
  std::string text;
  for (const std::string& prompt : prompts) text += prompt + '\n';
  return text;
}

strings with(strings more) {
  more.insert(more.begin(), {model, "-t", "1"});
  return more;
}

// What nibble-generate writes, without the end of its last line.
std::string generated(const std::string& prompt, strings more) {
  more.insert(more.begin(), prompt);
  std::string text = test::run_well("generate", with(more));
  REQUIRE(text.ends_with('\n'));
  text.pop_back();
  return text;
}

std::vector<nlohmann::json> objects(const std::string& text) {
  std::vector<nlohmann::json> all;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) all.push_back(nlohmann::json::parse(line));
  return all;
}

}  // namespace

TEST_CASE("batch: each text is what nibble-generate writes, in the order of the lines") {
  const strings sampling[] = {{"--temp", "0", "-n", "12"}, {"--seed", "7", "-n", "12"}};
  for (const strings& more : sampling) {
    INFO(more.front());
    std::string wanted;
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      wanted += "=== " + std::to_string(i + 1) + '\n' + generated(prompts[i], more) + '\n';
    }
    for (const char* sessions : {"1", "4"}) {
      strings words = with(more);
      words.insert(words.end(), {"--sessions", sessions});
      CHECK(test::run_well("batch", words, lines()) == wanted);
    }
  }
}

TEST_CASE("batch: JSON lines say how each text ended and what it took") {
  const test::temporary_folder folder;
  const auto path = test::write_file(folder / "prompts", "Once upon a time\r\nOnce upon a time");
  const auto found = test::run(
      "batch", with({path.string(), "--json", "-n", "10", "--temp", "0", "--stop", "unmet"}));
  CHECK(found.status == 0);
  const auto all = objects(found.out);
  REQUIRE(all.size() == 2);
  const std::string text = generated("Once upon a time", {"-n", "10", "--temp", "0"});
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(all[i]["line"] == i + 1);
    CHECK(all[i]["prompt"] == "Once upon a time");
    CHECK(all[i]["text"] == text);
    CHECK(all[i]["finish"] == "max_tokens");
    CHECK(all[i]["generated_tokens"] == 10);
    CHECK(all[i]["prompt_tokens"].get<int>() > 3);
    CHECK(all[i]["shared_tokens"] == 0);  // less than a page
  }
  for (const char* part : {"2 texts: ", " 20 generated in ", " tokens/s"}) {
    CHECK(test::contains(found.err, part));
  }
}

TEST_CASE("batch: what prompts have in common is computed once") {
  std::string common;
  for (int i = 0; i < 30; ++i) common += "The cat and the dog played in the garden. ";
  std::string input;
  for (const char* own : {"Then", "But", "So"}) input += common + own + '\n';
  const auto all = objects(test::run_well("batch", with({"--json", "-n", "2"}), input));
  REQUIRE(all.size() == 3);
  CHECK(all[0]["shared_tokens"] == 0);
  for (std::size_t i = 1; i < 3; ++i) {
    const auto shared = all[i]["shared_tokens"].get<int>();
    CHECK(shared >= 128);
    CHECK(all[i]["prompt_tokens"].get<int>() - shared < 128);
  }
}

TEST_CASE("batch: a prompt that cannot be continued does not stop the others") {
  std::string input = "Once upon a time\n";
  for (int i = 0; i < 600; ++i) input += "and ";
  input += "\nThe cat\n";
  const auto found = test::run("batch", with({"--json", "-n", "3"}), input);
  CHECK(found.status == 1);
  for (const char* part : {"1 of 3 prompts", "line 2: ", "do not fit"}) {
    CHECK(test::contains(found.err, part));
  }
  const auto all = objects(found.out);
  REQUIRE(all.size() == 3);
  CHECK(all[0]["generated_tokens"] == 3);
  CHECK(test::contains(all[1]["error"].get<std::string>(), "do not fit"));
  CHECK(all[2]["generated_tokens"] == 3);
}

TEST_CASE("batch: what cannot be done is refused") {
  const test::temporary_folder folder;
  const auto empty = test::write_file(folder / "empty", "").string();
  test::check_refused(test::run("batch", with({empty})), {empty, "no prompts"}, 1);
  test::check_refused(test::run("batch", with({})), {"standard input", "no prompts"}, 1);
  const auto missing = (folder / "missing").string();
  test::check_refused(test::run("batch", with({missing})), {missing, "cannot be opened"}, 1);
  test::check_refused(test::run("batch", with({"--sessions", "0"})), {"--sessions"}, 2);
  test::check_refused(test::run("batch", with({"--top-p", "7"}), "a"), {"top_p", "7"}, 2);
  test::check_refused(test::run("batch", with({"-l", "99999+1"}), "a"), {"99999"}, 1);
}

TEST_CASE("batch: an interrupt ends the texts that have begun, and then the program") {
  const test::temporary_folder folder;
  std::string input;
  for (int i = 0; i < 3000; ++i) input += "Once upon a time\n";
  const auto path = test::write_file(folder / "prompts", input).string();
  for (const int signal : {SIGINT, SIGTERM}) {
    test::process running("batch", with({path, "--json", "-n", "300"}), "/dev/null",
                          (folder / "out").string());
    for (int i = 0; i < 3000 && running.output().empty(); ++i) {
      ::usleep(10000);
    }
    running.send(signal);
    CHECK(running.wait().status == -signal);
    const auto all = objects(test::read_file(folder / "out"));
    REQUIRE(all.size() > 1);
    CHECK(all.size() < 3000);
    CHECK(all.back()["finish"] == "cancelled");
  }
}
