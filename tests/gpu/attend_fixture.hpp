// What the tests of attention share: pages of keys and values made on the host by the definition of
// formats/head_row.hpp, step arrays, and attention as a plain softmax in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nibble/device/kv_cache.hpp>
#include <nibble/device/kv_type.hpp>
#include <nibble/formats/head_row.hpp>
#include <random>
#include <vector>

#include "gpu_test.hpp"

namespace test {

using nibble::kv_page_tokens;
using nibble::kv_type;

inline std::vector<float> normals(std::mt19937& random, std::size_t n, float size) {
  std::normal_distribution<float> normal(0, size);
  std::vector<float> x(n);
  for (float& v : x) v = normal(random);
  return x;
}

inline const std::byte* bytes_of(const void* x) {
  return static_cast<const std::byte*>(x);
}

// A row as it is to be stored: codes, scales.
struct stored_row {
  std::vector<std::byte> codes, scales;
};
inline stored_row store_on_host(kv_type type, const std::vector<float>& x) {
  const auto n = static_cast<std::int64_t>(x.size());
  stored_row row{std::vector<std::byte>(nibble::code_bytes(type, n)),
                 std::vector<std::byte>(nibble::scale_bytes(type, n))};
  const nibble::kv_type_info& info = nibble::info_of(type);
  if (nibble::has_scales(type)) {
    std::vector<nibble::half> scales(row.scales.size() / 2);
    nibble::quantise_head_row(x.data(), n, info.bits, info.values_of_scale, row.codes.data(),
                              scales.data());
    std::memcpy(row.scales.data(), scales.data(), row.scales.size());
    return row;
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::uint16_t bits =
        type == kv_type::f16 ? nibble::to_half(x[i]).bits : nibble::to_bfloat16(x[i]).bits;
    if (type == kv_type::f32) {
      std::memcpy(row.codes.data() + 4 * i, &x[i], 4);
    } else {
      std::memcpy(row.codes.data() + 2 * i, &bits, 2);
    }
  }
  return row;
}

inline std::vector<float> load_on_host(kv_type type, const stored_row& row, std::size_t n) {
  std::vector<float> x(n);
  const nibble::kv_type_info& info = nibble::info_of(type);
  if (nibble::has_scales(type)) {
    std::vector<nibble::half> scales(row.scales.size() / 2);
    std::memcpy(scales.data(), row.scales.data(), row.scales.size());
    nibble::decode_head_row(row.codes.data(), scales.data(), static_cast<std::int64_t>(n),
                            info.bits, info.values_of_scale, x.data());
    return x;
  }
  for (std::size_t i = 0; i < n; ++i) {
    std::uint16_t bits;
    if (type == kv_type::f32) {
      std::memcpy(&x[i], row.codes.data() + 4 * i, 4);
      continue;
    }
    std::memcpy(&bits, row.codes.data() + 2 * i, 2);
    x[i] = type == kv_type::f16 ? nibble::to_float(nibble::half{bits})
                                : nibble::to_float(nibble::bfloat16{bits});
  }
  return x;
}

// A sequence of which the last `run` tokens are in the batch.
struct test_sequence {
  std::int64_t tokens, run;
  std::int64_t keep = 0, dropped = 0;

  std::int64_t place(std::int64_t index) const { return index < keep ? index : index + dropped; }
};

// The layer under test in a cache, whose pages have something before and behind it.
struct test_layer {
  kv_type key, value;
  std::int32_t n_head_kv, key_length, value_length;
  bool rotate_key = false, rotate_value = false;

  static constexpr std::size_t before = 128, behind = 64;

  std::size_t key_bytes() const { return nibble::row_bytes(key, key_length); }
  std::size_t value_bytes() const { return nibble::row_bytes(value, value_length); }
  std::size_t part_bytes(std::size_t row) const {
    return static_cast<std::size_t>(n_head_kv) * row * kv_page_tokens;
  }
  std::size_t values_at() const { return before + part_bytes(key_bytes()); }
  std::size_t page_bytes() const { return values_at() + part_bytes(value_bytes()) + behind; }

