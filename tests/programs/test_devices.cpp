// nibble-devices: what is here, and how fast.
#include <nlohmann/json.hpp>

#include "process.hpp"

TEST_CASE("devices: the CPU is there, and the disk of a model's file can be timed") {
  const test::temporary_folder folder;
  const std::string json = (folder / "devices.json").string(), model = test::tales.string();
  const std::string out = test::run_well("devices", {"--disk", model, "--json", json});
  CHECK(out.find("cpu") != out.npos);
  CHECK(out.find("GB/s") != out.npos);
  const auto found = nlohmann::json::parse(test::read_file(json));
  CHECK(found.at("devices").at(0).at("id") == "cpu");
  CHECK(found.at("devices").at(0).at("total_bytes").get<double>() > 0);
  CHECK(found.at("disk_bytes_per_second").get<double>() > 0);
  CHECK(!found.at("devices").at(0).contains("speed"));
}

TEST_CASE("devices: a disk is timed with a model's file only") {
  const test::temporary_folder folder;
  const auto text = test::write_file(folder / "text", "not a model");
  const auto failed = test::run("devices", {"--disk", text.string()});
  CHECK(failed.status == 1);
  CHECK(failed.err.find(text.string()) != failed.err.npos);
}
