#include "synth_options.hpp"

#include <map>
#include <nibble/base/utf8.hpp>
#include <nibble/model/limits.hpp>

#include "common.hpp"

namespace synth {
namespace {

namespace limits = nibble::model_limits;
using nibble::concat;

const std::map<std::string, rope_kind> rope_kinds = {{"none", rope_kind::none},
                                                     {"linear", rope_kind::linear},
                                                     {"yarn", rope_kind::yarn},
                                                     {"llama3", rope_kind::llama3}};

// CLI::Range takes what is not a number.
CLI::Validator within(limits::range range) {
  return CLI::Validator(
      [range](const std::string& text) {
        double value = 0;
        if (CLI::detail::lexical_cast(text, value) && value > 0 && value >= range.low &&
            value <= range.high) {
          return std::string();
        }
        return concat("a number ", range.low > 0 ? concat("from ", range.low) : "above 0", " to ",
                      range.high, " was expected, not '", nibble::gguf::printable(text), "'");
      },
      "");
}

std::string is_utf8(const std::string& text) {
  return nibble::as_utf8(text) == text ? "" : "must be UTF-8";
}

constexpr const char* group = "Numbers of the model (they replace those of a preset)";

void add_rope(CLI::App& app, options& o) {
  app.add_option("--rope-base", o.given.rope_base, "base of the rotary frequencies")
      ->group(group)
      ->check(within(limits::rope_bases));
  std::vector<std::string> names;
  for (const auto& [name, kind] : rope_kinds) names.push_back(name);
  app.add_option("--rope-scaling", o.rope_kind, "how rotary frequencies are stretched")
      ->group(group)
      ->check(CLI::IsMember(names));
  app.add_option("--rope-factor", o.rope_factor, "of --rope-scaling")
      ->group(group)
      ->check(within(limits::rope_factors));
  app.add_option("--rope-original-context", o.rope_original,
                 "of --rope-scaling yarn and llama3: tokens before stretching")
      ->group(group)
      ->check(CLI::Range(1, limits::context));
}

void add_numbers(CLI::App& app, options& o) {
  const auto whole = [&](const char* name, std::int32_t& value, std::int32_t most,
                         const char* help) {
    app.add_option(name, value, help)->group(group)->check(CLI::Range(1, most));
  };
  app.add_option("--arch", o.arch, "architecture, as general.architecture")
      ->group(group)
      ->check(common::not_empty);
  model_numbers& g = o.given;
  whole("--n-layer", g.n_layer, limits::layers, "layers");
  whole("--n-embd", g.n_embd, limits::width, "width of the hidden state");
  whole("--n-ff", g.n_ff, limits::width, "width of the feed-forward half, if it has no experts");
  whole("--n-head", g.n_head, limits::heads, "attention heads");
  whole("--n-head-kv", g.n_head_kv, limits::heads, "heads of keys and values (default: as many)");
  whole("--head-length", g.head_length, limits::head_length,
        "dimensions of a head (default: n-embd / n-head)");
  whole("--n-vocab", g.n_vocab, limits::vocabulary,
        "tokens of the vocabulary (up to 2^20, or 2^24 with --no-vocabulary)");
  whole("--context", g.n_context, limits::context, "tokens that the model was trained for");
  whole("--sliding-window", g.window, limits::context, "tokens of windowed attention");
  whole("--n-expert", g.n_expert, limits::experts, "experts of a layer");
  whole("--n-expert-used", g.n_expert_used, limits::experts, "experts that a token uses");
  whole("--n-ff-expert", g.n_ff_expert, limits::width, "width of an expert");
  app.add_option("--norm-epsilon", g.epsilon, "of the norms")
      ->group(group)
      ->check(within(limits::epsilons));
  add_rope(app, o);
  auto* const tied = app.add_flag("--tied", o.tied, "no output matrix of its own")->group(group);
  app.add_flag("--untied", o.untied, "an output matrix beside the embedding")
      ->group(group)
      ->excludes(tied);
}

// Options that were given, and why they would do nothing.
void refuse_idle(const options& o, const model_numbers& n) {
  const model_numbers& g = o.given;
  std::string found, reason;
  const auto idle = [&](bool given, const char* option, const std::string& because) {
    if (!given) return;
    found += concat(found.empty() ? "" : ", ", option);
    reason = because;
  };
  const auto finish = [&] {
    if (found.empty()) return;
    throw nibble::error(nibble::errc::invalid_argument,
                        concat(found, " would do nothing: ", reason, "."));
  };
  const arch_uses uses = uses_of(n.arch);
  if (n.n_expert == 0 || uses.experts == use::never) {
    const std::string because =
        uses.experts == use::never
            ? concat("models of the architecture '", n.arch, "' have no experts")
            : "without --n-expert there are no experts";
    idle(g.n_expert != 0, "--n-expert", because);
    idle(g.n_expert_used != 0, "--n-expert-used", because);
    idle(g.n_ff_expert != 0, "--n-ff-expert", because);
  } else {
    idle(g.n_ff != 0, "--n-ff", "the model has experts, whose width is --n-ff-expert");
  }
  finish();
  idle(g.window != 0 && uses.window == use::never, "--sliding-window",
       concat("models of the architecture '", n.arch, "' have no windows"));
  finish();
  const bool stretched = n.rope.kind != rope_kind::none;
  const std::string because =
      stretched ? "--rope-scaling linear needs no context" : "there is no --rope-scaling";
  idle(o.rope_factor != 0 && !stretched, "--rope-factor", because);
  idle(o.rope_original != 0 && (!stretched || n.rope.kind == rope_kind::linear),
       "--rope-original-context", because);
  finish();
}

}  // namespace

void add_options(CLI::App& app, options& o) {
  app.add_option("out", o.out, "file to write; it is replaced if it exists")
      ->check(common::is_separate_output);
  app.add_option("--preset", o.preset, "a published model's numbers, see --list")
      ->check(common::not_empty);
  app.add_option(
         "--type", o.type,
         "weight format or mix of formats, as nibble-quantize knows them: q8_0, q4_k_m, ...")
      ->capture_default_str()
      ->check(common::is_type);
  app.add_flag("--pure", o.pure,
               "every matrix in the format of --type, without a mix's exceptions");
  auto* const seed =
      app.add_option("--seed", o.seed, "of the random weights")->capture_default_str();
  seed->check(common::is_seed);
  auto* const threads = common::add_threads(app, o.threads, "as many as the machine runs at once");
  app.add_option("--name", o.name, "what the file says as the model's name")
      ->check(common::not_empty)
      ->check(is_utf8);
  app.add_flag("--header-only", o.header_only,
               "leave tensor data out: enough for nibble-inspect, not for a model")
      ->excludes(seed)
      ->excludes(threads);
  app.add_flag("--no-vocabulary", o.no_vocabulary, "token ids only, no text");
  app.add_flag("--list", o.list, "list the presets and end");
  add_numbers(app, o);
}

void check_options(const CLI::App& app, const options& o) {
  if (!o.list) {
    if (o.out.empty()) throw CLI::RequiredError("out");
    return;
  }
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = option->get_name();
    if (option->count() > 0 && name != "--list") throw CLI::ExcludesError("--list", name);
  }
}

