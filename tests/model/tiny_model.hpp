// Writes small models of every architecture: a table of hyper-parameters, and random weights for
// the tensors that the architecture declares.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <nibble/formats/list.hpp>
#include <nibble/gguf/writer.hpp>
#include <nibble/model/arch.hpp>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace test {

inline constexpr nibble::format_id f32 = nibble::id_of<nibble::formats::f32>;

inline constexpr nibble::format_id i32{26};  // one that nibble does not compute with

// Values in the format's blocks. Formats that nibble does not encode get made-up blocks: any two
// bytes from 0x20 to 0x2f are a finite scale in all of them.
inline std::vector<std::byte> blocks_of(nibble::format_id format, std::span<const float> values) {
  const auto row = nibble::checked_row_bytes(format, values.size());
  if (!row) throw std::logic_error("the values do not fill whole blocks");
  std::vector<std::byte> bytes(*row);
  std::minstd_rand random(static_cast<unsigned>(values.size()));
  for (std::byte& b : bytes) b = std::byte(0x20 + random() % 16);
  nibble::for_each_format([&]<typename F>(F) {
    if (nibble::id_of<F> != format) return;
    for (std::size_t i = 0; i < values.size() / F::block_size; ++i) {
      typename F::block block{};
      if constexpr (nibble::element_format<F>) {
        block = F::from(values[i]);
      } else if constexpr (nibble::encodable_format<F>) {
        F::encode(values.data() + i * F::block_size, nullptr, block);
      } else {
        continue;
      }
      std::memcpy(bytes.data() + i * sizeof block, &block, sizeof block);
    }
  });
  return bytes;
}

struct tiny_tensor {
  std::string name;
  nibble::format_id format;
  nibble::shape shape;
  std::vector<float> values;
};

// What make_tensors() makes.
struct tensor_choice {
  bool optional = false;                            // those that may be absent, too
  std::vector<nibble::format_id> matrices = {f32};  // in turn, where rows are whole blocks
};

class tiny_model {
 public:
  explicit tiny_model(std::string_view architecture) : architecture_(architecture) {
    set_global("general.architecture", architecture_);
    set("block_count", 2).set("context_length", 64).set("vocab_size", 48);
    set("embedding_length", 32).set("feed_forward_length", 64);
    set("attention.head_count", 4).set("attention.head_count_kv", 2);
    set("attention.layer_norm_rms_epsilon", 1e-5f).set("rope.freq_base", 10000.0f);
    if (architecture == "mistral3") {
      set_yarn(4, 16).set("rope.scaling.yarn_log_multiplier", 1.0f);
      set("attention.temperature_scale", 0.1f);
    }
    if (architecture == "gemma3") set("block_count", 6).set("attention.sliding_window", 8);
    if (architecture == "gpt-oss") set_yarn(2, 32).set("attention.sliding_window", 8);
    if (architecture == "gpt-oss" || architecture == "qwen3moe") set_experts(4, 2);
    if (architecture != "llama") {  // heads that are longer than their share of the width
      set("attention.key_length", 16).set("attention.value_length", 16);
    }
  }

  // A key with the architecture's prefix, or one without.
  template <typename T>
  tiny_model& set(std::string_view name, T value) {
    return set_global(key(name), value);
  }
  template <typename T>
  tiny_model& set_global(const std::string& full_key, T value) {
    keys_[full_key] = [value](nibble::gguf::writer& w, const std::string& k) {
      if constexpr (std::is_convertible_v<T, std::string>) {
        w.set(k, std::string_view(value));
      } else if constexpr (requires { value.size(); }) {
        w.set_array(k, std::span<const typename T::value_type>(value));
      } else {
        w.set(k, value);
      }
    };
    return *this;
  }
  tiny_model& erase(std::string_view name) {
    if (keys_.erase(key(name)) == 0) throw std::logic_error("no key " + key(name));
    return *this;
  }

  tiny_model& set_experts(int count, int used) {
    set("expert_count", count).set("expert_used_count", used);
    return set("expert_feed_forward_length", 32);
  }
  tiny_model& set_yarn(float factor, int original_context) {
    set("rope.scaling.type", "yarn").set("rope.scaling.factor", factor);
    return set("rope.scaling.original_context_length", original_context);
  }

