// A session's tokens and pages.
#include <algorithm>
#include <chrono>
#include <functional>
#include <nibble/base/concat.hpp>
#include <numeric>
#include <utility>

#include "engine/state.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

session::state::state(std::shared_ptr<model::state> of, nibble::sampler by,
                      const session_options& wanted)
    : loaded(std::move(of)), options(wanted), sampler(std::move(by)) {
  const std::int32_t context = loaded->plan.context;
  const bool known = options.when_full == context_policy::stop ||
                     options.when_full == context_policy::shift ||
                     options.when_full == context_policy::slide;
  if (options.keep < 0 || options.keep >= context || options.drop < 0 || !known) {
    throw error(errc::invalid_argument,
                concat("a session that keeps ", options.keep, " tokens and drops ", options.drop,
                       known ? "" : " by no policy that there is",
                       " cannot be made; of a context of ", context, " it may keep 0 to ",
                       context - 1, ", and it cannot drop less than 0 (0: half)."));
  }
  losses = loaded->losses;
  sequence = loaded->pages->make_sequence(options.keep, context);
  tokens.reserve(static_cast<std::size_t>(context));
  logits.reserve(static_cast<std::size_t>(loaded->hp.n_vocab));
}

session::state::state(const state& other)
    : loaded(other.loaded),
      options(other.options),
      sampler(other.sampler),
      tokens(other.tokens),
      cached(other.cached),
      losses(other.losses),
      pending(other.pending),
      logits(other.logits) {
  tokens.reserve(static_cast<std::size_t>(loaded->plan.context));
  sequence = loaded->pages->fork(other.sequence);  // last: no destructor follows what fails
}

session::state::~state() {
  loaded->pages->release(sequence);
}

std::int64_t session::state::room() const {
  const auto n = static_cast<std::int64_t>(tokens.size());
  const kv_table& table = sequence.table;
  std::int64_t pages = pages_for(loaded->plan.context);
  std::int64_t first = 0;  // page of the first one behind the gap
  if (table.dropped > 0) {
    first = (table.keep + table.dropped) / kv_page_tokens;
    pages -= std::min(pages_for(table.keep), first);  // the gap may end in a page that is kept
  }
  const std::int64_t places = (first + pages) * kv_page_tokens - table.place(n);
  return std::min(loaded->plan.context - n, places);
}

bool session::state::can_take(std::size_t more, std::int64_t room) const {
  const auto wanted = static_cast<std::int64_t>(more);
  if (wanted <= room) return true;
  if (options.when_full == context_policy::stop) return false;
  return options.keep + wanted <= loaded->plan.context;  // all but those that stay may go
}

void session::state::check(std::span<const token> more, bool anew) const {
  if (more.empty()) {
    throw error(errc::invalid_argument, "there are no tokens to append.");
  }
  const std::int32_t context = loaded->plan.context;
  if (!can_take(more.size(), anew ? context : room())) {
    const bool stops = options.when_full == context_policy::stop;
    const std::size_t held = !stops ? static_cast<std::size_t>(options.keep)
                             : anew ? 0
                                    : tokens.size();
    throw error(errc::invalid_argument,
                concat(more.size(), more.size() == 1 ? " token does" : " tokens do",
                       " not fit: the context holds ", context, context == 1 ? " token" : " tokens",
                       " and ", held, stops ? " of them are taken." : " of them are to be kept.",
                       " Plan a longer context",
                       held == 0 ? "."
                       : stops   ? ", or truncate the session."
                                 : ", or let the session keep fewer."));
  }
  for (const token id : more) {
    if (id < 0 || id >= loaded->hp.n_vocab) {
      throw error(errc::invalid_argument, concat("token ", id, " is not in the vocabulary of ",
                                                 loaded->hp.n_vocab, " tokens."));
    }
  }
}

