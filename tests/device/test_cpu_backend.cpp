// What the CPU backend refuses, and the bound on eight-bit activations.
#include <algorithm>
#include <functional>
#include <nibble/base/error.hpp>
#include <string>
#include <thread>

#include "catch.hpp"
#include "cpu/select.hpp"
#include "environment.hpp"
#include "models.hpp"

namespace {

void refused(const std::function<void()>& f, nibble::errc code, const std::string& expected) {
  try {
    f();
  } catch (const nibble::error& e) {
    const std::string what = e.what();
    CAPTURE(what, expected);
    REQUIRE(e.code() == code);
    REQUIRE(what.find(expected) != std::string::npos);
    return;
  }
  FAIL("not refused: " << expected);
}

constexpr auto invalid = nibble::errc::invalid_argument;

nibble::cpu_options two_threads() {
  nibble::cpu_options o;
  o.threads = 2;
  return o;
}

}  // namespace

TEST_CASE("eight-bit activations stay within half a step of each block") {
  constexpr std::size_t columns = 256, n_rows = 45;
  for (const int tokens : {1, 3, 20}) {
    test::weight_store weights;
    nibble::recording r;
    r.input = r.make(columns);
    r.output = r.make(n_rows);
    const auto* matrix = weights.q8_0(test::shape_of(columns, n_rows));
    r.emit(nibble::matmul_step{r.input, {}, {{matrix, nullptr, r.output}}, false});
    std::vector<std::vector<double>> rows;  // read while they lie as in a file
    for (std::size_t i = 0; i < n_rows; ++i) rows.push_back(test::weight_row(*matrix, i));
    test::runner cpu(r, weights, two_threads(), {tokens, 1});
    const auto x = test::random_rows(static_cast<std::size_t>(tokens), columns);
    const auto got = cpu.run(test::plain_batch(tokens), x);
    for (std::size_t t = 0; t < x.size(); ++t) {
      for (std::size_t i = 0; i < n_rows; ++i) {
        const auto& w = rows[i];
        double bound = 0, magnitude = 0;
        for (std::size_t block = 0; block < columns; block += 32) {
          double greatest = 0, sum = 0;
          for (std::size_t c = block; c < block + 32; ++c) {
            greatest = std::max(greatest, std::abs(x[t][c]));
            sum += std::abs(w[c]);
          }
          bound += greatest / 127 / 2 * sum;
          magnitude += greatest * sum;
        }
        const double error =
            std::abs(static_cast<double>(got[t * n_rows + i]) - test::dot(w, x[t].data()));
        REQUIRE(error <= bound + 1e-5 * magnitude);
        REQUIRE(bound < 0.01 * magnitude);
      }
    }
  }
}

TEST_CASE("bad batches are refused and change nothing") {
  test::small_model model;
  test::weight_store weights;
  const auto recording = model.record(weights);
  test::runner cpu(recording, weights, two_threads(), {8, 2}, model.layout(6));
  auto start = test::plain_batch(3);
  start.outputs = {2};
  cpu.run(start);
  const auto next = [] {
    auto b = test::plain_batch(2, 3);
    b.outputs = {1};
    return b;
  };
  const auto expected = cpu.run(next());

  const auto bad = [&](const std::string& sentence, auto change) {
    auto b = next();
    change(b);
    refused([&] { cpu.run(b); }, invalid, sentence);
  };
  using batch = test::reference_batch;
  bad("token 1 has id 40; the vocabulary has 40", [](batch& b) { b.tokens[1] = 40; });
  bad("token 0 has id -1", [](batch& b) { b.tokens[0] = -1; });
  bad("it has no tokens", [](batch& b) { b = {}; });
  bad("it has 9 tokens; the program was made for 8", [](batch& b) { b.tokens.resize(9); });
  bad("cover 1 of 2", [](batch& b) { b.chunks[0].count = 1; });
  bad("chunk 0 begins at token 1", [](batch& b) { b.chunks[0].first = 1; });
  bad("chunk 0 has 0 tokens", [](batch& b) { b.chunks[0].count = 0; });
  bad("chunk 0 follows -1", [](batch& b) { b.chunks[0].n_past = -1; });
  bad("chunk 0 has no page for token 64", [](batch& b) { b.chunks[0].n_past = 63; });
  bad("chunks 0 and 1 use one table", [](batch& b) { b.chunks = {{0, 0, 1, 3}, {0, 1, 1, 4}}; });
  bad("output index 2", [](batch& b) { b.outputs = {2}; });
  bad("output index 0 after 1", [](batch& b) { b.outputs = {1, 0}; });
  bad("output index -1", [](batch& b) { b.outputs = {-1}; });
  auto many = test::plain_batch(3, 3);
  refused([&] { cpu.run(many); }, invalid, "it wants 3 outputs; the program was made for 2");

  REQUIRE(cpu.run(next()) == expected);
}

