// Which block lies where: budgets, options, refusals; bytes to the last one.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nibble/device/sizes.hpp>
#include <nibble/nibble.hpp>
#include <random>
#include <sstream>

#include "../model/tiny_model.hpp"
#include "catch.hpp"
#include "errors.hpp"
#include "plan/block_catalogue.hpp"

namespace {

using nibble::block_kind;
using nibble::device_kind;
using nibble::errc;

// A model's header without its tensors' data, and what is defined by it.
struct header_model {
  explicit header_model(test::tiny_model model)
      : bytes(model.make_tensors({.matrices = {nibble::id_of<nibble::formats::q8_0>}}).bytes()),
        file(bytes, "model.gguf"),
        definition(file) {}

  std::vector<std::byte> bytes;
  nibble::gguf::file file;
  nibble::model_definition definition;
};

test::tiny_model wide_model(const std::string& name, int layers) {
  test::tiny_model m(name);
  m.set("block_count", layers).set("context_length", 4096).set("embedding_length", 128);
  m.set("feed_forward_length", 384);
  if (name == "qwen3moe") m.set_experts(8, 2);
  return m;
}

// Devices by what they have and how fast they are.
class machine {
 public:
  machine& add(device_kind kind, std::uint64_t memory, double bandwidth,
               std::uint64_t overhead = 0) {
    nibble::device_info info{.kind = kind, .name = {}};
    info.name =
        std::string(kind == device_kind::cpu ? "cpu" : "gpu") + std::to_string(sizes_.size());
    info.id = info.name;
    info.total_bytes = info.free_bytes = memory;
    sizes_.push_back(kind == device_kind::cpu    ? nibble::make_cpu_sizes({.threads = 2}, info)
                     : kind == device_kind::disk ? nibble::make_disk_sizes({})
                                                 : nibble::make_gpu_sizes(info));
    nibble::device_sheet sheet{.memory_bytes_per_second = bandwidth};
    if (!nibble::computes_on_cpu(kind)) sheet.link_bytes_per_second = 20e9;
    offers_.push_back({.sizes = sizes_.back().get(),
                       .speed = nibble::speed_of(kind, sheet),
                       .overhead = overhead,
                       .budget = memory});
    return *this;
  }
  std::span<const nibble::offered_device> offers() const { return offers_; }
  std::vector<nibble::offered_device>& change() { return offers_; }

 private:
  std::vector<std::unique_ptr<nibble::device_sizes>> sizes_;
  std::vector<nibble::offered_device> offers_;
};

std::int64_t blocks_on(const nibble::placement& p, std::int32_t device) {
  return std::count_if(p.blocks.begin(), p.blocks.end(),
                       [device](const auto& b) { return b.device == device; });
}

bool says(const nibble::placement& p, const std::string& words) {
  return std::any_of(p.reasons.begin(), p.reasons.end(),
                     [&](const std::string& r) { return r.find(words) != r.npos; });
}

// By the plan's own numbers: what a request takes.
double seconds_of(const nibble::placement& p, const nibble::plan_options& o) {
  return o.prompt_tokens / p.predicted.prompt + o.generated_tokens / p.predicted.generation;
}

void check_budgets(const nibble::placement& p) {
  for (const nibble::device_use& use : p.devices) {
    INFO(use.device.name);
    CHECK(use.total() <= use.budget);
  }
}

std::uint64_t whole_bytes(const header_model& m, const nibble::plan_options& o) {
  machine one;
  one.add(device_kind::cuda, std::uint64_t{1} << 40, 1e12);
  return nibble::plan(m.definition, one.offers(), o).devices[0].total();
}

}  // namespace

