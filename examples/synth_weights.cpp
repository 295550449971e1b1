#include "synth_weights.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <nibble/formats/list.hpp>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

namespace synth {
namespace {

namespace formats = nibble::formats;

// What a thread makes at a time; the borders are the same for any number of threads.
constexpr std::size_t chunk_bytes = 1 << 20;

// Mixes a counter to 64 random bits: SplitMix64. Steele, Lea and Flood, "Fast Splittable
// Pseudorandom Number Generators", 2014.
constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

class random_bits {
 public:
  explicit random_bits(std::uint64_t key) : counter_(key) {}
  std::uint64_t operator()() { return mix(counter_ += 0x9e3779b97f4a7c15u); }

  void fill(std::byte* out, std::size_t size) {
    for (; size >= 8; size -= 8, out += 8) {
      const std::uint64_t word = (*this)();
      std::memcpy(out, &word, 8);
    }
    const std::uint64_t word = (*this)();
    std::memcpy(out, &word, size);
  }

 private:
  std::uint64_t counter_;
};

std::uint64_t hash(std::string_view text) {
  std::uint64_t h = 0;
  for (const char c : text) h = mix(h ^ static_cast<std::uint8_t>(c)) + 0x9e3779b97f4a7c15u;
  return h;
}

// Values of equal probability that are distributed normally: the quantiles in the middle of 4096
// intervals. [4096]
std::vector<float> normal_quantiles() {
  constexpr int count = 4096;
  std::vector<float> out(count);
  for (int i = 0; i < count / 2; ++i) {
    const double wanted = (i + 0.5) / count;
    double low = -6, high = 0;
    for (int step = 0; step < 50; ++step) {
      const double middle = (low + high) / 2;
      (std::erfc(-middle / std::sqrt(2.0)) / 2 < wanted ? low : high) = middle;
    }
    out[static_cast<std::size_t>(i)] = static_cast<float>(low);
    out[static_cast<std::size_t>(count - 1 - i)] = static_cast<float>(-low);
  }
  return out;
}

// 256 scales of mean square 1, from 0.48 to 1.44 in even steps: blocks of real models differ, too.
float scale_factor(int i) {
  return (0.5f + (static_cast<float>(i) + 0.5f) / 256.0f) / std::sqrt(13.0f / 12.0f);
}

// The root mean square of uniformly drawn numbers.
float rms_of_range(int first, int last) {
  double sum = 0;
  for (int i = first; i <= last; ++i) sum += static_cast<double>(i) * i;
  return static_cast<float>(std::sqrt(sum / (last - first + 1)));
}

template <typename F>
float rms_of_table() {
  double sum = 0;
  for (const std::int8_t code : F::table) sum += static_cast<double>(code) * code;
  return static_cast<float>(std::sqrt(sum / 16));
}

// Uniform codes of a format with an offset, less their mean.
template <typename F>
float centred_rms() {
  const double levels = F::max_code - F::min_code + 1;
  return static_cast<float>(std::sqrt((levels * levels - 1) / 12));
}

template <typename F>
inline constexpr float middle_code = static_cast<float>(F::min_code + F::max_code) / 2;

template <typename F, typename... Fs>
inline constexpr bool is_one_of = (std::is_same_v<F, Fs> || ...);

// The values that a block's scales must be multiplied with for uniform random codes and sub-scales
// to have a standard deviation of 1: sub-scales of 6 bits in Q4_K, and so on.
template <typename F>
float raw_rms() {
  using namespace formats;
  if constexpr (std::is_same_v<F, q2_k>) return rms_of_range(8, 15) * centred_rms<F>();
  if constexpr (is_one_of<F, q4_k, q5_k>) return rms_of_range(0, 63) * centred_rms<F>();
  if constexpr (std::is_same_v<F, q3_k>) {
    return rms_of_range(-32, 31) * rms_of_range(F::min_code, F::max_code);
  }
  if constexpr (std::is_same_v<F, q6_k>) {
    return rms_of_range(-128, 127) * rms_of_range(F::min_code, F::max_code);
  }
  if constexpr (std::is_same_v<F, iq4_xs>) return rms_of_range(-32, 31) * rms_of_table<F>();
  if constexpr (std::is_same_v<F, tq1_0>) return rms_of_range(-1, 1);
  if constexpr (std::is_same_v<F, tq2_0>) return std::sqrt(0.5f);  // see make_valid
  if constexpr (nibble::table_format<F>) return rms_of_table<F>();
  if constexpr (F::has_offset) return centred_rms<F>();
  return rms_of_range(F::min_code, F::max_code);
}

// Makes blocks of random bits into weights: everything but scales stays as it is.
template <typename F>
class block_maker {
 public:
  using block = typename F::block;

