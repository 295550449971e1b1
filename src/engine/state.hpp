// What a model and its sessions hold.
#pragma once

#include <atomic>
#include <deque>
#include <mutex>
#include <nibble/engine/model.hpp>
#include <nibble/engine/session.hpp>
#include <nibble/kv/page_pool.hpp>
#include <optional>
#include <string>
#include <vector>

#include "device/pipeline.hpp"
#include "kv/split_cache.hpp"

namespace nibble::inline NIBBLE_ABI {

struct model::state {
  nibble::hparams hp;
  placement plan;
  load_report loading;
  std::optional<nibble::tokenizer> tokenizer;

  struct placed_device {
    std::unique_ptr<backend> device;
    std::deque<weight> weights;  // a deque: the table and the programs point at its elements
    weight_table table;          // of the weights that lie here
    kv_cache* cache = nullptr;   // of the layers whose attention runs here; null: none
  };
  std::deque<placed_device> devices;  // as in the plan
  std::string fingerprint;  // of the model: numbers, formats, and the beginnings of its tensors

  std::unique_ptr<kv_cache> cache;  // of all devices
  std::unique_ptr<page_pool> pages;

  // How often keys and values were lost, with the device they were on.
  std::atomic<std::uint64_t> losses = 0;

  std::mutex running;  // programs share their workspaces
  std::unique_ptr<pipeline> steps;

  // On `devices` if there are some already, by `plan` if it is made; else on those of `found`.
  void load(const gguf::file& file, const devices::hardware* found, const model_options& options);
  // On devices that are chosen here. If their memory turns out to be less than was planned with,
  // this plans once more, with what is left.
  void load_anywhere(const gguf::file& file, const model_definition& definition,
                     const devices::hardware& found, const model_options& options);
  // Everything after the plan; `devices` are as in it.
  void load_as_planned(const gguf::file& file, const model_definition& definition,
                       const model_options& options);
  // What model::move_to does.
  void move_to(const gguf::file& file, std::vector<std::unique_ptr<backend>> to,
               const placement& planned, const model_options& options);
  // Throws error (invalid_argument) if the plan is not one for this model and these devices.
  void check_plan(const model_definition& definition) const;
  std::vector<device_memory> memory() const;
  void make_caches();
  void import_weights(const gguf::file& file, const model_definition& definition,
                      const std::function<void(double)>& progress);
  void make_pipeline(const model_definition& definition);
  // Throws error (unsupported) if the file has no vocabulary.
  const nibble::tokenizer& need_tokenizer() const;
  // Throws error (invalid_argument) for options that do not fit, also to this vocabulary.
  sampler make_sampler(const sampling_options& options) const;
};

// What a session holds. Tokens whose keys and values are in the cache come first; those behind them
// wait to be computed.
struct session::state {
  std::shared_ptr<model::state> loaded;
  session_options options;
  nibble::sampler sampler;
  kv_sequence sequence;
  std::vector<token> tokens;
  std::size_t cached = 0;        // of the tokens
  std::uint64_t losses = 0;      // of the model, when they were computed
  std::optional<token> pending;  // given out by a generation, not among the tokens yet
  std::vector<float> logits;     // of the last token, [n_vocab]; empty: not known
  session_timings timings;

  state(std::shared_ptr<model::state> of, nibble::sampler by, const session_options& options);
  state(const state& other);  // a fork
  ~state();

  // What session's functions of these names do.
  void append(std::span<const token> more, std::stop_token cancel);
  void append(std::span<const token> more, const logits_visitor& visit);
  token sample(nibble::sampler& by);
  void truncate(std::int32_t count);
  void shift(std::int32_t keep, std::int32_t drop);
  void save(const std::filesystem::path& path) const;
  // What the session holds is lost, also if this throws.
  void load(const std::filesystem::path& path);

  // The parts of append(). Queues the pending token, if there is one, and these; makes room for
  // them if the session's policy allows, and looks for pages that hold the first ones already, at
  // most `reuse` tokens. Throws error (invalid_argument); nothing has changed then.
  void queue(std::span<const token> more, std::size_t reuse = ~std::size_t{0});
  // Gives the sequence pages for the next `count` tokens that wait. Throws error (out_of_memory).
  batch_chunk prepare(std::size_t count);
  // They have been computed.
  void complete(std::size_t count);
  // Takes back tokens that were queued after so many, with what was pending then, as far as they
  // have not been computed.
  void take_back(std::size_t before, std::optional<token> pending_before);
  std::size_t waiting() const noexcept { return tokens.size() - cached; }

  // Tokens that fit in without dropping any.
  std::int64_t room() const;
  // Throws error (invalid_argument) if they cannot follow the tokens that are held, or with `anew`
  // take their place.
  void check(std::span<const token> more, bool anew) const;
  // Whether so many fit into this room, after dropping others if the policy allows.
  bool can_take(std::size_t more, std::int64_t room) const;
  void make_room(std::size_t more);

 private:
  // Computes one batch of the `all` tokens that waited; outputs are indices in it. Gives their
  // logits, [outputs, n_vocab], valid while `running` is locked.
  template <typename Visit>
  void compute(std::size_t count, std::size_t all, std::span<const std::int32_t> outputs,
               Visit visit);
  // Of `all` tokens.
  void tell_done(double done, std::size_t all) const;
  // Everything is to be computed again.
  void forget_pages();
  void forget_lost_pages();
};

}  // namespace nibble::inline NIBBLE_ABI
