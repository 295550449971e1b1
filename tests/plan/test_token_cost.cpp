// What a token takes, against sums over the tensors that another GGUF reader lists for the files.
#include <nibble/device/cpu.hpp>
#include <nibble/plan/placement.hpp>

#include "catch.hpp"
#include "test_data.hpp"

namespace {

struct expected {
  const char* file;
  std::uint64_t one_token, two_tokens;  // bytes of weights
  std::uint64_t macs, head_macs;
};

// Each line is layers x (norms + matrices) + head + row of the embedding.
constexpr expected cases[] = {
    {"stories260K-x256-q4_0", 5 * (2048 + 221184) + 74752 + 144, 5 * (2048 + 221184) + 74752 + 288,
     5 * 393216, 131072},
    // 2 of 4 experts for a token, so all of them for two
    {"stories260K-x256-moe4x-q4_0", 5 * (6144 + 110592 + 442368 / 2) + 74752 + 144,
     5 * (6144 + 110592 + 442368) + 74752 + 288, 5 * (1024 + 196608 + 2 * 196608), 131072},
    // the head is the embedding
    {"bitllama-3M-tq2_0", 8 * (4096 + 101376) + 1024 + 262144 + 512,
     8 * (4096 + 101376) + 1024 + 262144 + 1024, 8 * 393216, 131072},
};

}  // namespace

TEST_CASE("token cost: weights and products of real files") {
  for (const expected& e : cases) {
    const auto path = test::data(std::string("models/") + e.file + ".gguf");
    if (!path) return;
    INFO(e.file);
    const nibble::gguf::file file(*path);
    const auto device = nibble::make_cpu_backend();
    const auto cost = nibble::plan(nibble::model_definition(file), *device).cost;
    CHECK(cost.weight_bytes(1) == e.one_token);
    CHECK(cost.weight_bytes(2) == e.two_tokens);
    CHECK(cost.macs == e.macs);
    CHECK(cost.head_macs == e.head_macs);
    // 4 heads of 32 keys and 32 values, two bytes each
    const std::uint64_t layers = cost.kv.size();
    CHECK(cost.kv_bytes(100) == layers * 4 * (32 + 32) * 2 * 100);
  }
}

TEST_CASE("token cost: a window bounds what is read of the cache") {
  nibble::token_cost cost;
  cost.kv = {{.bytes_per_token = 10, .window = 0}, {.bytes_per_token = 3, .window = 64}};
  CHECK(cost.kv_bytes(0) == 0);
  CHECK(cost.kv_bytes(64) == 13 * 64);
  CHECK(cost.kv_bytes(1000) == 10 * 1000 + 3 * 64);
}
