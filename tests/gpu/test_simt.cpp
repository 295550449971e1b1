// What a kernel relies on, and the mistakes that the emulated device's machine must find.
#include <bit>
#include <cmath>
#include <numeric>

#include "probe_test.hpp"

namespace {

using nibble::gpu::fault;
using nibble::gpu::probe_args;
using nibble::gpu::probe_threads;
using nibble::simt::lane_order;
using test::device_array;
using test::for_each_device;
using test::for_each_order;
using test::gpu_device;

using integers = std::vector<std::int32_t>;

integers counting(std::size_t n) {
  integers values(n);
  std::iota(values.begin(), values.end(), 0);
  return values;
}

// Runs a probe that is to fail; what the device says of it.
nibble::gpu::failure failure_of(gpu_device& device, std::string_view name, const probe_args& args) {
  test::launch_probe(device, name, args);
  nibble::gpu::failure why;
  INFO(name);
  CHECK_FALSE(device.context->finish(nibble::gpu::queue_id::compute, why));
  return why;
}

bool contains(const nibble::gpu::failure& why, std::string_view text) {
  INFO(why.text << "\nis to say\n" << text);
  CHECK(std::string_view(why.text).find(text) != std::string_view::npos);
  return std::string_view(why.text).find(text) != std::string_view::npos;
}

}  // namespace

TEST_CASE("lanes exchange values in every order of threads") {
  for_each_device([](gpu_device& device) {
    const int warp = device.context->facts().warp;
    device_array<std::int32_t> out(device, 5 * probe_threads);
    test::run_probe(device, "exchange_values", {nullptr, nullptr, out.data(), 0});
    const integers got = out.read();
    for (int me = 0; me < probe_threads; ++me) {
      INFO("thread " << me);
      const int first = me / warp * warp, lane = me % warp;
      const auto* const values = got.data() + 5 * me;
      REQUIRE(values[0] == first + (lane + 5) % warp);
      int sum = 0;
      for (int mask = 1; mask < warp; mask *= 2) sum += mask * (me ^ mask);
      REQUIRE(values[1] == sum);
      const std::int64_t other = first + warp - 1 - lane;
      REQUIRE(values[2] == ((other << 40) - other) % 1000'000'007);
      // sums of whole numbers are exact
      REQUIRE(values[3] == (first * warp + warp * (warp - 1) / 2) * 1000 - first);
      REQUIRE(values[4] == probe_threads * (probe_threads - 1) / 2);
    }
  });
}

TEST_CASE("barriers order accesses to shared memory") {
  for_each_device([](gpu_device& device) {
    device_array<std::int32_t> out(device, probe_threads);
    test::run_probe(device, "reverse", {nullptr, nullptr, out.data(), 0});
    const integers got = out.read();
    for (int me = 0; me < probe_threads; ++me) {
      const int from = (me + probe_threads - 1) % probe_threads;
      REQUIRE(got[static_cast<std::size_t>(me)] == probe_threads - 1 - from);
    }
  });
}

TEST_CASE("asynchronous copies arrive in the order of their commits") {
  for_each_device([](gpu_device& device) {
    for (const int n : {0, 1, 2, 7}) {
      INFO(n);
      const integers values = counting(static_cast<std::size_t>(4 * probe_threads * n) + 4);
      const device_array<std::int32_t> in(device, values);
      const device_array<std::int32_t> out(device, 4 * probe_threads);
      test::run_probe(device, "stream", {in.data(), nullptr, out.data(), n});
      const integers got = out.read();
      for (int i = 0; i < 4 * probe_threads; ++i) {
        const int neighbours = i ^ 4;
        const int sum = n * neighbours + n * (n - 1) / 2 * 4 * probe_threads;
        REQUIRE(got[static_cast<std::size_t>(i)] == sum);
      }
    }
  });
}

TEST_CASE("blocks know where they are, on one thread or several") {
  for (const nibble::gpu::emulated_target target : nibble::gpu::emulated_targets) {
    for (const int os_threads : {1, 3}) {
      nibble::gpu::emulated_options options;
      options.target = target;
      options.os_threads = os_threads;
      gpu_device device = test::open_emulated(options);
      device_array<std::int32_t> out(device, 6 * 3 * 4 * 5);
      test::run_probe(device, "where", {nullptr, nullptr, out.data(), 0});
      const integers got = out.read();
      for (int at = 0; at < 3 * 4 * 5; ++at) {
        const integers expected{at % 3, at / 3 % 4, at / 12, 3, 4, 5};
        REQUIRE(integers(got.begin() + 6 * at, got.begin() + 6 * at + 6) == expected);
      }
      const device_array<std::int32_t> counters(device, integers{5, 21, 0});
      test::run_probe(device, "count", {nullptr, nullptr, counters.data(), 3});
      CHECK(counters.read() == integers{5 + 3 * 7 * probe_threads, 42, 7});
    }
  }
}

