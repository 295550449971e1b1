// Kernels over rows: quantising, norms, gates, embedding, sums.
#include <nibble/device/steps.hpp>
#include <nibble/formats/dot.hpp>

#include "product_test.hpp"

namespace {

namespace gpu = nibble::gpu;
using test::gpu_device;

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float no_number = std::numeric_limits<float>::quiet_NaN();

struct input {
  std::vector<float> x, gain, up;
  gpu::input_rows rows;  // without pointers
};

input make_input(gpu::input_kind kind, std::int32_t gate, std::int64_t rows, std::int64_t columns,
                 test::random_source& random) {
  const auto n = static_cast<std::size_t>(rows * columns);
  return {random.normals(n, 3),
          random.normals(static_cast<std::size_t>(columns)),
          random.normals(n),
          {nullptr, columns, kind, nullptr, 1e-5f, nullptr, gate}};
}

// An input in a device's memory.
class device_input {
 public:
  device_input(gpu_device& device, const input& from)
      : x_(device, from.x), gain_(device, from.gain), up_(device, from.up), rows_(from.rows) {
    rows_.x = x_.data();
    rows_.gain = gain_.data();
    rows_.up = up_.data();
  }
  const gpu::input_rows& rows() const { return rows_; }
  test::device_array<float>& x() { return x_; }

 private:
  test::device_array<float> x_, gain_, up_;
  gpu::input_rows rows_;
};

std::vector<float> transformed(gpu_device& device, const device_input& in, std::int64_t rows) {
  const test::device_array<float> out(device, static_cast<std::size_t>(rows * in.rows().columns));
  test::run(device, &gpu::kernel_table::transform, {in.rows(), rows, out.data()});
  return out.read();
}

struct quantised {
  std::vector<std::int8_t> codes;
  std::vector<float> scales;
  std::vector<std::int16_t> sums;
};
quantised quantise(gpu_device& device, const device_input& in, std::int64_t rows) {
  const auto n = static_cast<std::size_t>(rows * in.rows().columns);
  const test::device_array<std::int8_t> codes(device, n);
  const test::device_array<float> scales(device, n / 32);
  const test::device_array<std::int16_t> sums(device, n / 16);
  test::run(device, &gpu::kernel_table::quantise,
            {in.rows(), rows, {codes.data(), scales.data(), sums.data()}});
  return {codes.read(), scales.read(), sums.read()};
}

// The very numbers of the definition, for the same floats.
void require_quantised(const quantised& got, const std::vector<float>& x, std::int64_t columns) {
  std::vector<nibble::activation_block> expected(x.size() / 32);
  for (std::size_t at = 0; at < x.size(); at += static_cast<std::size_t>(columns)) {
    nibble::quantise_activations(x.data() + at, static_cast<std::uint64_t>(columns),
                                 expected.data() + at / 32);
  }
  for (std::size_t b = 0; b < expected.size(); ++b) {
    INFO("row " << b * 32 / static_cast<std::size_t>(columns) << ", block "
                << b % static_cast<std::size_t>(columns / 32));
    const float scale = got.scales[b];
    if (std::isnan(expected[b].scale)) {
      REQUIRE(std::isnan(scale));
    } else {
      REQUIRE(scale == expected[b].scale);
    }
    for (std::size_t half = 0; half < 2; ++half) {
      int sum = 0;
      for (std::size_t i = 16 * half; i < 16 * half + 16; ++i) {
        INFO("code " << i << " of " << x[32 * b + i] << ", scale " << scale);
        REQUIRE(int{got.codes[32 * b + i]} == int{expected[b].codes[i]});
        sum += expected[b].codes[i];
      }
      REQUIRE(got.sums[2 * b + half] == sum);
    }
  }
}

constexpr std::int64_t row_lengths[] = {32, 480, 512, 544, 2048, 2080, 4608};

}  // namespace

TEST_CASE("rows are brought to eight bits as the definition says, bit for bit") {
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::random_source random(11);
    for (const std::int64_t columns : row_lengths) {
      for (const std::int64_t rows : {1, 3, 9}) {
        INFO(rows << " rows of " << columns);
        input in = make_input(gpu::input_kind::plain, 0, rows, columns, random);
        // blocks of very different size; values that lie half-way between codes; zeros
        for (std::size_t i = 0; i < in.x.size(); ++i) {
          switch (i / 32 % 7) {
            case 1:
              in.x[i] *= 1e-9f;
              break;
            case 2:
              in.x[i] = static_cast<float>(random.in(-254, 254)) * 0.5f;
              break;
            case 3:
              in.x[i] = i % 32 == 5 ? 100.0f : in.x[i] * 0.01f;
              break;
            case 4:
              in.x[i] = i % 5 == 0 ? in.x[i] : 0;
              break;
            case 5:
              in.x[i] = i / 32 % 2 == 0 ? 0 : in.x[i];
              break;
            default:
              break;
          }
        }
        require_quantised(quantise(device, {device, in}, rows), in.x, columns);
      }
    }
  }
}