TEST_CASE("what fits on one GPU lies there, and what does not is shared out within the budgets") {
  for (const char* const name : {"llama", "gemma3", "qwen3moe", "gpt-oss"}) {
    const header_model m(wide_model(name, 6));
    nibble::plan_options options;
    options.context = 512;
    options.batch = 64;
    const std::uint64_t whole = whole_bytes(m, options);
    double before = std::numeric_limits<double>::infinity();
    for (const double share : {0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.99, 1.0, 1.5}) {
      INFO(name << ", " << share);
      machine both;
      both.add(device_kind::cuda, static_cast<std::uint64_t>(share * static_cast<double>(whole)),
               1e12);
      both.add(device_kind::cpu, std::uint64_t{1} << 36, 1e8);
      const nibble::placement p = nibble::plan(m.definition, both.offers(), options);
      check_budgets(p);
      if (share >= 1) CHECK(blocks_on(p, 0) == static_cast<std::int64_t>(p.blocks.size()));
      if (share == 0) CHECK(blocks_on(p, 0) == 0);
      if (share > 0 && share < 0.95) CHECK(says(p, "more memory on the GPU"));
      // more memory is never slower
      const double seconds = seconds_of(p, options);
      if (p.optimal)
        CHECK(seconds <= before * 1.021);  // what lies on GPUs as a whole may be slower by 2 %
      before = seconds;
    }
  }
}

TEST_CASE("two equal GPUs are filled evenly, and no memory is left in which a block would fit") {
  const header_model m(wide_model("llama", 12));
  nibble::plan_options options;
  options.context = 512;
  options.batch = 64;
  const std::uint64_t whole = whole_bytes(m, options);
  for (const double share : {0.55, 0.6, 0.75}) {
    machine two;
    const auto each = static_cast<std::uint64_t>(share * static_cast<double>(whole));
    two.add(device_kind::cuda, each, 1e12).add(device_kind::cuda, each, 1e12);
    two.add(device_kind::cpu, std::uint64_t{1} << 36, 1e8);
    const nibble::placement p = nibble::plan(m.definition, two.offers(), options);
    INFO(share << "\n" << p);
    check_budgets(p);
    CHECK(blocks_on(p, 2) == 0);
    std::uint64_t greatest = 0;
    for (const auto& b : p.blocks) greatest = std::max(greatest, b.weights);
    const auto a = p.devices[0].total(), b = p.devices[1].total();
    CHECK(std::max(a, b) - std::min(a, b) <= 2 * greatest);
  }
  for (const double share : {0.2, 0.3, 0.4}) {
    machine two;
    const auto each = static_cast<std::uint64_t>(share * static_cast<double>(whole));
    two.add(device_kind::cuda, each, 1e12).add(device_kind::cuda, each, 1e12);
    two.add(device_kind::cpu, std::uint64_t{1} << 36, 1e8);
    const nibble::placement p = nibble::plan(m.definition, two.offers(), options);
    INFO(share << "\n" << p);
    check_budgets(p);
    std::uint64_t smallest = whole;
    for (const auto& b : p.blocks) {
      if (b.device == 2 && b.block.kind == block_kind::feed_forward) {
        smallest = std::min(smallest, b.weights);
      }
    }
    for (const int d : {0, 1}) {
      const auto& use = p.devices[static_cast<std::size_t>(d)];
      CHECK(use.budget - use.total() < smallest + use.workspace);
    }
  }
}

TEST_CASE("bytes of a plan are those of its blocks") {
  const header_model m(wide_model("qwen3", 4));
  machine both;
  both.add(device_kind::cuda, 1 << 20, 1e12).add(device_kind::cpu, std::uint64_t{1} << 36, 1e8);
  nibble::plan_options options;
  options.context = 300;
  options.batch = 64;
  options.sessions = 3;
  const nibble::placement p = nibble::plan(m.definition, both.offers(), options);
  REQUIRE(p.segments().size() > 1);
  std::vector<const nibble::device_sizes*> sizes;
  std::vector<std::int32_t> device_of;
  for (const auto& o : both.offers()) sizes.push_back(o.sizes);
  for (const auto& b : p.blocks) device_of.push_back(b.device);
  const auto counted = nibble::count_placement(m.definition, sizes, device_of, options);
  std::uint64_t weights = 0, of_blocks = 0;
  for (std::size_t d = 0; d < p.devices.size(); ++d) {
    CHECK(counted.devices[d].weights == p.devices[d].weights);
    CHECK(counted.devices[d].kv == p.devices[d].kv);
    CHECK(counted.devices[d].workspace == p.devices[d].workspace);
    weights += p.devices[d].weights;
  }
  for (const auto& b : p.blocks) of_blocks += b.weights;
  CHECK(weights == of_blocks);
  CHECK(p.devices[1].transfers == p.host_bytes);
}

