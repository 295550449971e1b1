// Models of which blocks stay on disk: the same numbers as in memory, and errors that pass.
#include <atomic>
#include <fstream>
#include <nibble/device/sizes.hpp>
#include <nibble/gguf/writer.hpp>
#include <nibble/nibble.hpp>
#include <random>
#include <thread>

#include "../model/tiny_model.hpp"
#include "catch.hpp"
#include "errors.hpp"
#include "places.hpp"
#include "run_model.hpp"
#include "temporary_folder.hpp"

namespace {

namespace fs = std::filesystem;
using nibble::activation_type;
using nibble::block_id;
using nibble::block_kind;

constexpr auto int8 = activation_type::int8;

nibble::disk_options disk(int threads, std::int32_t slots = 3, std::int32_t readers = 2,
                          activation_type activations = int8) {
  nibble::disk_options options{.slots = slots, .readers = readers};
  options.cpu.threads = threads;
  options.cpu.activations = activations;
  return options;
}

// Every format that has blocks of 32, so that rows are packed, and floats.
test::tiny_model model_of(const std::string& name) {
  const nibble::format_id q8{8}, q4{2}, f16{1};
  test::tiny_model model(name);
  model.set("context_length", 256);
  return model.make_tensors({.optional = true, .matrices = {q8, q4, f16, test::f32}});
}

void write(const fs::path& path, const std::vector<std::byte>& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
}

std::vector<nibble::token> some_tokens(std::size_t count) {
  std::vector<nibble::token> tokens(count);
  std::minstd_rand random(7);
  for (auto& t : tokens) t = static_cast<nibble::token>(random() % 48);
  return tokens;
}

nibble::model_options options_for(activation_type activations = int8) {
  auto options = test::exact_options(activations, 1);
  options.plan.batch = 128;
  options.plan.context = 200;
  options.plan.all_logits = true;
  return options;
}

struct split {
  std::string name;
  std::vector<std::int32_t> device_of;  // by block: 0 memory, 1 disk
};

std::vector<split> splits_of(const nibble::model_definition& model) {
  std::vector<split> all;
  const auto add = [&](std::string name, auto on_disk) {
    split s{std::move(name), {}};
    for (std::size_t i = 0; i < model.blocks.size(); ++i) {
      const bool may = model.blocks[i].kind != block_kind::embedding;
      s.device_of.push_back(may && on_disk(i, model.blocks[i]) ? 1 : 0);
    }
    all.push_back(std::move(s));
  };
  using id = block_id;
  const std::size_t n = model.blocks.size();
  add("all layers on disk", [](std::size_t, const id& b) { return b.kind != block_kind::head; });
  add("all layers and the head on disk", [](std::size_t, const id&) { return true; });
  add("the last half on disk", [n](std::size_t i, const id&) { return i > n / 2; });
  add("feed-forward halves on disk",
      [](std::size_t, const id& b) { return b.kind == block_kind::feed_forward; });
  add("the head on disk", [](std::size_t, const id& b) { return b.kind == block_kind::head; });
  add("nothing on disk", [](std::size_t, const id&) { return false; });
  std::minstd_rand random(static_cast<unsigned>(n));
  add("at random", [&](std::size_t, const id&) { return (random() >> 8 & 1) != 0; });
  return all;
}

nibble::model load(const nibble::gguf::file& file, const nibble::disk_options& on,
                   const std::vector<std::int32_t>& device_of, const nibble::model_options& o) {
  const nibble::model_definition definition(file);
  std::vector<std::unique_ptr<nibble::backend>> devices;
  devices.push_back(nibble::make_cpu_backend(on.cpu));
  devices.push_back(nibble::make_disk_backend(on));
  // planned with sizes alone, as where the devices are not opened
  const auto cpu = nibble::make_cpu_sizes(on.cpu);
  const auto ring = nibble::make_disk_sizes(on);
  const nibble::device_sizes* const sizes[] = {cpu.get(), ring.get()};
  const auto plan = nibble::count_placement(definition, sizes, device_of, o.plan);
  return nibble::model(file, std::move(devices), plan, o);
}

// All layers on disk.
nibble::model load(const nibble::gguf::file& file, const nibble::disk_options& on,
                   const nibble::model_options& o) {
  return load(file, on, splits_of(nibble::model_definition(file))[0].device_of, o);
}

void check_bytes(const nibble::model& model) {
  const auto& plan = model.plan();
  const auto found = model.memory();
  std::uint64_t host = 0;
  for (std::size_t d = 0; d < found.size(); ++d) {
    INFO(plan.devices[d].device.name);
    CHECK(found[d].now.weights == plan.devices[d].weights);
    CHECK(found[d].now.kv == plan.devices[d].kv);
    CHECK(found[d].now.workspace == plan.devices[d].workspace);
    host += found[d].now.host;
  }
  const auto between = static_cast<std::uint64_t>(plan.limits.max_tokens) * 4 *
                       static_cast<std::uint64_t>(model.hparams().n_embd);
  CHECK(host + (plan.segments().size() > 1 ? between : 0) == plan.host_bytes);
}

// All but three tokens at once, then those one by one.
std::vector<float> run(const nibble::model& model, std::span<const nibble::token> tokens) {
  std::vector<float> all;
  nibble::session session(model);
  const auto take = [&](std::size_t, std::span<const float> logits) {
    all.insert(all.end(), logits.begin(), logits.end());
  };
  session.append(tokens.first(tokens.size() - 3), take);
  for (std::size_t i = tokens.size() - 3; i < tokens.size(); ++i) {
    session.append(tokens.subspan(i, 1), take);
  }
  return all;
}

std::vector<float> append(nibble::session& session, std::span<const nibble::token> tokens) {
  std::vector<float> all;
  session.append(tokens, [&](std::size_t, std::span<const float> logits) {
    all.insert(all.end(), logits.begin(), logits.end());
  });
  return all;
}

}  // namespace

