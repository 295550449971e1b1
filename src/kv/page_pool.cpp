#include <nibble/kv/page_pool.hpp>

#include <algorithm>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <utility>

#include "kv/page_list.hpp"
#include "kv/prefix_tree.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// The first token that the next one, with index n, sees.
std::int64_t first_seen(std::int32_t window, std::int64_t n) {
  return window > 0 ? std::max<std::int64_t>(n + 1 - window, 0) : 0;
}

// The page after the last one that a table reaches.
std::int64_t end_page(const kv_table::group& g) {
  return g.tail.empty() ? static_cast<std::int64_t>(g.head.size())
                        : g.tail_first + static_cast<std::int64_t>(g.tail.size());
}

// f(place page, tokens from the page's begin on): pages with tokens [i, n) of a sequence.
template <typename F>
void each_page(const kv_table& table, std::int64_t i, std::int64_t n, F f) {
  while (i < n) {
    const std::int64_t page = table.place(i) / kv_page_tokens;
    const std::int64_t end = (page + 1) * kv_page_tokens;
    // the gap may lie inside a page: that is still one
    const bool before_gap = i < table.keep && table.place(table.keep) >= end;
    const std::int64_t next = before_gap ? std::min({end, std::int64_t{table.keep}, n})
                                         : std::min(end - table.dropped, n);
    f(page, static_cast<std::int32_t>(table.place(next - 1) % kv_page_tokens + 1));
    i = next;
  }
}

page_id& slot(kv_table::group& g, std::int64_t page) {
  if (page < static_cast<std::int64_t>(g.head.size())) {
    return g.head[static_cast<std::size_t>(page)];
  }
  return g.tail[static_cast<std::size_t>(page - g.tail_first)];
}

// The same; the table grows by that page if it ended before it.
page_id& slot_for(kv_table::group& g, std::int64_t page) {
  if (page >= end_page(g)) {
    if (g.tail.empty()) g.tail_first = page;
    g.tail.push_back(no_page);
  }
  return slot(g, page);
}

[[noreturn]] void throw_no_room(const page_list& list, std::int64_t tokens) {
  throw error(errc::out_of_memory,
              concat("the KV cache has no room for ", tokens, tokens == 1 ? " token" : " tokens",
                     " more: ", list.used(), " of its ", list.total(), " pages of ", kv_page_tokens,
                     " tokens are in use. End a session, or plan for more of them (the plan option "
                     "sessions)."));
}

std::size_t head_pages(std::int32_t keep) {
  return static_cast<std::size_t>(pages_for(keep));
}

}  // namespace

std::vector<std::int32_t> pages_of_sessions(std::span<const kv_group> groups, std::int32_t context,
                                            std::int32_t batch, std::int32_t sessions) {
  std::vector<std::int32_t> pages;
  for (const kv_group& g : groups) {
    std::int64_t one = g.kind == kv_kind::state ? 1 : pages_for(context);
    // the window may begin and the batch end inside a page
    if (g.window > 0) one = std::min(one, pages_for(std::int64_t{g.window} + batch) + 1);
    pages.push_back(static_cast<std::int32_t>(one * sessions));
  }
  return pages;
}

struct page_pool::state {
  std::mutex mutex;
  std::vector<kv_group> kinds;  // by group
  std::vector<page_list> groups;
  prefix_tree tree;
  page_copier copy;
  std::vector<std::int32_t> wanted =
      {};  // pages of each group; kept, so that a token allocates none

  bool is_state(std::size_t g) const { return kinds[g].kind == kv_kind::state; }
  // f(place page, tokens from the page's begin on): what a sequence of n tokens will still look at.
  template <typename F>
  void each_seen(std::size_t g, const kv_table& table, std::int64_t n, F f) const {
    if (!is_state(g)) return each_page(table, first_seen(kinds[g].window, n), n, f);
    if (n > 0) f(0, 1);
  }

