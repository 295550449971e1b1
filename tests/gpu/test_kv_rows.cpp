// Rows of keys and values as the device stores them: the bits of formats/head_row.hpp.
#include "attend_fixture.hpp"

namespace {

using namespace test;

// Rows of one length, [tokens, n_head_kv], as keys and as values.
std::vector<std::vector<float>> make_rows(std::size_t n, std::size_t length, std::mt19937& random) {
  std::vector<std::vector<float>> rows;
  for (std::size_t i = 0; i < n; ++i) {
    constexpr float sizes[] = {1, 1e-3f, 1e-9f, 3e4f, 1e30f, 1e-40f, 0};
    auto x = normals(random, length, 1);
    for (float& v : x) v *= sizes[i % 7];
    if (i % 11 == 4) x[random() % length] *= 50;                      // an outlier
    if (i % 13 == 5) x[random() % length] = i % 2 ? NAN : -INFINITY;  // a fault
    if (i % 5 == 2) {
      for (float& v : x) v = std::round(4 * v) / 4;  // many values alike, and halfway
    }
    if (i % 17 == 9) {  // two scales lose nothing, one for code 127 and one for 124
      std::fill(x.begin(), x.end(), 0.0f);
      x[random() % length] = 127 * 124;
    }
    rows.push_back(x);
  }
  return rows;
}

bool same_row(kv_type type, const stored_row& a, const stored_row& b, std::size_t length) {
  if (a.codes == b.codes && a.scales == b.scales) return true;
  // a NaN may have other bits
  const auto x = load_on_host(type, a, length), y = load_on_host(type, b, length);
  for (std::size_t i = 0; i < length; ++i) {
    if (std::isnan(x[i]) != std::isnan(y[i])) return false;
    if (!std::isnan(x[i]) && (x[i] != y[i] || std::signbit(x[i]) != std::signbit(y[i]))) {
      return false;
    }
  }
  return !nibble::has_scales(type);
}

}  // namespace

TEST_CASE("rows are stored to the bits of the definition") {
  for (gpu_device& device : gpu_devices()) {
    for (const auto& info : nibble::all_kv_types) {
      for (const int length : {1, 5, 8, 16, 24, 40, 64, 72, 80, 96, 128, 256, 512}) {
        if (!nibble::fits(info.type, length)) continue;
        INFO(device.name << ", " << info.name << ", length " << length);
        const test_layer layer{info.type, info.type, 3, length, length};
        std::mt19937 random(static_cast<unsigned>(length));
        const std::vector<test_sequence> sequences = {{70, 20}, {30, 4, 5, 100}};
        test_cache cache(layer, sequences, 0, random);
        const device_batch batch(device, layer, cache);
        const auto tokens = tokens_of(sequences);
        const auto keys = make_rows(tokens.size() * 3, static_cast<std::size_t>(length), random),
                   values = make_rows(tokens.size() * 3, static_cast<std::size_t>(length), random);
        const auto flat = [](const std::vector<std::vector<float>>& rows) {
          std::vector<float> all;
          for (const auto& row : rows) all.insert(all.end(), row.begin(), row.end());
          return all;
        };
        const device_array<float> q(device, flat(keys)), k(device, flat(keys)),
            v(device, flat(values));
        gpu::attend_prepare_args args{};
        args.shape.n_head = args.shape.n_head_kv = 3;
        args.shape.key_length = args.shape.value_length = length;
        args.shape.scale = 1;
        args.step = batch.step();
        args.pages = batch.pages();
        args.cache = batch.cache();
        args.tokens = batch.tokens();
        args.q = q.data();
        args.k = k.data();
        args.v = v.data();
        run(device, &gpu::kernel_table::attend_prepare, args);

        // Nothing else in the pages is touched.
        test_cache expected = cache;
        for (std::size_t t = 0; t < tokens.size(); ++t) {
          const auto s = static_cast<std::size_t>(tokens[t].sequence);
          for (int head = 0; head < 3; ++head) {
            const std::size_t row = t * 3 + static_cast<std::size_t>(head);
            expected.put(s, tokens[t].index, true, head, store_on_host(info.type, keys[row]));
            expected.put(s, tokens[t].index, false, head, store_on_host(info.type, values[row]));
          }
        }
        cache.bytes() = batch.read_pages();
        for (std::size_t t = 0; t < tokens.size(); ++t) {
          const auto s = static_cast<std::size_t>(tokens[t].sequence);
          for (int head = 0; head < 3; ++head) {
            for (const bool key : {true, false}) {
              const stored_row got = cache.get(s, tokens[t].index, key, head);
              const stored_row wanted = expected.get(s, tokens[t].index, key, head);
              INFO("token " << t << ", head " << head << (key ? ", key" : ", value"));
              REQUIRE(same_row(info.type, got, wanted, static_cast<std::size_t>(length)));
              expected.put(s, tokens[t].index, key, head, got);
            }
          }
        }
        REQUIRE(cache.bytes() == expected.bytes());
      }
    }
  }
}
