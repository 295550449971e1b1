// The tables of the rotary position embedding, and heads on their way to attention and to the
// cache.
#include <nibble/device/steps.hpp>

#include "attend_fixture.hpp"

namespace {

using namespace test;

// A batch with tokens behind gaps, some far away.
const std::vector<test_sequence> rope_sequences = {
    {70, 3}, {40, 2, 10, 100000}, {20, 1, 0, 7}, {200, 2, 64, 64}, {131072, 2}};

struct tables {
  std::vector<float> cosine, sine, back_cosine, back_sine;  // [tokens, n]
};

std::vector<double> frequencies_of(int n) {
  std::vector<double> f;
  for (int i = 0; i < n; ++i) f.push_back(std::pow(10000.0, -static_cast<double>(i) / n));
  return f;
}

void check_near(float got, double expected, double tolerance, const char* what, std::size_t at) {
  INFO(what << " number " << at << ": " << got << ", not " << expected << " +- " << tolerance);
  REQUIRE(std::fabs(static_cast<double>(got) - expected) <= tolerance);
}

}  // namespace

TEST_CASE("rope tables are made of places, and of what was dropped") {
  const test_layer layer{kv_type::f16, kv_type::f16, 1, 8, 8};
  std::mt19937 random(1);
  for (gpu_device& device : gpu_devices()) {
    INFO(device.name);
    test_cache cache(layer, rope_sequences, 1, random);
    const device_batch batch(device, layer, cache);
    const auto tokens = tokens_of(rope_sequences);
    for (const int n : {1, 32, 37}) {
      const auto frequencies = frequencies_of(n);
      const device_array<double> f(device, frequencies);
      const std::size_t size = tokens.size() * frequencies.size();
      const std::vector<float> unset(size, -7.0f);
      const device_array<float> cosine(device, unset), sine(device, unset),
          back_cosine(device, unset), back_sine(device, unset);
      gpu::rope_args args{};
      args.step = batch.step();
      args.tokens = batch.tokens();
      args.frequencies = f.data();
      args.n = n;
      args.magnitude = 1.25f;
      args.pages = batch.pages();
      args.group = 1;
      args.cosine = cosine.data();
      args.sine = sine.data();
      for (const bool back : {false, true}) {
        args.back_cosine = back ? back_cosine.data() : nullptr;
        args.back_sine = back ? back_sine.data() : nullptr;
        run(device, &gpu::kernel_table::rope, args);
        const auto c = cosine.read(), s = sine.read(), bc = back_cosine.read(),
                   bs = back_sine.read();
        for (std::size_t i = 0; i < size; ++i) {
          const test_token& at = tokens[i / frequencies.size()];
          const double frequency = frequencies[i % frequencies.size()];
          const auto dropped =
              static_cast<double>(rope_sequences[static_cast<std::size_t>(at.sequence)].dropped);
          // doubles of the same angle, rounded to floats: half an ulp, and what libraries differ by
          const double angle = static_cast<double>(at.place) * frequency;
          check_near(c[i], 1.25 * std::cos(angle), 1e-7, "cosine", i);
          check_near(s[i], 1.25 * std::sin(angle), 1e-7, "sine", i);
          const bool made = back && dropped > 0;
          check_near(bc[i], made ? std::cos(dropped * frequency) : -7.0, 7e-8, "back cosine", i);
          check_near(bs[i], made ? -std::sin(dropped * frequency) : -7.0, 7e-8, "back sine", i);
        }
      }
    }
  }
}

namespace {

struct preparation {
  test_layer layer;
  std::int32_t n_head;
  nibble::rope_style style = nibble::rope_style::none;
  std::int32_t pairs = 0;
  bool norm = false;
  float temperature = 0;
  unsigned seed = 1;
};

// The norm, rotation and scale of one head in double.
class head_on_host {
 public:
  head_on_host(const float* x, int length) : x_(x, x + length) {}