TEST_CASE("caches must fit the program and come from its backend") {
  test::small_model model;
  test::weight_store weights;
  const auto recording = model.record(weights);
  test::runner cpu(recording, weights, two_threads(), {4, 4}, model.layout(6));
  const auto run_with = [&](nibble::kv_cache* cache, const nibble::kv_table* table) {
    const nibble::token id = 1;
    const nibble::batch_chunk chunk{cache, table, 0, 1, 0};
    cpu.program().submit({{&id, 1}, {&chunk, 1}, {}});
  };
  const nibble::kv_table* const table = cpu.table(0);
  const std::int32_t one[] = {1};
  refused([&] { run_with(nullptr, table); }, invalid, "chunk 0 has no cache");
  refused([&] { run_with(cpu.cache(), nullptr); }, invalid, "chunk 0 has no table");
  const auto other = nibble::make_cpu_backend(two_threads());
  const auto foreign = other->make_cache(model.layout(6).layout, one);
  refused([&] { run_with(foreign.get(), table); }, invalid, "made by another backend");
  auto short_model = model;
  short_model.n_layer = 1;
  const auto too_few = cpu.backend().make_cache(short_model.layout(6).layout, one);
  refused([&] { run_with(too_few.get(), table); }, invalid,
          "has 1 layers; the program uses layer 1");
  auto wide_model = model;
  wide_model.key_length = 32;
  const auto wide = cpu.backend().make_cache(wide_model.layout(6).layout, one);
  refused([&] { run_with(wide.get(), table); }, invalid,
          "layer 0 of the cache of chunk 0 has 2 heads");
  auto seeing_less = model.layout(6).layout;
  for (auto& layer : seeing_less.layers) layer.window = 64;
  const auto narrow = cpu.backend().make_cache(seeing_less, one);
  refused([&] { run_with(narrow.get(), table); }, invalid,
          "layer 0 of the cache of chunk 0 keeps 64 tokens; the program looks at all");
  nibble::kv_table wild = *table;
  for (const nibble::page_id page : {nibble::no_page, nibble::page_id{4}, nibble::page_id{-7}}) {
    wild.groups[0].tail[0] = page;
    refused([&] { run_with(cpu.cache(), &wild); }, invalid, "chunk 0 has no page for token 0");
  }
}