TEST_CASE("a model on disk computes what it does in memory, whatever of it stays there") {
  const test::temporary_folder folder;
  const auto tokens = some_tokens(150);
  std::int32_t turn = 0;
  for (const std::string& name : test::architectures()) {
    write(folder / name, model_of(name).bytes());
    const nibble::gguf::file file(folder / name);
    for (const auto activations : {int8, activation_type::float32}) {
      const auto options = options_for(activations);
      const auto expected =
          run(nibble::model(file, test::cpu_place(1).open(activations), options), tokens);
      for (const split& s : splits_of(nibble::model_definition(file))) {
        ++turn;
        const auto on = disk(1 + turn % 2, 2 + turn % 3, 1 + turn % 4, activations);
        INFO(name << ", " << s.name << ", slots: " << on.slots);
        const auto model = load(file, on, s.device_of, options);
        check_bytes(model);
        CHECK(run(model, tokens) == expected);
      }
    }
  }
}

TEST_CASE("a ring takes less memory than what passes through it") {
  const test::temporary_folder folder;
  test::tiny_model made("llama");
  made.set("block_count", 40).set("context_length", 256);
  write(folder / "a", made.make_tensors().bytes());
  const nibble::gguf::file file(folder / "a");
  const auto options = options_for();
  const auto on = disk(1, 2);
  const auto model = load(file, on, options);
  check_bytes(model);
  const auto& plan = model.plan();
  std::uint64_t streamed = 0, greatest = 0, kept = 0;
  for (const auto& b : plan.blocks) {
    streamed += b.streamed;
    greatest = std::max(greatest, b.streamed);
    if (b.device == 1) kept += b.weights;
    CHECK((b.streamed > 0) == (b.device == 1));
  }
  CHECK(model.memory()[1].now.weights == kept + nibble::weight_ring{2}.bytes(greatest));
  CHECK(model.memory()[1].now.weights * 8 < streamed);
  CHECK(plan.part == plan.limits.max_tokens);
  CHECK(plan.segments().size() == plan.blocks.size());  // each layer's halves by themselves
  CHECK(model.memory()[1].now.host == nibble::disk_staging_bytes(on));
  CHECK(run(model, some_tokens(20)) ==
        run(nibble::model(file, test::cpu_place(1).open(int8), options), some_tokens(20)));
}