  // Where a row's codes and scales are in a page.
  struct place {
    std::size_t codes, scales;
  };
  place row_at(bool of_key, int head, std::int64_t row) const {
    const kv_type type = of_key ? key : value;
    const std::int64_t length = of_key ? key_length : value_length;
    const std::size_t codes = nibble::code_bytes(type, length),
                      scales = nibble::scale_bytes(type, length), i = static_cast<std::size_t>(row);
    const std::size_t first = (of_key ? before : values_at()) +
                              static_cast<std::size_t>(head) * (codes + scales) * kv_page_tokens;
    return {first + i * codes, first + kv_page_tokens * codes + i * scales};
  }
};

// Pages of all sequences of a batch, in an order of their own; bytes that nothing was stored to are
// 0xff, which is a NaN in every type. Only pages are there that a token of the batch may look at.
class test_cache {
 public:
  test_cache(const test_layer& layer, std::vector<test_sequence> sequences, std::int32_t window,
             std::mt19937& random)
      : layer_(layer), sequences_(std::move(sequences)) {
    std::int32_t pages = 0;
    for (const test_sequence& s : sequences_) {
      const std::int64_t end = (s.place(s.tokens - 1)) / kv_page_tokens + 1;
      const std::int64_t seen =
          window > 0 ? std::max<std::int64_t>(s.tokens - s.run + 1 - window, 0) : 0;
      table t;
      if (seen < s.keep) t.head = (s.keep + kv_page_tokens - 1) / kv_page_tokens;
      t.tail_first = std::max(t.head, s.place(std::max(seen, s.keep)) / kv_page_tokens);
      t.first = pages;
      pages += static_cast<std::int32_t>(t.head + std::max<std::int64_t>(end - t.tail_first, 0));
      tables_.push_back(t);
    }
    for (std::int32_t i = 0; i < pages; ++i) numbers_.push_back(i);
    std::shuffle(numbers_.begin(), numbers_.end(), random);
    bytes_.assign(numbers_.size() * layer.page_bytes(), std::byte{0xff});
  }

  const std::vector<test_sequence>& sequences() const { return sequences_; }
  std::vector<std::byte>& bytes() { return bytes_; }

  // Null where there is no page.
  std::byte* page(std::size_t sequence, std::int64_t index) {
    const table& t = tables_[sequence];
    const std::int64_t page = sequences_[sequence].place(index) / kv_page_tokens;
    if (page >= t.head && page < t.tail_first) return nullptr;
    const std::int64_t at = page < t.head ? page : page - t.tail_first + t.head;
    const auto number = static_cast<std::size_t>(numbers_[static_cast<std::size_t>(t.first + at)]);
    return bytes_.data() + number * layer_.page_bytes();
  }

  void put(std::size_t sequence, std::int64_t index, bool key, int head, const stored_row& row) {
    std::byte* const to = page(sequence, index);
    if (to == nullptr) return;
    const auto at = place_of(sequence, index, key, head);
    std::copy(row.codes.begin(), row.codes.end(), to + at.codes);
    std::copy(row.scales.begin(), row.scales.end(), to + at.scales);
  }
  stored_row get(std::size_t sequence, std::int64_t index, bool key, int head) {
    const std::byte* const from = page(sequence, index);
    REQUIRE(from != nullptr);
    const auto at = place_of(sequence, index, key, head);
    const kv_type type = key ? layer_.key : layer_.value;
    const std::int64_t length = key ? layer_.key_length : layer_.value_length;
    return {{from + at.codes, from + at.codes + nibble::code_bytes(type, length)},
            {from + at.scales, from + at.scales + nibble::scale_bytes(type, length)}};
  }