model_numbers numbers_of(const options& o) {
  model_numbers n;
  if (!o.preset.empty()) n = find_preset(o.preset);
  if (!o.arch.empty()) n.arch = o.arch;
  const auto replace = [](auto& value, auto given) {
    if (given != decltype(given){}) value = given;
  };
  const model_numbers& g = o.given;
  replace(n.n_layer, g.n_layer);
  replace(n.n_embd, g.n_embd);
  replace(n.n_ff, g.n_ff);
  replace(n.n_head, g.n_head);
  replace(n.n_head_kv, g.n_head_kv);
  replace(n.head_length, g.head_length);
  replace(n.n_vocab, g.n_vocab);
  replace(n.n_context, g.n_context);
  replace(n.window, g.window);
  replace(n.n_expert, g.n_expert);
  replace(n.n_expert_used, g.n_expert_used);
  replace(n.n_ff_expert, g.n_ff_expert);
  replace(n.epsilon, g.epsilon);
  replace(n.rope_base, g.rope_base);
  if (!o.rope_kind.empty()) n.rope = {rope_kinds.at(o.rope_kind)};
  replace(n.rope.factor, o.rope_factor);
  replace(n.rope.original_context, o.rope_original);
  if (o.tied || o.untied) n.tied = o.tied;
  if (!o.name.empty()) n.name = o.name;
  if (!n.arch.empty()) refuse_idle(o, n);
  complete(n);
  return n;
}

}  // namespace synth
