#include "kv/page_list.hpp"

namespace nibble::inline NIBBLE_ABI {

page_list::page_list(std::int32_t pages) : pages_(static_cast<std::size_t>(pages)) {
  free_.reserve(pages_.size());
  for (page_id i = pages; i-- > 0;) free_.push_back(i);  // the first ones are taken first
}

page_id page_list::take() {
  const page_id i = free_.back();
  free_.pop_back();
  at(i).references = 1;
  return i;
}

void page_list::retain(page_id i) {
  entry& p = at(i);
  if (p.references++ == 0) unlink(i);
}

void page_list::release(page_id i) {
  entry& p = at(i);
  if (--p.references > 0) return;
  if (p.node >= 0) {
    link(i);
  } else {
    free_.push_back(i);
  }
}

void page_list::set_node(page_id i, std::int32_t node) {
  entry& p = at(i);
  p.node = node;
  if (p.references > 0 || node >= 0) return;
  unlink(i);
  free_.push_back(i);
}

void page_list::link(page_id i) {
  entry& p = at(i);
  p.older = newest_;
  p.newer = no_page;
  (newest_ == no_page ? oldest_ : at(newest_).newer) = i;
  newest_ = i;
  ++cached_;
}

void page_list::unlink(page_id i) {
  const entry& p = at(i);
  (p.older == no_page ? oldest_ : at(p.older).newer) = p.newer;
  (p.newer == no_page ? newest_ : at(p.newer).older) = p.older;
  --cached_;
}

bool page_list::consistent() const {
  std::int32_t unused = 0, linked = 0;
  for (const entry& p : pages_) {
    if (p.references < 0) return false;
    if (p.references == 0) ++unused;
  }
  for (page_id i = oldest_; i != no_page; i = at(i).newer) {
    if (at(i).references != 0 || at(i).node < 0 || ++linked > cached_) return false;
  }
  return linked == cached_ && unused == available();
}

}  // namespace nibble::inline NIBBLE_ABI