  // The group of the layer is number 1; that of number 0 is not to be looked at.
  std::vector<gpu::sequence_pages> device_tables() const {
    std::vector<gpu::sequence_pages> all(sequences_.size(),
                                         gpu::sequence_pages{1 << 20, 0, 0, 0, 0});
    for (std::size_t i = 0; i < sequences_.size(); ++i) {
      all.push_back({tables_[i].first, static_cast<std::int32_t>(tables_[i].head),
                     tables_[i].tail_first, sequences_[i].keep, sequences_[i].dropped});
    }
    return all;
  }
  const std::vector<std::int32_t>& numbers() const { return numbers_; }

 private:
  struct table {
    std::int32_t first = 0;
    std::int64_t head = 0, tail_first = 0;
  };
  test_layer::place place_of(std::size_t sequence, std::int64_t index, bool key, int head) const {
    return layer_.row_at(key, head, sequences_[sequence].place(index) % kv_page_tokens);
  }

  test_layer layer_;
  std::vector<test_sequence> sequences_;
  std::vector<table> tables_;
  std::vector<std::int32_t> numbers_;
  std::vector<std::byte> bytes_;
};

// A token of a batch.
struct test_token {
  std::int32_t sequence;
  std::int64_t index, place;
};
inline std::vector<test_token> tokens_of(const std::vector<test_sequence>& sequences) {
  std::vector<test_token> tokens;
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    for (std::int64_t i = sequences[s].tokens - sequences[s].run; i < sequences[s].tokens; ++i) {
      tokens.push_back({static_cast<std::int32_t>(s), i, sequences[s].place(i)});
    }
  }
  return tokens;
}

// A batch on a device.
class device_batch {
 public:
  device_batch(gpu_device& device, const test_layer& layer, test_cache& cache)
      : tokens_(tokens_of(cache.sequences())),
        chunk_(device, field(&test_token::sequence)),
        index_(device, field(&test_token::index)),
        place_(device, field(&test_token::place)),
        sequences_(device, cache.device_tables()),
        numbers_(device, cache.numbers()),
        pages_(device, cache.bytes()),
        layer_(layer),
        n_sequences_(static_cast<std::int32_t>(cache.sequences().size())) {}

  std::int64_t tokens() const { return static_cast<std::int64_t>(tokens_.size()); }
  gpu::step_tokens step() const { return {nullptr, chunk_.data(), index_.data(), place_.data()}; }
  gpu::step_pages pages() const { return {sequences_.data(), n_sequences_, numbers_.data()}; }
  gpu::cache_layer cache() const {
    gpu::cache_layer c{};
    c.pages = pages_.data();
    c.page_bytes = layer_.page_bytes();
    c.group = 1;
    c.keys = test_layer::before;
    c.values = layer_.values_at();
    c.key_type = static_cast<std::int32_t>(layer_.key);
    c.value_type = static_cast<std::int32_t>(layer_.value);
    c.rotate_key = layer_.rotate_key;
    c.rotate_value = layer_.rotate_value;
    return c;
  }
  std::vector<std::byte> read_pages() const { return pages_.read(); }

 private:
  template <typename T>
  std::vector<T> field(T test_token::*of) const {
    std::vector<T> values;
    for (const test_token& t : tokens_) values.push_back(t.*of);
    return values;
  }

  std::vector<test_token> tokens_;
  device_array<std::int32_t> chunk_;
  device_array<std::int64_t> index_, place_;
  device_array<gpu::sequence_pages> sequences_;
  device_array<std::int32_t> numbers_;
  device_array<std::byte> pages_;
  test_layer layer_;
  std::int32_t n_sequences_;
};

// The Walsh-Hadamard transform of each block of the greatest power of two that divides n.
inline void hadamard_on_host(std::vector<double>& x) {
  const std::size_t n = x.size(), block = n & -n;
  for (std::size_t distance = 1; distance < block; distance *= 2) {
    for (std::size_t i = 0; i < n; ++i) {
      if (i / distance % 2 != 0) continue;
      const double a = x[i], b = x[i + distance];
      x[i] = a + b;
      x[i + distance] = a - b;
    }
  }
  for (double& v : x) v /= std::sqrt(static_cast<double>(block));
}

}  // namespace test