TEST_CASE("experts on disk are read when tokens go through them, into as many slots as there are") {
  const test::temporary_folder folder;
  test::tiny_model made("qwen3moe");
  made.set("context_length", 256).set_experts(24, 2);
  write(folder / "a", made.make_tensors({.matrices = {nibble::format_id{8}}}).bytes());
  const nibble::gguf::file file(folder / "a");
  const auto tokens = some_tokens(60);
  auto options = options_for();
  const auto expected = run(nibble::model(file, test::cpu_place(1).open(int8), options), tokens);
  const nibble::model_definition definition(file);
  const auto device_of = splits_of(definition)[0].device_of;
  for (const std::int32_t batch : {1, 3, 128}) {
    options.plan.batch = batch;
    const auto cpu = nibble::make_cpu_sizes(disk(2).cpu);
    const auto ring = nibble::make_disk_sizes(disk(2));
    const nibble::device_sizes* const sizes[] = {cpu.get(), ring.get()};
    auto plan = nibble::count_placement(definition, sizes, device_of, options.plan);
    auto& use = plan.devices[1];
    CHECK(use.experts.slots == std::min(24, 2 * batch));
    std::uint64_t on_demand = 0;
    for (const auto& b : plan.blocks) on_demand += b.on_demand;
    CHECK(on_demand ==
          static_cast<std::uint64_t>(definition.hp.n_layer) * 24 * use.experts.slot_bytes);
    for (const std::int64_t more : {0, 5, 40}) {
      INFO("batches of " << batch << ", " << use.experts.slots << " slots and " << more);
      use.experts.slots += more;
      use.weights += static_cast<std::uint64_t>(more) * use.experts.slot_bytes;
      std::vector<std::unique_ptr<nibble::backend>> devices;
      devices.push_back(nibble::make_cpu_backend(disk(2).cpu));
      devices.push_back(nibble::make_disk_backend(disk(2)));
      const nibble::model model(file, std::move(devices), plan, options);
      check_bytes(model);
      CHECK(run(model, tokens) == expected);
    }
  }
}

TEST_CASE("sessions of a model on disk run in turn, from several threads, and are forked") {
  const test::temporary_folder folder;
  write(folder / "a", model_of("gemma3").bytes());
  const nibble::gguf::file file(folder / "a");
  auto options = options_for();
  options.plan.sessions = 4;
  const auto tokens = some_tokens(90);
  const auto expected = run(nibble::model(file, test::cpu_place(1).open(int8), options), tokens);
  const auto model = load(file, disk(2), options);
  std::vector<std::vector<float>> found(3);
  {
    std::vector<std::jthread> threads;
    for (auto& to : found) threads.emplace_back([&] { to = run(model, tokens); });
  }
  for (const auto& one : found) CHECK(one == expected);

  nibble::session first(model);
  append(first, std::span(tokens).first(50));
  auto other = first.fork();
  CHECK(append(first, std::span(tokens).subspan(50, 30)) ==
        append(other, std::span(tokens).subspan(50, 30)));
}

TEST_CASE("files in parts are read from all of them") {
  const test::temporary_folder folder;
  const auto bytes = model_of("qwen3moe").bytes();
  const nibble::gguf::file whole(bytes, "whole");
  nibble::gguf::writer writer;
  writer.copy_metadata(whole);
  for (const auto& t : whole.tensors()) {
    writer.add_tensor(t.name, t.view.format, t.view.shape, whole.data(t));
  }
  const auto parts = writer.write(folder / "a.gguf", {.max_part_bytes = bytes.size() / 3});
  REQUIRE(parts.size() > 2);
  const nibble::gguf::file file(parts[0]);
  const auto options = options_for();
  const auto model = load(file, disk(1), options);
  const auto tokens = some_tokens(40);
  const auto expected = run(nibble::model(whole, test::cpu_place(1).open(int8), options), tokens);
  CHECK(run(model, tokens) == expected);
  fs::resize_file(parts[2], fs::file_size(parts[2]) / 2);
  const auto e = test::thrown([&] { run(model, tokens), run(model, tokens); });
  test::check_error(e, nibble::errc::io, {parts[2].string(), "bytes when it was opened"});
}

TEST_CASE("a file that is cut off stops a session until it is whole again") {
  const test::temporary_folder folder;
  const auto path = folder / "a.gguf";
  auto made = model_of("llama");
  made.set("block_count", 6);
  made.make_tensors();
  const auto bytes = made.bytes();
  write(path, bytes);
  const auto since = fs::last_write_time(path);
  const nibble::gguf::file file(path);
  auto options = options_for();
  options.plan.sessions = 2;
  const auto tokens = some_tokens(60);
  const nibble::model resident(file, test::cpu_place(1).open(int8), options);
  const auto model = load(file, disk(1, 2), options);
  nibble::session expected(resident), session(model);
  CHECK(append(session, std::span(tokens).first(20)) ==
        append(expected, std::span(tokens).first(20)));

  const auto fails = [&](std::string_view why) {
    const auto e = test::thrown([&] { append(session, std::span(tokens).subspan(20, 10)); });
    test::check_error(e, nibble::errc::io, {path.string(), why});
    CHECK(e.offset().has_value());
    CHECK(e.tensor().starts_with("blk."));
    CHECK(session.tokens().size() == 20);
  };
  for (int round = 0; round < 3; ++round) {
    fs::resize_file(path, bytes.size() / 2);
    fails("bytes when it was opened");
    fails("bytes when it was opened");
    write(path, bytes);
    fs::last_write_time(path, since + std::chrono::seconds(5));
    fails("written to");
    fs::last_write_time(path, since);
    auto again = session.fork();
    auto wanted = expected.fork();
    CHECK(append(again, std::span(tokens).subspan(20)) ==
          append(wanted, std::span(tokens).subspan(20)));
  }
}

