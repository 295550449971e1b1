#include "plan/budget.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>

namespace nibble::inline NIBBLE_ABI {
namespace {

constexpr std::uint64_t unlimited = std::numeric_limits<std::uint64_t>::max();

template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  throw error(errc::invalid_argument, concat(parts...));
}

bool is_share(double x) {
  return x >= 0 && x <= 1;  // not if it is no number
}

std::uint64_t share_of(std::uint64_t bytes, double share) {
  return static_cast<std::uint64_t>(static_cast<long double>(bytes) * share);
}

void check_speed(const offered_device& d) {
  const auto rate = [](double x) { return std::isfinite(x) && x > 0; };
  const auto seconds = [](double x) { return std::isfinite(x) && x >= 0; };
  const device_speed& s = d.speed;
  bool good = seconds(s.step_seconds) && seconds(s.step_value_seconds) &&
              seconds(s.attend_seconds) && seconds(s.run_seconds) && seconds(s.link_seconds) &&
              seconds(s.link_bytes_per_second);
  for (const format_speed& f : s.formats) {
    good = good && rate(f.bytes_per_second) && rate(f.macs_per_second);
  }
  for (const kv_speed& k : s.kv) {
    good = good && rate(k.bytes_per_second) && rate(k.macs_per_second) &&
           rate(k.prompt_macs_per_second);
  }
  if (good) return;
  throw error(
      errc::invalid_argument,
      "its speed has rates that are not positive, or times that are negative or no numbers.",
      {.device = d.sizes->info().name});
}

}  // namespace

void check_devices(std::span<const offered_device> devices) {
  if (devices.empty()) refuse("a plan needs a device.");
  if (devices.size() > 31) {
    refuse(devices.size(), " devices were given; a plan takes 31 at most.");
  }
  for (const offered_device& d : devices) {
    if (!d.sizes) refuse("a device of the plan has no sizes.");
    check_speed(d);
    if (d.speed.formats.empty() || d.speed.kv.empty()) {
      throw error(errc::invalid_argument,
                  "nothing is known of its speed; measure it (find_speed), or say what its data "
                  "sheet says (speed_of).",
                  {.device = d.sizes->info().name});
    }
  }
}

void check_budget_options(const plan_options& options, std::size_t n_devices,
                          std::int32_t n_layer) {
  if (!is_share(options.headroom)) {
    refuse("a headroom of ", options.headroom, " was asked for; it is a share from 0 to 1.");
  }
  for (const memory_limit& limit : {options.vram, options.ram}) {
    if (is_share(limit.share)) continue;
    refuse("a share of ", limit.share, " of a memory was given; it must be from 0 to 1.");
  }
  if (options.gpu_layers < -1) {
    refuse(options.gpu_layers, " layers on GPUs were asked for; it must be 0 to ", n_layer + 1,
           " or more, or -1 to leave the choice to nibble.");
  }
  for (const pinned_blocks& pin : options.pins) {
    if (pin.device < 0 || static_cast<std::size_t>(pin.device) >= n_devices) {
      refuse("blocks were pinned to device ", pin.device, "; there are ", n_devices,
             ", numbered from 0.");
    }
    using part = pinned_blocks::part;
    const bool layers = pin.what != part::embedding && pin.what != part::head;
    if (layers && pin.first >= n_layer) {
      refuse("layers from ", pin.first, " on were pinned; the model has ", n_layer,
             ", numbered from 0.");
    }
    if (pin.first < 0 || pin.last < pin.first) {
      refuse("layers ", pin.first, " to ", pin.last, " were pinned; that is no range of layers.");
    }
  }
  const bool counts = options.prompt_tokens >= 0 && options.generated_tokens >= 0 &&
                      std::isfinite(options.prompt_tokens) &&
                      std::isfinite(options.generated_tokens) &&
                      options.prompt_tokens + options.generated_tokens > 0 &&
                      options.prompt_tokens + options.generated_tokens < 1e15;
  if (!counts) {
    refuse("a request of ", options.prompt_tokens, " tokens of prompt and ",
           options.generated_tokens, " generated ones makes no sense.");
  }
  if (options.least_context < 1) {
    refuse("a context of ", options.least_context, " tokens was given as the least; 1 is.");
  }
}

std::uint64_t budget_of(const offered_device& device, const plan_options& options) {
  if (device.budget) return *device.budget;
  const device_info& info = device.sizes->info();
  const memory_limit& limit = computes_on_cpu(info.kind) ? options.ram : options.vram;
  const std::uint64_t total = info.total_bytes > 0 ? info.total_bytes : unlimited;
  const std::uint64_t free = info.free_bytes > 0 ? info.free_bytes : unlimited;
  const std::uint64_t share = limit.share < 1 ? share_of(total, limit.share) : unlimited;
  if (limit.bytes != unlimited) return std::min({free, limit.bytes, share});
  if (free == unlimited) return share;
  const std::uint64_t room = options.headroom_bytes.value_or(share_of(free, options.headroom));
  return std::min(free > room ? free - room : 0, share);
}

}  // namespace nibble::inline NIBBLE_ABI
