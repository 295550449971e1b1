// Models that find their devices, share themselves out, and move: on the CPU and emulated GPUs.
#include <algorithm>
#include <fstream>
#include <nibble/device/speed.hpp>
#include <nibble/nibble.hpp>

#include "../model/tiny_model.hpp"
#include "catch.hpp"
#include "emulated/emulated.hpp"
#include "errors.hpp"
#include "places.hpp"
#include "run_model.hpp"
#include "temporary_folder.hpp"

namespace {

using nibble::errc;

// A GPU's kernels in floats, and the CPU's: sums of the same numbers in other orders.
constexpr double tolerance = 1e-5;

struct made_file {
  std::vector<std::byte> bytes = test::tiny_model("llama")
                                     .set("block_count", 4)
                                     .set("context_length", 256)
                                     .make_tensors()
                                     .bytes();
  nibble::gguf::file file{bytes, "llama"};
};

// The CPU, and what a module has, which counts as much faster.
nibble::devices::hardware hardware_with(nibble::gpu::module& module) {
  nibble::devices::hardware found;
  auto modules =
      std::make_shared<nibble::gpu_modules>(std::vector<std::filesystem::path>{"/nowhere"});
  modules->add(module);
  found.all = modules->devices();
  for (const auto& info : found.all) {
    found.speeds[info.id] =
        nibble::speed_of(nibble::device_kind::cuda,
                         {.memory_bytes_per_second = 1e12, .link_bytes_per_second = 1e11});
    auto& speed = found.speeds[info.id];
    speed.step_seconds = speed.attend_seconds = speed.run_seconds = speed.link_seconds = 1e-9;
  }
  found.all.push_back(nibble::describe_cpu());
  found.speeds["cpu"] =
      nibble::speed_of(nibble::device_kind::cpu, {.memory_bytes_per_second = 1e9});
  found.modules = std::move(modules);
  return found;
}

nibble::model_options small_options() {
  auto options = test::exact_options(nibble::activation_type::float32, 1);
  options.plan.batch = 16;
  options.plan.context = 128;
  options.plan.sessions = 2;
  options.plan.all_logits = true;
  return options;
}

std::vector<float> logits_of(nibble::session& session, std::span<const nibble::token> tokens) {
  std::vector<float> all;
  session.append(tokens, [&](std::size_t, std::span<const float> logits) {
    all.assign(logits.end() - 48, logits.end());
  });
  return all;
}

const std::vector<nibble::token> first = {3, 1, 4, 1, 5, 9, 2, 6}, then = {5, 3, 5};

// Opens one device of a big module while it is looked at, and one of a small module afterwards: as
// if another process had taken the memory meanwhile.
class shrinking_module final : public nibble::gpu::module {
 public:
  shrinking_module(std::uint64_t before, std::uint64_t after)
      : big_(std::vector{nibble::gpu::emulated_options{.memory = before}}),
        small_(std::vector{nibble::gpu::emulated_options{.memory = after}}) {}

  nibble::gpu::module_kind kind() const noexcept override { return big_.kind(); }
  const char* built_for() const noexcept override { return big_.built_for(); }
  std::int32_t count(nibble::gpu::failure& why) noexcept override { return big_.count(why); }
  bool describe(std::int32_t device, nibble::gpu::device_facts& facts,
                nibble::gpu::failure& why) noexcept override {
    return big_.describe(device, facts, why);
  }
  bool open(std::int32_t device, nibble::gpu::context*& opened,
            nibble::gpu::failure& why) noexcept override {
    return (opened_++ == 0 ? big_ : small_).open(device, opened, why);
  }

 private:
  nibble::gpu::emulated_module big_, small_;
  int opened_ = 0;
};

}  // namespace

TEST_CASE("a model lies on the GPU if it fits, and beside the CPU if it does not") {
  const made_file made;
  const auto options = small_options();
  nibble::model_options on_cpu = options;
  on_cpu.device = "cpu";
  const nibble::model reference(made.file, on_cpu);
  REQUIRE(reference.plan().devices.size() == 1);
  nibble::session expected(reference);
  const auto logits = logits_of(expected, first);
  std::uint64_t whole = 0;
  for (const double share : {1.5, 0.6, 0.01}) {
    INFO(share);
    const std::uint64_t memory =
        whole == 0 ? std::uint64_t{1} << 30
                   : static_cast<std::uint64_t>(share * static_cast<double>(whole));
    nibble::gpu::emulated_module module(
        std::vector{nibble::gpu::emulated_options{.memory = memory}});
    const nibble::model model(made.file, hardware_with(module), options);
    const auto& devices = model.plan().devices;
    INFO(model.plan());
    if (share > 1) {
      REQUIRE(devices.size() == 1);
      CHECK(devices[0].device.id == "emulated0");
      whole = devices[0].total();
    } else if (share > 0.1) {
      REQUIRE(devices.size() == 2);
      CHECK(devices[0].device.id == "emulated0");
      CHECK(devices[1].device.id == "cpu");
      CHECK(devices[0].total() <= memory - memory / 10);
    } else {
      REQUIRE(devices.size() == 1);
      CHECK(devices[0].device.id == "cpu");
    }
    nibble::session session(model);
    CHECK(test::relative_rms(logits_of(session, first), logits) <= tolerance);
  }
}