TEST_CASE("layers on GPUs by number, and blocks that are pinned") {
  const header_model m(wide_model("llama", 6));
  machine both;
  both.add(device_kind::cuda, std::uint64_t{1} << 34, 1e12);
  both.add(device_kind::cpu, std::uint64_t{1} << 36, 1e8);
  for (const int n : {0, 1, 3, 6, 7, 100}) {
    nibble::plan_options options;
    options.context = 256;
    options.batch = 64;
    options.gpu_layers = n;
    const nibble::placement p = nibble::plan(m.definition, both.offers(), options);
    for (const auto& b : p.blocks) {
      INFO(n << ": " << nibble::to_text(b.block));
      if (b.block.kind == block_kind::embedding) continue;
      const bool head = b.block.kind == block_kind::head;
      CHECK((b.device == 0) == (head ? n > 6 : b.block.layer >= 6 - n));
    }
  }
  using part = nibble::pinned_blocks::part;
  nibble::plan_options options;
  options.context = 256;
  options.batch = 64;
  options.pins = {{.what = part::all, .first = 2, .last = 4, .device = 1},
                  {.what = part::attention, .first = 3, .device = 0},
                  {.what = part::embedding, .device = 1},
                  {.what = part::head, .device = 1}};
  const nibble::placement p = nibble::plan(m.definition, both.offers(), options);
  const auto device_of = [&](block_kind kind, std::int32_t layer) {
    const auto found = std::find_if(p.blocks.begin(), p.blocks.end(), [&](const auto& b) {
      return b.block == nibble::block_id{kind, layer};
    });
    return found->device;
  };
  CHECK(device_of(block_kind::embedding, 0) == 1);
  CHECK(device_of(block_kind::head, 0) == 1);
  CHECK(device_of(block_kind::attention, 2) == 1);
  CHECK(device_of(block_kind::feed_forward, 2) == 1);
  CHECK(device_of(block_kind::attention, 3) == 0);  // the later pin wins
  CHECK(device_of(block_kind::feed_forward, 3) == 1);
  CHECK(device_of(block_kind::attention, 5) == 0);
}

TEST_CASE("a number of layers that changes nothing is explained") {
  const header_model m(wide_model("llama", 6));
  nibble::plan_options options;
  options.context = 256;
  options.gpu_layers = 3;
  machine no_gpu, no_cpu;
  no_gpu.add(device_kind::cpu, std::uint64_t{1} << 36, 1e8);
  no_cpu.add(device_kind::cuda, std::uint64_t{1} << 36, 1e12);
  CHECK(says(nibble::plan(m.definition, no_gpu.offers(), options),
             "3 layers on GPUs were asked for, which changes nothing: there is no GPU"));
  CHECK(says(nibble::plan(m.definition, no_cpu.offers(), options), "there is no CPU"));
  options.gpu_layers = -1;
  CHECK_FALSE(says(nibble::plan(m.definition, no_gpu.offers(), options), "changes nothing"));
}

TEST_CASE("for long prompts GPUs share the layers, as parts of a prompt overlap") {
  const header_model m(wide_model("llama", 8));
  machine two;
  for (int i = 0; i < 2; ++i) {
    two.add(device_kind::cuda, std::uint64_t{1} << 34, 1e9);
    nibble::device_speed& speed = two.change().back().speed;  // what a token takes counts
    speed.step_seconds = speed.attend_seconds = speed.run_seconds = speed.link_seconds = 1e-9;
    for (auto& f : speed.formats) f.macs_per_second = 1e7;
  }
  nibble::plan_options options;
  options.context = 4096;
  options.batch = 512;
  options.prompt_tokens = 4096;
  options.generated_tokens = 0;
  const nibble::placement shared = nibble::plan(m.definition, two.offers(), options);
  INFO(shared);
  // by the sum of what devices take, one GPU alone would be the fastest
  CHECK(blocks_on(shared, 0) > 0);
  CHECK(blocks_on(shared, 1) > 0);
  CHECK(shared.segments().size() == 2);
  CHECK_FALSE(shared.optimal);
  options.pins = {{.device = 0},
                  {.what = nibble::pinned_blocks::part::embedding, .device = 0},
                  {.what = nibble::pinned_blocks::part::head, .device = 0}};
  const nibble::placement alone = nibble::plan(m.definition, two.offers(), options);
  CHECK(shared.predicted.prompt > 1.3 * alone.predicted.prompt);
  options.pins.clear();
  options.prompt_tokens = 0;
  options.generated_tokens = 256;
  const nibble::placement one = nibble::plan(m.definition, two.offers(), options);
  CHECK(one.segments().size() == 1);
  CHECK(one.optimal);
}

