// Whatever sessions of one model have done before, and with each other: their logits are those of a
// session that was given the same tokens.

#include "allocations.hpp"
#include "session_walk.hpp"

namespace {

using nibble::kv_type;
using nibble::session;
using nibble::token;

constexpr std::int32_t context = 300;  // five pages of 64

// Layers with windows see a little more than a page.
test::tiny_model tiny(const std::string& name, int layers = 0) {
  test::tiny_model model(name);
  model.set("context_length", 512).set_vocabulary();
  if (name == "gemma3" || name == "gpt-oss") model.set("attention.sliding_window", 70);
  if (layers > 0) model.set("block_count", layers);
  return model.make_tensors();
}

nibble::model load(const std::vector<std::byte>& bytes, kv_type type, std::int32_t sessions,
                   std::int32_t batch, bool all_logits) {
  nibble::model_options options;
  options.cpu.threads = 1;
  options.plan.context = context;
  options.plan.key = options.plan.value = type;
  options.plan.rotate_key = options.plan.rotate_value = nibble::has_scales(type);
  options.plan.sessions = sessions;
  options.plan.batch = batch;
  options.plan.all_logits = all_logits;
  return nibble::model(nibble::gguf::file(bytes, "tiny.gguf"), options);
}

std::vector<token> some_tokens(std::size_t count, unsigned seed) {
  std::minstd_rand random(seed);
  std::vector<token> tokens(count);
  for (token& id : tokens) id = static_cast<token>(random() / 7 % 48);
  return tokens;
}

// Sessions that fill their context, as many as were planned, find a page for every token.
void check_whole_pool(const nibble::model& model, std::int32_t sessions) {
  std::vector<session> all;
  for (int i = 0; i < sessions; ++i) {
    all.emplace_back(model);
    all.back().append(some_tokens(context, 1000 + static_cast<unsigned>(i)));
  }
}

// Tokens that are appended only once all allocations succeed.
std::size_t failures_of_append(session& s, std::span<const token> tokens) {
  const auto before = test::held(s);
  return test::failures_of([&] {
    try {
      s.append(tokens);
    } catch (...) {
      CHECK(test::held(s) == before);
      throw;
    }
  });
}

}  // namespace

// Every row of a batch is computed by itself, in an order that only depends on what the token sees,
// and a row is stored once: who shares pages, and what was computed together, cannot change a bit.
TEST_CASE("sessions that share a pool give the logits of sessions alone, bit by bit") {
  struct config {
    const char* name;
    kv_type type;
  };
  const config configs[] = {{"llama", kv_type::f32},   {"llama", kv_type::f16},
                            {"llama", kv_type::q8},    {"llama", kv_type::q4},
                            {"llama", kv_type::q8_0},  {"gemma3", kv_type::f16},
                            {"gemma3", kv_type::q4},   {"gpt-oss", kv_type::q8},
                            {"gpt-oss", kv_type::f32}, {"mistral3", kv_type::q8}};
  test::session_walk::counts seen;
  for (const config& c : configs) {
    const auto bytes = tiny(c.name).bytes();
    constexpr std::int32_t sessions = 2;
    const nibble::model model = load(bytes, c.type, sessions, 48, false);
    const nibble::model witness =
        load(bytes, c.type, test::session_walk::most_sessions + 4, 512, true);
    for (unsigned seed = 1; seed <= 3; ++seed) {
      CAPTURE(c.name, nibble::info_of(c.type).name, seed);
      {
        test::session_walk walk(model, witness, seed, seen);
        for (int step = 0; step < 150; ++step) {
          CAPTURE(step);
          walk.step();
        }
      }
      check_whole_pool(model, sessions);
    }
  }
  // all that can happen has happened
  CHECK(seen.appended > 500);
  CHECK(seen.full > 100);
  CHECK(seen.cancelled > 20);
  CHECK(seen.shifted > 100);
  CHECK(seen.loaded > 100);
  CHECK(seen.forked > 100);
  CHECK(seen.generated > 50);
  CHECK(seen.shared > 1000);
}