TEST_CASE("devices are chosen by name") {
  const made_file made;
  nibble::gpu::emulated_module module(std::vector{nibble::gpu::emulated_options{}, {}});
  const auto found = hardware_with(module);
  auto options = small_options();
  const auto used = [&](const std::string& names) {
    options.device = names;
    std::string ids;
    const nibble::model model(made.file, found, options);
    for (const auto& d : model.plan().devices) ids += d.device.id + " ";
    return ids;
  };
  CHECK(used("cpu") == "cpu ");
  CHECK(used("emulated1") == "emulated1 ");
  CHECK(used("cpu,emulated1") == "emulated1 ");
  options.plan.pins = {{.what = nibble::pinned_blocks::part::attention, .device = 1},
                       {.what = nibble::pinned_blocks::part::feed_forward, .device = 0}};
  CHECK(used("cpu,emulated1") == "cpu emulated1 ");
  options.plan.pins.clear();
  const auto refused = [&](const std::string& names,
                           std::initializer_list<std::string_view> words) {
    test::check_error(test::thrown([&] { used(names); }), errc::invalid_argument, words);
  };
  refused("cuda7", {"there is no device 'cuda7'", "emulated0, emulated1"});
  refused("cpu,cpu", {"'cpu' is named twice"});
  refused("", {"there is no device ''"});
}

TEST_CASE("a plan can be made first and carried out later") {
  const made_file made;
  nibble::gpu::emulated_module module(std::vector<nibble::gpu::emulated_options>(2));
  const auto found = hardware_with(module);
  auto options = small_options();
  options.plan.gpu_layers = 2;
  options.device = "cpu,emulated1,emulated0";
  using part = nibble::pinned_blocks::part;
  options.plan.pins = {{.first = 2, .device = 1},
                       {.what = part::head, .device = 1},
                       {.what = part::embedding, .device = 0}};
  const nibble::placement plan = nibble::plan(made.file, found, options);
  CHECK(plan.devices.size() == 3);  // also those that are not used
  std::vector<std::string> told;
  options.on_memory = [&](std::span<const nibble::device_memory> all) {
    for (const auto& m : all) told.push_back(m.device.id);
  };
  const nibble::model model(made.file, found, plan, options);
  REQUIRE(model.plan().devices.size() == 2);
  CHECK(model.plan().devices[0].device.id == "cpu");
  CHECK(model.plan().devices[1].device.id == "emulated1");
  CHECK(told == std::vector<std::string>{"cpu", "emulated1"});
  for (std::size_t i = 0; i < 2; ++i) {
    const auto memory = model.memory()[i];
    CHECK(memory.now.weights == model.plan().devices[i].weights);
    CHECK(memory.peak.weights >= memory.now.weights);
    CHECK(memory.peak.host >= memory.now.host);
  }
  nibble::session session(model);
  CHECK(logits_of(session, first).size() == 48);
  // another file's plan
  const auto other_bytes = test::tiny_model("qwen3").set("block_count", 3).make_tensors().bytes();
  const nibble::gguf::file other(other_bytes, "other");
  test::check_error(test::thrown([&] { nibble::model(other, found, plan, options); }),
                    errc::invalid_argument, {"the plan has 10 blocks"});
}

TEST_CASE("devices that are none, and plans that do not hold together, are refused") {
  const made_file made;
  const auto options = small_options();
  const auto refused = [&](auto work, std::string_view words) {
    test::check_error(test::thrown(work), errc::invalid_argument, {words});
  };
  const nibble::devices::hardware nothing;
  for (const char* const name : {"cpu", "cuda0"}) {
    auto named = options;
    named.device = name;
    refused([&] { nibble::model(made.file, nothing, named); }, "there is no device");
  }
  refused([&] { nibble::model(made.file, nothing, options); }, "needs a device");
  refused([&] { nibble::model(made.file, std::unique_ptr<nibble::backend>(), options); }, "null");
  nibble::gpu::emulated_module module(std::vector{nibble::gpu::emulated_options{}});
  const auto found = hardware_with(module);
  const nibble::placement good = nibble::plan(made.file, found, options);
  const auto with = [&](auto change) {
    nibble::placement bad = good;
    change(bad);
    return [&made, &found, &options, bad] { nibble::model(made.file, found, bad, options); };
  };
  using plan = nibble::placement;
  refused(with([](plan& p) { p.kv.layers.pop_back(); }), "do not belong together");
  refused(with([](plan& p) { p.kv.layers[0].key_length *= 2; }), "do not belong together");
  refused(with([](plan& p) { p.limits.max_tokens = 0; }), "do not belong together");
  refused(with([](plan& p) { p.limits.max_outputs = 0; }), "do not belong together");
  refused(with([](plan& p) { p.context = 1 << 20; }), "do not belong together");
  refused(with([](plan& p) { p.part = 0; }), "do not belong together");
  refused(with([](plan& p) { p.blocks[2].device = -3; }), "device -3");
  refused(with([](plan& p) { p.blocks.pop_back(); }), "blocks");
  std::vector<std::unique_ptr<nibble::backend>> none;
  refused([&] { nibble::model(made.file, std::move(none), good, options); }, "none was");
}

