// A loaded model: weights on their devices, programs recorded. Immutable, shared by sessions.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/cpu.hpp>
#include <nibble/gguf/file.hpp>
#include <nibble/model/hparams.hpp>
#include <nibble/plan/placement.hpp>
#include <nibble/text/tokenizer.hpp>
#include <string>

namespace nibble::inline NIBBLE_ABI {

struct model_options {
  // Where the model runs: "cpu", a GPU's id ("cuda0"; see gpu_modules), or "auto": the first GPU
  // that it fits, otherwise the CPU.
  std::string device = "auto";
  cpu_options cpu = {};  // its activations hold for GPUs, too
  plan_options plan = {};
  // Called while loading, by the loading thread, with the share that is done: first with 0, last
  // with 1. It may throw to stop the loading.
  std::function<void(double)> progress = {};
};

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
  // On a device of the caller's, whatever options.device says.
  model(const gguf::file& file, std::unique_ptr<backend> device, const model_options& options = {});

  const nibble::hparams& hparams() const noexcept;
  const placement& plan() const noexcept;
  const load_report& loading() const noexcept;
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