  explicit block_maker(float spread) {
    for (int i = 0; i < 256; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const float d = spread * scale_factor(i) / raw_rms<F>();
      scales_[at] = nibble::to_half(d);
      offsets_[at] = nibble::to_half(offset_sign * middle_code<F> * nibble::to_float(scales_[at]));
    }
  }

  void operator()(block& b, std::uint64_t bits) const {
    const std::size_t i = bits & 0xff;
    b.d = scales_[i];
    // a negative scale where that is how the format balances codes from -8 to 7
    if constexpr (signed_scale) b.d.bits = static_cast<std::uint16_t>(b.d.bits | (bits & 0x8000));
    if constexpr (requires { b.m; }) b.m = offsets_[i];
    if constexpr (requires { b.dmin; }) b.dmin = offsets_[i];
    make_valid(b);
  }

 private:
  static constexpr bool signed_scale = is_one_of<F, formats::q4_0, formats::q5_0, formats::iq4_nl>;
  // K-quants subtract the offset, others add it
  static constexpr bool subtracts_offset = requires(block b) { b.dmin; };
  static constexpr float offset_sign = subtracts_offset ? 1.0f : -1.0f;

  // What is not any bits: minima equal to their scales, so that with dmin = d * middle code every
  // group is balanced, and what writers make of ternary codes.
  static void make_valid(block& b) {
    if constexpr (std::is_same_v<F, formats::q2_k>) {
      for (std::uint8_t& s : b.scales) s = static_cast<std::uint8_t>(((s & 7) | 8) * 0x11);
    } else if constexpr (is_one_of<F, formats::q4_k, formats::q5_k>) {
      for (int i = 0; i < 4; ++i) {
        b.scales[4 + i] = b.scales[i];
        b.scales[8 + i] = static_cast<std::uint8_t>((b.scales[8 + i] & 0xf) * 0x11);
      }
    } else if constexpr (std::is_same_v<F, formats::tq1_0>) {
      // five digits in base 3, as the fraction of 256 that is rounded up; four in qh, then a zero
      for (std::uint8_t& q : b.qs) q = fraction(q * 243 / 256);
      for (std::uint8_t& q : b.qh) q = fraction(q * 81 / 256 * 3);
    } else if constexpr (std::is_same_v<F, formats::tq2_0>) {
      // 3 becomes 1, which stands for zero: a half of all values then
      for (std::uint8_t& q : b.qs) q = static_cast<std::uint8_t>(q & ~((q << 1) & q & 0xaa));
    }
  }

  static std::uint8_t fraction(int digits) {
    return static_cast<std::uint8_t>((digits * 256 + 242) / 243);
  }

  std::array<nibble::half, 256> scales_, offsets_;
};

// Scales of MXFP4 are powers of two: the two around the wanted one, mixed for its mean square.
template <>
class block_maker<formats::mxfp4> {
 public:
  explicit block_maker(float spread) {
    const float power = std::log2(spread / rms_of_table<formats::mxfp4>()) + 128;
    const float lower = std::clamp(std::floor(power), 0.0f, 253.0f);
    exponent_ = static_cast<std::uint8_t>(lower);
    const float share = (std::exp2(2 * (power - lower)) - 1) / 3;
    upper_below_ = static_cast<std::uint32_t>(std::clamp(share, 0.0f, 1.0f) * 65536);
  }

  void operator()(formats::mxfp4::block& b, std::uint64_t bits) const {
    b.e = static_cast<std::uint8_t>(exponent_ + ((bits & 0xffff) < upper_below_ ? 1 : 0));
  }

 private:
  std::uint8_t exponent_;
  std::uint32_t upper_below_;
};

template <typename F>
class chunk_maker {
 public:
  explicit chunk_maker(const random_tensor& tensor) : make_(tensor.spread) {}

  void operator()(std::byte* out, std::size_t size, random_bits random) const {
    random.fill(out, size);
    for (std::size_t at = 0; at < size; at += sizeof(typename F::block)) {
      typename F::block b;
      std::memcpy(&b, out + at, sizeof b);
      make_(b, random());
      std::memcpy(out + at, &b, sizeof b);
    }
  }