TEST_CASE("memory that is gone when the model is loaded: planned once more with what is left") {
  const made_file made;
  const auto options = small_options();
  std::uint64_t whole = 0;
  {
    nibble::gpu::emulated_module module(std::vector{nibble::gpu::emulated_options{}});
    whole = nibble::model(made.file, hardware_with(module), options).plan().devices[0].total();
  }
  for (const double left : {0.9, 0.5, 0.1}) {
    INFO(left);
    shrinking_module module(std::uint64_t{1} << 30,
                            static_cast<std::uint64_t>(left * static_cast<double>(whole)));
    const nibble::model model(made.file, hardware_with(module), options);
    INFO(model.plan());
    const auto& reasons = model.plan().reasons;
    REQUIRE(!reasons.empty());
    CHECK(reasons[0].find("The first plan could not be carried out") == 0);
    CHECK(reasons[0].find("emulated0") != std::string::npos);
    CHECK(model.plan().devices.back().device.id == "cpu");
    if (left > 0.3) CHECK(model.plan().devices.front().device.id == "emulated0");
    nibble::session session(model);
    CHECK(logits_of(session, first).size() == 48);
  }
}

TEST_CASE("each allocation that fails while loading: another plan or an error, and no crash") {
  const made_file made;
  const auto options = small_options();
  bool ended = false;
  for (std::int64_t n = 1; !ended; ++n) {
    REQUIRE(n < 100);
    nibble::gpu::emulated_module module(
        std::vector{nibble::gpu::emulated_options{.fail_allocation = n}});
    const auto found = hardware_with(module);
    try {
      const nibble::model model(made.file, found, options);
      nibble::session session(model);
      CHECK(logits_of(session, first).size() == 48);
      ended = model.plan().reasons.empty() ||
              model.plan().reasons[0].find("could not be carried out") == std::string::npos;
    } catch (const nibble::error& e) {
      INFO(e.what());
      CHECK(e.code() == errc::out_of_memory);
      CHECK(e.device().find("emulated0") == 0);
    }
  }
}

TEST_CASE("what fits into no memory stays on disk, if the model is in a file") {
  const test::temporary_folder folder;
  const auto bytes = test::tiny_model("llama")
                         .set("block_count", 8)
                         .set("context_length", 256)
                         .set("embedding_length", 256)
                         .set("feed_forward_length", 2048)
                         .make_tensors()
                         .bytes();
  const auto path = folder.path() / "model.gguf";
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  const nibble::gguf::file stored(path), in_memory(bytes, "in memory");
  auto options = small_options();
  nibble::devices::hardware found;
  found.all = {nibble::describe_cpu()};
  found.speeds["cpu"] =
      nibble::speed_of(nibble::device_kind::cpu, {.memory_bytes_per_second = 1e11});
  found.modules =
      std::make_shared<nibble::gpu_modules>(std::vector<std::filesystem::path>{"/nowhere"});
  const nibble::model whole(stored, found, options);
  REQUIRE(whole.plan().devices.size() == 1);
  options.plan.ram.bytes = whole.plan().devices[0].total() - (12 << 20);
  const nibble::model split(stored, found, options);
  INFO(split.plan());
  REQUIRE(split.plan().devices.size() == 2);
  CHECK(split.plan().devices[1].device.kind == nibble::device_kind::disk);
  std::uint64_t taken = 0;
  for (const auto& m : split.memory()) taken += m.now.device() + m.now.host;
  CHECK(taken <= options.plan.ram.bytes);
  const auto& reasons = split.plan().reasons;
  CHECK(std::any_of(reasons.begin(), reasons.end(), [](const std::string& r) {
    return r.find("are read from disk for each token") != r.npos;
  }));
  nibble::session a(whole), b(split);
  CHECK(logits_of(a, first) == logits_of(b, first));

  const auto failure = [&](const nibble::gguf::file& file) {
    return test::thrown([&] { nibble::model(file, found, options); });
  };
  test::check_error(failure(in_memory), errc::out_of_memory, {"the model needs"});
  options.plan.on_shortage = nibble::shortage::fail;
  test::check_error(failure(stored), errc::out_of_memory, {"the model needs"});
}