TEST_CASE("a file may be cut off at any moment") {
  const test::temporary_folder folder;
  const auto path = folder / "a.gguf";
  const auto bytes = model_of("gpt-oss").bytes();
  write(path, bytes);
  const auto since = fs::last_write_time(path);
  const nibble::gguf::file file(path);
  const auto options = options_for();
  const auto tokens = some_tokens(30);
  const auto expected = run(nibble::model(file, test::cpu_place(1).open(int8), options), tokens);
  const auto model = load(file, disk(1), options);
  std::atomic<bool> stop = false;
  std::jthread vandal([&] {
    while (!stop) {
      fs::resize_file(path, bytes.size() / 2);
      std::this_thread::sleep_for(std::chrono::microseconds(300));
      write(path, bytes);
      fs::last_write_time(path, since);
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
    }
  });
  int runs = 0, failures = 0;
  for (int i = 0; i < 100; ++i) {
    try {
      const auto found = run(model, tokens);
      ++runs;
      // bytes may be read while they are not those of the file, if its size and time look right
      CHECK(found.size() == expected.size());
    } catch (const nibble::error& e) {
      CHECK(e.code() == nibble::errc::io);
      ++failures;
    }
  }
  stop = true;
  vandal.join();
  CHECK(runs + failures == 100);
  // what was read ahead meanwhile passes once
  (void)test::all_logits(model, tokens);
  CHECK(run(model, tokens) == expected);
}

TEST_CASE("models on disk end while they read ahead") {
  const test::temporary_folder folder;
  write(folder / "a", model_of("llama").bytes());
  const nibble::gguf::file file(folder / "a");
  const auto tokens = some_tokens(10);
  for (int i = 0; i < 30; ++i) {
    const auto model = load(file, disk(1, 2 + i % 3, 1 + i % 4), options_for());
    if (i % 2 == 0) continue;
    nibble::session session(model);
    session.append(tokens);
  }
}

TEST_CASE("a disk's speed is measured with the file that is to be read") {
  const test::temporary_folder folder;
  write(folder / "a", model_of("llama").bytes());
  const nibble::gguf::file file(folder / "a");
  CHECK(nibble::measure_disk(file) > 0);
  CHECK(nibble::measure_disk(file, disk(1, 2, 1), 5000) > 0);
  fs::resize_file(folder / "a", 1000);
  test::check_error(test::thrown([&] { nibble::measure_disk(file); }), nibble::errc::io,
                    {"has 1000 now"});
}

TEST_CASE("what cannot stay on disk is refused") {
  const auto bytes = model_of("llama").bytes();
  const nibble::gguf::file in_memory(bytes, "in memory");
  const auto options = options_for();
  test::check_error(test::thrown([&] { load(in_memory, disk(1), options); }),
                    nibble::errc::invalid_argument, {"in memory", "on disk"});
  test::check_error(
      test::thrown([&] { nibble::model(in_memory, nibble::make_disk_backend(disk(1)), options); }),
      nibble::errc::invalid_argument,
      {"the embedding was placed on disk", "disk (ring of 3 blocks)"});
  for (const std::int32_t slots : {1, 5}) {
    test::check_error(test::thrown([&] { nibble::make_disk_backend(disk(1, slots)); }),
                      nibble::errc::invalid_argument, {"2 to 4"});
    test::check_error(test::thrown([&] { nibble::make_disk_sizes(disk(1, slots)); }),
                      nibble::errc::invalid_argument, {"2 to 4"});
  }
  test::check_error(test::thrown([&] { nibble::make_disk_backend(disk(1, 3, 65)); }),
                    nibble::errc::invalid_argument, {"65 readers"});

  const test::temporary_folder folder;
  write(folder / "a", bytes);
  const nibble::gguf::file file(folder / "a");
  fs::last_write_time(folder / "a", fs::last_write_time(folder / "a") + std::chrono::seconds(1));
  test::check_error(test::thrown([&] { load(file, disk(1), options); }), nibble::errc::io,
                    {"was written to"});
}