TEST_CASE("cache sizes are known before, and impossible ones refused") {
  const auto cpu = nibble::make_cpu_backend(two_threads());
  test::small_model model;
  const std::int32_t two[] = {2}, none[] = {0}, most[] = {1 << 30};
  for (const auto& type : nibble::all_kv_types) {
    const auto layout = model.layout(65, type.type).layout;
    REQUIRE(cpu->cache_bytes(layout, two) == 128 * layout.bytes_per_token());
    REQUIRE(cpu->make_cache(layout, two)->bytes() == cpu->cache_bytes(layout, two));
  }
  auto layout = model.layout(65).layout;
  refused([&] { cpu->make_cache(layout, none); }, invalid, "0 pages");
  refused([&] { cpu->make_cache(layout, {}); }, invalid, "0 numbers of pages");
  layout.layers[1].value_length = 12;
  layout.value = nibble::kv_type::q8;
  refused([&] { cpu->make_cache(layout, two); }, nibble::errc::unsupported,
          "values of layer 1 have 12 values a head; q8 needs a multiple of 8");
  layout.layers[1].value_length = 520;
  refused([&] { cpu->make_cache(layout, two); }, nibble::errc::unsupported, "up to 512");
  layout.layers[1].kind = nibble::kv_kind::state;
  refused([&] { cpu->make_cache(layout, two); }, nibble::errc::unsupported, "recurrent state");
  layout.value = nibble::kv_type::f32;
  layout.layers.assign(1000, {1 << 20, 1 << 20, 1 << 20});
  refused([&] { cpu->make_cache(layout, most); }, nibble::errc::out_of_memory, "");
}

TEST_CASE("weights fill their arena exactly, from several threads") {
  const auto cpu = nibble::make_cpu_backend(two_threads());
  test::weight_store store;
  std::vector<const nibble::weight*> sources;
  std::size_t bytes = 0;
  const auto view = [](const nibble::weight& w) {
    return nibble::tensor_view{w.format, w.shape, w.data};
  };
  for (unsigned i = 1; i <= 40; ++i) {
    sources.push_back(store.f32(test::shape_of(i, 3)));
    bytes += cpu->weight_bytes(view(*sources.back()));
  }
  refused([&] { cpu->import_weight(view(*sources[0])); }, invalid, "does not fit");
  cpu->reserve_weights(bytes);
  refused([&] { cpu->reserve_weights(bytes); }, invalid, "already");
  std::vector<nibble::weight> imported(sources.size());
  std::vector<std::thread> threads;
  for (std::size_t part = 0; part < 4; ++part) {
    threads.emplace_back([&, part] {
      for (std::size_t i = part; i < sources.size(); i += 4) {
        imported[i] = cpu->import_weight(view(*sources[i]));
      }
    });
  }
  for (auto& t : threads) t.join();
  for (std::size_t i = 0; i < sources.size(); ++i) {
    REQUIRE(reinterpret_cast<std::uintptr_t>(imported[i].data) % 64 == 0);
    REQUIRE(std::memcmp(imported[i].data, sources[i]->data, (i + 1) * 3 * 4) == 0);
  }
  refused([&] { cpu->import_weight(view(*sources[0])); }, invalid, "does not fit");
}

TEST_CASE("a weight that is filled in parts, in any order, is the one that is filled at once") {
  const auto cpu = nibble::make_cpu_backend(two_threads());
  test::weight_store store;
  // rows that do not fill the last strip of a matrix
  const nibble::weight* source = store.q8_0({{64, 3 * nibble::part_rows + 5, 2, 1}});
  const nibble::tensor_view view{source->format, source->shape, source->data};
  const std::size_t bytes = cpu->weight_bytes(view);
  cpu->reserve_weights(2 * bytes);
  const nibble::weight whole = cpu->import_weight(view);
  const nibble::weight parts = cpu->place_weight({view.format, view.shape, nullptr});
  REQUIRE(parts.matrix_bytes == whole.matrix_bytes);
  const auto in_matrix = static_cast<std::int64_t>(view.shape.extent[1]);
  const std::size_t row = nibble::row_bytes(view.format, view.shape.columns());
  for (std::int64_t first = 2 * in_matrix - 5; first >= 0;) {
    const std::int64_t count = std::min(nibble::part_rows, in_matrix - first % in_matrix);
    cpu->fill_weight(parts, {first, count}, view.data + static_cast<std::size_t>(first) * row);
    first -= first == in_matrix ? 5 : nibble::part_rows;
  }
  REQUIRE(std::memcmp(parts.data, whole.data, bytes) == 0);
  for (const nibble::row_range rows : {nibble::row_range{-64, 64},
                                       {0, 2 * in_matrix + 1},
                                       {2 * in_matrix + 64, 0},
                                       {in_matrix + 1, 1},
                                       {0, 5},
                                       {0, -1}}) {
    refused([&] { cpu->fill_weight(parts, rows, view.data); }, invalid, "are no parts of a weight");
  }
  REQUIRE(std::memcmp(parts.data, whole.data, bytes) == 0);
}

