// What nibble-bench measures: speeds of a model on random tokens.
#pragma once

#include <cstdint>
#include <nibble/nibble.hpp>
#include <random>
#include <string>
#include <vector>

namespace bench {

enum class test_kind { prompt, generation };

struct test {
  test_kind kind;
  std::int32_t tokens;        // of each session
  std::int32_t depth;         // tokens that the cache holds before
  std::int32_t sessions = 1;  // that generate together

  std::string name() const;
};

// What to measure, as it was asked for.
struct test_choice {
  std::vector<std::int32_t> prompts, generations, depths{0}, sessions{1};
  std::vector<std::int32_t> shared_prefixes;
};

// Of a prompt whose beginning another session holds, what it has for itself.
inline constexpr std::int32_t own_tokens = 16;

// Lengths that were not asked for are cut to what the model's context leaves at the depth.
// Throws common::usage_error, nibble::error (invalid_argument).
std::vector<test> choose_tests(const test_choice& choice, std::int32_t context);
// What all tests need.
void fit(nibble::plan_options& plan, const std::vector<test>& tests, const test_choice& choice);

struct result {
  test what;
  double tokens_per_second = 0;  // of all sessions, median of the repetitions
  double spread = 0;             // (fastest - slowest) / median
  double bytes_per_token = 0, macs_per_token = 0;

  double gb_s() const { return tokens_per_second * bytes_per_token / 1e9; }
  double gmac_s() const { return tokens_per_second * macs_per_token / 1e9; }
};

// Time to the first token of a prompt.
struct first_token {
  std::int32_t shared = 0, prompt = 0;     // tokens
  double seconds = 0, seconds_shared = 0;  // without and with the other session; medians
  std::int64_t found = 0;                  // tokens that were not computed again

  std::string name() const;
  double ratio() const { return seconds / seconds_shared; }
};

class runner {
 public:
  explicit runner(const nibble::model& model);

  result run(const test& t, std::int32_t repetitions);
  // One session reads a prompt; then another does that begins with the same `shared` tokens.
  first_token run_shared(std::int32_t shared, std::int32_t repetitions);

 private:
  std::vector<nibble::token> draw(std::int32_t count);
  void reach(nibble::session& session, std::int32_t depth);
  double once(const test& t);
  double together(const test& t);
  double read(nibble::session& session, const std::vector<nibble::token>& prompt);

  const nibble::model& model_;
  std::vector<nibble::session> sessions_;
  nibble::sampling_options greedy_ = {};
  std::mt19937 random_;  // the same tokens in every run of this program
  std::uniform_int_distribution<nibble::token> vocabulary_;
};

}  // namespace bench