TEST_CASE("dot products of extreme bytes, and fast functions") {
  integers a(probe_threads), b(probe_threads);
  for (std::size_t i = 0; i < a.size(); ++i) {
    a[i] = static_cast<std::int32_t>(0x80808080u + 0x01ff7f00u * i);
    b[i] = static_cast<std::int32_t>(i % 2 == 0 ? 0x80808080u : 0x7f80007fu);
  }
  for_each_device([&](gpu_device& device) {
    const device_array<std::int32_t> in_a(device, a), in_b(device, b);
    const device_array<std::int32_t> out(device, 3 * probe_threads);
    test::run_probe(device, "arithmetic", {in_a.data(), in_b.data(), out.data(), 0});
    const integers got = out.read();
    for (int i = 0; i < probe_threads; ++i) {
      const auto at = static_cast<std::size_t>(i);
      int sum = -i;
      for (int shift = 0; shift < 32; shift += 8) {
        sum += static_cast<std::int8_t>(a[at] >> shift) * static_cast<std::int8_t>(b[at] >> shift);
      }
      REQUIRE(got[at] == sum);
      const double x = (i - 64) / 4.0;
      const float* const floats = reinterpret_cast<const float*>(got.data() + probe_threads);
      // a few units in the last place are allowed
      CHECK(std::fabs(floats[2 * i] / std::exp(x) - 1) < 0x1p-20);
      CHECK(std::fabs(floats[2 * i + 1] * (x + 0.125) - 1) < 0x1p-20);
    }
  });
}

TEST_CASE("a missing barrier gives wrong values in some order") {
  for (const char* name : {"lacks_barrier", "lacks_second_barrier", "lacks_sync_warp"}) {
    for (const nibble::gpu::emulated_target target : nibble::gpu::emulated_targets) {
      int wrong_orders = 0;
      bool random_wrong = false;
      for (const auto order : {lane_order::ascending, lane_order::descending, lane_order::random}) {
        nibble::gpu::emulated_options options;
        options.target = target;
        options.order = order;
        gpu_device device = test::open_emulated(options);
        device_array<std::int32_t> out(device, probe_threads);
        test::run_probe(device, name, {nullptr, nullptr, out.data(), 0});
        const integers got = out.read();
        bool wrong = false;
        for (int me = 0; me < probe_threads; ++me) {
          const int before = (me + probe_threads - 1) % probe_threads;
          const int expected = std::string_view(name) == "lacks_barrier" ? probe_threads - 1 - me
                               : std::string_view(name) == "lacks_sync_warp"
                                   ? me ^ (device.context->facts().warp - 1)
                                   : probe_threads - 1 - before;
          wrong = wrong || got[static_cast<std::size_t>(me)] != expected;
        }
        wrong_orders += wrong ? 1 : 0;
        random_wrong = random_wrong || (wrong && order == lane_order::random);
      }
      INFO(name);
      CHECK(wrong_orders >= 2);
      CHECK(random_wrong);
    }
  }
}

TEST_CASE("what a copy brings is garbage until it is waited for") {
  for_each_order([](gpu_device& device) {
    const integers values = counting(4 * probe_threads);
    const device_array<std::int32_t> in(device, values), out(device, values.size());
    test::run_probe(device, "copies", {in.data(), nullptr, out.data(), 0});
    CHECK(out.read() == values);
    test::run_probe(device, "lacks_wait", {in.data(), nullptr, out.data(), 0});
    CHECK(out.read() == integers(values.size(), -1));
    // a copy to where others still read, even of the same values
    test::run_probe(device, "copy_too_early", {in.data(), nullptr, out.data(), 0});
    const integers got = out.read();
    const auto garbage = std::count(got.begin(), got.end(), -1);
    CHECK(garbage >= probe_threads);  // of 4 each
  });
}

TEST_CASE("shared memory starts as garbage in every block") {
  for_each_order([](gpu_device& device) {
    device_array<std::int32_t> out(device, probe_threads);
    test::run_probe(device, "reverse", {nullptr, nullptr, out.data(), 0});
    test::run_probe(device, "unwritten", {nullptr, nullptr, out.data(), 0});
    CHECK(out.read() == integers(probe_threads, -1));
    // NaN, if it is taken for floats
    CHECK(std::isnan(std::bit_cast<float>(-1)));
  });
}

