// Models that are loaded many times over, and where they run.
#pragma once

#include <fstream>
#include <nibble/device/sizes.hpp>
#include <nibble/device/speed.hpp>
#include <nibble/nibble.hpp>

#include "../model/tiny_model.hpp"
#include "emulated/emulated.hpp"
#include "every_failure.hpp"
#include "run_model.hpp"
#include "temporary_folder.hpp"

namespace test {

inline const std::vector<nibble::token> some_tokens = {3,  14, 15, 9,  26, 5,  35, 8,  9, 7, 9,
                                                       32, 38, 46, 26, 43, 38, 32, 7,  9, 5, 2,
                                                       8,  8,  41, 9,  7,  16, 9,  39, 9, 3};

// A model's file.
struct stored_model {
  temporary_folder folder;
  std::filesystem::path path = folder / "model.gguf";

  explicit stored_model(tiny_model made) {
    const auto bytes = made.set_vocabulary().set("context_length", 128).make_tensors().bytes();
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  explicit stored_model(const char* architecture) : stored_model(tiny_model(architecture)) {}
};

// Each layer more means as many more requests of the same kind.
inline tiny_model one_layer(const char* architecture) {
  return tiny_model(architecture).set("block_count", 1);
}

inline nibble::model_options small_options(std::int32_t threads = 1) {
  auto options = exact_options(nibble::activation_type::int8, threads);
  options.speed_cache = false;
  options.device = "cpu";
  options.plan.batch = 16;
  options.plan.context = 128;
  options.plan.sessions = 3;
  options.plan.all_logits = true;
  return options;
}

// The CPU, and the devices of a module, which count as much faster.
inline nibble::devices::hardware hardware_with(nibble::gpu::module* module) {
  nibble::devices::hardware found;
  auto modules =
      std::make_shared<nibble::gpu_modules>(std::vector<std::filesystem::path>{"/nowhere"});
  if (module != nullptr) modules->add(*module);
  found.all = modules->devices();
  for (const auto& info : found.all) {
    found.speeds[info.id] =
        nibble::speed_of(nibble::device_kind::cuda,
                         {.memory_bytes_per_second = 1e12, .link_bytes_per_second = 1e11});
  }
  found.all.push_back(nibble::describe_cpu());
  found.speeds["cpu"] =
      nibble::speed_of(nibble::device_kind::cpu, {.memory_bytes_per_second = 1e9});
  found.modules = std::move(modules);
  return found;
}

inline std::vector<std::unique_ptr<nibble::backend>> one_cpu(const nibble::model_options& options) {
  std::vector<std::unique_ptr<nibble::backend>> devices;
  devices.push_back(nibble::make_cpu_backend(options.cpu));
  return devices;
}

// All layers on disk.
inline nibble::model load_from_disk(const nibble::gguf::file& file,
                                    const nibble::model_options& options) {
  const nibble::disk_options on{.cpu = options.cpu, .slots = 2, .readers = 2};
  auto devices = one_cpu(options);
  devices.push_back(nibble::make_disk_backend(on));
  const nibble::model_definition definition(file);
  const nibble::device_sizes* const sizes[] = {devices[0].get(), devices[1].get()};
  std::vector<std::int32_t> device_of(definition.blocks.size(), 1);
  device_of.front() = device_of.back() = 0;
  const auto plan = nibble::count_placement(definition, sizes, device_of, options.plan);
  return nibble::model(file, std::move(devices), plan, options);
}

// Logits after the last token; not where memory is refused, which this asks for itself.
inline std::vector<float> append(nibble::session& session,
                                 std::span<const nibble::token> tokens = some_tokens) {
  const auto logits = session.append(tokens);
  return {logits.begin(), logits.end()};
}

inline std::vector<nibble::token> held(const nibble::session& session) {
  return {session.tokens().begin(), session.tokens().end()};
}

inline const nibble::sampling_options greedy = {.temperature = 0};

}  // namespace test
