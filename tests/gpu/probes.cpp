#include "probes.hpp"

#include "gpu/dialect.hpp"
#include "gpu/tile.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

using gpu::probe_args;
using gpu::probe_threads;

namespace {

NIBBLE_DEVICE std::int32_t* out_of(const probe_args& args) {
  return static_cast<std::int32_t*>(args.out);
}
NIBBLE_DEVICE std::int32_t* shared_integers() {
  return reinterpret_cast<std::int32_t*>(shared_memory());
}

template <auto kernel, int shared = 0>
void launch_one(const gpu::launch_target& target, const probe_args& args) {
  launch<kernel>(target, {}, probe_threads, static_cast<std::size_t>(shared), args);
}

// ---- what must work ----

// out [threads, 5]: what the functions of the warp give; the last one from another warp's memory
NIBBLE_KERNEL(probe_threads) exchange_values(probe_args args) {
  const int me = thread_index();
  std::int32_t* const to = out_of(args) + 5 * me;
  to[0] = shuffle(me, (lane() + 5) % warp_size);
  to[1] = 0;
  for (int mask = 1; mask < warp_size; mask *= 2) to[1] += mask * shuffle_xor(me, mask);
  const std::int64_t wide = (std::int64_t{me} << 40) - me;
  to[2] = static_cast<std::int32_t>(shuffle(wide, warp_size - 1 - lane()) % 1000'000'007);
  to[3] = static_cast<std::int32_t>(warp_sum(static_cast<float>(me)) * 1000 +
                                    warp_max(static_cast<float>(-me)));
  float* const scratch = reinterpret_cast<float*>(shared_memory());
  to[4] = static_cast<std::int32_t>(block_sum<probe_threads>(static_cast<float>(me), scratch));
}

// out [threads]: by way of shared memory, in the opposite order, twice
NIBBLE_KERNEL(probe_threads) reverse(probe_args args) {
  const int me = thread_index();
  std::int32_t* const all = shared_integers();
  all[me] = me;
  sync_block();
  const std::int32_t mine = all[probe_threads - 1 - me];
  sync_block();
  all[(me + 1) % probe_threads] = mine;
  sync_block();
  out_of(args)[me] = all[me];
}

// a [n, threads] words4 are added up in out [threads] words4, fetched ahead by two
NIBBLE_KERNEL(probe_threads) stream(probe_args args) {
  constexpr int depth = 3;
  const int me = thread_index();
  auto* const stages = reinterpret_cast<words4*>(shared_memory());
  const auto* const from = static_cast<const words4*>(args.a);
  const auto fetch = [&](int i) {
    if (i < args.n) {
      copy16_async(stages + i % depth * probe_threads + me, from + i * probe_threads + me);
    }
    commit_async();
  };
  words4 sum{};
  for (int i = 0; i < depth - 1; ++i) fetch(i);
  for (int i = 0; i < args.n; ++i) {
    wait_async<depth - 2>();
    sync_block();
    // a neighbour's, so that the barrier is needed
    const words4 v = load16(stages + i % depth * probe_threads + (me ^ 1));
    for (int w = 0; w < 4; ++w) sum.w[w] += v.w[w];
    fetch(i + depth - 1);
  }
  store16(static_cast<words4*>(args.out) + me, sum);
}

// out [blocks, 6]: where each block is. A grid of 3 x 4 x 5.
NIBBLE_KERNEL(probe_threads) where(probe_args args) {
  const int at = (block_z() * grid_y() + block_y()) * grid_x() + block_x();
  const int values[6] = {block_x(), block_y(), block_z(), grid_x(), grid_y(), grid_z()};
  if (thread_index() < 6) out_of(args)[6 * at + thread_index()] = values[thread_index()];
}

void launch_where(const gpu::launch_target& target, const probe_args& args) {
  launch<where>(target, {3, 4, 5}, probe_threads, 0, args);
}

// out [0] += n for every thread of 7 blocks; the last block by count doubles out [1]
NIBBLE_KERNEL(probe_threads) count(probe_args args) {
  auto* const counters = static_cast<std::uint32_t*>(args.out);
  atomic_add(counters, static_cast<std::uint32_t>(args.n));
  fence();
  sync_block();
  if (thread_index() == 0 && atomic_add(counters + 2, 1) == 6) counters[1] *= 2;
}

void launch_count(const gpu::launch_target& target, const probe_args& args) {
  launch<count>(target, {7, 1, 1}, probe_threads, 0, args);
}

// out [threads] = 2 * out [threads] + n
NIBBLE_KERNEL(probe_threads) twice(probe_args args) {
  std::int32_t& x = out_of(args)[thread_index()];
  x = 2 * x + args.n;
}

// out [threads]: dot4, and out [threads, 4] of floats after it: exp and reciprocal
NIBBLE_KERNEL(probe_threads) arithmetic(probe_args args) {
  const int me = thread_index();
  const auto* const a = static_cast<const std::uint32_t*>(args.a);
  const auto* const b = static_cast<const std::uint32_t*>(args.b);
  out_of(args)[me] = dot4(a[me], b[me], -me);
  auto* const floats = reinterpret_cast<float*>(out_of(args) + probe_threads);
  const float x = static_cast<float>(me - 64) / 4;
  floats[2 * me] = fast_exp(x);
  floats[2 * me + 1] = fast_reciprocal(x + 0.125f);
}

// ---- tiles: a, b [n][16 rows, probe_stride bytes]; out [16, 16] is the sum over n ----

template <typename Tile, int bytes>
NIBBLE_KERNEL(probe_threads)
multiply_tiles(probe_args args) {
  constexpr int tile_bytes = tile_size * gpu::probe_stride;
  Tile sum{};
  for (int i = 0; i < args.n; ++i) {
    sync_block();
    for (int at = 16 * thread_index(); at < tile_bytes; at += 16 * probe_threads) {
      store16(shared_memory() + at,
              load16(static_cast<const std::byte*>(args.a) + i * tile_bytes + at));
      store16(shared_memory() + tile_bytes + at,
              load16(static_cast<const std::byte*>(args.b) + i * tile_bytes + at));
    }
    sync_block();
    const auto a = load_rows<bytes>(shared_memory(), gpu::probe_stride);
    const auto b = load_rows<bytes>(shared_memory() + tile_bytes, gpu::probe_stride);
    multiply(sum, a, b);
  }
  // each warp has made the whole tile, and writes one of its own
  auto* const to = static_cast<std::int32_t*>(args.out) + warp_index() * tile_size * tile_size;
  for (int i = 0; i < tile_elements; ++i) {
    to[tile_row(i) * tile_size + tile_column(i)] = std::bit_cast<std::int32_t>(sum.sum[i]);
  }
}
constexpr int tiles_shared = 2 * tile_size * gpu::probe_stride;

// ---- mistakes ----

NIBBLE_KERNEL(probe_threads) lacks_barrier(probe_args args) {
  const int me = thread_index();
  shared_integers()[me] = me;
  out_of(args)[me] = shared_integers()[probe_threads - 1 - me];
}

NIBBLE_KERNEL(probe_threads) lacks_second_barrier(probe_args args) {
  const int me = thread_index();
  shared_integers()[me] = me;
  sync_block();
  const std::int32_t mine = shared_integers()[probe_threads - 1 - me];
  shared_integers()[(me + 1) % probe_threads] = mine;  // before others have read
  sync_block();
  out_of(args)[me] = shared_integers()[me];
}

NIBBLE_KERNEL(probe_threads) lacks_sync_warp(probe_args args) {
  const int me = thread_index();
  shared_integers()[me] = me;
  out_of(args)[me] = shared_integers()[me ^ (warp_size - 1)];
}

NIBBLE_KERNEL(probe_threads) barrier_of_some(probe_args args) {
  if (thread_index() < args.n) sync_block();
  out_of(args)[thread_index()] = 1;
}

NIBBLE_KERNEL(probe_threads) two_barriers(probe_args args) {
  if (thread_index() < args.n) {
    sync_block();
  } else {
    sync_block();
  }
  out_of(args)[thread_index()] = 1;
}

NIBBLE_KERNEL(probe_threads) early_end(probe_args args) {
  if (thread_index() >= args.n) return;
  sync_block();
  out_of(args)[thread_index()] = 1;
}

NIBBLE_KERNEL(probe_threads) shuffle_of_some(probe_args args) {
  if (lane() < args.n) out_of(args)[thread_index()] = shuffle_xor(thread_index(), 1);
}

NIBBLE_KERNEL(probe_threads) two_shuffles(probe_args args) {
  const int me = thread_index();
  if (lane() % 2 == 0) {
    out_of(args)[me] = shuffle(me, 0);
  } else {
    out_of(args)[me] = shuffle(me, 1);
  }
}

NIBBLE_KERNEL(probe_threads) shuffle_and_barrier(probe_args args) {
  if (lane() < args.n) {
    out_of(args)[thread_index()] = shuffle(thread_index(), 0);
  } else {
    sync_block();
  }
}

NIBBLE_KERNEL(probe_threads) shuffle_from_nowhere(probe_args args) {
  out_of(args)[thread_index()] = shuffle(thread_index(), lane() + args.n);
}

// a [threads] words4 -> out [threads, 4]; `waits`, or not
template <bool waits>
NIBBLE_KERNEL(probe_threads)
copy_and_read(probe_args args) {
  const int me = thread_index();
  auto* const to = reinterpret_cast<words4*>(shared_memory());
  copy16_async(to + me, static_cast<const words4*>(args.a) + me);
  commit_async();
  if constexpr (waits) wait_async<0>();
  sync_block();
  store16(static_cast<words4*>(args.out) + me, load16(to + me));
}

// What neighbours read is overwritten without a barrier before.
NIBBLE_KERNEL(probe_threads) copy_too_early(probe_args args) {
  const int me = thread_index();
  auto* const to = reinterpret_cast<words4*>(shared_memory());
  const auto* const from = static_cast<const words4*>(args.a);
  store16(to + me, load16(from + me));
  sync_block();
  const words4 mine = load16(to + (me ^ 1));
  copy16_async(to + me, from + me);
  commit_async();
  sync_block();
  wait_async<0>();
  store16(static_cast<words4*>(args.out) + me, mine);
}

NIBBLE_KERNEL(probe_threads) unwritten(probe_args args) {
  out_of(args)[thread_index()] = shared_integers()[thread_index()];
}

// n: bytes beyond a
NIBBLE_KERNEL(probe_threads) load_at(probe_args args) {
  const words4 v = load16(static_cast<const std::byte*>(args.a) + args.n);
  out_of(args)[thread_index()] = static_cast<std::int32_t>(v.w[0]);
}
NIBBLE_KERNEL(probe_threads) load_once_at(probe_args args) {
  const words4 v = load16_once(static_cast<const std::byte*>(args.a) + args.n);
  out_of(args)[thread_index()] = static_cast<std::int32_t>(v.w[0]);
}
NIBBLE_KERNEL(probe_threads) store_at(probe_args args) {
  store16(static_cast<std::byte*>(args.out) + args.n, words4{});
}
NIBBLE_KERNEL(probe_threads) copy_from(probe_args args) {
  copy16_async(shared_memory(), static_cast<const std::byte*>(args.a) + args.n);
}
NIBBLE_KERNEL(probe_threads) copy_to(probe_args args) {
  copy16_async(shared_memory() + args.n, args.a);
}

NIBBLE_KERNEL(probe_threads) rows_of_some(probe_args args) {
  if (lane() >= args.n) return;
  load_rows<16>(shared_memory(), 16);
}
NIBBLE_KERNEL(probe_threads) rows_that_differ(probe_args args) {
  load_rows<16>(shared_memory() + 16 * (lane() / args.n), 16);
}
NIBBLE_KERNEL(probe_threads) rows_at(probe_args args) {
  load_rows<32>(shared_memory() + args.n, 32);
}
NIBBLE_KERNEL(probe_threads) rows_overwritten(probe_args args) {
  for (int i = thread_index(); i < 128; i += probe_threads) shared_integers()[i] = 0;
  sync_block();
  const auto rows = load_rows<32>(shared_memory(), 32);
  sync_block();
  if (thread_index() == 0) shared_integers()[77] = args.n;
  sync_block();
  tile_s8 sum{};
  multiply(sum, rows, rows);
  out_of(args)[thread_index()] = sum.sum[0];
}

template <int threads>
void launch_threads(const gpu::launch_target& target, const probe_args& args) {
  launch<twice>(target, {}, threads, 0, args);
}

// n: bytes of shared memory
void launch_with_shared(const gpu::launch_target& target, const probe_args& args) {
  launch<twice>(target, {}, probe_threads, static_cast<std::size_t>(args.n), args);
}

void launch_no_blocks(const gpu::launch_target& target, const probe_args& args) {
  launch<twice>(target, {1, 0, 1}, probe_threads, 0, args);
}

constexpr int an_integer_each = 4 * probe_threads, words_each = 16 * probe_threads;

constexpr gpu::probe all_probes[] = {
    {"exchange_values", launch_one<exchange_values, an_integer_each>},
    {"reverse", launch_one<reverse, an_integer_each>},
    {"stream", launch_one<stream, 3 * words_each>},
    {"where", launch_where},
    {"count", launch_count},
    {"twice", launch_one<twice>},
    {"arithmetic", launch_one<arithmetic>},
    {"tile_s8<16>", launch_one<multiply_tiles<tile_s8, 16>, tiles_shared>},
    {"tile_s8<32>", launch_one<multiply_tiles<tile_s8, 32>, tiles_shared>},
    {"tile_f16", launch_one<multiply_tiles<tile_f16, 32>, tiles_shared>},
    {"lacks_barrier", launch_one<lacks_barrier, an_integer_each>},
    {"lacks_second_barrier", launch_one<lacks_second_barrier, an_integer_each>},
    {"lacks_sync_warp", launch_one<lacks_sync_warp, an_integer_each>},
    {"barrier_of_some", launch_one<barrier_of_some>},
    {"two_barriers", launch_one<two_barriers>},
    {"early_end", launch_one<early_end>},
    {"shuffle_of_some", launch_one<shuffle_of_some>},
    {"two_shuffles", launch_one<two_shuffles>},
    {"shuffle_and_barrier", launch_one<shuffle_and_barrier>},
    {"shuffle_from_nowhere", launch_one<shuffle_from_nowhere>},
    {"copies", launch_one<copy_and_read<true>, words_each>},
    {"lacks_wait", launch_one<copy_and_read<false>, words_each>},
    {"copy_too_early", launch_one<copy_too_early, words_each>},
    {"unwritten", launch_one<unwritten, an_integer_each>},
    {"load_at", launch_one<load_at>},
    {"load_once_at", launch_one<load_once_at>},
    {"store_at", launch_one<store_at>},
    {"copy_from", launch_one<copy_from, words_each>},
    {"copy_to", launch_one<copy_to, words_each>},
    {"rows_of_some", launch_one<rows_of_some, 512>},
    {"rows_that_differ", launch_one<rows_that_differ, 512>},
    {"rows_at", launch_one<rows_at, 512>},
    {"rows_overwritten", launch_one<rows_overwritten, 512>},
    {"no_threads", launch_threads<0>},
    {"many_threads", launch_threads<1025>},
    {"with_shared", launch_with_shared},
    {"no_blocks", launch_no_blocks},
};

}  // namespace

std::span<const gpu::probe> probes() {
  return all_probes;
}

}  // namespace nibble::inline NIBBLE_ABI::kernels