TEST_CASE("quantising survives tiny, huge and broken values") {
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::random_source random(12);
    for (const float size : {1e-45f, 1e-38f, 1e-30f, 1e-20f, 1e20f, 1e37f}) {
      input in = make_input(gpu::input_kind::plain, 0, 2, 1056, random);
      for (std::size_t i = 0; i < in.x.size(); ++i) {
        if (i / 64 % 3 != 2) in.x[i] *= size;
      }
      in.x[64] = infinity;
      in.x[128 + 31] = no_number;
      in.x[700] = -infinity;
      in.x[1056 + 1055] = -3.402823466e38f;
      require_quantised(quantise(device, {device, in}, 2), in.x, 1056);
    }
  }
}

TEST_CASE("quantising after a norm or a gate is quantising what transform gives") {
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::random_source random(13);
    for (const std::int64_t columns : {96, 2080, 4608}) {
      for (const std::int64_t rows : {1, 6}) {
        for (int how = 0; how < 5; ++how) {
          const auto kind = how == 4 ? gpu::input_kind::norm : gpu::input_kind::gate;
          INFO("kind " << how << ", " << rows << " rows of " << columns);
          const device_input in(device, make_input(kind, how, rows, columns, random));
          require_quantised(quantise(device, in, rows), transformed(device, in, rows), columns);
        }
      }
    }
  }
}

TEST_CASE("norms agree with double, also in place and for huge values") {
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::random_source random(14);
    for (const std::int64_t n : {1, 7, 100, 576, 4096}) {
      for (const float size : {1.0f, 1e-20f, 1e18f, 1e30f, 1e38f}) {
        INFO(n << " values of " << size);
        input from = make_input(gpu::input_kind::norm, 0, 2, n, random);
        for (float& x : from.x) x = std::fmax(-3.0f, std::fmin(3.0f, x)) * size;
        device_input in(device, from);
        const auto out = transformed(device, in, 2);
        for (std::int64_t r = 0; r < 2; ++r) {
          const float* const x = from.x.data() + r * n;
          double sum = 0;
          for (std::int64_t i = 0; i < n; ++i) sum += double{x[i]} * x[i];
          const double scale =
              1 / std::sqrt(sum / static_cast<double>(n) + double{from.rows.epsilon});
          for (std::int64_t i = 0; i < n; ++i) {
            const double expected = x[i] * scale * from.gain[static_cast<std::size_t>(i)];
            // half of the sum's relative error (a thread's chain of additions, 9 steps through the
            // threads, a block's warps), then root, division, quotient and two products
            const double roundings = (static_cast<double>(n) / 512 + 1 + 9 + 16) / 2 + 5;
            REQUIRE(std::fabs(out[static_cast<std::size_t>(r * n + i)] - expected) <=
                    roundings * test::unit_roundoff * std::fabs(expected) + 1e-37);
          }
        }
        test::run(device, &gpu::kernel_table::transform, {in.rows(), 2, in.x().data()});
        REQUIRE(in.x().read() == out);
      }
    }
  }
}

TEST_CASE("a NaN or an infinity shows after a norm") {
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::random_source random(15);
    for (const float broken : {no_number, infinity}) {
      input from = make_input(gpu::input_kind::norm, 0, 2, 700, random);
      from.x[650] = broken;
      const auto out = transformed(device, {device, from}, 2);
      CHECK(std::isnan(out[650]));
      CHECK(std::isnan(out[3]) == std::isnan(broken));
      CHECK(std::isfinite(out[700]));
    }
  }
}

TEST_CASE("gates on a GPU agree with their definition") {
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::random_source random(16);
    for (int kind = 0; kind < 4; ++kind) {
      input from = make_input(gpu::input_kind::gate, kind, 3, 500, random);
      for (std::size_t i = 0; i < 500; ++i) {
        from.x[i] = static_cast<float>(static_cast<int>(i) - 250) * 0.37f;
      }
      const float odd[] = {0.0f, -0.0f, 1e4f, -1e4f, 1e-30f, -1e-30f, 88.0f, -88.0f, -100.0f};
      std::copy(std::begin(odd), std::end(odd), from.x.begin() + 600);
      const auto out = transformed(device, {device, from}, 3);
      for (std::size_t i = 0; i < out.size(); ++i) {
        const auto expected = test::gate_by_definition(kind, from.x[i], from.up[i]);
        INFO("gate " << kind << " of " << from.x[i] << ", " << from.up[i]);
        INFO(out[i] << ", not " << expected.value << " to " << expected.tolerance);
        REQUIRE(std::fabs(out[i] - expected.value) <= expected.tolerance);
      }
      // a NaN in either input is one in the output
      from.x[3] = no_number;
      from.up[1001] = no_number;
      const auto broken = transformed(device, {device, from}, 3);
      CHECK(std::isnan(broken[3]));
      CHECK(std::isnan(broken[1001]));
      CHECK(std::isfinite(broken[4]));
    }
  }
}

