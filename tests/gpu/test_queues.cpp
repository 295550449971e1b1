// The emulated device as a device: memory, queues, events, graphs, and failures that are asked for.
#include <iterator>
#include <numeric>

#include "probe_test.hpp"

namespace {

using nibble::gpu::emulated_options;
using nibble::gpu::event_id;
using nibble::gpu::failure;
using nibble::gpu::fault;
using nibble::gpu::graph_id;
using nibble::gpu::probe_threads;
using nibble::gpu::queue_id;
using test::device_array;
using test::gpu_device;
using test::pinned_array;
using test::require;

using integers = std::vector<std::int32_t>;

constexpr std::size_t n = probe_threads, bytes = 4 * n;
constexpr queue_id compute = queue_id::compute, copy = queue_id::copy;

// Puts a kernel that makes 2 x + by of x into the compute queue.
void twice(gpu_device& device, const device_array<std::int32_t>& x, int by) {
  test::launch_probe(device, "twice", {nullptr, nullptr, x.data(), by});
}

template <typename Function>
void for_each_target(Function f, emulated_options options = {}) {
  for (const nibble::gpu::emulated_target target : nibble::gpu::emulated_targets) {
    options.target = target;
    gpu_device device = test::open_emulated(options);
    INFO(device.name);
    f(device);
  }
}

event_id new_event(gpu_device& device) {
  event_id event = 0;
  failure why;
  require(device.context->make_event(event, why), why);
  return event;
}

}  // namespace

TEST_CASE("the module tells of its devices") {
  emulated_options small, wide;
  small.memory = 1000;
  wide.target = std::end(nibble::gpu::emulated_targets)[-1];  // another one, if it is built
  wide.bandwidth = 7;
  nibble::gpu::emulated_module two({small, wide});
  failure why;
  CHECK(two.kind() == nibble::gpu::module_kind::emulated);
  CHECK(two.count(why) == 2);
  nibble::gpu::device_facts facts;
  require(two.describe(0, facts, why), why);
  CHECK(facts.total_bytes == 1000);
  CHECK(facts.warp == 32);
  CHECK(facts.shared_bytes == 99 * 1024);
  require(two.describe(1, facts, why), why);
  CHECK(facts.memory_bandwidth == 7);
  if (wide.target == nibble::gpu::emulated_target::cdna) {
    CHECK(facts.warp == 64);
    CHECK(facts.shared_bytes == 64 * 1024);
    CHECK(std::string_view(facts.arch) == "emulated_cdna");
  }
  CHECK_FALSE(two.describe(2, facts, why));
  CHECK(why.what == fault::invalid);
  nibble::gpu::context* opened = nullptr;
  CHECK_FALSE(two.open(-1, opened, why));
  CHECK(nibble::gpu::emulated_module({}).count(why) == 0);
  CHECK(why.what == fault::no_device);
}

TEST_CASE("memory is counted, aligned, and full of garbage") {
  emulated_options options;
  options.memory = 1 << 20;
  for_each_target(
      [](gpu_device& device) {
        auto& context = *device.context;
        failure why;
        std::uint64_t left = 0;
        require(context.free_bytes(left, why), why);
        CHECK(left == 1 << 20);
        void* half = nullptr;
        require(context.allocate(1 << 19, half, why), why);
        CHECK(reinterpret_cast<std::uintptr_t>(half) % 256 == 0);
        void* more = nullptr;
        CHECK_FALSE(context.allocate((1 << 19) + 1, more, why));
        CHECK(why.what == fault::out_of_memory);
        CHECK(std::string_view(why.text) == "allocate of 524289 bytes: 524288 are free");
        require(context.allocate(1 << 19, more, why), why);
        require(context.free_bytes(left, why), why);
        CHECK(left == 0);
        // pinned memory is the host's
        void* pinned = nullptr;
        require(context.allocate_pinned(1 << 21, pinned, why), why);
        context.release(pinned);  // not of this kind: nothing happens
        context.release_pinned(pinned);
        context.release(half);
        require(context.free_bytes(left, why), why);
        CHECK(left == 1 << 19);
        context.release(more);
        const device_array<std::int32_t> fresh(device, n);
        CHECK(fresh.read() == integers(n, -1));
        // what is not released ends with the context
        void* kept = nullptr;
        require(context.allocate(100, kept, why), why);
      },
      options);
}

