// nibble-generate and nibble-embed-in-app on the model that comes with the project.

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <nibble/nibble.hpp>
#include <thread>

#include "process.hpp"

namespace {

using strings = std::vector<std::string>;

strings with_model(strings more) {
  more.insert(more.begin(), test::tales.string());
  return more;
}

std::string generate(const strings& more, std::string_view input = "") {
  return test::run_well("generate", with_model(more), input);
}

test::outcome refused(const strings& more) {
  return test::run("generate", with_model(more));
}

}  // namespace

TEST_CASE("generate: a seed fixes the text, for every number of threads") {
  const strings base{"Once upon a time", "-n", "16", "--temperature", "1.5", "--min-p", "0"};
  const auto with = [&](const strings& more) {
    strings all = base;
    all.insert(all.end(), more.begin(), more.end());
    return generate(all);
  };
  const std::string text = with({"--seed", "3", "--threads", "1"});
  CHECK(text.size() > 16);
  CHECK(text.ends_with('\n'));
  CHECK(with({"--seed", "3", "--threads", "2"}) == text);
  CHECK(with({"--seed", "4", "--threads", "2"}) != text);
}

TEST_CASE("generate: temperature 0 needs no seed, -n cuts the same text, - reads it") {
  const std::string twelve = generate({"The dog", "-n", "12", "--temperature", "0"});
  CHECK(generate({"The dog", "-n", "12", "--temperature", "0", "--seed", "9"}) == twelve);
  CHECK(generate({"-", "-n", "12", "--temperature", "0"}, "The dog") == twelve);
  std::string four = generate({"The dog", "-n", "4", "--temperature", "0"});
  REQUIRE(four.ends_with('\n'));
  four.pop_back();
  CHECK(four.size() < twelve.size());
  CHECK(twelve.starts_with(four));
}

TEST_CASE("generate: --stop ends before the text, and may be repeated") {
  const std::string text = generate({"The dog", "-n", "12", "--temperature", "0"});
  const std::string stop = text.substr(text.size() / 2, 3),
                    before = text.substr(0, text.find(stop));
  CHECK(generate({"The dog", "-n", "12", "--temperature", "0", "--stop", "never there", "--stop",
                  stop}) == before + '\n');
  CHECK(generate({"--stop", stop, "The dog", "-n", "12", "--temperature", "0"}) == before + '\n');
}

TEST_CASE("generate: an empty prompt is one") {
  const strings options{"", "-n", "5", "--temperature", "0"};
  CHECK(generate(options).size() > 1);
  strings read = options;
  read[0] = "-";
  CHECK(generate(read) == generate(options));
  strings asked = options;
  asked.push_back("--chat");
  CHECK(generate(asked, "This is not read.\n").size() > 1);
}

TEST_CASE("generate: --verbose shows the plan, why it ended, the seed and speeds") {
  const auto found = test::run("generate", with_model({"The dog", "-n", "5", "-v", "--seed", "77",
                                                       "-t", "1", "--kv", "f32", "-c", "64"}));
  REQUIRE(found.status == 0);
  for (const char* part :
       {"KV cache", "context 64 tokens, keys f32, values f32", "asked number of tokens", "seed 77",
        "load ", "prompt ", "generation ", "tokens/s", "MiB of weights"}) {
    INFO("expected in it: " << part << ", found: " << found.err);
    CHECK(test::contains(found.err, part));
  }
  CHECK(!test::contains(found.out, "tokens/s"));
  // quiet otherwise
  CHECK(test::run("generate", with_model({"The dog", "-n", "2"})).err == "");
}

TEST_CASE("generate: --chat answers one prompt, or each line of its input") {
  const strings options{"--chat", "--temperature", "0", "-n", "12"};
  const auto with_prompt = [&](const char* prompt) {
    strings all = options;
    all.insert(all.begin(), prompt);
    return generate(all);
  };
  const std::string first = with_prompt("What is your name?");
  CHECK(first.size() > 1);
  // two lines, the last one without an end: the first answer is the same, then comes a second
  const std::string both = generate(options, "What is your name?\nTell me a story.");
  CHECK(both.starts_with(first));
  CHECK(both.size() > first.size() + 1);
  CHECK(generate(options, "") == "");
  // an answer is no continuation
  CHECK(generate({"What is your name?", "--temperature", "0", "-n", "12"}) != first);
}