void session::state::make_room(std::size_t more) {
  const auto wanted = static_cast<std::int64_t>(more);
  while (wanted > room()) {
    const auto n = static_cast<std::int64_t>(tokens.size());
    const std::int64_t keep = std::min<std::int64_t>(options.keep, n), most = n - keep;
    const bool slides = options.when_full == context_policy::slide;
    std::int64_t usual = 0;  // that go at a time
    if (!slides) usual = options.drop > 0 ? options.drop : most / 2;
    const std::int64_t drop = std::max(usual, wanted - room());
    // what is left begins with a page, or a part of it would be lost
    const std::int64_t behind = keep + sequence.table.dropped + drop;
    const std::int64_t whole = drop + pages_for(behind) * kv_page_tokens - behind;
    if (whole <= std::max(usual, most / 2)) {
      shift(static_cast<std::int32_t>(keep), static_cast<std::int32_t>(whole));
      continue;
    }
    // Pages are too coarse for what is left: without a gap there is room for all of the context.
    // What stays is computed again, so not for a single token each time.
    const std::int64_t few = std::max({usual, wanted - (loaded->plan.context - n), most / 4});
    shift(static_cast<std::int32_t>(keep), static_cast<std::int32_t>(std::min(few, most)));
    forget_pages();
    return;
  }
}

void session::state::forget_pages() {
  loaded->pages->release(sequence);
  cached = 0;
}

void session::state::forget_lost_pages() {
  if (losses == loaded->losses) return;
  forget_pages();
  losses = loaded->losses;
}

void session::state::queue(std::span<const token> more, std::size_t reuse) {
  forget_lost_pages();
  std::vector<token> with_pending;
  const token one = pending.value_or(0);
  if (pending && more.empty()) {
    more = {&one, 1};
  } else if (pending) {
    with_pending.reserve(more.size() + 1);
    with_pending.push_back(one);
    with_pending.insert(with_pending.end(), more.begin(), more.end());
    more = with_pending;
  }
  check(more, false);
  make_room(more.size());
  const std::size_t before = tokens.size();
  const std::optional<token> had = std::exchange(pending, std::nullopt);
  tokens.insert(tokens.end(), more.begin(), more.end());
  // the logits of the last one are needed
  const auto limit = static_cast<std::int64_t>(std::min(reuse, tokens.size() - 1));
  std::int64_t found = 0;
  try {
    found = loaded->pages->adopt(sequence, tokens, static_cast<std::int64_t>(cached), limit);
  } catch (...) {  // no memory
    take_back(before, had);
    throw;
  }
  if (found == 0) return;
  timings.shared_tokens += found - static_cast<std::int64_t>(cached);
  cached = static_cast<std::size_t>(found);
}

void session::state::take_back(std::size_t before, std::optional<token> had) {
  tokens.resize(std::max(before, cached));
  if (cached <= before) pending = had;
}

batch_chunk session::state::prepare(std::size_t count) {
  if (losses != loaded->losses) {
    throw error(errc::device,
                "the session's keys and values were lost with a device; append again.");
  }
  loaded->pages->prepare(sequence, static_cast<std::int64_t>(cached),
                         static_cast<std::int64_t>(count));
  return {.cache = loaded->cache.get(),
          .table = &sequence.table,
          .first = 0,
          .count = static_cast<std::int32_t>(count),
          .n_past = static_cast<std::int32_t>(cached)};
}

void session::state::complete(std::size_t count) {
  cached += count;
  loaded->pages->complete(sequence, std::span(tokens).first(cached));
}

template <typename Visit>
void session::state::compute(std::size_t count, std::size_t all,
                             std::span<const std::int32_t> outputs, Visit visit) {
  const auto before = static_cast<double>(all - waiting());
  const auto tell = [&](double share) {
    tell_done(before + share * static_cast<double>(count), all);
  };
  std::function<void(double)> progress;
  if (options.progress) progress = std::cref(tell);
  const batch_chunk chunk = prepare(count);
  {
    const std::lock_guard lock(loaded->running);
    visit(loaded->steps->run({.tokens = std::span(tokens).subspan(cached, count),
                              .chunks = {&chunk, 1},
                              .outputs = outputs},
                             progress));
  }
  complete(count);
}

void session::state::tell_done(double done, std::size_t all) const {
  if (options.progress && all > 1) options.progress(done / static_cast<double>(all));
}

