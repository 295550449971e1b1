// Models whose blocks lie on several devices: the same numbers as on one, and bytes as planned.
#include <nibble/nibble.hpp>
#include <numeric>
#include <random>

#include "../model/tiny_model.hpp"
#include "catch.hpp"
#include "errors.hpp"
#include "places.hpp"
#include "run_model.hpp"
#include "temporary_folder.hpp"

namespace {

using nibble::activation_type;
using nibble::block_kind;

struct split {
  std::string name;
  std::vector<std::int32_t> device_of;  // by block
};

// Embedding, attention and feed-forward halves in turn, head: ways to share them out between two.
std::vector<split> splits_of(const nibble::model_definition& model) {
  const std::size_t n = model.blocks.size();
  std::vector<split> all;
  const auto add = [&](std::string name, auto device) {
    split s{std::move(name), std::vector<std::int32_t>(n)};
    for (std::size_t i = 0; i < n; ++i) s.device_of[i] = device(i, model.blocks[i]);
    all.push_back(std::move(s));
  };
  using id = nibble::block_id;
  add("all on the first", [](std::size_t, const id&) { return 0; });
  add("all on the second", [](std::size_t, const id&) { return 1; });
  add("half of the layers", [n](std::size_t i, const id&) { return i > n / 2 ? 1 : 0; });
  add("feed-forward halves on the second",
      [](std::size_t, const id& b) { return b.kind == block_kind::feed_forward ? 1 : 0; });
  add("attention on the second",
      [](std::size_t, const id& b) { return b.kind == block_kind::attention ? 1 : 0; });
  add("embedding and head on the second", [](std::size_t, const id& b) {
    return b.kind == block_kind::embedding || b.kind == block_kind::head ? 1 : 0;
  });
  add("the head on the second",
      [](std::size_t, const id& b) { return b.kind == block_kind::head ? 1 : 0; });
  std::minstd_rand random(static_cast<unsigned>(n));
  add("at random", [&](std::size_t, const id&) { return static_cast<int>(random() >> 8) & 1; });
  return all;
}

std::vector<nibble::token> some_tokens(std::size_t count) {
  std::vector<nibble::token> tokens(count);
  std::minstd_rand random(7);
  for (auto& t : tokens) t = static_cast<nibble::token>(random() % 48);
  return tokens;
}

using test::place;

std::vector<std::unique_ptr<nibble::backend>> open_all(const std::vector<place>& places,
                                                       activation_type activations) {
  std::vector<std::unique_ptr<nibble::backend>> devices;
  for (const place& p : places) devices.push_back(p.open(activations));
  return devices;
}

nibble::placement count(const nibble::model_definition& definition,
                        const std::vector<std::unique_ptr<nibble::backend>>& devices,
                        const std::vector<std::int32_t>& device_of,
                        const nibble::plan_options& options) {
  std::vector<const nibble::device_sizes*> sizes;
  for (const auto& d : devices) sizes.push_back(d.get());
  return nibble::count_placement(definition, sizes, device_of, options);
}

nibble::model load(const nibble::gguf::file& file, const std::vector<place>& places,
                   const std::vector<std::int32_t>& device_of, const nibble::model_options& o) {
  auto devices = open_all(places, o.cpu.activations);
  const auto plan = count(nibble::model_definition(file), devices, device_of, o.plan);
  return nibble::model(file, std::move(devices), plan, o);
}

void check_bytes(const nibble::model& model) {
  const auto& plan = model.plan();
  const auto found = model.memory();
  REQUIRE(found.size() == plan.devices.size());
  std::uint64_t host = 0;
  for (std::size_t d = 0; d < found.size(); ++d) {
    INFO(plan.devices[d].device.name);
    CHECK(found[d].now.weights == plan.devices[d].weights);
    CHECK(found[d].now.kv == plan.devices[d].kv);
    CHECK(found[d].now.workspace == plan.devices[d].workspace);
    host += found[d].now.host;
  }
  const std::size_t between = plan.segments().size() > 1
                                  ? sizeof(float) *
                                        static_cast<std::size_t>(plan.limits.max_tokens) *
                                        static_cast<std::size_t>(model.hparams().n_embd)
                                  : 0;
  const std::size_t logits = plan.segments().size() > 1 && plan.part < plan.limits.max_tokens
                                 ? sizeof(float) *
                                       static_cast<std::size_t>(plan.limits.max_outputs) *
                                       static_cast<std::size_t>(model.hparams().n_vocab)
                                 : 0;
  CHECK(host + between + logits == plan.host_bytes);
}

nibble::model_options options_for(activation_type activations) {
  auto options = test::exact_options(activations, 1);
  options.plan.batch = 128;  // in two parts, where there are two segments
  options.plan.context = 200;
  options.plan.all_logits = true;
  return options;
}

// All tokens at once, then some one by one.
std::vector<float> run(const nibble::model& model, std::span<const nibble::token> tokens) {
  std::vector<float> all;
  nibble::session session(model);
  const auto take = [&](std::size_t, std::span<const float> logits) {
    all.insert(all.end(), logits.begin(), logits.end());
  };
  const std::size_t single = 3;
  session.append(tokens.first(tokens.size() - single), take);
  for (std::size_t i = tokens.size() - single; i < tokens.size(); ++i) {
    session.append(tokens.subspan(i, 1), take);
  }
  return all;
}

}  // namespace