TEST_CASE("too little on the GPUs: a warning, concessions, or a refusal") {
  const header_model m(wide_model("llama", 6));
  nibble::plan_options options;
  options.context = 4096;
  options.batch = 64;
  options.least_context = 256;
  const std::uint64_t whole = whole_bytes(m, options);
  nibble::plan_options q8 = options;
  q8.key = q8.value = nibble::kv_type::q8;
  const std::uint64_t with_q8 = whole_bytes(m, q8);
  nibble::plan_options brief = options;
  brief.context = 1024;
  const std::uint64_t with_less = whole_bytes(m, brief);
  REQUIRE(with_q8 < whole);
  REQUIRE(with_less < with_q8);
  const auto on = [&](std::uint64_t memory) {
    machine both;
    both.add(device_kind::cuda, memory, 1e12);
    both.add(device_kind::cpu, std::uint64_t{1} << 36, 1e8);
    return both;
  };
  const auto enough = on(whole), half = on(with_q8), little = on(with_less);

  options.on_shortage = nibble::shortage::degrade;
  auto p = nibble::plan(m.definition, half.offers(), options);
  CHECK(p.kv.key == nibble::kv_type::q8);
  CHECK(p.kv.value == nibble::kv_type::q8);
  CHECK(p.context == 4096);
  CHECK(blocks_on(p, 1) == 0);
  CHECK(says(p, "Keys are q8 and values q8 instead of f16 and f16"));
  p = nibble::plan(m.definition, enough.offers(), options);
  CHECK(p.kv.key == nibble::kv_type::f16);

  options.concessions = {nibble::concession::context};
  p = nibble::plan(m.definition, little.offers(), options);
  CHECK(p.kv.key == nibble::kv_type::f16);
  CHECK(p.context >= 1024);
  CHECK(p.context < 4096);
  CHECK(blocks_on(p, 1) == 0);
  CHECK(says(p, "tokens instead of 4096"));

  options.on_shortage = nibble::shortage::fail;
  const nibble::error e = test::thrown([&] { nibble::plan(m.definition, half.offers(), options); });
  test::check_error(e, errc::out_of_memory,
                    {"on one GPU", "gpu0", "more memory on the GPU", "With q8 keys and values",
                     "With a context of"});
  CHECK_NOTHROW(nibble::plan(m.definition, enough.offers(), options));

  options.on_shortage = nibble::shortage::warn;
  p = nibble::plan(m.definition, half.offers(), options);
  CHECK(blocks_on(p, 1) > 0);
  CHECK(says(p, "With q8 keys and values everything would fit"));
}

TEST_CASE("the longest context that fits is found") {
  const header_model m(wide_model("llama", 6));
  nibble::plan_options options;
  options.longest_context = true;
  options.batch = 64;
  options.least_context = 256;
  nibble::plan_options fixed;
  fixed.context = 2000;
  fixed.batch = 64;
  machine both;
  both.add(device_kind::cuda, whole_bytes(m, fixed), 1e12);
  both.add(device_kind::cpu, std::uint64_t{1} << 36, 1e8);
  const auto p = nibble::plan(m.definition, both.offers(), options);
  CHECK(blocks_on(p, 1) == 0);
  CHECK(p.context >= 2000 - 256);
  CHECK(p.context <= 2000 + 48);  // pages are whole
  machine plenty;
  plenty.add(device_kind::cuda, std::uint64_t{1} << 36, 1e12);
  CHECK(nibble::plan(m.definition, plenty.offers(), options).context == 4096);
}