TEST_CASE("threads that wait for others in vain are a fault") {
  struct mistake {
    const char* name;
    int n;
    const char* text;
  };
  // {64 lanes, 32 lanes} where it matters
  const mistake mistakes[] = {
      {"barrier_of_some", 96, "32 have ended, 96 wait at sync_block() (probes.cpp:"},
      {"early_end", 100, "28 have ended, 100 wait at sync_block() (probes.cpp:"},
      {"two_barriers", 64, "threads wait at different barriers, probes.cpp:"},
      {"two_shuffles", 0, "lanes of a warp are at different calls, shuffle() (probes.cpp:"},
      {"shuffle_of_some", 31, "wait for other lanes (probes.cpp:"},
      {"shuffle_and_barrier", 16, "wait for other lanes (probes.cpp:"},
      {"shuffle_from_nowhere", 1, "a shuffle from lane "},
      {"rows_of_some", 31, "wait for other lanes (probes.cpp:"},
  };
  for (const mistake& m : mistakes) {
    for_each_order([&](gpu_device& device) {
      device_array<std::int32_t> out(device, probe_threads);
      const auto why = failure_of(device, m.name, {nullptr, nullptr, out.data(), m.n});
      CHECK(why.what == fault::lost);
      contains(why, m.text);
      contains(why, "kernel fault in ");
      contains(why, m.name);
      contains(why, "of 128, block (0, 0, 0)");
      // and nothing works any more
      nibble::gpu::failure after;
      void* memory = nullptr;
      CHECK_FALSE(device.context->allocate(16, memory, after));
      CHECK(after.what == fault::lost);
      CHECK_FALSE(device.context->check_launches(after));
      CHECK(std::string_view(after.text) == why.text);
    });
  }
}

TEST_CASE("accesses of 16 bytes are checked") {
  struct mistake {
    const char* name;
    int n;
    const char* text;
  };
  constexpr int size = 4 * probe_threads;  // bytes of `a` and `out`
  const mistake mistakes[] = {
      {"load_at", 8, "load16 of an address that is not a multiple of 16 (probes.cpp:"},
      {"load_at", size, "load16 outside of the device's memory (probes.cpp:"},
      {"load_at", -16, "load16 outside of the device's memory (probes.cpp:"},
      {"load_once_at", 4, "load16 of an address that is not a multiple of 16 (probes.cpp:"},
      {"load_once_at", size, "load16 outside of the device's memory (probes.cpp:"},
      {"store_at", 4, "store16 of an address that is not a multiple of 16 (probes.cpp:"},
      {"store_at", size, "store16 outside of the device's memory (probes.cpp:"},
      {"copy_from", 8, "copy16_async of an address that is not a multiple of 16 (probes.cpp:"},
      {"copy_from", size, "copy16_async outside of the device's memory (probes.cpp:"},
      {"copy_to", 8, "copy16_async to an address that is not a multiple of 16 (probes.cpp:"},
      {"copy_to", 16 * probe_threads, "copy16_async to what is not shared memory"},
      {"rows_that_differ", 16, "arguments that differ between lanes"},
      {"rows_at", 8, "rows that do not start at multiples of 16"},
      {"rows_at", 16, "load_rows() of what is not shared memory"},
      {"rows_overwritten", 1, "rows that were overwritten since load_rows()"},
  };
  for (const mistake& m : mistakes) {
    for_each_order([&](gpu_device& device) {
      device_array<std::int32_t> a(device, probe_threads), out(device, probe_threads);
      const auto why = failure_of(device, m.name, {a.data(), nullptr, out.data(), m.n});
      CHECK(why.what == fault::lost);
      contains(why, m.text);
    });
  }
  for_each_order([&](gpu_device& device) {
    const device_array<std::int32_t> a(device, counting(probe_threads)), out(device, probe_threads);
    test::run_probe(device, "load_at", {a.data(), nullptr, out.data(), size - 16});
    CHECK(out.read() == integers(probe_threads, probe_threads - 4));
    test::run_probe(device, "rows_overwritten", {nullptr, nullptr, out.data(), 0});
  });
}

TEST_CASE("a fault in one of many blocks, on several threads, is the launch's") {
  for (const nibble::gpu::emulated_target target : nibble::gpu::emulated_targets) {
    nibble::gpu::emulated_options options;
    options.target = target;
    options.os_threads = 2;
    gpu_device device = test::open_emulated(options);
    device_array<std::int32_t> out(device, probe_threads);
    const auto why = failure_of(device, "early_end", {nullptr, nullptr, out.data(), 1});
    contains(why, "127 have ended");
  }
}

TEST_CASE("launches that no device could run are refused, and harm nothing") {
  for_each_order([](gpu_device& device) {
    const auto& facts = device.context->facts();
    const device_array<std::int32_t> out(device, counting(probe_threads));
    const auto refused = [&](const char* name, int n, const std::string& text) {
      test::launch_probe(device, name, {nullptr, nullptr, out.data(), n});
      nibble::gpu::failure why;
      CHECK_FALSE(device.context->check_launches(why));
      CHECK(why.what == fault::invalid);
      contains(why, text);
    };
    refused("with_shared", facts.shared_bytes + 1,
            "with " + std::to_string(facts.shared_bytes + 1) + " bytes of shared memory, of " +
                std::to_string(facts.shared_bytes));
    refused("no_threads", 0, "of blocks of 0 threads");
    refused("many_threads", 0, "of blocks of 1025 threads");
    refused("no_blocks", 0, "of 0 blocks in dimension 1");
    CHECK(out.read() == counting(probe_threads));
    test::run_probe(device, "with_shared", {nullptr, nullptr, out.data(), facts.shared_bytes});
    CHECK(out.read()[5] == 10 + facts.shared_bytes);
  });
}
