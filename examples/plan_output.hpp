// A plan as JSON and as a drawing.
#pragma once

#include <nibble/plan/placement.hpp>
#include <string>

namespace plan_output {

std::string to_json(const nibble::placement& plan);
// A row for each device: how full it is and with what; below, the blocks in their order.
std::string to_svg(const nibble::placement& plan, const std::string& title);

}  // namespace plan_output
