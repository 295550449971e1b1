// nibble-plan: what it prints and writes, and what it refuses.

#include <nlohmann/json.hpp>
#include <set>

#include "process.hpp"
#include "synth_file.hpp"

namespace {

using strings = std::vector<std::string>;

const test::synth_file& model_8b() {
  static const test::synth_file file({"--preset", "llama-3.1-8b", "--header-only"});
  return file;
}

strings with(strings more) {
  more.insert(more.begin(), model_8b().path());
  return more;
}

void refused(strings more, std::initializer_list<std::string_view> words, int status = 2) {
  test::check_refused(test::run("plan", with(std::move(more))), words, status);
}

}  // namespace

TEST_CASE("plan: a table, JSON whose sums are right, and a drawing") {
  const test::temporary_folder folder;
  const auto json = folder / "plan.json", svg = folder / "plan.svg";
  const std::string text = test::run_well(
      "plan", with({"--device", "gpu:4GiB:1008GB/s:pcie4x16", "--device", "cpu:64GiB:80GB/s", "-c",
                    "4096", "--json", json.string(), "--svg", svg.string()}));
  for (const char* const part :
       {"cuda0", "cpu", "KV cache", "expected:", "more memory on the GPU"}) {
    INFO(text << "\nexpected: " << part);
    CHECK(test::contains(text, part));
  }
  const auto plan = nlohmann::json::parse(test::read_file(json));
  REQUIRE(plan.at("devices").size() == 2);
  std::uint64_t weights = 0, of_blocks = 0;
  for (const auto& device : plan.at("devices")) {
    const auto& bytes = device.at("bytes");
    const auto total = bytes.at("total").get<std::uint64_t>();
    CHECK(bytes.at("weights").get<std::uint64_t>() + bytes.at("kv").get<std::uint64_t>() +
              bytes.at("workspace").get<std::uint64_t>() +
              bytes.at("transfers").get<std::uint64_t>() +
              bytes.at("overhead").get<std::uint64_t>() ==
          total);
    CHECK(total + device.at("free_bytes").get<std::uint64_t>() ==
          device.at("budget_bytes").get<std::uint64_t>());
    weights += bytes.at("weights").get<std::uint64_t>();
  }
  std::set<std::string> used;
  for (const auto& block : plan.at("blocks")) {
    of_blocks += block.at("weight_bytes").get<std::uint64_t>();
    used.insert(block.at("device").get<std::string>());
  }
  CHECK(plan.at("blocks").size() == 66);
  CHECK(weights == of_blocks);
  CHECK(used == std::set<std::string>{"cpu", "cuda0"});
  CHECK(plan.at("context") == 4096);
  CHECK(plan.at("predicted").at("generated_tokens_per_second").get<double>() > 0);
  const std::string drawing = test::read_file(svg);
  CHECK(drawing.starts_with("<svg"));
  CHECK(drawing.ends_with("</svg>\n"));
}

TEST_CASE("plan: two GPUs, the longest context, layers by number, a disk") {
  const auto plan = [](strings more) { return test::run_well("plan", with(std::move(more))); };
  CHECK(test::contains(plan({"--device", "gpu:24GB"}), "Everything runs on cuda0"));
  const std::string two = plan({"--device", "gpu:4GB:x2", "--device", "cpu:64GiB", "-c", "2048"});
  CHECK(test::contains(two, "the head."));
  CHECK_FALSE(test::contains(two, "output head"));  // once is enough
  CHECK(test::contains(plan({"--device", "gpu:6GiB", "-c", "max"}), "context 7936 tokens"));
  CHECK(test::contains(plan({"--device", "gpu:6GiB", "--device", "cpu:64GiB", "--gpu-layers", "3"}),
                       "layers 29-31"));
  const std::string alone = plan({"--device", "cpu:64GiB", "--gpu-layers", "3"});
  CHECK(test::contains(alone, "3 layers on GPUs were asked for, which changes nothing"));
  const std::string here = plan({"--device", "gpu:6GiB", "--device", "cpu", "-c", "512"});
  CHECK(test::contains(here, "CPU ("));
  for (const char* const cpu : {"cpu:1800MiB", "cpu:2GiB", "cpu:2500MiB", "cpu:3GiB", "cpu:4GiB"}) {
    INFO(cpu);
    for (const char* const batch : {"64", "512"}) {
      CHECK(test::contains(
          plan({"--device", cpu, "--device", "disk:3GB/s", "-c", "512", "-b", batch}),
          "are read from disk"));
    }
  }
}

TEST_CASE("plan: what makes no sense is refused") {
  refused({"--device", "tpu:24GiB"}, {"'tpu:24GiB'", "begins with gpu"});
  refused({"--device", "gpu:"}, {"its memory was expected"});
  refused({"--device", "gpu"}, {"'gpu' is no device of this machine, which has cpu"});
  refused({"--device", "gpu:24GiB:fast"}, {"'fast' is neither"});
  refused({"--device", "gpu:24GiB:pcie9x16"}, {"'pcie9x16'"});
  refused({"--device", "disk:3GB/s"}, {"after a cpu"});
  refused({"--vram", "lots"}, {"--vram", "6GiB or 80%", "'lots'"});
  refused({"-c", "some"}, {"max was expected"});
  refused({"--pin", "x=0"}, {"--pin", "'x=0'"});
  refused({"--device", "cpu:64GiB", "--pin", "0-3=1"}, {"device 1"}, 1);
  refused({"--device", "cpu:64GiB", "--pin", "99=0"}, {"layers from 99 on"}, 1);
  refused({"--device", "cpu:64GiB", "--pin", "0-2147483647=0", "--ram", "1MiB"}, {"asked to be"},
          1);
  refused({"--device", "gpu:2GiB"}, {"the model needs", "cuda0"}, 1);
}