  page_id take(std::size_t g) {
    page_list& list = groups[g];
    if (!list.has_free()) {
      const page_id oldest = list.oldest_cached();
      if (oldest == no_page) return no_page;
      unfile(g, oldest);
    }
    return list.take();
  }
  void drop(std::size_t g, page_id page) {
    if (page != no_page) groups[g].release(page);
  }
  void unfile(std::size_t g, page_id page) {
    const std::int32_t node = groups[g].node(page);
    if (node == prefix_tree::none) return;
    tree.detach(node, g);
    groups[g].set_node(page, prefix_tree::none);
  }
  // Pages from place page `from` on. The last go first, so that they are the first to be used for
  // something else: what lies before them can be shared without them.
  void drop_from(kv_table::group& group, std::size_t g, std::int64_t from) {
    const auto tail = static_cast<std::size_t>(std::max<std::int64_t>(from - group.tail_first, 0));
    while (group.tail.size() > tail) {
      drop(g, group.tail.back());
      group.tail.pop_back();
    }
    for (auto p = static_cast<std::int64_t>(group.head.size()); p-- > from;) {
      drop(g, std::exchange(group.head[static_cast<std::size_t>(p)], no_page));
    }
    if (group.tail.empty()) group.tail_first = static_cast<std::int64_t>(group.head.size());
  }
  void clear(kv_sequence& s) {
    for (std::size_t g = 0; g < groups.size(); ++g) drop_from(s.table.groups[g], g, 0);
    s.table.dropped = 0;
    s.contents.clear();
  }
  // Tail pages before place page `end`.
  void drop_front(kv_table::group& group, std::size_t g, std::int64_t end) {
    const std::int64_t n =
        std::min(end - group.tail_first, static_cast<std::int64_t>(group.tail.size()));
    if (n <= 0) return;
    for (std::int64_t i = n; i-- > 0;) drop(g, group.tail[static_cast<std::size_t>(i)]);
    group.tail.erase(group.tail.begin(), group.tail.begin() + n);
    group.tail_first += n;
  }
  void slide_windows(kv_table& table, std::int64_t n);
  void file(kv_sequence& s, std::span<const token> tokens);
  bool sees_all(const kv_table& table, std::int64_t n) const;
  // The pages of a chain of nodes, as many as can be continued.
  std::size_t usable(std::span<const std::int32_t> nodes) const;
  void give(kv_sequence& s, std::span<const std::int32_t> nodes);
};

page_pool::page_pool(std::span<const kv_group> groups, std::span<const std::int32_t> pages,
                     page_copier copy) {
  std::size_t total = 0;
  std::vector<page_list> lists;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    lists.emplace_back(pages[g]);
    total += static_cast<std::size_t>(pages[g]);
  }
  state_ = std::unique_ptr<state>(new state{.mutex = {},
                                            .kinds = {groups.begin(), groups.end()},
                                            .groups = std::move(lists),
                                            .tree = prefix_tree(groups.size(), total),
                                            .copy = std::move(copy)});
}

page_pool::~page_pool() = default;

void page_pool::forget_contents() {
  const std::lock_guard lock(state_->mutex);
  for (std::size_t g = 0; g < state_->groups.size(); ++g) {
    for (page_id page = 0; page < state_->groups[g].total(); ++page) state_->unfile(g, page);
  }
}

kv_sequence page_pool::make_sequence(std::int32_t keep, std::int32_t context) const {
  kv_sequence s;
  s.table.keep = keep;
  s.table.groups.resize(state_->groups.size());
  for (kv_table::group& g : s.table.groups) {
    g.head.assign(head_pages(keep), no_page);
    g.tail_first = static_cast<std::int64_t>(g.head.size());
    g.tail.reserve(static_cast<std::size_t>(pages_for(context) + 1));
  }
  s.contents.reserve(static_cast<std::size_t>(pages_for(context)));
  return s;
}

