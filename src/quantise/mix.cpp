#include <algorithm>
#include <cctype>
#include <charconv>
#include <nibble/base/concat.hpp>
#include <nibble/formats/list.hpp>
#include <nibble/quantise/mix.hpp>

#include "quantise/mix_table.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

using mixes::given;
using mixes::place;
using mixes::role;

constexpr std::string_view output_name = "output.weight";
constexpr std::string_view embedding_name = "token_embd.weight";
// general.file_type of what has no number of its own
constexpr std::uint32_t unknown_file_type = 1024;

bool has(std::string_view name, std::string_view part) {
  return name.find(part) != std::string_view::npos;
}

const mixes::mix* find_in_table(std::string_view name) {
  for (const mixes::alias& a : mixes::aliases) {
    if (a.name == name) name = a.stands_for;
  }
  for (const mixes::mix& m : mixes::table) {
    if (m.facts.name == name) return &m;
  }
  return nullptr;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

// The element at `at` of a pattern: whether it stands for c, and where the next one begins.
struct element {
  bool fits;
  std::size_t next;
};

// Where the set that begins at `at` ends, after its bracket; npos if it does not.
std::size_t set_end(std::string_view pattern, std::size_t at) {
  std::size_t first = at + 1;
  if (first < pattern.size() && pattern[first] == '!') ++first;
  const std::size_t close = pattern.find(']', first + 1);  // a bracket may be the first of a set
  return close == std::string_view::npos ? close : close + 1;
}

element match_element(std::string_view pattern, std::size_t at, char c) {
  if (pattern[at] == '?') return {true, at + 1};
  const std::size_t end = pattern[at] == '[' ? set_end(pattern, at) : std::string_view::npos;
  if (end == std::string_view::npos) return {pattern[at] == c, at + 1};
  std::string_view set = pattern.substr(at + 1, end - at - 2);
  const bool inverted = set.starts_with('!');
  if (inverted) set.remove_prefix(1);
  bool found = false;
  while (!set.empty()) {
    const bool range = set.size() >= 3 && set[1] == '-';
    found = found || (range ? set[0] <= c && c <= set[2] : set[0] == c);
    set.remove_prefix(range ? 3 : 1);
  }
  return {found != inverted, end};
}

// The number in "blk.12.…", wherever it stands in the name.
std::optional<std::uint64_t> layer_of(std::string_view name) {
  constexpr std::string_view mark = "blk.";
  const auto at = name.find(mark);
  if (at == std::string_view::npos) return std::nullopt;
  name.remove_prefix(at + mark.size());
  std::uint64_t layer = 0;
  const auto read = std::from_chars(name.data(), name.data() + name.size(), layer);
  if (read.ec != std::errc{}) return std::nullopt;
  return layer;
}

bool may_be_converted(const mix_tensor& t) {
  return t.shape.rows() > 1 && t.name.ends_with("weight") &&
         std::none_of(std::begin(mixes::left_alone), std::end(mixes::left_alone),
                      [&](std::string_view part) { return has(t.name, part); });
}

// Chooses for one list of tensors.
class chooser {
 public:
  chooser(const mix_model& model, std::span<const mix_tensor> tensors, const mix_options& options)
      : model_(model), options_(options), mix_(*find_type_mix(options.type)) {
    for (const mix_tensor& t : tensors) {
      tied_ = tied_ && t.name != output_name;
      const auto layer = layer_of(t.name);
      if (layer) layers_ = std::max(layers_, *layer + 1);
      if (role_of(t.name) == role::attn_v) value_layers_.push_back(layer.value_or(0));
    }
    std::sort(value_layers_.begin(), value_layers_.end());
    if (model.layers != 0) layers_ = model.layers;
  }

  tensor_choice choose(const mix_tensor& t) const {
    for (const std::string& pattern : options_.leave) {
      if (glob_matches(pattern, t.name)) return {};
    }
    if (!may_be_converted(t)) return {};
    const format_id wanted = wish(t);
    const format_id possible = that_fits(wanted, t.shape.columns());
    if (possible == wanted) return {wanted, {}};
    return {possible, wanted};
  }

 private:
  role role_of(std::string_view name) const {
    const bool embedding = has(name, embedding_name);  // also per_layer_token_embd
    if (name == output_name || (embedding && tied_)) return role::output;
    if (embedding) return role::token_embedding;
    for (const char* part : {"attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight"}) {
      if (has(name, part)) return role::attn_v;
    }
    if (has(name, "attn_k.weight")) return role::attn_k;
    if (has(name, "attn_output.weight")) return role::attn_output;
    return has(name, "ffn_down") ? role::ffn_down : role::other;
  }

  format_id wish(const mix_tensor& t) const {
    if (options_.embedding && t.name == embedding_name) return *options_.embedding;
    if (options_.output && role_of(t.name) == role::output) return *options_.output;
    for (const tensor_rule& rule : options_.rules) {
      if (glob_matches(rule.pattern, t.name)) return rule.to;
    }
    const bool floats = find_format_info(mix_.base)->block_size == 1;
    return options_.pure || floats ? mix_.base : by_mix(t);
  }

  // What is the same in every mix, then its own rules.
  format_id by_mix(const mix_tensor& t) const {
    const role what = role_of(t.name);
    if (what == role::output) {
      const bool fits = t.shape.columns() % find_format_info(mix_.base)->block_size == 0;
      return fits && mix_.base != mixes::q8_0 ? mixes::q6_k : mixes::q8_0;
    }
    if (model_.experts == 8 && (what == role::attn_v || what == role::attn_k)) return mixes::q8_0;
    const format_id chosen = by_rules(t, what);
    // eight query heads share these values, and the model is large: better ones cost little
    const bool shared = model_.layers == 80 && model_.heads != model_.kv_heads;
    const bool low = chosen == mixes::q3_k || chosen == mixes::q4_k;
    return what == role::attn_v && shared && low ? mixes::q5_k : chosen;
  }

  format_id by_rules(const mix_tensor& t, role what) const {
    const mixes::mix* const row = find_in_table(mix_.name);
    if (row == nullptr) return mix_.base;
    for (const mixes::rule& rule : row->rules) {
      if (rule.to && rule.what == what && holds(rule.when, t) && is_at(rule.where, t, what)) {
        return *rule.to;
      }
    }
    return mix_.base;
  }

  bool holds(given when, const mix_tensor& t) const {
    switch (when) {
      case given::grouped_4:
        return model_.kv_heads != 0 && model_.heads / model_.kv_heads >= 4;
      case given::experts_8:
        return model_.experts == 8;
      case given::not_experts_8:
        return model_.experts != 8;
      case given::importance:
        return options_.importance;
      case given::no_importance:
        return !options_.importance;
      case given::several:
        return t.shape.extent[2] > 1;
      case given::always:
        break;
    }
    return true;
  }

  bool is_at(place where, const mix_tensor& t, role what) const {
    std::uint64_t i = layer_of(t.name).value_or(0), n = layers_;
    if (what == role::attn_v) {  // not every layer of a hybrid model has attention
      const auto at = std::lower_bound(value_layers_.begin(), value_layers_.end(), i);
      i = static_cast<std::uint64_t>(at - value_layers_.begin());
      n = value_layers_.size();
    }
    switch (where) {
      case place::first_2:
        return i < 2;
      case place::first_4:
        return i < 4;
      case place::first_16th:
        return i < n / 16;
      case place::first_8th:
        return i < n / 8;
      case place::ends_and_thirds:
        return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
      case place::all:
        break;
    }
    return true;
  }

  static format_id that_fits(format_id wanted, std::uint64_t columns) {
    const auto fits = [&](format_id id) { return checked_row_bytes(id, columns).has_value(); };
    if (fits(wanted)) return wanted;
    for (const mixes::fallback& f : mixes::fallbacks) {
      if (f.from == wanted && fits(f.to)) return f.to;
    }
    return mixes::f16;
  }

  const mix_model& model_;
  const mix_options& options_;
  type_mix mix_;
  bool tied_ = true;  // there is no output.weight
  std::uint64_t layers_ = 0;
  std::vector<std::uint64_t> value_layers_;  // of attn_v, sorted
};

void check_options(std::span<const mix_tensor> tensors, const mix_options& options) {
  if (!find_type_mix(options.type)) {
    std::string names;
    for (const type_mix& m : all_type_mixes()) names += concat(names.empty() ? "" : ", ", m.name);
    throw error(errc::invalid_argument, concat("there is no type '", gguf::printable(options.type),
                                               "'; types are ", names));
  }
  const auto expect_match = [&](std::string_view pattern, bool converted) {
    check_glob(pattern);
    if (std::any_of(tensors.begin(), tensors.end(), [&](const mix_tensor& t) {
          return glob_matches(pattern, t.name) && (!converted || may_be_converted(t));
        })) {
      return;
    }
    throw error(errc::invalid_argument,
                concat("the pattern '", gguf::printable(pattern), "' matches no tensor",
                       converted ? " that may be converted" : "",
                       "; it is a glob over the whole name, such as *attn_v* or blk.[0-3].*"));
  };
  for (const tensor_rule& rule : options.rules) expect_match(rule.pattern, true);
  for (const std::string& pattern : options.leave) expect_match(pattern, false);
}

// A number, or the first that is not 0 of a list by layer.
std::uint64_t number_of(const gguf::file& file, const std::string& key) {
  const gguf::value* const v = file.find(key);
  if (v == nullptr) return 0;
  if (v->type() != gguf::value_type::array) return file.get<std::uint64_t>(key).value_or(0);
  const auto all = file.get_array<std::uint64_t>(key).value_or(std::vector<std::uint64_t>{});
  const auto found = std::find_if(all.begin(), all.end(), [](std::uint64_t n) { return n != 0; });
  return found == all.end() ? 0 : *found;
}

}  // namespace

