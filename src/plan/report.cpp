// A placement as text.
#include <algorithm>
#include <cstdio>
#include <iomanip>
#include <nibble/base/bytes.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/plan/placement.hpp>
#include <ostream>
#include <string>

#include "plan/report_words.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

constexpr int name_width = 28, bar_width = 30;

std::string with_point(double x) {
  char text[32];
  std::snprintf(text, sizeof text, x < 10 ? "%.2f" : x < 100 ? "%.1f" : "%.0f", x);
  return text;
}

// Layers as ranges: "0-11, 30".
std::string ranges(const std::vector<std::int32_t>& layers) {
  std::string text;
  for (std::size_t i = 0; i < layers.size();) {
    std::size_t end = i + 1;
    while (end < layers.size() && layers[end] == layers[end - 1] + 1) ++end;
    text += concat(text.empty() ? "" : ", ", layers[i]);
    if (end - i > 1) text += concat("-", layers[end - 1]);
    i = end;
  }
  return text;
}

std::string cut(std::string text, std::size_t width) {
  if (text.size() > width) text = text.substr(0, width - 1) + "~";
  return text;
}

void write_devices(std::ostream& out, const placement& p) {
  const auto column = [&](const std::string& text) { out << std::right << std::setw(12) << text; };
  out << std::left << std::setw(name_width) << "device";
  for (const char* const head : {"blocks", "weights", "KV cache", "workspace", "other", "total"}) {
    column(head);
  }
  out << '\n';
  for (std::size_t i = 0; i < p.devices.size(); ++i) {
    const device_use& use = p.devices[i];
    const auto blocks = std::count_if(p.blocks.begin(), p.blocks.end(), [&](const auto& b) {
      return static_cast<std::size_t>(b.device) == i;
    });
    out << std::left << std::setw(name_width) << cut(use.device.name, name_width - 1);
    column(std::to_string(blocks)), column(to_text(use.weights)), column(to_text(use.kv));
    column(to_text(use.workspace)), column(to_text(use.transfers + use.overhead));
    column(to_text(use.total()));
    out << '\n';
  }
}

bool is_limited(const device_use& use) {
  return use.budget > 0 && use.budget < std::uint64_t{1} << 60;
}

// How full each budget is.
void write_bars(std::ostream& out, const placement& p) {
  for (const device_use& use : p.devices) {
    if (!is_limited(use) || p.devices.size() < 2) continue;
    const bool shared = use.device.kind == device_kind::disk;
    const double share = static_cast<double>(use.total()) / static_cast<double>(use.budget);
    const auto full = static_cast<std::size_t>(std::min(share, 1.0) * bar_width + 0.5);
    out << std::left << std::setw(name_width) << cut(use.device.name, name_width - 1) << "  ["
        << std::string(full, '#') << std::string(bar_width - full, '.') << "] "
        << to_text(use.total()) << " of " << (shared ? "the CPU's " : "") << to_text(use.budget)
        << '\n';
  }
}

// A line for each run of blocks that lie alike, unless a reason says where they are.
void write_runs(std::ostream& out, const placement& p) {
  const auto segments = p.segments();
  const auto words = words_of_blocks(p);
  const auto told = [&](const std::string& s) {
    return std::find(p.reasons.begin(), p.reasons.end(), s) != p.reasons.end();
  };
  if (segments.size() < 2 || std::all_of(words.begin(), words.end(), told)) return;
  std::size_t shown = 0;
  for (const placed_segment& s : segments) {
    if (++shown > 12 && segments.size() > 13) {
      out << "  … and " << segments.size() - 12 << " more\n";
      break;
    }
    const std::string first = to_text(p.blocks[s.first].block);
    const std::string last = to_text(p.blocks[s.last - 1].block);
    out << "  " << first << (s.last - s.first > 1 ? concat(" to ", last) : "") << ": "
        << p.devices[static_cast<std::size_t>(s.device)].device.name << '\n';
  }
}

}  // namespace

std::vector<std::string> words_of_blocks(const placement& p) {
  std::vector<std::string> found;
  for (std::size_t d = 0; d < p.devices.size(); ++d) {
    std::vector<std::int32_t> attention, feed_forward;
    std::string what;
    const auto add = [&](const std::string& words) { what += (what.empty() ? "" : "; ") + words; };
    bool head = false;
    for (const placed_block& b : p.blocks) {
      if (static_cast<std::size_t>(b.device) != d) continue;
      if (b.block.kind == block_kind::embedding) add("the embedding");
      if (b.block.kind == block_kind::attention) attention.push_back(b.block.layer);
      if (b.block.kind == block_kind::feed_forward) feed_forward.push_back(b.block.layer);
      head = head || b.block.kind == block_kind::head;
    }
    if (!attention.empty() && attention == feed_forward) {
      add("layers " + ranges(attention));
    } else {
      if (!attention.empty()) add("attention of layers " + ranges(attention));
      if (!feed_forward.empty()) add("feed-forward halves of layers " + ranges(feed_forward));
    }
    if (head) add("the head");
    if (!what.empty()) found.push_back(concat(p.devices[d].device.name, ": ", what, "."));
  }
  return found;
}

std::string words_of_speed(const predicted_speed& speed) {
  return concat(with_point(speed.generation), " tokens a second");
}

std::ostream& operator<<(std::ostream& out, const placement& p) {
  const auto flags = out.flags();
  write_devices(out, p);
  write_bars(out, p);
  const auto rotated = [](bool yes) { return yes ? " rotated" : ""; };
  out << "context " << p.context << " tokens";
  if (p.sessions > 1) out << " for each of " << p.sessions << " sessions";
  out << ", keys " << info_of(p.kv.key).name << rotated(p.kv.rotate_key) << ", values "
      << info_of(p.kv.value).name << rotated(p.kv.rotate_value) << ", " << p.kv.bytes_per_token()
      << " bytes a token\n";
  if (p.predicted.generation > 0) {
    out << "expected: " << with_point(p.predicted.prompt) << " tokens of a prompt and "
        << with_point(p.predicted.generation) << " generated tokens a second\n";
  }
  write_runs(out, p);
  for (const std::string& reason : p.reasons) out << "- " << reason << '\n';
  out.flags(flags);
  return out;
}

}  // namespace nibble::inline NIBBLE_ABI