void page_pool::prepare(kv_sequence& s, std::int64_t n_past, std::int64_t count) {
  const std::lock_guard lock(state_->mutex);
  const std::int64_t first = s.table.place(n_past) / kv_page_tokens;
  const std::int64_t last = s.table.place(n_past + count - 1) / kv_page_tokens;
  // f(group, place page): those that will be written
  const auto each_written = [&](auto f) {
    for (std::size_t g = 0; g < state_->groups.size(); ++g) {
      const bool one = state_->is_state(g);
      for (std::int64_t p = one ? 0 : first; p <= (one ? 0 : last); ++p) f(g, p);
    }
  };
  // how many are missing is counted before any is taken
  std::vector<std::int32_t>& wanted = state_->wanted;
  wanted.assign(state_->groups.size(), 0);
  each_written([&](std::size_t g, std::int64_t p) {
    const page_id page = s.table.groups[g].at(p);
    if (page == no_page || state_->groups[g].references(page) > 1) ++wanted[g];
  });
  for (std::size_t g = 0; g < wanted.size(); ++g) {
    if (wanted[g] > state_->groups[g].available()) throw_no_room(state_->groups[g], count);
  }
  each_written([&](std::size_t g, std::int64_t p) {
    page_id& page = slot_for(s.table.groups[g], p);
    const page_id old = page;
    if (old != no_page && state_->groups[g].references(old) == 1) {
      return state_->unfile(g, old);  // it will hold something else
    }
    page = state_->take(g);
    if (old == no_page) return;
    state_->copy(g, old, page);
    state_->drop(g, old);
  });
#ifndef NDEBUG
  each_written([&](std::size_t g, std::int64_t p) {
    const page_id page = s.table.groups[g].at(p);
    const page_list& list = state_->groups[g];
    if (list.references(page) == 1 && list.node(page) == prefix_tree::none) return;
    throw error(errc::device, "a page of the KV cache that others use would be written.");
  });
#endif
  const auto kept = static_cast<std::size_t>(n_past / kv_page_tokens);
  if (s.contents.size() > kept) s.contents.resize(kept);
}

void page_pool::complete(kv_sequence& s, std::span<const token> tokens) {
  const std::lock_guard lock(state_->mutex);
  if (s.table.dropped == 0) state_->file(s, tokens);
  state_->slide_windows(s.table, static_cast<std::int64_t>(tokens.size()));
}

void page_pool::state::file(kv_sequence& s, std::span<const token> tokens) {
  while (tokens.size() >= (s.contents.size() + 1) * kv_page_tokens) {
    const std::size_t p = s.contents.size();
    const auto own = tokens.subspan(p * kv_page_tokens, kv_page_tokens);
    const std::uint64_t parent = p == 0 ? prefix_tree::root : s.contents.back();
    std::int32_t node = tree.find(parent, own);
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const page_id page = s.table.groups[g].at(static_cast<std::int64_t>(p));
      if (is_state(g) || page == no_page || groups[g].node(page) != prefix_tree::none) continue;
      // no node without a page: none would ever go
      if (node == prefix_tree::none) node = tree.insert(parent, own);
      if (tree.page(node, g) != no_page) continue;
      tree.attach(node, g, page);
      groups[g].set_node(page, node);
    }
    if (node == prefix_tree::none) return;
    s.contents.push_back(tree.at(node).content);
  }
}

void page_pool::state::slide_windows(kv_table& table, std::int64_t n) {
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (kinds[g].window == 0) continue;
    const std::int64_t seen = first_seen(kinds[g].window, n);
    kv_table::group& group = table.groups[g];
    const std::int64_t first = table.place(seen) / kv_page_tokens;
    for (std::size_t p = 0; p < group.head.size() && static_cast<std::int64_t>(p) < first; ++p) {
      drop(g, std::exchange(group.head[p], no_page));
    }
    drop_front(group, g, first);
  }
}

bool page_pool::state::sees_all(const kv_table& table, std::int64_t n) const {
  bool all = true;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    each_seen(g, table, n,
              [&](std::int64_t page, std::int32_t) { all &= table.groups[g].at(page) != no_page; });
  }
  return all;
}

std::size_t page_pool::state::usable(std::span<const std::int32_t> nodes) const {
  // states are those after the last token of a sequence, and none is filed
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (is_state(g)) return 0;
  }
  for (std::size_t n = nodes.size(); n > 0; --n) {
    bool whole = true;
    for (std::size_t g = 0; g < groups.size() && whole; ++g) {
      const auto tokens = static_cast<std::int64_t>(n) * kv_page_tokens;
      for (auto p = static_cast<std::size_t>(first_seen(kinds[g].window, tokens) / kv_page_tokens);
           p < n && whole; ++p) {
        whole = tree.page(nodes[p], g) != no_page;
      }
    }
    if (whole) return n;
  }
  return 0;
}

