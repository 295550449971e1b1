#include <nibble/engine/model.hpp>

#include <atomic>
#include <chrono>
#include <exception>
#include <nibble/base/concat.hpp>
#include <nibble/formats/decode.hpp>
#include <system_error>
#include <thread>

#include "base/memory_for.hpp"
#include "engine/state.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// Imports tensors from several threads: reading a file that is not in memory yet, and copying one
// that is, are both faster so. The calling thread reports the progress.
class importer {
 public:
  importer(const gguf::file& file, const std::vector<tensor_need>& needs, backend& device,
           std::deque<weight>& weights)
      : file_(file), needs_(needs), device_(device) {
    for (const tensor_need& need : needs_) {
      if (need.found) total_ += need.found->bytes;
    }
    weights.resize(needs_.size());
    weights_ = &weights;
  }

  void run(const std::function<void(double)>& progress) {
    if (progress) progress(0);
    {
      const auto helpers = start_helpers();
      work(progress);
    }
    if (failure_) std::rethrow_exception(failure_);
    // the last tensor may have been a helper's
    if (progress) progress(1);
  }

 private:
  std::vector<std::jthread> start_helpers() {
    std::vector<std::jthread> helpers;
    const unsigned wanted = std::min(4u, std::max(1u, std::thread::hardware_concurrency())) - 1;
    helpers.reserve(wanted);
    try {
      while (helpers.size() < wanted) helpers.emplace_back([this] { work({}); });
    } catch (const std::system_error&) {
      // no more threads here: fewer load, only more slowly
    }
    return helpers;
  }

  void work(const std::function<void(double)>& progress) {
    try {
      for (std::size_t i = next_++; i < needs_.size() && !failed_; i = next_++) {
        if (!needs_[i].found) continue;
        import(i);
        done_ += needs_[i].found->bytes;
        if (progress && done_ < total_) {
          progress(static_cast<double>(done_) / static_cast<double>(total_));
        }
      }
    } catch (...) {
      if (!failed_.exchange(true)) failure_ = std::current_exception();
    }
  }

  void import(std::size_t i) {
    const tensor_need& need = needs_[i];
    const tensor_view& view = need.found->view;
    if (need.as_float && view.format != id_of<formats::f32>) {
      std::vector<float> values(view.shape.elements());
      decode_row(view.format, view.data, values.size(), values.data());
      (*weights_)[i] = device_.import_weight(
          {id_of<formats::f32>, view.shape, reinterpret_cast<const std::byte*>(values.data())});
    } else {
      (*weights_)[i] = device_.import_weight(view);
    }
    (*weights_)[i].name = need.name;
    file_.release(*need.found);
  }

  const gguf::file& file_;
  const std::vector<tensor_need>& needs_;
  backend& device_;
  std::deque<weight>* weights_;
  std::uint64_t total_ = 0;
  std::atomic<std::size_t> next_ = 0;
  std::atomic<std::uint64_t> done_ = 0;
  std::atomic<bool> failed_ = false;
  std::exception_ptr failure_;  // written by the one thread that set failed_
};

}  // namespace

void model::state::load(const gguf::file& file, const model_options& options) {
  const auto start = std::chrono::steady_clock::now();
  if (!file.has_data()) {
    throw error(errc::invalid_argument,
                "the file was opened for its header only; a model needs the data of its tensors.",
                {.file = file.name()});
  }
  model_definition definition(file);
  hp = definition.hp;
  if (nibble::has_tokenizer(file)) tokenizer.emplace(file);
  device = make_cpu_backend(options.cpu);
  plan = nibble::plan(definition, *device, options.plan);
  kv = definition.kv(plan.key, plan.value, plan.context);
  device->reserve_weights(plan.devices[0].weights);
  importer(file, definition.needs, *device, weights).run(options.progress);
  table.layers.resize(static_cast<std::size_t>(hp.n_layer));
  for (std::size_t i = 0; i < definition.needs.size(); ++i) {
    if (definition.needs[i].found) set_slot(table, definition.needs[i], &weights[i]);
  }
  program =
      device->make_program(definition.record(table, 0, definition.blocks.size()), plan.limits);
  loading.weight_bytes = plan.devices[0].weights;
  loading.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

model::model(const gguf::file& file, const model_options& options) {
  with_memory_for("the model", [&] {
    state_ = std::make_shared<state>();
    state_->load(file, options);
  });
}

const nibble::hparams& model::hparams() const noexcept {
  return state_->hp;
}
const placement& model::plan() const noexcept {
  return state_->plan;
}
const load_report& model::loading() const noexcept {
  return state_->loading;
}
bool model::has_tokenizer() const noexcept {
  return state_->tokenizer.has_value();
}

const nibble::tokenizer& model::tokenizer() const {
  return state_->need_tokenizer();
}

const nibble::tokenizer& model::state::need_tokenizer() const {
  if (!tokenizer) {
    throw error(errc::unsupported,
                "the model's file has no vocabulary, so text cannot be turned into tokens; give "
                "token ids instead.");
  }
  return *tokenizer;
}

}  // namespace nibble::inline NIBBLE_ABI
