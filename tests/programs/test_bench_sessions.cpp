// nibble-bench with several sessions: the shape of what it prints, never its figures.

#include <map>
#include <nibble/gguf/writer.hpp>
#include <nlohmann/json.hpp>

#include "process.hpp"

namespace {

using strings = std::vector<std::string>;
const std::string model = test::tales.string();

strings with(strings words) {
  words.insert(words.begin(), {model, "-r", "1", "-t", "1"});
  return words;
}

std::map<std::string, nlohmann::json> results(const std::filesystem::path& path) {
  std::map<std::string, nlohmann::json> all;
  for (const auto& result : nlohmann::json::parse(test::read_file(path))) {
    all[result["test"]] = result;
  }
  return all;
}

}  // namespace

TEST_CASE("bench: sessions that generate together are tests of their own") {
  const test::temporary_folder folder;
  const auto path = folder / "results.json";
  const std::string text = test::run_well(
      "bench", with({"-p", "4", "-n", "2,3", "-s", "1,3", "-d", "0,5", "--json", path.string()}));
  const auto found = results(path);
  CHECK(found.size() == 10);
  for (const char* name : {"pp4", "tg2", "tg3", "tg2x3", "tg3x3", "pp4@d5", "tg2@d5", "tg3@d5",
                           "tg2x3@d5", "tg3x3@d5"}) {
    INFO(name);
    REQUIRE(found.contains(name));
    CHECK(test::contains(text, name));
    CHECK(found.at(name).size() == 15);
    CHECK(found.at(name)["tokens_per_second"].get<double>() > 0);
    CHECK(found.at(name)["bandwidth_share"].get<double>() > 0);
  }
  // weights are read once for all sessions: a token takes fewer bytes
  const auto bytes = [&](const char* name) {
    const auto& r = found.at(name);
    return r["bandwidth_share"].get<double>() / r["tokens_per_second"].get<double>();
  };
  CHECK(bytes("tg2x3") < bytes("tg2") / 2.5);
  CHECK(bytes("tg2x3") > bytes("tg2") / 3.5);
}

TEST_CASE(
    "bench: the time to the first token, alone and with a prefix that another session holds") {
  const test::temporary_folder folder;
  const auto path = folder / "results.json";
  const std::string text = test::run_well(
      "bench", with({"-p", "0", "-n", "0", "--shared-prefix", "200,128", "--json", path.string()}));
  for (const char* word : {"first token", "alone, s", "shared, s", "times sooner", "ttft200"}) {
    CHECK(test::contains(text, word));
  }
  CHECK_FALSE(test::contains(text, "tokens/s: median"));  // there is no other table
  const auto found = results(path);
  CHECK(found.size() == 2);
  for (const int shared : {200, 128}) {
    const auto& r = found.at("ttft" + std::to_string(shared));
    CHECK(r["model"] == model);
    CHECK(r["prompt_tokens"] == shared + 16);
    CHECK(r["shared_tokens"] == shared / 64 * 64);  // whole pages
    for (const char* key : {"seconds", "seconds_shared", "ratio", "load_seconds"}) {
      CHECK(r[key].get<double>() > 0);
    }
  }
}

TEST_CASE("bench: sessions that cannot be measured are refused") {
  const auto refused = [](const strings& words, std::initializer_list<std::string_view> parts,
                          int status) {
    INFO(words.front() << ' ' << words.back());
    test::check_refused(test::run("bench", with(words)), parts, status);
  };
  refused({"-s", "0"}, {"--sessions", "1 to 256"}, 2);
  refused({"-s", "1,257"}, {"--sessions", "257"}, 2);
  refused({"-b", "4", "-s", "8"}, {"8 sessions", "not of 4", "--batch"}, 1);
  refused({"--shared-prefix", "0"}, {"--shared-prefix"}, 2);
  refused({"--shared-prefix", "500"}, {"500 tokens", "516", "512", "--context"}, 1);

  const test::temporary_folder folder;
  const nibble::gguf::file whole(test::tales);
  nibble::gguf::writer w;
  for (const auto& [key, value] : whole.metadata()) {
    if (!key.starts_with("tokenizer.")) w.set(key, value);
  }
  for (const auto& t : whole.tensors()) {
    w.add_tensor(t.name, t.view.format, t.view.shape, std::span(t.view.data, t.bytes));
  }
  const auto path = (folder / "no-vocabulary.gguf").string();
  w.write(path);
  const strings words{path, "-p", "0", "-n", "2", "-r", "1", "-t", "1"};
  test::run_well("bench", words);
  strings more = words;
  more.insert(more.end(), {"-s", "2"});
  test::check_refused(test::run("bench", more), {path, "tg2x2 needs a vocabulary", "--sessions"},
                      1);
}
