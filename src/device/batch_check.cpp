#include "device/batch_check.hpp"

#include <algorithm>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <variant>

namespace nibble::inline NIBBLE_ABI {
namespace {

template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  throw error(errc::invalid_argument, concat("batch: ", parts...));
}

void check_tokens(const batch& work, const batch_needs& needs) {
  const std::size_t count = work.tokens.size();
  if (count == 0) refuse("it has no tokens");
  if (count > static_cast<std::size_t>(needs.limits.max_tokens)) {
    refuse("it has ", count, " tokens; the program was made for ", needs.limits.max_tokens);
  }
  if (needs.n_vocab == 0) return;
  for (std::size_t i = 0; i < count; ++i) {
    if (work.tokens[i] >= 0 && work.tokens[i] < needs.n_vocab) continue;
    refuse("token ", i, " has id ", work.tokens[i], "; the vocabulary has ", needs.n_vocab);
  }
}

void check_layers(const kv_layout& layout, std::size_t index, const batch_needs& needs) {
  for (const auto& [layer, shape] : needs.layers) {
    const auto at = static_cast<std::size_t>(layer);
    if (at >= layout.layers.size()) {
      refuse("the cache of chunk ", index, " has ", layout.layers.size(),
             " layers; the program uses layer ", layer);
    }
    const kv_layer& l = layout.layers[at];
    if (l.n_head_kv != shape.n_head_kv || l.key_length != shape.key_length ||
        l.value_length != shape.value_length) {
      refuse("layer ", layer, " of the cache of chunk ", index, " has ", l.n_head_kv, " heads of ",
             l.key_length, " and ", l.value_length, "; the program needs ", shape.n_head_kv, " of ",
             shape.key_length, " and ", shape.value_length);
    }
    if (l.window != 0 && (shape.window == 0 || shape.window > l.window)) {
      refuse("layer ", layer, " of the cache of chunk ", index, " keeps ", l.window,
             " tokens; the program looks at ", shape.window == 0 ? "all" : "more");
    }
  }
}

// Every token that is to be seen or written has a page.
void check_pages(const batch_chunk& chunk, std::size_t index, const kv_cache& cache) {
  const kv_table& table = *chunk.table;
  const std::int64_t end = std::int64_t{chunk.n_past} + chunk.count;
  for (std::size_t g = 0; g < cache.groups().size(); ++g) {
    const std::int32_t window = cache.groups()[g].window;
    std::int64_t i =
        window > 0 ? std::max(std::int64_t{chunk.n_past} + 1 - window, std::int64_t{0}) : 0;
    while (i < end) {
      const std::int64_t place = table.place(i);
      const page_id page = table.groups[g].at(place / kv_page_tokens);
      if (page < 0 || page >= cache.pages(g)) {
        refuse("chunk ", index, " has no page for token ", i, " of its sequence; ", chunk.count,
               " follow ", chunk.n_past);
      }
      const std::int64_t next = i + kv_page_tokens - place % kv_page_tokens;
      i = i < table.keep && next > table.keep ? table.keep : next;
    }
  }
}

void check_cache(const batch_chunk& chunk, std::size_t index, const batch_needs& needs,
                 const backend* owner) {
  const kv_cache* const cache = chunk.cache;
  if (!cache) refuse("chunk ", index, " has no cache");
  if (cache->owner() != owner) {
    refuse("the cache of chunk ", index, " was made by another backend");
  }
  check_layers(cache->layout(), index, needs);
  if (!chunk.table || chunk.table->groups.size() != cache->groups().size()) {
    refuse("chunk ", index, " has no table of pages for the groups of its cache");
  }
  check_pages(chunk, index, *cache);
}

void check_chunks(const batch& work, const batch_needs& needs, const backend* owner) {
  std::int64_t covered = 0;
  for (std::size_t i = 0; i < work.chunks.size(); ++i) {
    const batch_chunk& c = work.chunks[i];
    if (c.count <= 0) refuse("chunk ", i, " has ", c.count, " tokens");
    if (c.n_past < 0) refuse("chunk ", i, " follows ", c.n_past, " tokens");
    if (c.first != covered) {
      refuse("chunk ", i, " begins at token ", c.first, "; the chunks before it end at ", covered);
    }
    covered += c.count;
    if (needs.layers.empty()) continue;
    check_cache(c, i, needs, owner);
    for (std::size_t j = 0; j < i; ++j) {
      const batch_chunk& other = work.chunks[j];
      if (other.table != c.table) continue;
      refuse("chunks ", j, " and ", i, " use one table; a sequence is one chunk of a batch");
    }
  }
  if (covered != static_cast<std::int64_t>(work.tokens.size())) {
    refuse("its chunks cover ", covered, " of ", work.tokens.size(), " tokens");
  }
}

void check_outputs(const batch& work, const batch_needs& needs) {
  std::int64_t before = -1;
  for (const std::int32_t index : work.outputs) {
    if (index <= before || static_cast<std::size_t>(index) >= work.tokens.size()) {
      refuse("output index ", index, " after ", before, "; they must ascend and be less than ",
             work.tokens.size());
    }
    before = index;
  }
  if (needs.outputs && work.outputs.size() > static_cast<std::size_t>(needs.limits.max_outputs)) {
    refuse("it wants ", work.outputs.size(), " outputs; the program was made for ",
           needs.limits.max_outputs);
  }
}

}  // namespace

batch_needs find_needs(const recording& r, program_limits limits) {
  batch_needs needs;
  needs.limits = limits;
  for (const value_info& v : r.values) needs.outputs |= v.rows == value_rows::per_output;
  for (const step& s : r.steps) {
    if (const auto* const embed = std::get_if<embed_step>(&s)) {
      const auto n = static_cast<std::int64_t>(embed->table->shape.rows());
      needs.n_vocab = needs.n_vocab == 0 ? n : std::min(needs.n_vocab, n);
    }
    if (const auto* const attend = std::get_if<attend_step>(&s)) {
      const attention_spec& a = attend->spec;
      needs.layers.push_back(
          {attend->layer, {a.n_head_kv, a.key_length, a.value_length, a.window}});
    }
  }
  return needs;
}

void check_batch(const batch& work, const batch_needs& needs, const backend* owner) {
  check_tokens(work, needs);
  check_chunks(work, needs, owner);
  check_outputs(work, needs);
}

}  // namespace nibble::inline NIBBLE_ABI
