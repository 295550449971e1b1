#include "device/pipeline.hpp"

#include <algorithm>
#include <nibble/base/error.hpp>
#include <utility>

namespace nibble::inline NIBBLE_ABI {
namespace {

constexpr std::size_t none = ~std::size_t{0};
// In a batch, for which there is room from the start.
constexpr std::size_t usual_sequences = 16;

std::size_t parts_of(const pipeline::sizes& of) {
  return static_cast<std::size_t>((of.max_tokens + of.part - 1) / of.part);
}

}  // namespace

pipeline::pipeline(std::vector<segment> segments, std::vector<device> devices, const sizes& of)
    : segments_(std::move(segments)),
      devices_(std::move(devices)),
      of_(of),
      started_(devices_.size(), none),
      next_(devices_.size(), 0),
      parts_(parts_of(of)) {
  for (const bool waits : {true, false}) {
    for (std::size_t d = 0; d < devices_.size(); ++d) {
      if (devices_[d].waits == waits) order_.push_back(d);
    }
  }
  const auto length = static_cast<std::size_t>(of.part);
  const auto outputs = static_cast<std::size_t>(of.max_outputs);
  chunks_.reserve(std::min(length, std::max(usual_sequences, outputs)));
  for (auto& p : parts_) {
    p.chunks.reserve(chunks_.capacity());
    p.outputs.reserve(std::min(length, outputs));
  }
  if (segments_.size() == 1 && parts_.size() == 1) return;
  hidden_.resize(static_cast<std::size_t>(of.max_tokens) * static_cast<std::size_t>(of.n_embd));
  if (parts_.size() == 1) return;
  logits_.resize(outputs * static_cast<std::size_t>(of.n_vocab));
}

std::uint64_t pipeline::host_bytes(const sizes& of) {
  const auto tokens = static_cast<std::uint64_t>(of.max_tokens);
  const auto outputs = static_cast<std::uint64_t>(parts_of(of) > 1 ? of.max_outputs : 0);
  return sizeof(float) * (tokens * static_cast<std::uint64_t>(of.n_embd) +
                          outputs * static_cast<std::uint64_t>(of.n_vocab));
}

// Parts are as long as segments take, whatever sequences their tokens belong to.
void pipeline::cut(const batch& work) {
  const auto count = static_cast<std::int32_t>(work.tokens.size());
  n_parts_ = 0;
  std::size_t next_output = 0;
  for (std::int32_t first = 0; first < count; first += of_.part) {
    const std::int32_t end = std::min(first + of_.part, count);
    part& p = parts_[n_parts_++];
    p.tokens =
        work.tokens.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(end - first));
    p.chunks.clear();
    for (const batch_chunk& c : work.chunks) {
      const std::int32_t from = std::max(c.first, first), to = std::min(c.first + c.count, end);
      if (from >= to) continue;
      batch_chunk some = c;
      some.first = from - first;
      some.count = to - from;
      some.n_past = c.n_past + (from - c.first);
      p.chunks.push_back(some);
    }
    p.outputs.clear();
    p.first_output = static_cast<std::int32_t>(next_output);
    while (next_output < work.outputs.size() && work.outputs[next_output] < end) {
      p.outputs.push_back(work.outputs[next_output++] - first);
    }
  }
}

std::span<float> pipeline::hidden_of(std::size_t p) {
  const auto width = static_cast<std::size_t>(of_.n_embd);
  const std::size_t first = p * static_cast<std::size_t>(of_.part);
  return std::span(hidden_).subspan(first * width, parts_[p].tokens.size() * width);
}

batch pipeline::work_of(const part& p, std::size_t d) {
  chunks_ = p.chunks;
  for (batch_chunk& c : chunks_) c.cache = devices_[d].cache;
  return {.tokens = p.tokens, .chunks = chunks_, .outputs = p.outputs};
}

std::span<const float> pipeline::run(const batch& work,
                                     const std::function<void(double)>& progress) {
  if (work.tokens.empty() || work.tokens.size() > static_cast<std::size_t>(of_.max_tokens)) {
    throw error(errc::invalid_argument, "a batch must have a token, and not more than planned.");
  }
  cut(work);
  if (segments_.size() == 1 && n_parts_ == 1) {
    segments_[0].steps->submit(work_of(parts_[0], segments_[0].device));
    segments_[0].steps->wait();
    return segments_[0].steps->output();
  }
  try {
    const std::size_t ticks = n_parts_ + segments_.size() - 1;
    for (std::size_t tick = 0; tick < ticks; ++tick) {
      if (progress && tick > 0) progress(static_cast<double>(tick) / static_cast<double>(ticks));
      run_tick(tick);
    }
  } catch (...) {
    abandon();
    throw;
  }
  if (work.outputs.empty()) return {};  // what ends a pipeline may have been left out
  if (n_parts_ == 1) return segments_.back().steps->output();
  return std::span(logits_).first(work.outputs.size() * static_cast<std::size_t>(of_.n_vocab));
}

std::size_t pipeline::next_on(std::size_t d, std::size_t from, std::size_t tick) const {
  // part `tick - s` is in segment s
  from = std::max(from, tick < n_parts_ ? 0 : tick + 1 - n_parts_);
  for (std::size_t s = from; s < segments_.size() && s <= tick; ++s) {
    if (segments_[s].device != d) continue;
    if (segments_[s].head_only && parts_[tick - s].outputs.empty()) continue;
    return s;
  }
  return segments_.size();
}

// In each tick a part is in one segment, and a segment has one part. Devices work beside each
// other; what one device has to do, it does in turn.
void pipeline::run_tick(std::size_t tick) {
  std::fill(next_.begin(), next_.end(), 0);
  for (bool busy = true; busy;) {
    busy = false;
    for (const std::size_t d : order_) {
      const std::size_t s = next_on(d, next_[d], tick);
      next_[d] = s + 1;
      if (s == segments_.size()) continue;
      start(s, tick - s);
      busy = true;
    }
    for (const std::size_t d : order_) {
      if (started_[d] != none) finish(started_[d], tick - started_[d]);
    }
  }
}

void pipeline::start(std::size_t s, std::size_t p) {
  segment& seg = segments_[s];
  if (s > 0) {
    const auto hidden = hidden_of(p);
    std::copy(hidden.begin(), hidden.end(), seg.steps->input().begin());
  }
  seg.steps->submit(work_of(parts_[p], seg.device));
  started_[seg.device] = s;
}

void pipeline::finish(std::size_t s, std::size_t p) {
  segment& seg = segments_[s];
  started_[seg.device] = none;
  seg.steps->wait();
  const auto found = seg.steps->output();
  if (s + 1 < segments_.size()) {
    std::copy(found.begin(), found.end(), hidden_of(p).begin());
  } else if (n_parts_ > 1) {
    std::copy(found.begin(), found.end(),
              logits_.begin() + static_cast<std::ptrdiff_t>(parts_[p].first_output) * of_.n_vocab);
  }
}

void pipeline::abandon() noexcept {
  for (std::size_t& s : started_) {
    if (s == none) continue;
    try {
      segments_[s].steps->wait();
    } catch (...) {
      // the failure that led here is reported
    }
    s = none;
  }
}

}  // namespace nibble::inline NIBBLE_ABI