  void norm(const std::vector<float>& gain, double epsilon) {
    double sum = 0;
    for (const double v : x_) sum += v * v;
    const double factor = 1 / std::sqrt(sum / static_cast<double>(x_.size()) + epsilon);
    for (std::size_t i = 0; i < x_.size(); ++i) x_[i] *= factor * static_cast<double>(gain[i]);
  }
  void rope(nibble::rope_style style, std::size_t n, const float* cosine, const float* sine) {
    if (style == nibble::rope_style::none) return;
    for (std::size_t i = 0; i < n; ++i) {
      const bool adjacent = style == nibble::rope_style::norm;
      double& first = x_[adjacent ? 2 * i : i];
      double& second = x_[adjacent ? 2 * i + 1 : i + n];
      const double a = first, b = second;
      const auto c = static_cast<double>(cosine[i]), s = static_cast<double>(sine[i]);
      first = a * c - b * s;
      second = a * s + b * c;
    }
  }
  void scale(double factor) {
    for (double& v : x_) v *= factor;
  }
  void hadamard() { hadamard_on_host(x_); }

  const std::vector<double>& values() const { return x_; }
  double greatest() const {
    double greatest = 0;
    for (const double v : x_) greatest = std::max(greatest, std::fabs(v));
    return greatest;
  }

