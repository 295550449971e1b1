// A loaded model: weights on their devices, programs recorded. Immutable, shared by sessions.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/probe.hpp>
#include <nibble/gguf/file.hpp>
#include <nibble/model/hparams.hpp>
#include <nibble/plan/placement.hpp>
#include <nibble/text/tokenizer.hpp>
#include <span>
#include <string>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// Bytes that are allocated on a device, now and at most.
struct device_memory {
  device_info device;
  memory_use now, peak;
};

struct model_options {
  // Where the model may run: "cpu", a GPU's id ("cuda0"; see gpu_modules), several of them
  // separated by commas ("cuda0,cuda1,cpu"), or "auto": all that there are. The plan shares its
  // blocks out among them; a device that it does not use is not opened.
  std::string device = "auto";
  // Whether the speed of devices is measured, if it is not known from before (find_speed): about a
  // second for each. Otherwise a device that was not measured counts as a typical one.
  bool measure_speed = false;
  bool speed_cache = true;  // whether what was measured is read from and written to a file
  cpu_options cpu = {};     // its activations hold for GPUs, too
  plan_options plan = {};
  // Called with what a model has allocated once it is loaded, and after it has moved, for hosts
  // that keep their own figures. May throw, which ends the loading.
  std::function<void(std::span<const device_memory>)> on_memory = {};
  // Called while loading, by the loading thread, with the share that is done: first with 0, last
  // with 1. It may throw to stop the loading.
  std::function<void(double)> progress = {};
};

// What a model with these options would be placed by. Nothing is allocated; a header is enough.
// Throws error as plan() does.
NIBBLE_API placement plan(const gguf::file& file, const devices::hardware& found,
                          const model_options& options = {});

struct load_report {
  double seconds = 0;
  std::uint64_t weight_bytes = 0;
};

// Copies of a model share one set of weights; it lives as long as the last copy or session.
class NIBBLE_API model {
 public:
  // The file is not needed any more once this returns.
  // Throws error: bad_file, unsupported, out_of_memory, invalid_argument.
  explicit model(const gguf::file& file, const model_options& options = {});
  // With the devices that were found before; kept while the model is loaded.
  model(const gguf::file& file, const devices::hardware& found, const model_options& options = {});
  // As planned, which nothing changes then: out_of_memory if memory is gone meanwhile. The plan
  // says which of the devices are used.
  model(const gguf::file& file, const devices::hardware& found, const placement& plan,
        const model_options& options = {});
  // All of it on a device of the caller's, whatever options.device says.
  model(const gguf::file& file, std::unique_ptr<backend> device, const model_options& options = {});
  // On these devices, as planned: with this file and the same devices in the same order. Of the
  // options only `progress` and `on_memory` are looked at.
  model(const gguf::file& file, std::vector<std::unique_ptr<backend>> devices,
        const placement& plan, const model_options& options = {});

  // Moves the model to other devices, or to other places on them, while its sessions go on where
  // they are. `file` is the one it was loaded from, `plan` one with the same context, sessions,
  // batch, and types of keys and values. Nothing of the model may be used meanwhile. Both
  // placements are in memory until this returns; if it throws, nothing has changed. Keys and values
  // of a device that was lost are computed again when a session goes on. Throws error:
  // invalid_argument (another model, another context, …), and as the constructors.
  void move_to(const gguf::file& file, std::vector<std::unique_ptr<backend>> devices,
               const placement& plan, const model_options& options = {});

  const nibble::hparams& hparams() const noexcept;
  const placement& plan() const noexcept;  // the one it is placed by, until move_to()
  const load_report& loading() const noexcept;
  // Of each device of the plan. From any thread, but not while the model moves.
  std::vector<device_memory> memory() const;
  bool has_tokenizer() const noexcept;
  // Throws error (unsupported) if the file has no vocabulary.
  const nibble::tokenizer& tokenizer() const;

 private:
  friend class session;
  friend class scheduler;
  struct state;
  std::shared_ptr<state> state_;
};

}  // namespace nibble::inline NIBBLE_ABI