TEST_CASE("memory limits and headroom make budgets") {
  const header_model m(wide_model("llama", 2));
  nibble::plan_options options;
  options.context = 256;
  options.batch = 64;
  machine both;
  both.add(device_kind::cuda, 1000 << 20, 1e12).add(device_kind::cpu, 2000 << 20, 1e8);
  for (auto& o : both.change()) o.budget.reset();
  const auto budgets = [&] {
    const auto p = nibble::plan(m.definition, both.offers(), options);
    return std::pair(p.devices[0].budget, p.devices[1].budget);
  };
  CHECK(budgets() == std::pair<std::uint64_t, std::uint64_t>(
                         (1000 << 20) - std::uint64_t(0.1 * (1000 << 20)),
                         (2000 << 20) - std::uint64_t(0.1 * double(2000u << 20))));
  options.headroom_bytes = 100 << 20;
  CHECK(budgets() == std::pair<std::uint64_t, std::uint64_t>(900 << 20, 1900 << 20));
  options.vram.bytes = 950 << 20;  // more than headroom leaves: it is what was asked for
  options.ram.share = 0.25;
  CHECK(budgets() == std::pair<std::uint64_t, std::uint64_t>(950 << 20, 500 << 20));
}

TEST_CASE("what a driver takes counts once its device is used") {
  const header_model m(wide_model("llama", 2));
  nibble::plan_options options;
  options.context = 256;
  options.batch = 64;
  const std::uint64_t whole = whole_bytes(m, options);
  machine both;
  both.add(device_kind::cuda, whole + 1000, 1e12, 1000);
  both.add(device_kind::cpu, std::uint64_t{1} << 36, 1e8);
  auto p = nibble::plan(m.definition, both.offers(), options);
  CHECK(blocks_on(p, 1) == 0);
  CHECK(p.devices[0].overhead == 1000);
  both.change()[0].overhead = 2000;
  p = nibble::plan(m.definition, both.offers(), options);
  CHECK(blocks_on(p, 1) > 0);
}

TEST_CASE("plans that cannot be are refused with what is needed") {
  const header_model m(wide_model("llama", 2));
  machine small;
  small.add(device_kind::cuda, 1 << 16, 1e12).add(device_kind::cpu, 1 << 16, 1e8);
  nibble::plan_options options;
  options.context = 256;
  options.batch = 64;
  const auto refused = [&](const nibble::plan_options& o,
                           std::span<const nibble::offered_device> on) {
    return test::thrown([&] { nibble::plan(m.definition, on, o); });
  };
  test::check_error(refused(options, small.offers()), errc::out_of_memory,
                    {"the model needs", "gpu0 64.0 KiB", "cpu1 64.0 KiB"});
  test::check_error(refused(options, {}), errc::invalid_argument, {"needs a device"});
  machine fine;
  fine.add(device_kind::cpu, std::uint64_t{1} << 36, 1e8);
  const auto bad = [&](auto change, const char* words) {
    nibble::plan_options o = options;
    change(o);
    test::check_error(refused(o, fine.offers()), errc::invalid_argument, {words});
  };
  bad([](auto& o) { o.headroom = 1.5; }, "headroom of 1.5");
  bad([](auto& o) { o.headroom = std::nan(""); }, "headroom");
  bad([](auto& o) { o.vram.share = -1; }, "share of -1");
  bad([](auto& o) { o.gpu_layers = -2; }, "-2 layers");
  bad([](auto& o) { o.pins = {{.device = 1}}; }, "device 1");
  bad([](auto& o) { o.pins = {{.first = 1, .last = 0}}; }, "no range");
  bad([](auto& o) { o.prompt_tokens = o.generated_tokens = 0; }, "makes no sense");
  bad([](auto& o) { o.least_context = 0; }, "as the least");
  bad([](auto& o) { o.pins = {{.first = 7, .last = 9}}; }, "layers from 7 on were pinned");
  bad([](auto& o) { o.prompt_tokens = 1e308; }, "makes no sense");
  std::vector<nibble::offered_device> unknown(fine.offers().begin(), fine.offers().end());
  unknown[0].speed = {};
  test::check_error(refused(options, unknown), errc::invalid_argument, {"speed"});
  for (const double rate : {-1.0, 0.0, std::nan("")}) {
    std::vector<nibble::offered_device> odd(fine.offers().begin(), fine.offers().end());
    odd[0].speed.formats[3].bytes_per_second = rate;
    test::check_error(refused(options, odd), errc::invalid_argument,
                      {"rates that are not positive"});
  }
  options.pins = {{.device = 0}};
  test::check_error(refused(options, small.offers()), errc::out_of_memory, {"asked to be"});
}