TEST_CASE("a model on two CPUs computes what it does on one, however it is split") {
  const auto tokens = some_tokens(150);
  for (const std::string& name : test::architectures()) {
    const auto bytes = test::tiny_model(name).set("context_length", 256).make_tensors().bytes();
    const nibble::gguf::file file(bytes, name);
    const auto options = options_for(activation_type::int8);
    const auto expected =
        run(nibble::model(file, test::cpu_place(1).open(activation_type::int8), options), tokens);
    for (const split& s : splits_of(nibble::model_definition(file))) {
      INFO(name << ", " << s.name);
      const auto model = load(file, {test::cpu_place(1), test::cpu_place(2)}, s.device_of, options);
      check_bytes(model);
      CHECK(run(model, tokens) == expected);
    }
  }
}

TEST_CASE("a model between the CPU and GPUs computes what it does on the CPU") {
  // Sums of the same numbers in another order: of up to 64 products, and of steps that follow; an
  // error of 2^-24 grows by the square root of the number of sums in a row, here about 2^6.
  // GELU takes a value rounded to f16: one of 64 that falls to the other side changes by 2^-11,
  // which is 2^-14 of them all.
  const auto tolerance = [](const std::string& name) { return name == "gemma3" ? 1e-4 : 1e-5; };
  const auto places = test::emulated_places();
  if (places.empty()) return;
  const auto tokens = some_tokens(70);
  std::size_t turn = 0;
  for (const std::string& name : test::architectures()) {
    const auto bytes = test::tiny_model(name).set("context_length", 256).make_tensors().bytes();
    const nibble::gguf::file file(bytes, name);
    auto options = options_for(activation_type::float32);
    options.plan.batch = 66;
    const auto expected = run(
        nibble::model(file, test::cpu_place(1).open(activation_type::float32), options), tokens);
    for (const split& s : splits_of(nibble::model_definition(file))) {
      const place& gpu = places[turn % places.size()];
      // two of a kind, or one beside the CPU
      const place& first = turn % 4 == 3 ? gpu : test::cpu_place(1);
      ++turn;
      INFO(name << ", " << s.name << ": " << first.name << " and " << gpu.name);
      const auto model = load(file, {first, gpu}, s.device_of, options);
      check_bytes(model);
      CHECK(test::relative_rms(run(model, tokens), expected) <= tolerance(name));
    }
  }
}

TEST_CASE("sessions of split models fork, shift and are saved as those on one device") {
  const auto bytes = test::tiny_model("gemma3").set("context_length", 256).make_tensors().bytes();
  const nibble::gguf::file file(bytes, "gemma3");
  auto options = options_for(activation_type::int8);
  options.plan.key = options.plan.value = nibble::kv_type::q8;
  options.plan.sessions = 4;
  const auto whole = nibble::model(file, test::cpu_place(1).open(activation_type::int8), options);
  const auto tokens = some_tokens(120);
  const auto logits_after = [&](nibble::session session, std::size_t first) {
    std::vector<float> all;
    session.append(std::span(tokens).subspan(first, 10),
                   [&](std::size_t, std::span<const float> logits) {
                     all.insert(all.end(), logits.begin(), logits.end());
                   });
    return all;
  };
  const test::temporary_folder folder;
  for (const split& s : splits_of(nibble::model_definition(file))) {
    INFO(s.name);
    const auto model = load(file, {test::cpu_place(2), test::cpu_place(1)}, s.device_of, options);
    nibble::session one(whole), other(model);
    one.append(std::span(tokens).first(90));
    other.append(std::span(tokens).first(90));
    CHECK(logits_after(one.fork(), 90) == logits_after(other.fork(), 90));
    // what one saves, the other loads
    const auto path = folder.path() / "session";
    other.save(path);
    CHECK(logits_after(nibble::session::load(whole, path), 90) == logits_after(one.fork(), 90));
    one.save(path);
    CHECK(logits_after(nibble::session::load(model, path), 90) == logits_after(one.fork(), 90));
    one.truncate(40);
    other.truncate(40);
    CHECK(logits_after(one.fork(), 50) == logits_after(other.fork(), 50));
  }
}

TEST_CASE("plans for other models or devices are refused") {
  const auto bytes = test::tiny_model("llama").make_tensors().bytes();
  const auto more = test::tiny_model("llama").set("block_count", 3).make_tensors().bytes();
  const nibble::gguf::file file(bytes, "a"), other(more, "b");
  const nibble::model_definition definition(file);
  const auto options = options_for(activation_type::int8);
  auto devices = open_all({test::cpu_place(1), test::cpu_place(1)}, activation_type::int8);
  const std::vector<std::int32_t> all(definition.blocks.size(), 1);
  const auto plan = count(definition, devices, all, options.plan);
  test::check_error(test::thrown([&] { nibble::model(other, std::move(devices), plan, options); }),
                    nibble::errc::invalid_argument, {"6 blocks", "8"});
  test::check_error(test::thrown([&] {
                      nibble::model(file, open_all({test::cpu_place(1)}, activation_type::int8),
                                    plan, options);
                    }),
                    nibble::errc::invalid_argument, {"on 2 devices", "and 1 devices were given"});
  const auto one = open_all({test::cpu_place(1)}, activation_type::int8);
  test::check_error(test::thrown([&] { count(definition, one, all, options.plan); }),
                    nibble::errc::invalid_argument, {"device 1", "there are 1"});
  const std::vector<std::int32_t> few(2, 0);
  test::check_error(test::thrown([&] { count(definition, one, few, options.plan); }),
                    nibble::errc::invalid_argument, {"2 blocks", "has 6"});
}