 private:
  block_maker<F> make_;
};

template <nibble::element_format F>
class chunk_maker<F> {
 public:
  explicit chunk_maker(const random_tensor& tensor) {
    for (const float x : normal_quantiles()) {
      values_.push_back(F::from(tensor.mean + tensor.spread * x));
    }
  }

  void operator()(std::byte* out, std::size_t size, random_bits random) const {
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < size / sizeof(typename F::block); ++i, bits >>= 12) {
      if (i % 5 == 0) bits = random();
      std::memcpy(out + i * sizeof(typename F::block), &values_[bits & 0xfff],
                  sizeof(typename F::block));
    }
  }

 private:
  std::vector<typename F::block> values_;
};

// Makes chunks on several threads and hands them on in order. At most `slots` are in memory.
class chunk_line {
 public:
  using maker = std::function<void(std::size_t chunk, std::vector<std::byte>& out)>;

  chunk_line(std::size_t chunks, unsigned threads, maker make)
      : chunks_(chunks), make_(std::move(make)), slots_(2 * std::size_t{threads} + 1) {
    // more threads than chunks would wait from the beginning
    const std::size_t wanted = std::min<std::size_t>(std::max(threads, 1u), chunks);
    threads_.reserve(wanted);
    try {
      while (threads_.size() < wanted) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      if (threads_.empty()) throw;
      // no more threads here: fewer make the same, only more slowly
    }
  }
  chunk_line(const chunk_line&) = delete;
  chunk_line& operator=(const chunk_line&) = delete;
  ~chunk_line() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    changed_.notify_all();
  }

  void hand_on(const nibble::gguf::byte_sink& sink,
               const std::function<void(std::uint64_t)>& written) {
    for (std::size_t i = 0; i < chunks_; ++i) {
      slot& s = slots_[i % slots_.size()];
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return s.full || failure_; });
        if (failure_) std::rethrow_exception(failure_);
      }
      sink(s.bytes);
      if (written) written(s.bytes.size());
      {
        const std::lock_guard lock(mutex_);
        s.full = false;
        ++handed_;
      }
      changed_.notify_all();
    }
  }

 private:
  struct slot {
    std::vector<std::byte> bytes;
    bool full = false;
  };

  void work() {
    for (;;) {
      std::size_t chunk;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(
            lock, [&] { return stopped_ || next_ == chunks_ || next_ < handed_ + slots_.size(); });
        if (stopped_ || next_ == chunks_) return;
        chunk = next_++;
      }
      slot& s = slots_[chunk % slots_.size()];
      std::exception_ptr failure;
      try {
        make_(chunk, s.bytes);
      } catch (...) {
        failure = std::current_exception();
      }
      {
        const std::lock_guard lock(mutex_);
        s.full = true;
        if (failure) failure_ = failure;
      }
      changed_.notify_all();
    }
  }

  const std::size_t chunks_;
  const maker make_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<slot> slots_;
  std::size_t next_ = 0, handed_ = 0;
  bool stopped_ = false;
  std::exception_ptr failure_;
  std::vector<std::jthread> threads_;  // the last member: joined before the others go
};

template <typename F>
nibble::gguf::tensor_source source_of(const random_tensor& tensor, const random_options& options) {
  return [tensor, options](const nibble::gguf::byte_sink& sink) {
    const chunk_maker<F> make(tensor);
    constexpr std::size_t block = sizeof(typename F::block);
    constexpr std::size_t step = chunk_bytes / block * block;
    const std::uint64_t total =
        nibble::row_bytes(tensor.format, tensor.shape.columns()) * tensor.shape.rows();
    const std::uint64_t key = mix(options.seed + hash(tensor.name));
    const auto make_chunk = [&](std::size_t chunk, std::vector<std::byte>& out) {
      out.resize(std::min<std::uint64_t>(step, total - chunk * step));
      make(out.data(), out.size(), random_bits(mix(key + chunk)));
    };
    const std::size_t chunks = total / step + (total % step != 0);
    if (chunks == 1) {
      std::vector<std::byte> bytes;
      make_chunk(0, bytes);
      sink(bytes);
      if (options.written) options.written(bytes.size());
    } else {
      chunk_line(chunks, options.threads, make_chunk).hand_on(sink, options.written);
    }
  };
}

}  // namespace

nibble::gguf::tensor_source random_source(const random_tensor& tensor,
                                          const random_options& options) {
  return nibble::with_format(tensor.format,
                             [&]<typename F>(F) { return source_of<F>(tensor, options); });
}

}  // namespace synth
