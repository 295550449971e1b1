// What a file may make the library allocate.
#include <atomic>
#include <cstdlib>
#include <new>

#include "catch.hpp"
#include "tiny_model.hpp"

namespace {

// Of this program, since it was set to zero.
std::atomic<std::size_t> greatest_allocation = 0;

}  // namespace

// Never inlined: g++ 12 takes malloc() in one and delete in another place for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  if (bytes > greatest_allocation) greatest_allocation = bytes;
  return std::malloc(bytes == 0 ? 1 : bytes);
}
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (void* const memory = operator new(bytes, std::nothrow)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

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
      greatest_allocation = 0;
      try {
        const nibble::model_definition definition(file);
      } catch (const nibble::error&) {
        // which error it is, the other tests tell
      }
      return greatest_allocation.load();
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