void page_pool::state::give(kv_sequence& s, std::span<const std::int32_t> nodes) {
  const auto tokens = static_cast<std::int64_t>(nodes.size()) * kv_page_tokens;
  kv_table old = s.table;  // given up only after the new ones are held: some may be both
  for (std::size_t g = 0; g < groups.size(); ++g) {
    kv_table::group& group = s.table.groups[g];
    const std::size_t head = group.head.size();
    const auto seen =
        static_cast<std::size_t>(first_seen(kinds[g].window, tokens) / kv_page_tokens);
    const std::size_t tail_first = std::max(head, std::min(seen, nodes.size()));
    group.head.assign(head, no_page);
    group.tail.clear();
    group.tail_first = static_cast<std::int64_t>(tail_first);
    for (std::size_t p = seen; p < nodes.size(); ++p) {
      const page_id page = tree.page(nodes[p], g);
      groups[g].retain(page);
      if (p < head) {
        group.head[p] = page;
      } else {
        group.tail.push_back(page);
      }
    }
    drop_from(old.groups[g], g, 0);
  }
  s.contents.clear();
  for (const std::int32_t node : nodes) s.contents.push_back(tree.at(node).content);
}

std::int64_t page_pool::adopt(kv_sequence& s, std::span<const token> tokens, std::int64_t n_past,
                              std::int64_t limit) {
  if (s.table.dropped != 0) return 0;
  const std::int64_t most =
      std::min<std::int64_t>(limit, static_cast<std::int64_t>(tokens.size())) / kv_page_tokens;
  if (most * kv_page_tokens <= n_past) return 0;
  const std::lock_guard lock(state_->mutex);
  std::vector<std::int32_t> nodes;
  std::uint64_t parent = prefix_tree::root;
  while (static_cast<std::int64_t>(nodes.size()) < most) {
    const auto own = tokens.subspan(nodes.size() * kv_page_tokens, kv_page_tokens);
    const std::int32_t node = state_->tree.find(parent, own);
    if (node == prefix_tree::none) break;
    nodes.push_back(node);
    parent = state_->tree.at(node).content;
  }
  const std::size_t n = state_->usable(nodes);
  const auto found = static_cast<std::int64_t>(n) * kv_page_tokens;
  if (found <= n_past) return 0;
  state_->give(s, std::span(nodes).first(n));
  return found;
}

kv_sequence page_pool::fork(const kv_sequence& sequence) {
  kv_sequence copy = sequence;
  for (std::size_t g = 0; g < copy.table.groups.size(); ++g) {
    // a copy has no more capacity than elements
    copy.table.groups[g].tail.reserve(sequence.table.groups[g].tail.capacity());
  }
  copy.contents.reserve(sequence.contents.capacity());
  const std::lock_guard lock(state_->mutex);
  for (std::size_t g = 0; g < copy.table.groups.size(); ++g) {
    for (const auto* pages : {&copy.table.groups[g].head, &copy.table.groups[g].tail}) {
      for (const page_id page : *pages) {
        if (page != no_page) state_->groups[g].retain(page);
      }
    }
  }
  return copy;
}

bool page_pool::truncate(kv_sequence& s, std::int64_t n) {
  const std::lock_guard lock(state_->mutex);
  if (n <= s.table.keep) s.table.dropped = 0;  // nothing is left behind the gap
  const std::int64_t end = n == 0 ? 0 : s.table.place(n - 1) / kv_page_tokens + 1;
  for (std::size_t g = 0; g < state_->groups.size(); ++g) {
    state_->drop_from(s.table.groups[g], g, end);
  }
  const auto kept = static_cast<std::size_t>(n / kv_page_tokens);
  if (s.contents.size() > kept) s.contents.resize(kept);
  // a state cannot go back
  const bool has_state = std::any_of(state_->kinds.begin(), state_->kinds.end(),
                                     [](const kv_group& g) { return g.kind == kv_kind::state; });
  if (state_->sees_all(s.table, n) && (n == 0 || !has_state)) return true;
  state_->clear(s);
  return false;
}