std::optional<type_mix> find_type_mix(std::string_view name) {
  const std::string wanted = lower(name);
  if (const mixes::mix* const m = find_in_table(wanted)) return m->facts;
  for (const format_info& info : format_infos) {
    if (info.name == wanted) return type_mix{info.name, info.id, unknown_file_type, ""};
  }
  return std::nullopt;
}

std::vector<type_mix> all_type_mixes() {
  std::vector<type_mix> out;
  for (const mixes::mix& m : mixes::table) out.push_back(m.facts);
  for (const format_info& info : format_infos) {
    if (find_in_table(info.name) == nullptr) out.push_back(*find_type_mix(info.name));
  }
  return out;
}

mix_model read_mix_model(const gguf::file& file) {
  const auto* const v = file.find("general.architecture");
  if (v == nullptr || v->type() != gguf::value_type::string) return {};
  const std::string arch(std::get<std::string_view>(v->data));
  mix_model out;
  out.layers = number_of(file, arch + ".block_count");
  out.heads = number_of(file, arch + ".attention.head_count");
  out.kv_heads = number_of(file, arch + ".attention.head_count_kv");
  if (out.kv_heads == 0) out.kv_heads = out.heads;
  out.experts = number_of(file, arch + ".expert_count");
  return out;
}

bool glob_matches(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0;
  // the last star, and where the text that it does not stand for begins: all that is ever retried
  std::size_t star = std::string_view::npos, after = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      after = t;
      continue;
    }
    if (p < pattern.size()) {
      if (const element e = match_element(pattern, p, text[t]); e.fits) {
        p = e.next;
        ++t;
        continue;
      }
    }
    if (star == std::string_view::npos) return false;
    p = star + 1;
    t = ++after;
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

void check_glob(std::string_view pattern) {
  if (pattern.empty()) throw error(errc::invalid_argument, "a pattern of tensor names is empty.");
  for (std::size_t at = pattern.find('['); at < pattern.size(); at = pattern.find('[', at)) {
    at = set_end(pattern, at);
    if (at != std::string_view::npos) continue;
    throw error(errc::invalid_argument, concat("the pattern '", gguf::printable(pattern),
                                               "' opens a set with [ that no ] closes."));
  }
}

std::vector<tensor_choice> choose_formats(const mix_model& model,
                                          std::span<const mix_tensor> tensors,
                                          const mix_options& options) {
  check_options(tensors, options);
  const chooser by(model, tensors, options);
  std::vector<tensor_choice> out;
  out.reserve(tensors.size());
  for (const mix_tensor& t : tensors) out.push_back(by.choose(t));
  return out;
}

}  // namespace nibble::inline NIBBLE_ABI