TEST_CASE("weights that cannot be computed with are refused") {
  const auto cpu = nibble::make_cpu_backend(two_threads());
  nibble::tensor_view t;
  t.format = nibble::format_id{16};
  t.shape = test::shape_of(256);
  refused([&] { (void)cpu->weight_bytes(t); }, nibble::errc::unsupported, "iq2_xxs");
  t.format = nibble::id_of<nibble::formats::q8_0>;
  t.shape = test::shape_of(33);
  refused([&] { (void)cpu->weight_bytes(t); }, invalid, "multiple of 32");
}

TEST_CASE("programs of one backend may be run from several threads") {
  test::small_model model;
  test::weight_store weights;
  const auto recording = model.record(weights);
  test::runner cpu(recording, weights, two_threads(), {8, 8}, model.layout(64));
  const auto expected = cpu.run(test::plain_batch(8));
  std::vector<std::thread> threads;
  std::vector<std::vector<float>> got(3);
  for (auto& result : got) {
    threads.emplace_back([&] {
      const auto program = cpu.backend().make_program(recording, {8, 8});
      const std::int32_t one[] = {1};
      const auto cache = cpu.backend().make_cache(model.layout(64).layout, one);
      const nibble::kv_table table{.groups = {{.head = {0}, .tail = {}, .tail_first = 1}}};
      const auto b = test::plain_batch(8);
      for (int i = 0; i < 20; ++i) {
        const nibble::batch_chunk chunk{cache.get(), &table, 0, 8, 0};
        program->submit({b.tokens, {&chunk, 1}, b.outputs});
        program->wait();
      }
      result.assign(program->output().begin(), program->output().end());
    });
  }
  for (auto& t : threads) t.join();
  for (const auto& result : got) REQUIRE(result == expected);
}

TEST_CASE("instruction sets are chosen by option, by NIBBLE_ISA, or refused by name") {
  const auto isas = nibble::available_isas();
  REQUIRE(isas.back() == "scalar");
  for (const auto isa : isas) {
    nibble::cpu_options o = two_threads();
    o.isa = std::string(isa);
    const auto name = nibble::make_cpu_backend(o)->info().name;
    REQUIRE(name.find(", " + o.isa + ")") != std::string::npos);
    const test::variable set("NIBBLE_ISA", o.isa.c_str());
    REQUIRE(nibble::make_cpu_backend(two_threads())->info().name == name);
  }
  nibble::cpu_options o = two_threads();
  o.isa = "mmx";
  refused([&] { nibble::make_cpu_backend(o); }, invalid,
          "'mmx' is not available here (no kernels of that name); there are: ");
  const test::variable set("NIBBLE_ISA", "sse9");
  refused([&] { nibble::make_cpu_backend(two_threads()); }, invalid, "NIBBLE_ISA is 'sse9'");
  for (const auto& built : nibble::cpu::built_isas()) {
    if (std::find(isas.begin(), isas.end(), built.name) != isas.end()) continue;
    o.isa = std::string(built.name);
    refused([&] { nibble::make_cpu_backend(o); }, invalid,
            "(this processor lacks it); there are: ");
  }
}

TEST_CASE("the backend says what it is") {
  const auto cpu = nibble::make_cpu_backend(two_threads());
  REQUIRE(cpu->info().kind == nibble::device_kind::cpu);
  REQUIRE(cpu->info().free_bytes <= cpu->info().total_bytes);
  REQUIRE(cpu->info().total_bytes > 0);
  nibble::cpu_options o;
  o.threads = -2;
  refused([&] { nibble::make_cpu_backend(o); }, invalid, "cannot run -2 threads");
}