// Many tries of everything that allocates.
TEST_CASE("allocations that fail leave sessions as they were, and no page behind") {
  for (const char* const name : {"llama", "gpt-oss"}) {
    CAPTURE(name);
    const auto bytes = tiny(name).bytes();
    const nibble::model model = load(bytes, kv_type::q8, 2, 48, false);
    const nibble::model witness = load(bytes, kv_type::q8, 2, 512, true);
    const auto tokens = some_tokens(270, 1);
    const test::temporary_folder folder;
    const auto path = folder / "session";
    const nibble::sampling_options sampling;
    {
      session s(model);
      s.append(std::span(tokens).first(100));
      failures_of_append(s, std::span(tokens).subspan(100));
      session other(model);
      CHECK(failures_of_append(other, std::span(tokens).first(250)) >
            0);  // with pages of the first
      CHECK(other.timings().shared_tokens == 192);
      CHECK(test::failures_of([&] { s.fork(); }) > 3);
      CHECK(test::failures_of([&] { s.save(path); }) > 3);
      s.truncate(0);
      CHECK(test::failures_of([&] { session::load(model, path, sampling); }) > 3);
      const auto found = other.append(std::span(tokens).subspan(250));
      CHECK(std::vector<float>(found.begin(), found.end()) == test::last_logits(witness, tokens));
    }
    check_whole_pool(model, 2);
  }
}

// In a model of one layer, keys and values depend on their own token alone. Then what is left of a
// session is a session with these tokens, but for rounding: a key is rotated by its place and not
// by its index, and a query that looks before the gap twice.
namespace {

struct gap {
  std::int32_t keep, drop;
  std::size_t before, after;  // tokens that are appended
};

// Relative differences of logits from those of a session with the tokens that are left, and of one
// that has another token where the gap is.
std::pair<double, double> differences(const nibble::model& model, const nibble::model& witness,
                                      const gap& g) {
  const auto tokens = some_tokens(g.before + g.after, static_cast<unsigned>(g.keep + g.drop));
  session s(model);
  s.append(std::span(tokens).first(g.before));
  s.shift(g.keep, g.drop);
  s.append(std::span(tokens).subspan(g.before, g.after - 1));
  const auto found = s.append(std::span(tokens).last(1));
  const std::vector<float> logits(found.begin(), found.end());
  auto left = test::held(s);
  REQUIRE(left.size() == tokens.size() - static_cast<std::size_t>(g.drop));
  const double same = test::relative_rms(logits, test::last_logits(witness, left));
  left.insert(left.begin() + g.keep, 5);
  return {same, test::relative_rms(logits, test::last_logits(witness, left))};
}

}  // namespace

TEST_CASE("in one layer a session without its dropped tokens is one that never had them") {
  struct config {
    kv_type type;
    double bound;
  };
  // Keys differ by what their type rounds away: some 2^-24 for each of a few operations in f32,
  // 2^-11 in f16; half a step, 1/254 or 1/14 of a row's greatest value, in codes.
  const config configs[] = {
      {kv_type::f32, 2e-6}, {kv_type::f16, 1e-3}, {kv_type::q8, 1e-2}, {kv_type::q4, 0.15}};
  const gap gaps[] = {{0, 30, 220, 50},  {5, 1, 220, 50},   {5, 64, 220, 50},   {60, 100, 220, 50},
                      {64, 64, 220, 50}, {70, 10, 220, 50}, {70, 128, 220, 50}, {5, 70, 110, 25},
                      {50, 20, 110, 10}, {70, 10, 120, 20}, {3, 60, 110, 60}};
  for (const char* const name : {"llama", "gemma3", "gpt-oss", "mistral3"}) {
    const auto bytes = tiny(name, 1).bytes();
    const bool slides = std::string_view(name) == "gemma3" || std::string_view(name) == "gpt-oss";
    for (const config& c : configs) {
      const nibble::model model = load(bytes, c.type, 1, 64, false);
      const nibble::model witness = load(bytes, c.type, 1, 512, true);
      for (const gap& g : gaps) {
        CAPTURE(name, nibble::info_of(c.type).name, g.keep, g.drop, g.before);
        const auto [same, other] = differences(model, witness, g);
        CHECK(same < c.bound);
        const auto behind = static_cast<std::int32_t>(g.before + g.after) - g.keep - g.drop;
        const bool in_sight = !slides || behind < 68;
        if (in_sight && !nibble::has_scales(c.type)) CHECK(other > 3 * c.bound);
      }
    }
  }
}
