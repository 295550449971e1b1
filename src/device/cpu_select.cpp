// The choice of an instruction set, and the CPU backend made with it.
#include <cstdlib>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/device/sizes.hpp>
#include <utility>

#include "cpu/select.hpp"
#include "device/cpu_backend.hpp"
#include "device/host_probe.hpp"
#include "device/stream_backend.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

std::string joined(const std::vector<std::string_view>& names) {
  std::string out;
  for (const std::string_view name : names) out += (out.empty() ? "" : ", ") + std::string(name);
  return out;
}

const cpu::kernel_table& choose_kernels(const std::string& wanted) {
  const char* const variable = std::getenv("NIBBLE_ISA");
  const bool from_option = !wanted.empty();
  const std::string name = from_option ? wanted : variable ? variable : "";
  if (name.empty()) return *cpu::available_kernels().front();
  if (const cpu::kernel_table* const found = cpu::find_kernels(name)) return *found;
  bool known = false;
  for (const cpu::built_isa& isa : cpu::built_isas()) known = known || isa.name == name;
  throw error(errc::invalid_argument,
              concat(from_option ? "instruction set '" : "NIBBLE_ISA is '", name,
                     from_option ? "' is not available here" : "', which is not available here",
                     known ? " (this processor lacks it)" : " (no kernels of that name)",
                     "; there are: ", joined(available_isas())));
}

// With another name and another memory.
device_info replaced(device_info info, const std::optional<device_info>& instead) {
  if (!instead) return info;
  info.id = instead->id;
  info.name = instead->name;
  info.total_bytes = instead->total_bytes;
  info.free_bytes = instead->free_bytes;
  return info;
}

}  // namespace

std::vector<std::string_view> available_isas() {
  std::vector<std::string_view> names;
  for (const cpu::kernel_table* table : cpu::available_kernels()) names.emplace_back(table->isa);
  return names;
}

device_info describe_cpu(const cpu_options& options) {
  return describe_cpu(choose_kernels(options.isa),
                      resolve_threads(read_thread_sources(options.threads)));
}

std::unique_ptr<device_sizes> make_cpu_sizes(const cpu_options& options,
                                             const std::optional<device_info>& instead) {
  return std::make_unique<cpu_sizes>(replaced(describe_cpu(options), instead),
                                     choose_kernels(options.isa), options.activations);
}

std::unique_ptr<device_sizes> make_disk_sizes(const disk_options& options,
                                              const std::optional<device_info>& instead) {
  check_disk_options(options);
  device_info info = replaced(describe_disk(describe_cpu(options.cpu), options), instead);
  return std::make_unique<stream_sizes>(
      cpu_sizes(std::move(info), choose_kernels(options.cpu.isa), options.cpu.activations),
      options);
}

std::unique_ptr<backend> make_cpu_backend(const cpu_options& options) {
  return std::make_unique<cpu_backend>(options, choose_kernels(options.isa));
}

std::unique_ptr<backend> make_disk_backend(const disk_options& options) {
  return std::make_unique<stream_backend>(options, choose_kernels(options.cpu.isa));
}

}  // namespace nibble::inline NIBBLE_ABI