  // 48 tokens, so that text can go in and out, and a chat template.
  tiny_model& set_vocabulary() {
    std::vector<std::string> names = {"<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"};
    for (const char* c : {"\xe2\x96\x81", "\n", "ab", "cd", "abcd"}) names.push_back(c);
    for (char c = 'a'; names.size() < 36; ++c) names.push_back(std::string(1, c));
    for (int i = 0; names.size() < 48; ++i)
      names.push_back("<0x0" + std::string(1, "0123456789ABCDEF"[i]) + ">");
    std::vector<float> scores;
    std::vector<std::int32_t> types(names.size(), 1);
    for (std::size_t i = 0; i < names.size(); ++i) {
      scores.push_back(static_cast<float>(names[i].size()));
      if (names[i].starts_with("<0x")) types[i] = 6;
    }
    types[0] = 2;
    for (std::size_t i = 1; i < 5; ++i) types[i] = 3;
    set_global("tokenizer.ggml.model", "llama");
    set_global("tokenizer.ggml.tokens", names);
    set_global("tokenizer.ggml.scores", scores);
    set_global("tokenizer.ggml.token_type", types);
    return set_global("tokenizer.chat_template", "{{'<|im_start|>' + m['role']}}<|im_end|>");
  }

  // Makes all tensors anew, as the keys ask for.
  tiny_model& make_tensors(const tensor_choice& choice = {}) {
    tensors.clear();
    const auto metadata = bytes();
    const nibble::gguf::file file(metadata, "tiny.gguf");
    const nibble::arch_spec& arch = nibble::find_arch(architecture_);
    std::size_t matrices = 0;
    for (const auto& need : nibble::declare_tensors(arch, nibble::read_hparams(file, arch))) {
      if (need.present == nibble::presence::optional && !choice.optional) continue;
      nibble::format_id format = f32;
      if (!need.as_float) {
        format = choice.matrices[matrices++ % choice.matrices.size()];
        if (!nibble::checked_row_bytes(format, need.shape.columns())) format = f32;
      }
      add(need.name, need.shape, format);
    }
    return *this;
  }

  // One tensor more, with random values: around 1 where they multiply, around 0 elsewhere.
  tiny_tensor& add(const std::string& name, nibble::shape shape, nibble::format_id format = f32) {
    const bool factor = name.ends_with("norm.weight") || name.ends_with(".scale");
    const bool bias = name.ends_with(".bias");
    const float spread =
        factor || bias ? 0.2f : 1.7f / std::sqrt(static_cast<float>(shape.columns()));
    std::uniform_real_distribution<float> uniform(-spread, spread);
    std::vector<float> values(shape.elements());
    for (float& v : values) v = uniform(random_) + (factor ? 1.0f : 0.0f);
    tensors.push_back({name, format, shape, std::move(values)});
    return tensors.back();
  }

  tiny_tensor& tensor(std::string_view name) { return *at(name); }
  void remove(std::string_view name) { tensors.erase(at(name)); }

  std::string key(std::string_view name) const { return architecture_ + "." + std::string(name); }

  std::vector<std::byte> bytes() const {
    nibble::gguf::writer writer;
    for (const auto& [name, write] : keys_) write(writer, name);
    std::vector<std::vector<std::byte>> blocks;
    blocks.reserve(tensors.size());
    for (const tiny_tensor& t : tensors) {
      const auto format = nibble::has_format(t.format) ? t.format : f32;
      blocks.push_back(blocks_of(format, t.values));
      writer.add_tensor(t.name, format, t.shape, blocks.back());
    }
    auto file = writer.to_bytes();
    for (const tiny_tensor& t : tensors) {
      if (!nibble::has_format(t.format)) state_type(file, t);
    }
    return file;
  }

  std::vector<tiny_tensor> tensors;

 private:
  std::vector<tiny_tensor>::iterator at(std::string_view name) {
    const auto found = std::find_if(tensors.begin(), tensors.end(),
                                    [name](const auto& t) { return t.name == name; });
    if (found == tensors.end()) throw std::logic_error("no tensor " + std::string(name));
    return found;
  }

  // nibble writes no types that it does not compute with; i32 has the size of f32, and takes its
  // place in the directory: name, number of extents, extents, type.
  static void state_type(std::vector<std::byte>& file, const tiny_tensor& t) {
    std::string entry(sizeof(std::uint64_t), '\0');
    const std::uint64_t length = t.name.size();
    std::memcpy(entry.data(), &length, sizeof length);
    entry += t.name;
    const auto bytes = std::as_bytes(std::span(entry));
    auto at = std::search(file.begin(), file.end(), bytes.begin(), bytes.end());
    at += static_cast<std::ptrdiff_t>(bytes.size());
    std::uint32_t extents = 0;
    std::memcpy(&extents, &*at, sizeof extents);
    std::memcpy(&*at + sizeof extents + 8 * std::size_t{extents}, &t.format, sizeof t.format);
  }

  std::string architecture_;
  std::map<std::string, std::function<void(nibble::gguf::writer&, const std::string&)>> keys_;
  std::mt19937 random_{1};
};

// Every architecture that nibble knows.
inline std::vector<std::string> architectures() {
  std::vector<std::string> names;
  for (const auto family : nibble::arch_families()) {
    for (const nibble::arch_spec& spec : family) names.emplace_back(spec.name);
  }
  return names;
}

}  // namespace test
