#include "plan_output.hpp"

#include <algorithm>
#include <nibble/base/bytes.hpp>
#include <nibble/base/concat.hpp>
#include <nlohmann/json.hpp>

namespace plan_output {
namespace {

using json = nlohmann::ordered_json;

json of_device(const nibble::placement& plan, std::size_t i) {
  const nibble::device_use& use = plan.devices[i];
  const auto blocks = std::count_if(plan.blocks.begin(), plan.blocks.end(), [i](const auto& b) {
    return static_cast<std::size_t>(b.device) == i;
  });
  return {{"id", use.device.id},
          {"name", use.device.name},
          {"budget_bytes", use.budget},
          {"blocks", blocks},
          {"bytes",
           {{"weights", use.weights},
            {"kv", use.kv},
            {"workspace", use.workspace},
            {"transfers", use.transfers},
            {"overhead", use.overhead},
            {"total", use.total()}}},
          {"free_bytes", plan.free_on(static_cast<std::int32_t>(i))},
          {"experts", {{"slots", use.experts.slots}, {"slot_bytes", use.experts.slot_bytes}}}};
}

// Text as XML has it.
std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += c;
    }
  }
  return out;
}

constexpr const char* colours[] = {"#4878a8", "#e08848", "#68a868", "#a868a8",
                                   "#c8a838", "#48a8a8", "#a84848", "#888888"};
const char* colour_of(std::size_t i) {
  return colours[i % std::size(colours)];
}

constexpr double width = 900, left = 220, row = 34;

std::string text_at(double x, double y, const std::string& text) {
  return nibble::concat("<text x=\"", x, "\" y=\"", y, "\">", escaped(text), "</text>\n");
}

std::string bar(double x, double y, double w, double h, const std::string& fill,
                const std::string& title, double opacity = 1) {
  return nibble::concat("<rect x=\"", x, "\" y=\"", y, "\" width=\"", w, "\" height=\"", h,
                        "\" fill=\"", fill, "\" fill-opacity=\"", opacity, "\"><title>",
                        escaped(title), "</title></rect>\n");
}

std::string draw_device(const nibble::placement& plan, std::size_t i, double y) {
  const nibble::device_use& use = plan.devices[i];
  const double budget =
      static_cast<double>(std::max(std::min(use.budget, std::uint64_t{1} << 60), use.total()));
  const double scale = budget > 0 ? (width - left - 20) / budget : 0;
  std::string out = text_at(10, y + 15, use.device.name);
  out +=
      bar(left, y, width - left - 20, 20, "#eeeeee",
          nibble::concat("free: ",
                         nibble::to_text(use.budget > use.total() ? use.budget - use.total() : 0)));
  double x = left;
  const std::pair<const char*, std::uint64_t> parts[] = {{"weights", use.weights},
                                                         {"KV cache", use.kv},
                                                         {"workspace", use.workspace},
                                                         {"other", use.transfers + use.overhead}};
  double opacity = 1;
  for (const auto& [name, bytes] : parts) {
    const double w = static_cast<double>(bytes) * scale;
    if (bytes > 0) {
      out += bar(x, y, w, 20, colour_of(i), nibble::concat(name, ": ", nibble::to_text(bytes)),
                 opacity);
    }
    x += w;
    opacity -= 0.22;
  }
  return out;
}

}  // namespace

std::string to_json(const nibble::placement& plan) {
  json devices = json::array(), blocks = json::array();
  for (std::size_t i = 0; i < plan.devices.size(); ++i) devices.push_back(of_device(plan, i));
  for (const nibble::placed_block& b : plan.blocks) {
    blocks.push_back({{"name", nibble::to_text(b.block)},
                      {"device", plan.devices[static_cast<std::size_t>(b.device)].device.id},
                      {"weight_bytes", b.weights},
                      {"streamed_bytes", b.streamed},
                      {"on_demand_bytes", b.on_demand}});
  }
  const json all = {{"devices", devices},
                    {"blocks", blocks},
                    {"context", plan.context},
                    {"sessions", plan.sessions},
                    {"kv",
                     {{"key", nibble::info_of(plan.kv.key).name},
                      {"value", nibble::info_of(plan.kv.value).name},
                      {"rotate_key", plan.kv.rotate_key},
                      {"rotate_value", plan.kv.rotate_value},
                      {"bytes_per_token", plan.kv.bytes_per_token()}}},
                    {"predicted",
                     {{"prompt_tokens_per_second", plan.predicted.prompt},
                      {"generated_tokens_per_second", plan.predicted.generation}}},
                    {"optimal", plan.optimal},
                    {"reasons", plan.reasons}};
  return all.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string to_svg(const nibble::placement& plan, const std::string& title) {
  const double chain = 40 + row * static_cast<double>(plan.devices.size());
  std::string out = nibble::concat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"", width, "\" height=\"", chain + 60,
      "\" font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" "
      "fill=\"white\"/>\n");
  out += text_at(10, 22, title);
  for (std::size_t i = 0; i < plan.devices.size(); ++i) {
    out += draw_device(plan, i, 34 + row * static_cast<double>(i));
  }
  out += text_at(10, chain + 15, "blocks, in order");
  const double w = (width - left - 20) / static_cast<double>(plan.blocks.size());
  for (std::size_t i = 0; i < plan.blocks.size(); ++i) {
    const nibble::placed_block& b = plan.blocks[i];
    const bool attention = b.block.kind == nibble::block_kind::attention;
    out += bar(left + w * static_cast<double>(i), chain, w * 0.92, 20,
               colour_of(static_cast<std::size_t>(b.device)),
               nibble::concat(nibble::to_text(b.block), ": ",
                              plan.devices[static_cast<std::size_t>(b.device)].device.name, ", ",
                              nibble::to_text(b.weights)),
               attention ? 0.7 : 1);
  }
  return out + "</svg>\n";
}

}  // namespace plan_output