bool page_pool::shift(kv_sequence& s, std::int32_t keep, std::int64_t drop, std::int64_t n) {
  if (keep < 0 || drop < 0 || keep + drop > n) {
    throw error(errc::invalid_argument, concat("cannot keep ", keep, " tokens and drop ", drop,
                                               " after them: there are ", n, "."));
  }
  if (s.table.dropped > 0 && keep != s.table.keep) {
    throw error(
        errc::invalid_argument,
        concat("cannot keep ", keep, " tokens: ", s.table.keep,
               " were kept when tokens were dropped before, and those after them are gone"));
  }
  if (drop == 0) return true;
  if (keep + drop == n) return truncate(s, keep);  // nothing is left behind a gap
  const std::lock_guard lock(state_->mutex);
  kv_table& table = s.table;
  if (keep != table.keep) {
    std::vector<kv_table::group> groups;  // nothing has changed where memory is lacking
    for (const kv_table::group& g : table.groups) {
      std::vector<page_id> head(head_pages(keep), no_page), tail;
      const auto first = static_cast<std::int64_t>(head.size());
      for (std::int64_t p = 0; p < std::min(first, end_page(g)); ++p) {
        head[static_cast<std::size_t>(p)] = g.at(p);
      }
      const bool shorter = head.size() < g.head.size();
      const std::int64_t tail_first =
          shorter ? first : std::max(first, std::min(g.tail_first, end_page(g)));
      tail.reserve(g.tail.capacity());
      for (std::int64_t p = tail_first; p < end_page(g); ++p) tail.push_back(g.at(p));
      groups.push_back({std::move(head), std::move(tail), tail_first});
    }
    table.groups = std::move(groups);
    table.keep = keep;
  }
  table.dropped += drop;
  s.contents.clear();
  for (std::size_t g = 0; g < state_->groups.size(); ++g) {
    if (!state_->is_state(g)) {
      state_->drop_front(table.groups[g], g, (keep + table.dropped) / kv_page_tokens);
    }
  }
  if (state_->sees_all(table, n - drop)) return true;
  state_->clear(s);
  return false;
}

void page_pool::release(kv_sequence& s) {
  const std::lock_guard lock(state_->mutex);
  state_->clear(s);
}

std::vector<page_pool::held_page> page_pool::pages_of(const kv_sequence& s, std::int64_t n) const {
  std::vector<held_page> held;
  for (std::size_t g = 0; g < state_->groups.size(); ++g) {
    state_->each_seen(g, s.table, n, [&](std::int64_t page, std::int32_t tokens) {
      held.push_back({g, s.table.groups[g].at(page), tokens});
    });
  }
  return held;
}

void page_pool::restore(kv_sequence& s, std::int32_t keep, std::int64_t dropped, std::int64_t n) {
  const std::lock_guard lock(state_->mutex);
  kv_sequence made;
  made.table.keep = keep;
  made.table.dropped = dropped;
  made.contents.reserve(s.contents.capacity());
  made.table.groups.resize(state_->groups.size());
  for (std::size_t g = 0; g < state_->groups.size(); ++g) {
    kv_table::group& group = made.table.groups[g];
    group.head.assign(head_pages(keep), no_page);
    group.tail_first = static_cast<std::int64_t>(group.head.size());
    group.tail.reserve(s.table.groups[g].tail.capacity());
    std::int32_t wanted = 0;
    state_->each_seen(g, made.table, n, [&](std::int64_t, std::int32_t) { ++wanted; });
    if (wanted > state_->groups[g].available()) throw_no_room(state_->groups[g], n);
  }
  for (std::size_t g = 0; g < state_->groups.size(); ++g) {
    kv_table::group& group = made.table.groups[g];
    state_->each_seen(g, made.table, n, [&](std::int64_t page, std::int32_t) {
      slot_for(group, page) = state_->take(g);
    });
  }
  s = std::move(made);
}

bool page_pool::copies_before(const kv_sequence& s, std::int64_t n, std::size_t group) const {
  const std::lock_guard lock(state_->mutex);
  const std::int64_t page = state_->is_state(group) ? 0 : s.table.place(n) / kv_page_tokens;
  const page_id id = s.table.groups[group].at(page);
  return id != no_page && state_->groups[group].references(id) > 1;
}

page_pool::usage page_pool::in_use(std::size_t group) const {
  const std::lock_guard lock(state_->mutex);
  const page_list& list = state_->groups[group];
  return {list.total(), list.used(), list.cached()};
}

bool page_pool::consistent() const {
  const std::lock_guard lock(state_->mutex);
  for (std::size_t g = 0; g < state_->groups.size(); ++g) {
    const page_list& list = state_->groups[g];
    if (!list.consistent()) return false;
    for (page_id page = 0; page < list.total(); ++page) {
      const std::int32_t node = list.node(page);
      if (node != prefix_tree::none && state_->tree.page(node, g) != page) return false;
    }
  }
  return true;
}

}  // namespace nibble::inline NIBBLE_ABI
