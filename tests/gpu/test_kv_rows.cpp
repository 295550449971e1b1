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

std::vector<float> flat(const std::vector<std::vector<float>>& rows) {
  std::vector<float> all;
  for (const auto& row : rows) all.insert(all.end(), row.begin(), row.end());
  return all;
}

// Stores rows of random tokens, and compares all pages with what they should hold.
void check_stored(gpu_device& device, kv_type key_type, kv_type value_type, int key_length,
                  int value_length) {
  INFO(device.name << ", " << name_of_pair(key_type, value_type) << ", lengths " << key_length
                   << " and " << value_length);
  constexpr int heads = 3;
  const test_layer layer{key_type, value_type, heads, key_length, value_length};
  std::mt19937 random(static_cast<unsigned>(key_length));
  const std::vector<test_sequence> sequences = {{70, 20}, {30, 4, 5, 100}};
  test_cache cache(layer, sequences, 0, random);
  const device_batch batch(device, layer, cache);
  const auto tokens = tokens_of(sequences);
  const std::size_t rows = tokens.size() * heads;
  const auto keys = make_rows(rows, static_cast<std::size_t>(key_length), random),
             values = make_rows(rows, static_cast<std::size_t>(value_length), random);
  const device_array<float> q(device, flat(keys)), k(device, flat(keys)), v(device, flat(values));
  gpu::attend_prepare_args args{};
  args.shape.n_head = args.shape.n_head_kv = heads;
  args.shape.key_length = key_length;
  args.shape.value_length = value_length;
  args.shape.scale = 1;
  args.step = batch.step();
  args.pages = batch.pages();
  args.cache = batch.cache();
  args.tokens = batch.tokens();
  args.q = q.data();
  args.k = k.data();
  args.v = v.data();
  run(device, &gpu::kernel_table::attend_prepare, args);

  test_cache expected = cache;
  cache.bytes() = batch.read_pages();
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    const auto s = static_cast<std::size_t>(tokens[t].sequence);
    for (int head = 0; head < heads; ++head) {
      for (const bool key : {true, false}) {
        const kv_type type = key ? key_type : value_type;
        const auto& row = (key ? keys : values)[t * heads + static_cast<std::size_t>(head)];
        const stored_row got = cache.get(s, tokens[t].index, key, head);
        INFO("token " << t << ", head " << head << (key ? ", key" : ", value"));
        REQUIRE(same_row(type, got, store_on_host(type, row), row.size()));
        expected.put(s, tokens[t].index, key, head, got);
      }
    }
  }
  // nothing else in the pages is touched
  REQUIRE(cache.bytes() == expected.bytes());
}

}  // namespace

TEST_CASE("rows are stored to the bits of the definition") {
  for (gpu_device& device : gpu_devices()) {
    for (const auto& info : nibble::all_kv_types) {
      for (const int length : {1, 5, 8, 16, 24, 40, 64, 72, 80, 96, 128, 256, 512}) {
        if (nibble::fits(info.type, length)) {
          check_stored(device, info.type, info.type, length, length);
        }
      }
    }
  }
}

TEST_CASE("keys of any type are stored beside values of any other") {
  for (gpu_device& device : gpu_devices()) {
    for (const auto& key : nibble::all_kv_types) {
      for (const auto& value : nibble::all_kv_types) {
        check_stored(device, key.type, value.type, 64, 64);
        check_stored(device, key.type, value.type, 128, 96);
      }
    }
  }
}