TEST_CASE("generate: an interrupt while a line is awaited is the end of the input") {
  const test::temporary_folder folder;
  const auto pipe = folder / "lines";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  const int writer = ::open(pipe.c_str(), O_RDWR);  // stays open: the program waits for more
  REQUIRE(writer >= 0);
  test::process running("generate", with_model({"--chat", "-n", "3", "-t", "1"}), pipe.string());
  REQUIRE(::write(writer, "Hello\n", 6) == 6);
  for (int i = 0; i < 3000 && !running.output().ends_with('\n'); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // now it waits for a line
  running.send(SIGINT);
  const auto found = running.wait();
  ::close(writer);
  INFO(found.err);
  CHECK(found.status == 0);
  CHECK(std::count(found.out.begin(), found.out.end(), '\n') == 1);
}

TEST_CASE("generate: bad values are refused, each by a sentence that names the option") {
  struct example {
    strings words;
    std::initializer_list<std::string_view> parts;
    int status = 2;  // 1: only the model or the machine shows it
  };
  const example examples[] = {
      {{"--temperature", "-1"}, {"temperature", "-1", "0 or greater"}},
      {{"--temperature", "nan"}, {"temperature", "nan"}},
      {{"--temperature", "warm"}, {"--temperature", "warm"}},
      {{"--top-k", "-2"}, {"top_k", "-2"}},
      {{"--top-p", "0"}, {"top_p", "greater than 0, at most 1"}},
      {{"--min-p", "2"}, {"min_p", "between 0 and 1"}},
      {{"--typical", "0"}, {"typical", "greater than 0, at most 1"}},
      {{"--repeat-last-n", "-2"}, {"repeat_last_n", "-2", "-1 (all tokens)"}},
      {{"--mirostat", "1"}, {"mirostat", "1", "2 (Mirostat 2.0)"}},
      {{"--dry-sequence-breaker", ""}, {"breakers", "empty"}},
      {{"--samplers", "top_k;nucleus"}, {"--samplers", "nucleus", "penalties, dry"}},
      {{"--samplers", "top_k;;top_p"}, {"--samplers", "''", "penalties, dry"}},
      {{"--samplers", "top_k,top_k"}, {"order", "top_k", "twice"}},
      {{"--logit-bias", "5"}, {"--logit-bias", "5", "15043+1.5"}},
      {{"--logit-bias", "5+"}, {"--logit-bias", "5+"}},
      {{"--logit-bias", "x+1"}, {"--logit-bias", "x+1"}},
      {{"--logit-bias", "5+-1"}, {"--logit-bias", "5+-1"}},
      {{"--logit-bias", "5-1x"}, {"--logit-bias", "5-1x"}},
      {{"--logit-bias", "5+inf"}, {"token 5", "inf"}},
      {{"--logit-bias", "5+nan"}, {"token 5", "nan"}},
      {{"--logit-bias", "999999-1"}, {"token 999999", "2048"}, 1},
      {{"--seed", "-1"}, {"--seed", "-1"}},
      {{"--seed", "x"}, {"--seed", "x"}},
      {{"-n", "-5"}, {"--max-tokens", "-5"}},
      {{"-n", "99999999999"}, {"--max-tokens", "99999999999"}},
      {{"--seed", "18446744073709551616"}, {"--seed", "18446744073709551616"}},
      {{"--stop", ""}, {"--stop", "empty"}},
      {{"--isa", ""}, {"--isa", "empty"}},
      {{"--system", "Be brief."}, {"--system", "--chat"}},
      {{"--echo", "--chat"}, {"--echo", "--chat"}},
      {{"--context", "-1"}, {"--context", "-1"}},
      {{"--context", "268435456"}, {"KV cache", "With a context of"}, 1},
      {{"--context", "300000000"}, {"--context", "300000000", "268435456"}},
      {{"--batch", "0"}, {"--batch", "0", "1 to 65536"}},
      {{"--threads", "100000"}, {"--threads", "100000", "0 to 1024"}},
      {{"--threads", "-3"}, {"--threads", "-3"}},
      {{"--kv", "q9"}, {"--kv", "q9", "f16", "f32"}},
      {{"--kv", "f32,f16,q8"}, {"--kv", "'f16,q8' is not a type"}},
      {{"--kv-rotation", ""}, {"--kv-rotation", "neither on nor off"}},
      {{"--activations", "int7"}, {"--activations", "int7", "int8", "float"}},
      {{"--isa", "nonsense"}, {"instruction set", "nonsense", "scalar"}},
      {{"--no-such-option"}, {"--no-such-option"}},
  };
  for (const example& e : examples) {
    strings words{"The dog", "-t", "1"};
    if (e.words[0] == "--threads") words.resize(1);
    if (e.words[0] != "-n") words.insert(words.end(), {"-n", "1"});
    words.insert(words.end(), e.words.begin(), e.words.end());
    INFO(e.words.front() << ' ' << e.words.back());
    test::check_refused(refused(words), e.parts, e.status);
  }
}

TEST_CASE("generate: a prompt longer than the context is refused") {
  test::check_refused(refused({"The dog and the cat went to the house", "-c", "4"}),
                      {"do not fit", "context holds 4"}, 1);
}

TEST_CASE("embed-in-app: answers") {
  const std::string answer = test::run_well("embed-in-app", {test::tales.string(), "Who are you?"});
  CHECK(answer.size() > 2);
  CHECK(answer.ends_with('\n'));
  // the seed stands in its source
  CHECK(test::run_well("embed-in-app", {test::tales.string(), "Who are you?"}) == answer);
}

TEST_CASE("generate: options of sampling reach the sampler") {
  const strings base{"The dog and the cat.", "-t", "1", "--seed", "2"};
  const auto with = [&](const strings& more, const char* tokens = "24") {
    strings all = base;
    all.insert(all.end(), {"-n", tokens});
    all.insert(all.end(), more.begin(), more.end());
    return generate(all);
  };
  const std::string plain = with({});
  CHECK(with({"--samplers", "top_k;top_p;min_p;temperature"}) == plain);
  CHECK(with({"--temp", "0.8", "--typical", "1", "--top-n-sigma", "0"}) == plain);
  const std::string greedy = with({"--temp", "0"});
  CHECK(with({"--top-n-sigma", "0.01"}) == greedy);
  CHECK(with({"--top-p", "0.0001"}) == greedy);
  CHECK(with({"--samplers", "top_k", "--top-k", "1"}) == greedy);
  // each of these changes what is written
  const strings changes[] = {{"--temp", "0", "--repeat-penalty", "3"},
                             {"--temp", "0", "--presence-penalty", "9"},
                             {"--temp", "0", "--frequency-penalty", "9", "--repeat-last-n", "-1"},
                             {"--temp", "0", "--dry-multiplier", "50", "--dry-allowed-length", "1",
                              "--dry-sequence-breaker", "none"},
                             {"--temp", "0", "--dynatemp-range", "20", "--min-p", "0"},
                             {"--xtc-probability", "1", "--xtc-threshold", "0.01"},
                             {"--typical", "0.2"},
                             {"--mirostat", "2", "--mirostat-ent", "12", "--temp", "3"}};
  for (const strings& change : changes) {
    INFO(change[change.size() - 2] << ' ' << change.back());
    CHECK(with(change) != (change[0] == "--temp" ? greedy : plain));
  }
  // the same bias is in the library's hands, with a token that would not come otherwise
  const auto only = with({"--logit-bias", "300+1000"}, "3");
  CHECK(only != with({}, "3"));
  CHECK(with({"--logit-bias", "300-inf", "-l", "301+1000"}, "3") ==
        with({"--logit-bias", "301+1000"}, "3"));
}

TEST_CASE("generate: an interrupt ends the text with its line, and then the program") {
  strings base{"-n", "0", "-c", "20000", "-t", "1"};
  const nibble::tokenizer tokenizer{nibble::gguf::file(test::tales)};
  for (nibble::token id = 0; id < tokenizer.size(); ++id) {
    if (!tokenizer.is_end_of_generation(id)) continue;
    base.insert(base.end(), {"--logit-bias", std::to_string(id) + "-inf"});
  }
  for (const strings& words : {strings{"Once upon a time"}, strings{"Who are you?", "--chat"}}) {
    strings more = with_model(words);
    more.insert(more.end(), base.begin(), base.end());
    test::process running("generate", more, "/dev/null");
    for (int i = 0; i < 2000 && running.output().size() < 8; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    running.send(SIGINT);
    const auto found = running.wait();
    INFO(words.back() << ": " << found.err);
    CHECK(found.status == -SIGINT);
    CHECK(found.out.size() > 8);
    CHECK(found.out.ends_with('\n'));
  }
}