TEST_CASE("a model moves to other places, and its sessions go on") {
  const made_file made;
  const auto options = small_options();
  const nibble::model_definition definition(made.file);
  nibble::model_options on_cpu = options;
  on_cpu.device = "cpu";
  nibble::model model(made.file, on_cpu);
  const nibble::model still(made.file, on_cpu);
  nibble::session session(model), reference(still), fork(model);
  CHECK(logits_of(session, first) == logits_of(reference, first));
  const auto before = model.plan();

  // to two CPUs: bit by bit the same
  std::vector<std::unique_ptr<nibble::backend>> two;
  for (const int threads : {1, 2}) {
    two.push_back(test::cpu_place(threads).open(nibble::activation_type::float32));
  }
  const nibble::device_sizes* const sizes[] = {two[0].get(), two[1].get()};
  std::vector<std::int32_t> device_of(definition.blocks.size());
  for (std::size_t i = 0; i < device_of.size(); ++i) device_of[i] = i % 3 == 0 ? 1 : 0;
  const auto split = nibble::count_placement(definition, sizes, device_of, options.plan);
  model.move_to(made.file, std::move(two), split, options);
  CHECK(model.plan().devices.size() == 2);
  CHECK(logits_of(session, then) == logits_of(reference, then));
  fork = session.fork();

  // what does not fit is refused, and nothing has changed
  const auto refuse = [&](const nibble::gguf::file& file, nibble::plan_options plan,
                          std::string_view words) {
    std::vector<std::unique_ptr<nibble::backend>> one;
    one.push_back(test::cpu_place(1).open(nibble::activation_type::float32));
    const auto other = nibble::plan(nibble::model_definition(file), *one[0], plan);
    test::check_error(test::thrown([&] { model.move_to(file, std::move(one), other, options); }),
                      errc::invalid_argument, {words});
  };
  const auto other_bytes = test::tiny_model("qwen3").make_tensors().bytes();
  refuse(nibble::gguf::file(other_bytes, "other"), options.plan, "not the one");
  auto longer = options.plan;
  longer.context = 200;
  refuse(made.file, longer, "another context");
  CHECK(logits_of(session, first) == logits_of(reference, first));

  // to a GPU
  nibble::gpu::emulated_module module(std::vector{nibble::gpu::emulated_options{}});
  std::vector<std::unique_ptr<nibble::backend>> gpu;
  gpu.push_back(nibble::make_gpu_backend(module, 0, {nibble::activation_type::float32}));
  const auto on_gpu = nibble::plan(definition, *gpu[0], options.plan);
  model.move_to(made.file, std::move(gpu), on_gpu, options);
  CHECK(test::relative_rms(logits_of(session, then), logits_of(reference, then)) <= tolerance);
  CHECK(logits_of(fork, first).size() == 48);
}

TEST_CASE("a device that is lost: an error, and sessions go on after the model has moved") {
  const made_file made;
  const auto options = small_options();
  nibble::model_options on_cpu = options;
  on_cpu.device = "cpu";
  const nibble::model still(made.file, on_cpu);
  nibble::session reference(still);
  const auto expected_first = logits_of(reference, first);
  const auto expected = logits_of(reference, then);
  int lost = 0;
  for (const std::int64_t launch : {70, 90, 110}) {
    INFO(launch);
    nibble::gpu::emulated_module module(
        std::vector{nibble::gpu::emulated_options{.fail_launch = launch}});
    nibble::model model(made.file, hardware_with(module), options);
    REQUIRE(model.plan().devices[0].device.id == "emulated0");
    nibble::session session(model);
    std::vector<nibble::token> done;
    try {
      for (const auto& tokens : {first, then}) {
        logits_of(session, tokens);
        done.insert(done.end(), tokens.begin(), tokens.end());
      }
      continue;
    } catch (const nibble::error& e) {
      CHECK(e.code() == errc::device);
      CHECK(e.device().find("emulated0") == 0);
      ++lost;
    }
    // in the state before the step that failed
    CHECK(std::equal(session.tokens().begin(), session.tokens().end(), done.begin(), done.end()));
    std::vector<std::unique_ptr<nibble::backend>> cpu;
    cpu.push_back(nibble::make_cpu_backend(on_cpu.cpu));
    const auto plan = nibble::plan(nibble::model_definition(made.file), *cpu[0], options.plan);
    model.move_to(made.file, std::move(cpu), plan, options);
    if (done.empty()) CHECK(logits_of(session, first) == expected_first);
    CHECK(logits_of(session, then) == expected);
    nibble::session another(model);
    CHECK(logits_of(another, first) == expected_first);
  }
  CHECK(lost > 0);
}
