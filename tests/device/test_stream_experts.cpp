// Routed experts on disk: brought when they are asked for, kept while there is room.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "cpu/kernel_table.hpp"
#include "device/stream_experts.hpp"
#include "errors.hpp"
#include "temporary_folder.hpp"

namespace {

namespace fs = std::filesystem;

constexpr std::size_t columns = 32, rows = 3, experts = 8, blocks = 3;
constexpr std::size_t matrix_bytes = columns * rows * sizeof(float);  // a multiple of 64
constexpr nibble::format_id f32{0};

// Two tensors in each of some blocks, whose every number says where it is from, in one file.
class on_disk {
 public:
  explicit on_disk(std::int64_t slots)
      : memory_(static_cast<std::size_t>(slots) * 2 * matrix_bytes),
        staging_(static_cast<std::byte*>(std::aligned_alloc(4096, staging_bytes))),
        experts_(
            nibble::expert_cache{2 * matrix_bytes, slots}, memory_.data(), blocks,
            [this](std::function<void(std::span<std::byte>)> what) { read(std::move(what)); }) {
    std::ofstream(path(), std::ios::binary)
        .write(reinterpret_cast<const char*>(values_.data()),
               static_cast<std::streamsize>(values_.size() * sizeof(float)));
    const auto since = std::chrono::file_clock::to_sys(fs::last_write_time(path()));
    const nibble::gguf::opened_part part{
        path(), fs::file_size(path()),
        std::chrono::duration_cast<std::chrono::nanoseconds>(since.time_since_epoch()).count()};
    for (std::size_t t = 0; t < weights.size(); ++t) {
      const std::size_t bytes = experts * matrix_bytes;
      nibble::weight& w = weights[t];
      w = {.format = f32, .shape = {{columns, rows, experts, 1}}, .matrix_bytes = matrix_bytes};
      const nibble::stored_tensor stored{part, t * bytes, bytes, "t" + std::to_string(t), true};
      experts_.add(w, {w, stored, files_.open(part), packing_}, t / 2);
    }
  }
  ~on_disk() {
    for (auto& thread : threads_) thread.join();
    std::free(staging_);
  }

  // Whether all numbers of the expert are there, in both tensors of its block.
  bool is_there(std::size_t block, std::int32_t expert) {
    bool right = true;
    for (const std::size_t t : {2 * block, 2 * block + 1}) {
      const nibble::weight& w = weights[t];
      const std::byte* const at = w.experts->wait(expert) + w.in_expert;
      const float* const from =
          values_.data() + (t * experts + static_cast<std::size_t>(expert)) * columns * rows;
      right = right && std::memcmp(at, from, matrix_bytes) == 0;
    }
    return right;
  }

  // A run of a block that goes through these experts.
  bool run(std::size_t block, const std::vector<std::int32_t>& through, bool passing = false) {
    weights[2 * block].experts->ask(through, passing);
    weights[2 * block + 1].experts->ask(through, passing);
    const bool right = std::all_of(through.begin(), through.end(),
                                   [&](std::int32_t e) { return is_there(block, e); });
    experts_.release(block);
    return right;
  }

  // Experts that were read since this was asked last: each has two pieces.
  int read_since() { return std::exchange(pieces_read, 0) / 2; }

  fs::path path() const { return folder_ / "experts"; }
  nibble::stream_experts& all() { return experts_; }

  std::vector<nibble::weight> weights = std::vector<nibble::weight>(2 * blocks);
  bool later = false;  // reading is done by a thread
  int fails_in = -1;   // so many errands until one cannot be taken
  int pieces_read = 0;

 private:
  static constexpr std::size_t staging_bytes = 1 << 16;

  static std::vector<float> some_values() {
    std::vector<float> values(2 * blocks * experts * columns * rows);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
    return values;
  }

  void read(std::function<void(std::span<std::byte>)> what) {
    if (fails_in >= 0 && fails_in-- == 0) throw std::bad_alloc();
    ++pieces_read;
    threads_.emplace_back([this, what = std::move(what)] {
      if (later) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      const std::lock_guard alone(one_at_a_time_);
      what({staging_, staging_bytes});
    });
  }

  const std::vector<float> values_ = some_values();
  test::temporary_folder folder_;
  nibble::weight_packing packing_{nibble::cpu::kernels_scalar(), nibble::activation_type::int8};
  nibble::stream_files files_;
  std::vector<std::byte> memory_;
  std::byte* const staging_;
  std::mutex one_at_a_time_;
  std::vector<std::thread> threads_;
  nibble::stream_experts experts_;
};

}  // namespace

TEST_CASE("experts come when they are asked for, and the least recently used ones go") {
  on_disk disk(4);
  CHECK(disk.run(0, {1, 2}));
  CHECK(disk.read_since() == 2);
  CHECK(disk.run(1, {1, 2}));
  CHECK(disk.read_since() == 2);
  CHECK(disk.run(0, {2, 1}));  // still there
  CHECK(disk.read_since() == 0);
  CHECK(disk.run(2, {7}));  // an expert of block 1 goes
  CHECK(disk.read_since() == 1);
  CHECK(disk.run(0, {1, 2}));
  CHECK(disk.read_since() == 0);
  CHECK(disk.run(1, {1, 2}));
  CHECK(disk.read_since() == 1);
}

