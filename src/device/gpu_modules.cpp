#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/device/gpu.hpp>
#include <optional>

#include "device/gpu_backend.hpp"
#include "device/gpu_open.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

namespace fs = std::filesystem;

struct module_name {
  const char* file;
  const char* what;    // for people
  const char* driver;  // a file that is there when a driver is loaded
  bool slow;           // to ask for devices: it is not done where there is no driver
};
constexpr module_name known_modules[] = {
    {"libnibble_cuda.so", "CUDA", "/dev/nvidiactl", false},
    {"libnibble_hip.so", "HIP", "/dev/kfd", true},
};

// Where this code lies: the library, or the program that it is linked into.
std::optional<fs::path> own_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0 || !info.dli_fname) return {};
  std::error_code failed;
  const fs::path file = fs::canonical(info.dli_fname, failed);
  if (failed) return {};
  return file.parent_path();
}

std::vector<fs::path> search_path(const std::vector<fs::path>& folders) {
  std::vector<fs::path> path = folders;
  if (const char* const named = std::getenv("NIBBLE_MODULE_PATH")) {
    std::string_view rest = named;
    while (!rest.empty()) {
      const std::size_t end = std::min(rest.find(':'), rest.size());
      if (end > 0) path.emplace_back(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  if (const auto own = own_folder()) {
    path.push_back(*own);
    path.push_back(*own / "nibble");
    path.push_back(own->parent_path() / "lib" / "nibble");
    path.push_back(own->parent_path());  // of a program in a build tree
  }
  return path;
}

// A module's entry, or why there is none.
struct opened {
  gpu::module* module = nullptr;
  std::string why;
};

opened enter(void* handle, const fs::path& file) {
  // dlsym gives functions as data pointers
  const auto entry = reinterpret_cast<nibble_gpu_module_fn>(dlsym(handle, nibble_gpu_module_name));
  if (!entry) return {nullptr, concat(file.string(), " is no module of nibble's")};
  if (gpu::module* const module = entry(gpu::module_abi)) return {module, {}};
  return {nullptr, concat(file.string(), " was built for another version of nibble")};
}

opened load(const module_name& name, const std::vector<fs::path>& folders) {
  std::string broken;
  for (const fs::path& folder : folders) {
    const fs::path file = folder / name.file;
    std::error_code failed;
    if (!fs::exists(file, failed)) continue;
    // a driver's library does not survive being unloaded
    if (void* const handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)) {
      return enter(handle, file);
    }
    if (broken.empty()) broken = concat(file.string(), " does not load: ", dlerror());
  }
  if (!broken.empty()) return {nullptr, broken};
  if (void* const handle = dlopen(name.file, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)) {
    return enter(handle, name.file);
  }
  return {nullptr, concat("there is no module ", name.file,
                          "; build nibble with it, or name its folder in NIBBLE_MODULE_PATH")};
}

}  // namespace

struct gpu_modules::state {
  struct place {
    gpu::module* module;
    std::int32_t index;
  };
  std::vector<device_info> devices;
  std::vector<place> places;  // of the devices
  std::vector<gpu::device_facts> facts;
  std::vector<std::string> notes;

  // Throws error (invalid_argument) that names the devices there are.
  std::size_t find(std::string_view id) const;
  void add(gpu::module& module, const char* what) {
    gpu::failure why;
    const std::int32_t n = module.count(why);
    if (n == 0) notes.push_back(concat(what, " is not used: ", why.text, "."));
    for (std::int32_t i = 0; i < n; ++i) {
      try {
        gpu_device device(module, i);
        devices.push_back(device.info());
        facts.push_back(device.facts());
        places.push_back({&module, i});
      } catch (const error& e) {
        notes.push_back(concat(gpu_id(module.kind(), i), " is not used: ", e.what()));
      }
    }
  }
};

gpu_modules::gpu_modules(const std::vector<fs::path>& folders) : state_(std::make_unique<state>()) {
  const std::vector<fs::path> path = search_path(folders);
  for (const module_name& name : known_modules) {
    std::error_code failed;
    const bool driver = fs::exists(name.driver, failed);
    const opened found = load(name, path);
    if (found.module && name.slow && !driver) {
      state_->notes.push_back(concat(name.what, " is not used: there is no ", name.driver,
                                     ", so no driver for it is loaded."));
    } else if (found.module) {
      state_->add(*found.module, name.what);
    } else if (driver) {
      state_->notes.push_back(concat(name.what, " is not used: ", found.why, "."));
    }
  }
}

gpu_modules::~gpu_modules() = default;
gpu_modules::gpu_modules(gpu_modules&&) noexcept = default;
gpu_modules& gpu_modules::operator=(gpu_modules&&) noexcept = default;

void gpu_modules::add(gpu::module& module) {
  state_->add(module, "A linked module");
}

const std::vector<device_info>& gpu_modules::devices() const noexcept {
  return state_->devices;
}

const std::vector<std::string>& gpu_modules::notes() const noexcept {
  return state_->notes;
}

std::size_t gpu_modules::state::find(std::string_view id) const {
  std::string known;
  for (std::size_t i = 0; i < devices.size(); ++i) {
    if (devices[i].id == id) return i;
    known += concat(known.empty() ? "" : ", ", devices[i].id);
  }
  std::string why =
      known.empty() ? "there is no GPU that can be used" : concat("there are ", known);
  for (const std::string& note : notes) why += concat("; ", note);
  throw error(errc::invalid_argument, concat("there is no device '", id, "': ", why));
}

std::shared_ptr<gpu_device> open_gpu(const gpu_modules& modules, std::string_view id) {
  const gpu_modules::state::place& found = modules.state_->places[modules.state_->find(id)];
  return std::make_shared<gpu_device>(*found.module, found.index);
}

std::unique_ptr<backend> gpu_modules::open(std::string_view id, const gpu_options& options) const {
  return std::make_unique<gpu_backend>(open_gpu(*this, id), options.activations);
}

std::unique_ptr<device_sizes> gpu_modules::sizes(std::string_view id,
                                                 const gpu_options& options) const {
  const std::size_t i = state_->find(id);
  return std::make_unique<gpu_sizes>(state_->devices[i], state_->facts[i], options.activations);
}

}  // namespace nibble::inline NIBBLE_ABI