TEST_CASE("experts that stay on disk get what is left of the memory") {
  auto made = wide_model("qwen3moe", 6);
  made.set_experts(40, 2).set("expert_feed_forward_length", 320);
  const header_model m(made);
  nibble::plan_options options;
  options.context = 512;
  options.batch = 64;
  machine only_cpu;
  only_cpu.add(device_kind::cpu, std::uint64_t{1} << 40, 1e10);
  const auto in_memory = nibble::plan(m.definition, only_cpu.offers(), options);
  const std::uint64_t whole = in_memory.devices[0].total();
  REQUIRE(whole > nibble::disk_staging_bytes() * 5 / 4);
  std::int64_t before = 0;
  double slower = 0;
  for (const double share : {0.84, 0.88, 0.94, 0.99}) {
    INFO(share);
    const auto memory = static_cast<std::uint64_t>(share * static_cast<double>(whole));
    machine both;
    // disk is 10 times slower, and its memory is the CPU's
    both.add(device_kind::cpu, memory, 1e10).add(device_kind::disk, 0, 1e9);
    const auto p = nibble::plan(m.definition, both.offers(), options);
    for (const auto& b : p.blocks) {
      CHECK((b.on_demand > 0) == (b.block.kind == block_kind::feed_forward));
      CHECK((b.device == 1 || b.on_demand == 0));
      if (b.on_demand > 0) CHECK(b.streamed == 0);  // routers are kept
    }
    const auto& experts = p.devices[1].experts;
    CHECK(experts.slot_bytes > 0);
    CHECK(experts.slots >= 40);
    CHECK(experts.slots < 6 * 40);
    const std::uint64_t used = p.devices[0].total() + p.devices[1].total();
    CHECK(used <= memory);
    CHECK(used + experts.slot_bytes > memory);
    CHECK(p.free_on(0) == memory - used);
    CHECK(p.free_on(1) == p.free_on(0));
    CHECK(experts.slots > before);
    CHECK(p.predicted.generation > slower);
    CHECK(p.predicted.generation < in_memory.predicted.generation);
    CHECK(says(p, "of 240 there is room for " + std::to_string(experts.slots)));
    before = experts.slots;
    slower = p.predicted.generation;
  }
}

TEST_CASE("a disk that is not needed changes nothing") {
  for (const char* const name : {"llama", "qwen3moe"}) {
    const header_model m(wide_model(name, 6));
    nibble::plan_options options;
    options.context = 512;
    const std::uint64_t whole = whole_bytes(m, options);
    for (const double share : {0.0, 0.5, 2.0}) {
      INFO(name << ", " << share);
      const auto plan_with = [&](bool disk) {
        machine all;
        all.add(device_kind::cuda, static_cast<std::uint64_t>(share * static_cast<double>(whole)),
                1e12);
        all.add(device_kind::cpu, std::uint64_t{1} << 36, 1e10);
        if (disk) all.add(device_kind::disk, 0, 1e9);
        return nibble::plan(m.definition, all.offers(), options);
      };
      const auto with = plan_with(true), without = plan_with(false);
      CHECK(blocks_on(with, 2) == 0);
      CHECK(with.part == without.part);
      for (std::size_t b = 0; b < with.blocks.size(); ++b) {
        CHECK(with.blocks[b].device == without.blocks[b].device);
      }
      CHECK(with.predicted.generation == without.predicted.generation);
    }
  }
}

TEST_CASE("a plan is the same each time, and prints") {
  const header_model m(wide_model("qwen3moe", 5));
  machine both;
  both.add(device_kind::cuda, 700 << 10, 1e12).add(device_kind::hip, 600 << 10, 5e11);
  both.add(device_kind::cpu, std::uint64_t{1} << 36, 1e8);
  nibble::plan_options options;
  options.context = 128;
  options.batch = 64;
  const auto text = [&] {
    std::ostringstream out;
    out << nibble::plan(m.definition, both.offers(), options);
    return out.str();
  };
  const std::string first = text();
  CHECK(first == text());
  for (const char* const part : {"gpu0", "gpu1", "cpu2", "KV cache", "[#", "tokens of a prompt"}) {
    INFO(first << "\nexpected: " << part);
    CHECK(first.find(part) != first.npos);
  }
}