TEST_CASE("what a long prompt goes through does not push out what tokens use") {
  on_disk disk(6);
  CHECK(disk.run(0, {0, 1}));
  CHECK(disk.run(1, {0}));
  disk.read_since();
  // takes what is free, and then its own
  for (int round = 0; round < 3; ++round) CHECK(disk.run(2, {0, 1, 2}, true));
  CHECK(disk.read_since() == 3);
  CHECK(disk.run(2, {3, 4, 5}, true));
  CHECK(disk.run(1, {2, 3, 4}, true));
  CHECK(disk.read_since() == 6);
  CHECK(disk.run(0, {0, 1}));
  CHECK(disk.run(1, {0}));
  CHECK(disk.read_since() == 0);
}

TEST_CASE("long prompts find again what there was room for") {
  on_disk disk(8);
  for (const std::size_t block : {0, 1, 0}) CHECK(disk.run(block, {0, 1, 2}, true));
  CHECK(disk.read_since() == 6);
  // More than fits: what came first stays. Each block works in four of the eight slots, so that
  // five of twelve experts are there when they are asked for again.
  for (int round = 0; round < 3; ++round) {
    for (std::size_t block = 0; block < blocks; ++block) {
      CHECK(disk.run(block, {0, 1, 2, 3}, true));
    }
    CHECK(disk.read_since() == (round == 0 ? 6 : 7));
  }
  CHECK(disk.run(0, {0, 1, 2}, true));
  CHECK(disk.read_since() == 0);
}

TEST_CASE("a run has room for as many experts as there are slots, and no more") {
  on_disk disk(4);
  CHECK(disk.run(0, {4, 5, 6, 7}));
  CHECK(disk.run(1, {0, 0, 3, 0, 3, 1, 2}));  // some of them twice
  test::check_error(test::thrown([&] {
                      disk.run(2, {0, 1, 2, 3, 4});
                    }),
                    nibble::errc::invalid_argument, {"more experts", "the 4"});
  disk.all().release(2);
  CHECK(disk.run(2, {3, 4, 5}));
  disk.weights[0].experts->ask(std::vector<std::int32_t>{1}, false);
  test::check_error(test::thrown([&] { disk.weights[0].experts->wait(2); }),
                    nibble::errc::invalid_argument, {"expert 2 was not asked for"});
  disk.all().release(0);
}

TEST_CASE("experts that cannot be read fail the run that needs them, and no other") {
  on_disk disk(4);
  const auto since = fs::last_write_time(disk.path());
  CHECK(disk.run(0, {1}));
  fs::last_write_time(disk.path(), since + std::chrono::seconds(5));
  for (int round = 0; round < 2; ++round) {
    test::check_error(test::thrown([&] {
                        disk.run(0, {1, 2});
                      }),
                      nibble::errc::io, {"written to", "experts"});
    disk.all().release(0);
  }
  CHECK(disk.run(0, {1}));
  fs::last_write_time(disk.path(), since);
  CHECK(disk.run(0, {1, 2}));
  // no memory for the errand
  for (int n = 0; n < 6; ++n) {
    disk.fails_in = n;
    CHECK_THROWS_AS(disk.run(1, {0, 1, 2}), std::bad_alloc);
    disk.all().release(1);
    disk.fails_in = -1;
    CHECK(disk.run(1, {0, 1, 2}));
    CHECK(disk.run(0, {4, 5, 6, 7}));
  }
}

TEST_CASE("runs that end before their experts have come leave no trace") {
  on_disk disk(4);
  disk.later = true;
  std::minstd_rand random(5);
  for (int round = 0; round < 60; ++round) {
    const std::size_t block = random() % blocks;
    std::vector<std::int32_t> through;
    for (std::size_t i = 0; i < 1 + random() % 4; ++i) {
      through.push_back(static_cast<std::int32_t>(random() % experts));
    }
    if (random() % 3 == 0) {
      disk.weights[2 * block].experts->ask(through, random() % 2 == 0);
      disk.all().release(block);
    } else {
      CHECK(disk.run(block, through, random() % 2 == 0));
    }
  }
}

TEST_CASE("experts of one block are equally many, and fit into their slots") {
  on_disk disk(4);
  nibble::weight w{.format = f32, .shape = {{columns, rows, experts, 1}}};
  w.matrix_bytes = matrix_bytes;
  nibble::weight_packing packing(nibble::cpu::kernels_scalar(), nibble::activation_type::int8);
  nibble::stream_files files;
  const nibble::gguf::opened_part part{disk.path(), fs::file_size(disk.path()), 0};
  test::check_error(
      test::thrown([&] {
        const auto since = std::chrono::file_clock::to_sys(fs::last_write_time(disk.path()));
        auto now = part;
        now.modified =
            std::chrono::duration_cast<std::chrono::nanoseconds>(since.time_since_epoch()).count();
        const nibble::stored_tensor stored{now, 0, experts * matrix_bytes, "a third", true};
        disk.all().add(w, {w, stored, files.open(now), packing}, 0);
      }),
      nibble::errc::invalid_argument, {"there is room for 8 of 0 bytes"});
}