TEST_CASE("transfers within bounds only, of pinned memory only") {
  for_each_target([](gpu_device& device) {
    auto& context = *device.context;
    failure why;
    const device_array<std::int32_t> x(device, n);
    const pinned_array<std::int32_t> pinned(device, n);
    integers pageable(n);
    const auto refused = [&](bool done, std::string_view text) {
      CHECK_FALSE(done);
      CHECK(why.what == fault::invalid);
      CHECK(std::string_view(why.text) == text);
    };
    refused(context.upload(copy, x.data(), pageable.data(), bytes, why),
            "upload of 512 bytes from what is not pinned memory");
    refused(context.upload(copy, pinned.data(), pinned.data(), bytes, why),
            "upload of 512 bytes to what is not the device's memory");
    refused(context.download(copy, pinned.data(), x.data() + 1, bytes, why),
            "download of 512 bytes from what is not the device's memory");
    refused(context.download(copy, pageable.data(), x.data(), bytes, why),
            "download of 512 bytes to what is not pinned memory");
    refused(context.copy(copy, x.data(), x.data(), bytes + 1, why),
            "copy of 513 bytes to what is not the device's memory");
    refused(context.fill(copy, x.data() + n, 0, 1, why), "fill of what is not the device's memory");
    require(context.fill(copy, x.data(), 3, bytes, why), why);
    const device_array<std::int32_t> y(device, n);
    require(context.copy(copy, y.data(), x.data() + 1, bytes - 4, why), why);
    require(context.download(copy, pinned.data(), y.data(), bytes, why), why);
    require(context.finish(copy, why), why);
    CHECK(pinned[0] == 0x03030303);
    CHECK(pinned[n - 1] == -1);
  });
}

TEST_CASE("work waits until something waits for it") {
  for_each_target([](gpu_device& device) {
    auto& context = *device.context;
    failure why;
    const device_array<std::int32_t> x(device, n);
    const pinned_array<std::int32_t> in(device, n), out(device, n);
    std::fill_n(in.data(), n, 1);
    std::fill_n(out.data(), n, 0);
    require(context.upload(compute, x.data(), in.data(), bytes, why), why);
    twice(device, x, 3);
    require(context.download(compute, out.data(), x.data(), bytes, why), why);
    CHECK(out[0] == 0);
    in[0] = 10;  // too early: the transfer has not happened
    require(context.finish(copy, why), why);
    CHECK(out[0] == 0);
    require(context.finish(compute, why), why);
    CHECK(out[0] == 23);
    CHECK(out[1] == 5);
  });
  emulated_options eager;
  eager.eager = true;
  for_each_target(
      [](gpu_device& device) {
        const pinned_array<std::int32_t> in(device, n);
        const device_array<std::int32_t> x(device, n);
        failure why;
        in[0] = 1;
        require(device.context->upload(compute, x.data(), in.data(), bytes, why), why);
        in[0] = 10;
        CHECK(x.read()[0] == 1);
      },
      eager);
}

TEST_CASE("events order two queues") {
  for_each_target([](gpu_device& device) {
    auto& context = *device.context;
    failure why;
    const device_array<std::int32_t> x(device, n);
    const pinned_array<std::int32_t> in(device, n), out(device, n);
    std::fill_n(in.data(), n, 1);
    const event_id uploaded = new_event(device), computed = new_event(device);
    CHECK(uploaded == 1);
    float milliseconds = -1;
    CHECK_FALSE(context.elapsed(uploaded, computed, milliseconds, why));
    CHECK(why.what == fault::invalid);
    require(context.wait_for(compute, uploaded, why), why);  // recorded nowhere: no wait
    for (int round = 0; round < 3; ++round) {
      in[0] = round;
      require(context.upload(copy, x.data(), in.data(), bytes, why), why);
      require(context.record(copy, uploaded, why), why);
      require(context.wait_for(compute, uploaded, why), why);
      twice(device, x, 1);
      require(context.record(compute, computed, why), why);
      require(context.wait_for(copy, computed, why), why);
      require(context.download(copy, out.data(), x.data(), bytes, why), why);
      CHECK_FALSE(context.elapsed(uploaded, computed, milliseconds, why));
      require(context.finish(copy, why), why);
      CHECK(out[0] == 2 * round + 1);
      require(context.elapsed(uploaded, computed, milliseconds, why), why);
      CHECK(milliseconds >= 0);
    }
    CHECK_FALSE(context.record(compute, 3, why));
    CHECK_FALSE(context.wait_for(compute, 0, why));
    CHECK(why.what == fault::invalid);
  });
}

