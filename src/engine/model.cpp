#include <nibble/engine/model.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/base/fingerprint.hpp>
#include <nibble/device/probe.hpp>
#include <nibble/formats/decode.hpp>
#include <system_error>
#include <thread>
#include <utility>

#include "base/memory_for.hpp"
#include "engine/state.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// Bytes of a tensor that are imported in one piece: while it is, they are in memory twice.
constexpr std::size_t part_bytes = 4 << 20;

// Imports tensors from several threads: reading a file that is not in memory yet, and copying one
// that is, are both faster so. The calling thread reports the progress.
class importer {
 public:
  importer(const gguf::file& file, const std::vector<tensor_need>& needs, backend& device,
           std::deque<weight>& weights)
      : file_(file), needs_(needs), device_(device), weights_(weights) {
    weights.resize(needs_.size());
    for (std::size_t i = 0; i < needs_.size(); ++i) {
      if (!needs_[i].found) continue;
      weights_[i] = device_.place_weight(needs_[i].stored_view());
      weights_[i].name = needs_[i].name;
      add_parts(i);
    }
  }

  void run(const std::function<void(double)>& progress) {
    if (progress) progress(0);
    {
      const auto helpers = start_helpers();
      work(progress);
    }
    if (failure_) std::rethrow_exception(failure_);
    // the last part may have been a helper's
    if (progress) progress(1);
  }

 private:
  struct part {
    std::size_t tensor;
    row_range rows;
  };

  void add_parts(std::size_t tensor) {
    const shape& s = needs_[tensor].found->view.shape;
    const auto all = static_cast<std::int64_t>(s.rows());
    // converted as a whole
    if (converted(tensor)) return parts_.push_back({tensor, {0, all}});
    const auto in_matrix = static_cast<std::int64_t>(s.extent[1]);
    const auto fitting = static_cast<std::int64_t>(part_bytes / row_bytes_of(tensor));
    const std::int64_t step = std::max(fitting / part_rows, std::int64_t{1}) * part_rows;
    for (std::int64_t matrix = 0; matrix < all; matrix += in_matrix) {
      for (std::int64_t row = 0; row < in_matrix; row += step) {
        parts_.push_back({tensor, {matrix + row, std::min(step, in_matrix - row)}});
      }
    }
  }

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
      for (std::size_t i = next_++; i < parts_.size() && !failed_; i = next_++) {
        import(parts_[i]);
        const std::size_t done = ++done_;
        if (progress && done < parts_.size()) {
          progress(static_cast<double>(done) / static_cast<double>(parts_.size()));
        }
      }
    } catch (...) {
      if (!failed_.exchange(true)) failure_ = std::current_exception();
    }
  }

  void import(const part& p) {
    const gguf::tensor_info& found = *needs_[p.tensor].found;
    if (converted(p.tensor)) {
      std::vector<float> values(found.view.shape.elements());
      decode_row(found.view.format, found.view.data, values.size(), values.data());
      device_.fill_weight(weights_[p.tensor], p.rows,
                          reinterpret_cast<const std::byte*>(values.data()));
      file_.release(found);
      return;
    }
    const std::size_t bytes = row_bytes_of(p.tensor);
    const std::size_t at = static_cast<std::size_t>(p.rows.first) * bytes;
    device_.fill_weight(weights_[p.tensor], p.rows, found.view.data + at);
    file_.release(found, at, static_cast<std::size_t>(p.rows.count) * bytes);
  }

  bool converted(std::size_t tensor) const {
    return needs_[tensor].as_float && needs_[tensor].found->view.format != id_of<formats::f32>;
  }
  std::size_t row_bytes_of(std::size_t tensor) const {
    const tensor_view& view = needs_[tensor].found->view;
    return row_bytes(view.format, view.shape.columns());
  }

  const gguf::file& file_;
  const std::vector<tensor_need>& needs_;
  backend& device_;
  std::deque<weight>& weights_;
  std::vector<part> parts_;
  std::atomic<std::size_t> next_ = 0, done_ = 0;
  std::atomic<bool> failed_ = false;
  std::exception_ptr failure_;  // written by the one thread that set failed_
};

// Which model it is: what the tensors are called, how they look, and how their data begin.
std::string fingerprint_of(const gguf::file& file) {
  nibble::fingerprint print;
  for (const gguf::tensor_info& tensor : file.tensors()) {
    print.add(tensor.name);
    print.add(static_cast<std::uint64_t>(tensor.view.format));
    for (const std::uint64_t n : tensor.view.shape.extent) print.add(n);
    print.add({tensor.view.data, std::min<std::size_t>(tensor.bytes, 64)});
  }
  return print.text();
}

}  // namespace

void model::state::place(const model_definition& definition, const model_options& options) {
  // an observer sees the CPU's products
  if (options.device == "cpu" || (options.device == "auto" && options.cpu.observer)) {
    device = make_cpu_backend(options.cpu);
    plan = nibble::plan(definition, *device, options.plan);
    return;
  }
  const devices::hardware found = devices::probe(options.cpu);
  const gpu_options gpu{.activations = options.cpu.activations};
  if (options.device != "auto") {
    device = found.modules->open(options.device, gpu);
    plan = nibble::plan(definition, *device, options.plan);
    return;
  }
  std::vector<std::string> reasons = found.notes;
  for (const device_info& info : found.all) {
    if (info.kind == device_kind::cpu) continue;
    try {
      device = found.modules->open(info.id, gpu);
      plan = nibble::plan(definition, *device, options.plan);
      return;
    } catch (const error& e) {
      if (e.code() == errc::invalid_argument) throw;
      device.reset();
      reasons.push_back(concat(info.name, " is not used: ", e.what()));
    }
  }
  device = make_cpu_backend(options.cpu);
  plan = nibble::plan(definition, *device, options.plan);
  plan.reasons.insert(plan.reasons.begin(), reasons.begin(), reasons.end());
}

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
  if (device) {
    plan = nibble::plan(definition, *device, options.plan);
  } else {
    place(definition, options);
  }
  cache = device->make_cache(plan.kv, plan.kv_pages);
  pages = std::make_unique<page_pool>(
      cache->groups(), plan.kv_pages,
      [to = cache.get()](std::size_t group, page_id from, page_id page) {
        to->copy_page(group, from, page);
      });
  fingerprint = fingerprint_of(file);
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

model::model(const gguf::file& file, std::unique_ptr<backend> device,
             const model_options& options) {
  with_memory_for("the model", [&] {
    state_ = std::make_shared<state>();
    state_->device = std::move(device);
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
