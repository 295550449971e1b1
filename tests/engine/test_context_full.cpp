// What a session does when its context is full, also where that is shorter than a page.
#include "engine_test.hpp"

namespace {

using nibble::context_policy;
using nibble::session;
using nibble::token;

nibble::model load(std::int32_t context) {
  nibble::model_options options;
  options.cpu.threads = 1;
  options.plan.context = context;
  options.plan.sessions = 2;
  return nibble::model(nibble::gguf::file(test::tales), options);
}

std::vector<token> some_tokens(std::size_t n) {
  std::vector<token> tokens;
  for (std::size_t i = 0; i < n; ++i) tokens.push_back(static_cast<token>(20 + i * 7 % 900));
  return tokens;
}

}  // namespace

TEST_CASE("sessions that may drop tokens never end, and keep what they are to keep") {
  for (const std::int32_t context : {1, 2, 63, 64, 65, 130}) {
    const nibble::model model = load(context);
    for (const auto policy : {context_policy::shift, context_policy::slide}) {
      for (const std::int32_t keep : {0, 1, 30}) {
        if (keep >= context) continue;
        INFO("context " << context << ", keep " << keep << ", slides "
                        << (policy == context_policy::slide));
        session s(model, {}, {.when_full = policy, .keep = keep});
        const auto tokens = some_tokens(static_cast<std::size_t>(2 * context + 40));
        std::size_t least = tokens.size();
        for (std::size_t i = 0; i < tokens.size(); ++i) {
          s.append({&tokens[i], 1});
          const auto held = s.tokens();
          REQUIRE(held.size() <= static_cast<std::size_t>(context));
          const std::size_t kept = std::min(static_cast<std::size_t>(keep), i + 1);
          REQUIRE(std::equal(held.begin(), held.begin() + static_cast<std::ptrdiff_t>(kept),
                             tokens.begin()));
          REQUIRE(held.back() == tokens[i]);
          if (i >= static_cast<std::size_t>(context)) least = std::min(least, held.size());
        }
        // half of what may go stays, but for a page's end
        const std::int32_t movable = context - keep;
        CHECK(least >= static_cast<std::size_t>(keep + std::max(movable / 2 - 64, 1)));
        if (context <= 65) CHECK(least >= static_cast<std::size_t>(keep + (movable + 1) / 2));
      }
    }
  }
}

TEST_CASE("a gap behind fewer tokens than a session keeps does not stop it") {
  const nibble::model model = load(192), other = load(192);
  struct gap {
    std::int32_t keep, held, shift_keep, shift_drop, more;
  };
  for (const gap& g : {gap{60, 80, 10, 30, 130}, gap{100, 190, 10, 100, 60}}) {
    for (const auto policy : {context_policy::shift, context_policy::slide}) {
      session s(model, {}, {.when_full = policy, .keep = g.keep});
      const auto tokens = some_tokens(static_cast<std::size_t>(g.held + g.more));
      s.append(std::span(tokens).first(static_cast<std::size_t>(g.held)));
      s.shift(g.shift_keep, g.shift_drop);
      const auto found = s.append(std::span(tokens).last(static_cast<std::size_t>(g.more)));
      // all was computed again, so nothing is left of the gap
      session fresh(other);
      const auto held = s.tokens();
      const auto expected = fresh.append(std::vector<token>(held.begin(), held.end()));
      CHECK(std::equal(found.begin(), found.end(), expected.begin(), expected.end()));
    }
  }
}

TEST_CASE("what cannot fit is refused, and says why") {
  const nibble::model model = load(100);
  session stops(model), keeps(model, {}, {.when_full = context_policy::shift, .keep = 60});
  stops.append(some_tokens(40));
  keeps.append(some_tokens(90));
  test::check_error(test::thrown([&] { stops.append(some_tokens(61)); }),
                    nibble::errc::invalid_argument,
                    {"61 tokens do not fit", "100 tokens and 40 of them are taken", "truncate"});
  test::check_error(test::thrown([&] { keeps.append(some_tokens(41)); }),
                    nibble::errc::invalid_argument,
                    {"41 tokens do not fit", "60 of them are to be kept", "keep fewer"});
  CHECK(keeps.append(some_tokens(40)).size() > 0);
  test::check_error(test::thrown([&] { session(model, {}, {.keep = 100}); }),
                    nibble::errc::invalid_argument, {"keeps 100", "0 to 99"});
  test::check_error(
      test::thrown([&] { session(model, {}, {.when_full = static_cast<context_policy>(77)}); }),
      nibble::errc::invalid_argument, {"no policy"});
  nibble::model_options wrong;
  wrong.plan.key = static_cast<nibble::kv_type>(99);
  test::check_error(test::thrown([&] { nibble::model(nibble::gguf::file(test::tales), wrong); }),
                    nibble::errc::invalid_argument, {"type 99"});
}