TEST_CASE("embeddings of every format are the rows of the table") {
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::random_source random(17);
    int formats = 0;
    nibble::for_each_format([&]<typename F>(F) {
      INFO(F::name);
      ++formats;
      for (const std::int64_t columns : {33, 70, 256, 4352}) {
        if (columns % F::block_size != 0) continue;
        const auto table = test::make_matrices<F>(columns, 9, 1, random);
        const test::device_matrices packed(device, table);
        const std::vector<std::int32_t> ids{8, 0, 3, 3, 5};
        const test::device_array<std::int32_t> tokens(device, ids);
        const float sentinel = -7;
        test::device_array<float> out(
            device,
            std::vector<float>(ids.size() * static_cast<std::size_t>(columns) + 40, sentinel));
        test::run(device, &gpu::kernel_table::embed,
                  {packed.packed(), tokens.data(), static_cast<std::int64_t>(ids.size()), 1.5f,
                   out.data()});
        const auto got = out.read();
        std::size_t at = 0;
        for (const std::int32_t id : ids) {
          for (const float value : test::decoded<F>(table.row(0, id), columns)) {
            INFO("value " << at << ": " << got[at] << ", not 1.5 * " << value);
            REQUIRE(got[at++] == 1.5f * value);
          }
        }
        while (at < got.size()) REQUIRE(got[at++] == sentinel);
      }
    });
    CHECK(formats == nibble::format_count);
  }
}

TEST_CASE("rows are added, as they are or after a norm") {
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::random_source random(18);
    for (const auto kind : {gpu::input_kind::plain, gpu::input_kind::norm}) {
      for (const std::int64_t rows : {1, 5}) {
        const input from = make_input(kind, 0, rows, 2100, random);
        const device_input in(device, from);
        const auto before = random.normals(from.x.size());
        const test::device_array<float> out(device, before);
        test::run(device, &gpu::kernel_table::add, {in.rows(), rows, out.data()});
        const auto addend = transformed(device, in, rows), got = out.read();
        for (std::size_t i = 0; i < got.size(); ++i) {
          // the product before the addition may be fused with it
          const double sum = double{before[i]} + addend[i];
          REQUIRE(std::fabs(got[i] - sum) <=
                  test::unit_roundoff * (std::fabs(sum) + std::fabs(addend[i])) * 1.01);
        }
      }
    }
  }
}

TEST_CASE("results of experts are combined, rows are selected, logits are capped") {
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::random_source random(19);
    constexpr std::size_t rows = 3, used = 4, width = 333;
    const auto in = random.normals(rows * used * width), weights = random.normals(rows * used);
    const auto before = random.normals(rows * width);
    const test::device_array<float> d_in(device, in), d_weights(device, weights);
    const test::device_array<float> combined(device, before);
    test::run(device, &gpu::kernel_table::combine,
              {d_in.data(), d_weights.data(), rows, width, used, combined.data()});
    const auto got = combined.read();
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t c = 0; c < width; ++c) {
        double sum = before[r * width + c], magnitude = std::fabs(sum);
        for (std::size_t s = 0; s < used; ++s) {
          const double term = double{weights[r * used + s]} * in[(r * used + s) * width + c];
          sum += term;
          magnitude += std::fabs(term);
        }
        REQUIRE(std::fabs(got[r * width + c] - sum) <=
                (used + 1) * test::unit_roundoff * magnitude);
      }
    }

    const test::device_array<std::int32_t> which(device, {11, 0, 5});
    const test::device_array<float> selected(device, 3 * width);
    test::run(device, &gpu::kernel_table::select,
              {d_in.data(), which.data(), 3, width, selected.data()});
    const auto chosen = selected.read();
    for (std::size_t c = 0; c < width; ++c) {
      REQUIRE(chosen[c] == in[11 * width + c]);
      REQUIRE(chosen[width + c] == in[c]);
      REQUIRE(chosen[2 * width + c] == in[5 * width + c]);
    }

    auto logits = random.normals(1000, 60);
    logits[5] = no_number;
    logits[6] = -infinity;
    const test::device_array<float> capped(device, logits);
    test::run(device, &gpu::kernel_table::softcap, {capped.data(), 999, 30.0f});
    const auto result = capped.read();
    for (std::size_t i = 0; i < 999; ++i) {
      if (i == 5) continue;
      const double expected = 30 * std::tanh(double{logits[i]} / 30);
      REQUIRE(std::fabs(result[i] - expected) <= 8 * test::unit_roundoff * std::fabs(expected));
    }
    CHECK(std::isnan(result[5]));
    CHECK(result[999] == logits[999]);
  }
}

TEST_CASE("nothing happens for no rows") {
  for (auto& device : test::gpu_devices()) {
    INFO(device.name);
    test::run(device, &gpu::kernel_table::quantise, {});
    test::run(device, &gpu::kernel_table::transform, {});
    test::run(device, &gpu::kernel_table::embed, {});
    test::run(device, &gpu::kernel_table::matvec, {});
    test::run(device, &gpu::kernel_table::add, {});
    test::run(device, &gpu::kernel_table::combine, {});
    test::run(device, &gpu::kernel_table::select, {});
    test::run(device, &gpu::kernel_table::softcap, {});
  }
}
