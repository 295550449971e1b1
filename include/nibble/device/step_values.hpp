// Which values a step touches, and how: what liveness, validation and barriers are derived from.
#pragma once

#include <nibble/base/config.hpp>
#include <nibble/device/steps.hpp>
#include <variant>

namespace nibble::inline NIBBLE_ABI {

enum class value_access {
  read,
  write,  // every row that the batch has is written, nothing of the old contents is used
  update  // read and written
};

namespace detail {

template <typename Visit>
void values_of(const embed_step& s, Visit& visit) {
  visit(s.out, value_access::write);
}

template <typename Visit>
void values_of(const norm_step& s, Visit& visit) {
  visit(s.in, value_access::read);
  visit(s.out, value_access::write);
}

template <typename Visit>
void values_of(const matmul_step& s, Visit& visit) {
  visit(s.in, value_access::read);
  for (const linear& l : s.outputs) {
    visit(l.out, s.accumulate ? value_access::update : value_access::write);
  }
}

template <typename Visit>
void values_of(const attend_step& s, Visit& visit) {
  // norm and rotation happen in place
  visit(s.q, value_access::update);
  visit(s.k, value_access::update);
  visit(s.v, value_access::read);
  visit(s.out, value_access::write);
}

template <typename Visit>
void values_of(const gate_step& s, Visit& visit) {
  visit(s.gate, value_access::read);
  visit(s.up, value_access::read);
  visit(s.out, value_access::write);
}

template <typename Visit>
void values_of(const add_step& s, Visit& visit) {
  visit(s.in, value_access::read);
  visit(s.out, value_access::update);
}

template <typename Visit>
void values_of(const route_step& s, Visit& visit) {
  visit(s.logits, value_access::read);
  visit(s.selection, value_access::write);
  visit(s.weights, value_access::write);
}

template <typename Visit>
void values_of(const expert_matmul_step& s, Visit& visit) {
  visit(s.in, value_access::read);
  visit(s.selection, value_access::read);
  for (const linear& l : s.outputs) visit(l.out, value_access::write);
}

template <typename Visit>
void values_of(const combine_step& s, Visit& visit) {
  visit(s.in, value_access::read);
  visit(s.weights, value_access::read);
  visit(s.out, value_access::update);
}

template <typename Visit>
void values_of(const select_step& s, Visit& visit) {
  visit(s.in, value_access::read);
  visit(s.out, value_access::write);
}

template <typename Visit>
void values_of(const softcap_step& s, Visit& visit) {
  visit(s.x, value_access::update);
}

}  // namespace detail

// Calls visit(value, value_access) for each value of the step, inputs before outputs. A value that
// is named twice (in place) is visited twice.
template <typename Visit>
void for_each_value(const step& s, Visit&& visit) {
  std::visit([&](const auto& kind) { detail::values_of(kind, visit); }, s);
}

}  // namespace nibble::inline NIBBLE_ABI