 private:
  std::vector<double> x_;
};

// Some ten operations on each number, of which the transform's are sums of up to 512: in all no
// more than 32 units in the last place of the head's greatest number times the square root of its
// length.
double tolerance_of(const head_on_host& head) {
  return 32 * 0x1p-24 * head.greatest() + 1e-12;
}

void check_head(const float* got, const head_on_host& expected, const char* what) {
  for (std::size_t i = 0; i < expected.values().size(); ++i) {
    check_near(got[i], expected.values()[i], tolerance_of(expected), what, i);
  }
}

const std::vector<test_sequence> prepared_sequences = {
    {70, 3}, {40, 2, 10, 100}, {20, 1, 0, 7}, {200, 2, 64, 64}, {9000, 2}};

void check_preparation(gpu_device& device, const preparation& p) {
  std::mt19937 random(p.seed);
  const test_layer& l = p.layer;
  test_cache cache(l, prepared_sequences, 1, random);
  const device_batch batch(device, l, cache);
  const auto tokens = tokens_of(prepared_sequences);
  const std::size_t n = tokens.size(), key = static_cast<std::size_t>(l.key_length),
                    value = static_cast<std::size_t>(l.value_length),
                    heads = static_cast<std::size_t>(p.n_head),
                    kv_heads = static_cast<std::size_t>(l.n_head_kv),
                    pairs = static_cast<std::size_t>(p.pairs);
  const auto q = normals(random, n * heads * key, 1), k = normals(random, n * kv_heads * key, 1),
             v = normals(random, n * kv_heads * value, 1), q_gain = normals(random, key, 1),
             k_gain = normals(random, key, 1);
  std::vector<float> table[4];  // cosine, sine, and back
  for (auto& t : table) t = normals(random, n * pairs, 0.7f);
  const device_array<float> dq(device, q), dk(device, k), dv(device, v), dqg(device, q_gain),
      dkg(device, k_gain), turned(device, std::vector<float>(q.size(), -7.0f)),
      t0(device, table[0]), t1(device, table[1]), t2(device, table[2]), t3(device, table[3]);
  gpu::attend_prepare_args args{};
  gpu::attend_shape& shape = args.shape;
  shape.n_head = p.n_head;
  shape.n_head_kv = l.n_head_kv;
  shape.key_length = l.key_length;
  shape.value_length = l.value_length;
  shape.scale = 0.125f;
  shape.rope_style = static_cast<std::int32_t>(p.style);
  shape.rope_pairs = p.pairs;
  shape.cosine = t0.data();
  shape.sine = t1.data();
  shape.back_cosine = t2.data();
  shape.back_sine = t3.data();
  shape.q_gain = p.norm ? dqg.data() : nullptr;
  shape.k_gain = p.norm ? dkg.data() : nullptr;
  shape.q_epsilon = 1e-5f;
  shape.k_epsilon = 1e-6f;
  shape.temperature_scale = p.temperature;
  shape.temperature_period = 64;
  args.step = batch.step();
  args.pages = batch.pages();
  args.cache = batch.cache();
  args.tokens = batch.tokens();
  args.q = dq.data();
  args.k = dk.data();
  args.v = dv.data();
  args.q_turned = turned.data();
  run(device, &gpu::kernel_table::attend_prepare, args);
  const auto got_q = dq.read(), got_turned = turned.read();
  cache.bytes() = batch.read_pages();

  for (std::size_t t = 0; t < n; ++t) {
    const test_token& at = tokens[t];
    const auto sequence = static_cast<std::size_t>(at.sequence);
    const test_sequence& s = prepared_sequences[sequence];
    const auto turn = [&](head_on_host& head, const std::vector<float>& gain, double epsilon) {
      if (p.norm) head.norm(gain, epsilon);
      head.rope(p.style, pairs, table[0].data() + t * pairs, table[1].data() + t * pairs);
    };
    const double periods = std::floor(static_cast<double>(at.index) / 64);
    const double scale = 0.125 * (1 + static_cast<double>(p.temperature) * std::log1p(periods));
    for (std::size_t h = 0; h < heads; ++h) {
      const std::size_t first = (t * heads + h) * key;
      INFO("token " << t << ", query head " << h);
      head_on_host head(q.data() + first, l.key_length);
      turn(head, q_gain, static_cast<double>(shape.q_epsilon));
      head.scale(scale);
      head_on_host back = head;
      if (l.rotate_key) head.hadamard();
      check_head(got_q.data() + first, head, "query");
      if (s.dropped == 0 || s.keep == 0) {
        REQUIRE(got_turned[first] == -7.0f);
        continue;
      }
      back.rope(p.style, pairs, table[2].data() + t * pairs, table[3].data() + t * pairs);
      if (l.rotate_key) back.hadamard();
      check_head(got_turned.data() + first, back, "turned query");
    }
    for (std::size_t h = 0; h < kv_heads; ++h) {
      INFO("token " << t << ", key/value head " << h);
      head_on_host head(k.data() + (t * kv_heads + h) * key, l.key_length);
      turn(head, k_gain, static_cast<double>(shape.k_epsilon));
      if (l.rotate_key) head.hadamard();
      const auto stored =
          load_on_host(l.key, cache.get(sequence, at.index, true, static_cast<int>(h)), key);
      check_head(stored.data(), head, "key");
      head_on_host of_value(v.data() + (t * kv_heads + h) * value, l.value_length);
      if (l.rotate_value) of_value.hadamard();
      const auto stored_value =
          load_on_host(l.value, cache.get(sequence, at.index, false, static_cast<int>(h)), value);
      check_head(stored_value.data(), of_value, "value");
    }
  }
}

}  // namespace

TEST_CASE("heads are normalised, rotated and scaled before attention") {
  for (gpu_device& device : gpu_devices()) {
    unsigned seed = 0;
    struct size {
      int key, value, pairs;
    };
    for (const size s :
         {size{64, 64, 32}, {80, 40, 20}, {128, 128, 64}, {5, 3, 2}, {512, 72, 32}}) {
      for (const auto style :
           {nibble::rope_style::none, nibble::rope_style::norm, nibble::rope_style::neox}) {
        for (const bool rotate : {false, true}) {
          preparation p;
          p.layer = {kv_type::f32, kv_type::f32, 2, s.key, s.value, rotate, !rotate};
          p.n_head = seed % 2 == 0 ? 2 : 14;
          p.style = style;
          p.pairs = s.pairs;
          p.norm = seed % 3 == 0;
          p.temperature = seed % 2 == 0 ? 0.1f : 0.0f;
          p.seed = ++seed;
          INFO(device.name << ": keys of " << s.key << ", values of " << s.value << ", style "
                           << static_cast<int>(style) << ", rotated " << rotate << ", seed "
                           << seed);
          check_preparation(device, p);
        }
      }
    }
  }
}