void session::state::append(std::span<const token> more, std::stop_token cancel) {
  const auto start = std::chrono::steady_clock::now();
  const std::optional<token> had = pending;
  queue(more);
  const std::size_t queued = more.size() + (had ? 1 : 0);
  const std::size_t before = tokens.size() - queued;
  const auto batch_size = static_cast<std::size_t>(loaded->plan.limits.max_tokens);
  const std::size_t all = waiting();
  try {
    tell_done(0, all);
    while (waiting() > 0) {
      if (cancel.stop_requested()) throw error(errc::cancelled, "the work was cancelled.");
      const std::size_t count = std::min(batch_size, waiting());
      const auto last = static_cast<std::int32_t>(count - 1);
      const bool wanted = count == waiting();
      compute(count, all, {&last, wanted ? 1u : 0u}, [&](std::span<const float> found) {
        if (wanted) logits.assign(found.begin(), found.end());
      });
      tell_done(static_cast<double>(all - waiting()), all);
    }
  } catch (...) {
    if (cached > before) logits.clear();  // those of a token before
    take_back(before, had);
    throw;
  }
  const bool one = queued == 1 && all == 1;  // a step of generation
  (one ? timings.generated_seconds : timings.prompt_seconds) += seconds_since(start);
  (one ? timings.generated_tokens : timings.prompt_tokens) += static_cast<std::int64_t>(all);
}

void session::state::append(std::span<const token> more, const logits_visitor& visit) {
  const auto start = std::chrono::steady_clock::now();
  const auto batch_size = static_cast<std::size_t>(loaded->plan.limits.max_tokens);
  if (static_cast<std::size_t>(loaded->plan.limits.max_outputs) < batch_size) {
    throw error(errc::invalid_argument,
                "the logits of every token were asked for; load the model with the plan option "
                "all_logits.");
  }
  const std::optional<token> had = pending;
  const std::size_t queued = more.size() + (had ? 1 : 0);
  queue(more, tokens.size());
  const std::size_t before = tokens.size() - queued, all = waiting();
  const auto n_vocab = static_cast<std::size_t>(loaded->hp.n_vocab);
  try {
    std::vector<std::int32_t> outputs(std::min(batch_size, all));
    std::iota(outputs.begin(), outputs.end(), 0);
    std::vector<float> found;
    tell_done(0, all);
    while (waiting() > 0) {
      const std::size_t count = std::min(batch_size, waiting()), at = cached;
      compute(count, all, std::span(outputs).first(count), [&](std::span<const float> all_found) {
        found.assign(all_found.begin(), all_found.end());
      });
      // before the visitor, which may throw
      logits.assign(found.end() - static_cast<std::ptrdiff_t>(n_vocab), found.end());
      tell_done(static_cast<double>(all - waiting()), all);
      if (at + count <= before) continue;  // computed again, for those that follow
      const std::size_t again = before > at ? before - at : 0;
      visit(at + again - before, std::span<const float>(found).subspan(again * n_vocab));
    }
  } catch (...) {
    take_back(before, had);
    throw;
  }
  timings.prompt_seconds += seconds_since(start);
  timings.prompt_tokens += static_cast<std::int64_t>(all);
}

token session::state::sample(nibble::sampler& by) {
  if (logits.empty()) {
    throw error(errc::invalid_argument, "there is nothing to sample from: append tokens first.");
  }
  return by.sample(logits, tokens);
}

void session::state::truncate(std::int32_t count) {
  if (count < 0 || static_cast<std::size_t>(count) > tokens.size()) {
    throw error(errc::invalid_argument, concat("cannot truncate to ", count,
                                               " tokens: the session holds ", tokens.size(), "."));
  }
  tokens.resize(static_cast<std::size_t>(count));
  pending.reset();
  logits.clear();
  if (cached <= tokens.size()) return;
  cached = tokens.size();
  if (!loaded->pages->truncate(sequence, count)) cached = 0;
}

void session::state::shift(std::int32_t keep, std::int32_t drop) {
  const auto n = static_cast<std::int64_t>(tokens.size());
  if (keep < 0 || drop < 0 || std::int64_t{keep} + drop > n) {
    throw error(errc::invalid_argument, concat("cannot drop ", drop, " tokens after the first ",
                                               keep, ": the session holds ", n, "."));
  }
  if (drop == 0) return;
  const auto end = static_cast<std::size_t>(keep) + static_cast<std::size_t>(drop);
  const bool same_gap = sequence.table.dropped == 0 || sequence.table.keep == keep;
  if (cached < end || !same_gap) {
    forget_pages();
  } else if (loaded->pages->shift(sequence, keep, drop, static_cast<std::int64_t>(cached))) {
    cached -= static_cast<std::size_t>(drop);
  } else {
    cached = 0;
  }
  tokens.erase(tokens.begin() + keep, tokens.begin() + static_cast<std::ptrdiff_t>(end));
}

}  // namespace nibble::inline NIBBLE_ABI
