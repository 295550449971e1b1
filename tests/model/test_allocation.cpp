// What a file may make the library allocate, and what comes of allocations that fail.
#include <nibble/nibble.hpp>

#include "allocations.hpp"
#include "tiny_model.hpp"

TEST_CASE("numbers that ask for much allocate little") {
  constexpr std::size_t most = 32 << 20;
  struct demand {
    const char* key;
    std::int64_t value;
  };
  // the greatest that are let through, and more
  const demand demands[] = {{"block_count", 4096},
                            {"embedding_length", 1 << 20},
                            {"vocab_size", 1 << 24},
                            {"feed_forward_length", 1 << 20},
                            {"attention.head_count", 1 << 16},
                            {"attention.key_length", 1 << 14},
                            {"expert_count", 1 << 14},
                            {"expert_feed_forward_length", 1 << 20},
                            {"rope.scaling.original_context_length", 1 << 28}};
  for (const std::string& name : test::architectures()) {
    auto all = test::tiny_model(name).make_tensors();
    const auto bytes_allocated = [](const test::tiny_model& model) {
      const auto bytes = model.bytes();
      const nibble::gguf::file file(bytes, "tiny.gguf");
      test::greatest_allocation = 0;
      try {
        const nibble::model_definition definition(file);
      } catch (const nibble::error&) {
        // which error it is, the other tests tell
      }
      return test::greatest_allocation.load();
    };
    for (const demand& d : demands) {
      auto one = all;
      for (const std::int64_t value : {d.value, d.value + 1, std::int64_t{1} << 62}) {
        CAPTURE(name, d.key, value);
        one.set(d.key, value);
        CHECK(bytes_allocated(one) < most);
      }
      all.set(d.key, d.value);
      CHECK(bytes_allocated(all) < most);
    }
  }
}

TEST_CASE("a plan, and the logits of every token, without memory: an error of the library") {
  const auto bytes = test::tiny_model("llama").make_tensors().bytes();
  const nibble::gguf::file file(bytes, "tiny.gguf");
  const nibble::model_definition definition(file);
  const auto device = nibble::make_cpu_backend({.threads = 1});
  CHECK(test::failures_of([&] { nibble::plan(definition, *device); }) > 10);

  nibble::model_options options;
  options.cpu.threads = 1;
  options.plan.all_logits = true;
  const nibble::model model(file, options);
  const std::vector<nibble::token> tokens = {1, 2, 3};
  const nibble::sampling_options sampling;  // the default argument would allocate in the caller
  CHECK(test::failures_of([&] {
          nibble::session session(model, sampling);
          session.append(tokens, [](std::size_t, std::span<const float>) {});
        }) > 3);
}