TEST_CASE("without an event, queues do not wait for each other") {
  for_each_target([](gpu_device& device) {
    auto& context = *device.context;
    failure why;
    const device_array<std::int32_t> x(device, integers(n, 7));
    const pinned_array<std::int32_t> in(device, n);
    std::fill_n(in.data(), n, 1);
    require(context.upload(copy, x.data(), in.data(), bytes, why), why);
    twice(device, x, 0);
    require(context.finish(compute, why), why);
    require(context.finish(copy, why), why);
    CHECK(x.read() == integers(n, 1));  // the kernel came first
  });
}

TEST_CASE("graphs are recorded and replayed") {
  for_each_target([](gpu_device& device) {
    auto& context = *device.context;
    failure why;
    const device_array<std::int32_t> x(device, integers(n, 1)), seen(device, n);
    const pinned_array<std::int32_t> in(device, n);
    const device_array<std::int32_t> other(device, n);
    require(context.begin_graph(why), why);
    twice(device, x, 1);
    require(context.copy(compute, seen.data(), x.data(), bytes, why), why);
    require(context.upload(compute, x.data(), in.data(), 4, why), why);
    // what cannot be part of a graph
    const auto refused = [&](bool done) {
      CHECK_FALSE(done);
      CHECK(why.what == fault::invalid);
    };
    void* memory = nullptr;
    refused(context.begin_graph(why));
    refused(context.finish(compute, why));
    refused(context.allocate(1, memory, why));
    refused(context.launch_graph(1, why));
    // the other queue goes on
    require(context.fill(copy, other.data(), 0, bytes, why), why);
    require(context.finish(copy, why), why);
    graph_id graph = 0;
    require(context.end_graph(graph, why), why);
    CHECK(graph == 1);
    CHECK(x.read() == integers(n, 1));  // nothing was run

    for (const int round : {0, 1, 2}) {
      in[0] = round;
      require(context.launch_graph(graph, why), why);
      require(context.finish(compute, why), why);
      const integers now = x.read(), copied = seen.read();
      CHECK(now[0] == round);
      CHECK(copied[0] == (round == 0 ? 3 : 2 * (round - 1) + 1));
      CHECK(now[1] == (4 << round) - 1);
      CHECK(copied[1] == now[1]);
    }
    // queued before it is released: runs
    require(context.launch_graph(graph, why), why);
    context.release_graph(graph);
    require(context.finish(compute, why), why);
    CHECK(x.read()[1] == 31);
    refused(context.launch_graph(graph, why));
    refused(context.end_graph(graph, why));

    // a launch that no device accepts spoils the recording
    require(context.begin_graph(why), why);
    test::launch_probe(device, "no_threads", {nullptr, nullptr, x.data(), 0});
    refused(context.end_graph(graph, why));
    require(context.finish(compute, why), why);
  });
}

TEST_CASE("failures come when they are asked for") {
  emulated_options options;
  options.fail_allocation = 2;
  for_each_target(
      [](gpu_device& device) {
        failure why;
        void *a = nullptr, *b = nullptr;
        require(device.context->allocate(16, a, why), why);
        CHECK_FALSE(device.context->allocate_pinned(16, b, why));
        CHECK(why.what == fault::out_of_memory);
        require(device.context->allocate_pinned(16, b, why), why);
      },
      options);
  options = {};
  options.fail_launch = 3;
  for_each_target(
      [](gpu_device& device) {
        const device_array<std::int32_t> x(device, integers(n, 1));
        failure why;
        for (int i = 0; i < 5; ++i) twice(device, x, 0);
        CHECK_FALSE(device.context->finish(compute, why));
        CHECK(why.what == fault::lost);
        CHECK(std::string_view(why.text) == "a kernel failed as asked to");
        CHECK_FALSE(device.context->finish(copy, why));
      },
      options);
  options = {};
  options.fail_transfer = 2;
  for_each_target(
      [](gpu_device& device) {
        const device_array<std::int32_t> x(device, integers(n, 1));
        const pinned_array<std::int32_t> out(device, n);
        failure why;
        require(device.context->download(copy, out.data(), x.data(), bytes, why), why);
        CHECK_FALSE(device.context->finish(copy, why));
        CHECK(why.what == fault::lost);
        std::uint64_t left = 0;
        CHECK_FALSE(device.context->free_bytes(left, why));
      },
      options);
}
