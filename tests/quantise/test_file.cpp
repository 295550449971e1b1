// quantise_file: what it writes, what it keeps, what it refuses.

#include <algorithm>
#include <fstream>
#include <limits>
#include <set>

#include "errors.hpp"
#include "quantise_test.hpp"
#include "temporary_folder.hpp"

namespace {

using nibble::errc;
using test::names_in;
using test::to_type;

// Matrices of several shapes, one of them larger than a wave of chunks; what stays as it is.
test::made_file small_model() {
  test::made_file made;
  made.writer().set("general.architecture", "llama");
  made.writer().set("general.name", "small");
  made.writer().set("general.file_type", std::uint32_t{0});
  made.writer().set("llama.block_count", std::uint32_t{1});
  const std::string tokens[] = {"<s>", "a"};
  made.writer().set_array("tokenizer.ggml.tokens", std::span<const std::string>(tokens));
  made.add("token_embd.weight", {{256, 3000, 1, 1}}, 1);
  made.add("output_norm.weight", {{256, 1, 1, 1}}, 2);
  made.add("blk.0.attn_q.weight", {{512, 70, 1, 1}}, 3);
  made.add("blk.0.ffn_gate_inp.weight", {{256, 3, 1, 1}}, 4);
  made.add("blk.0.ffn_up_exps.weight", {{256, 300, 3, 1}}, 5);
  made.add("blk.0.ffn_down.weight", {{96, 40, 1, 1}}, 6);
  made.add("output.weight", {{50, 8, 1, 1}}, 7);
  return made;
}

nibble::error refused(const nibble::gguf::file& file, const std::filesystem::path& out,
                      const nibble::quantise_options& options) {
  return test::thrown([&] { nibble::quantise_file(file, out, options); });
}

}  // namespace

TEST_CASE("quantise_file: every tensor as quantise_rows makes it, for any number of threads") {
  const test::temporary_folder folder;
  const auto source = small_model().write(folder / "in.gguf");
  for (const char* type : {"q8_0", "q4_0", "f16"}) {
    INFO(type);
    std::vector<std::string> results;
    for (const int threads : {1, 2, 3}) {
      auto options = to_type(type);
      options.threads = threads;
      const auto report = nibble::quantise_file(source, folder / "out.gguf", options);
      std::ifstream in(folder / "out.gguf", std::ios::binary);
      results.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
      CHECK(report.parts.size() == 1);
      CHECK(report.file_bytes() == results.back().size());
      CHECK(results.back() == results.front());
    }
    const nibble::gguf::file out(folder / "out.gguf");
    REQUIRE(out.tensors().size() == source.tensors().size());
    for (std::size_t i = 0; i < out.tensors().size(); ++i) {
      const auto &from = source.tensors()[i], &to = out.tensors()[i];
      INFO(from.name);
      CHECK(to.name == from.name);
      CHECK(to.view.shape == from.view.shape);
      const bool stays =
          from.name == "output_norm.weight" || from.name == "blk.0.ffn_gate_inp.weight";
      const auto wanted = stays                          ? from.view.format
                          : from.name == "output.weight" ? nibble::id_of<nibble::formats::f16>
                                                         : *nibble::find_format(type);
      REQUIRE(nibble::format_name(to.view.format) == nibble::format_name(wanted));
      std::vector<std::byte> expected(to.bytes);
      nibble::quantise_rows(wanted, test::decoded(from),
                            static_cast<std::int64_t>(from.view.shape.columns()), {}, expected);
      CHECK(std::ranges::equal(test::bytes_of(to), expected));
    }
  }
}

TEST_CASE("quantise_file: metadata is kept, file_type and quantization_version are set") {
  const test::temporary_folder folder;
  const auto source = small_model().write(folder / "in.gguf");
  const auto report = nibble::plan_quantise(source, folder / "out.gguf", to_type("q4_k_m", false));
  nibble::quantise_file(source, folder / "out.gguf", to_type("q4_0"));
  const nibble::gguf::file out(folder / "out.gguf");
  CHECK(out.require<std::uint32_t>("general.file_type") == 2);
  CHECK(out.require<std::uint32_t>("general.quantization_version") == 2);
  CHECK(out.require<std::string_view>("general.name") == "small");
  CHECK(out.get_array<std::string_view>("tokenizer.ggml.tokens")->at(1) == "a");
  CHECK(out.alignment() == source.alignment());
  CHECK(out.metadata().size() == source.metadata().size() + 1);
  const auto instead = [&](const char* name) -> std::string {
    for (const auto& t : report.tensors) {
      if (t.name == name && t.instead_of) return nibble::format_name(*t.instead_of);
    }
    return "";
  };
  CHECK(instead("blk.0.ffn_down.weight") == "q6_k");  // rows of 96
  CHECK(instead("output.weight") == "q8_0");          // rows of 50
  CHECK(instead("blk.0.attn_q.weight") == "");
}

TEST_CASE("quantise_file: the plan is what is written, in one file or parts, from either") {
  const test::temporary_folder folder;
  const auto whole = small_model().write(folder / "in.gguf");
  const auto split = small_model().write(folder / "parts.gguf", 900000);
  REQUIRE(split.part_count() >= 3);
  for (const auto* source : {&whole, &split}) {
    for (const std::uint64_t most : {0, 200000}) {
      auto options = to_type("q8_0", false);
      options.max_part_bytes = most;
      const auto plan = nibble::plan_quantise(*source, folder / "o" / "x.gguf", options);
      std::filesystem::create_directory(folder / "o");
      const auto done = nibble::quantise_file(*source, folder / "o" / "x.gguf", options);
      CHECK((most == 0) == (plan.parts.size() == 1));
      REQUIRE(done.parts.size() == plan.parts.size());
      CHECK(names_in(folder / "o").size() == plan.parts.size());
      for (const auto& part : plan.parts) {
        CHECK(std::filesystem::file_size(part.path) == part.bytes);
      }
      const nibble::gguf::file out(plan.parts.back().path);
      REQUIRE(out.tensors().size() == plan.tensors.size());
      std::uint64_t sum = 0;
      for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
        CHECK(out.tensors()[i].bytes == plan.tensors[i].bytes_to);
        CHECK(out.tensors()[i].view.format == plan.tensors[i].to);
        sum += plan.tensors[i].bytes_to;
      }
      CHECK(sum == plan.bytes_to);
      CHECK(plan.weights() == 256 * 3000 + 256 + 512 * 70 + 768 + 256 * 900 + 96 * 40 + 400);
      std::filesystem::remove_all(folder / "o");
    }
  }
}

TEST_CASE("quantise_file: progress begins with 0, ends with all, and never goes back") {
  const test::temporary_folder folder;
  const auto source = small_model().write(folder / "in.gguf");
  std::vector<nibble::quantise_progress> seen;
  nibble::quantise_file(source, folder / "out.gguf", to_type("q8_0"),
                        [&](const auto& p) { seen.push_back(p); });
  REQUIRE(seen.size() > 7);
  CHECK(seen.front().done == 0);
  CHECK(seen.back().done == seen.back().total);
  for (std::size_t i = 1; i < seen.size(); ++i) CHECK(seen[i].done >= seen[i - 1].done);
}

TEST_CASE("quantise_file: cancelled at any time, it leaves what was there") {
  const test::temporary_folder folder;
  const auto source = small_model().write(folder / "in.gguf");
  std::ofstream(folder / "out.gguf") << "before";
  for (int after = 0; after < 8; ++after) {
    std::stop_source stop;
    auto options = to_type("q8_0");
    options.cancel = stop.get_token();
    int calls = 0;
    const auto e = test::thrown([&] {
      nibble::quantise_file(source, folder / "out.gguf", options, [&](const auto&) {
        if (calls++ == after) stop.request_stop();
      });
    });
    CHECK(e.code() == errc::cancelled);
    CHECK(names_in(folder) == std::set<std::string>{"in.gguf", "out.gguf"});
    CHECK(std::filesystem::file_size(folder / "out.gguf") == 6);
  }
}

TEST_CASE("quantise_file: importance reaches each matrix, and must fit") {
  const test::temporary_folder folder;
  const auto source = small_model().write(folder / "in.gguf");
  nibble::imatrix m;
  auto& up = m.tensors["blk.0.ffn_up_exps.weight"];
  up.in_sum2 = test::gaussian(3 * 256, 9);
  for (float& x : up.in_sum2) x = x * x;
  up.counts = {2, 0, 5};
  m.tensors["blk.7.not_there.weight"] = {{1}, {1}};
  m.tensors["blk.0.attn_q.weight"] = {std::vector<float>(512, 0.0f), {3}};  // says nothing
  const char* const type = "iq4_nl";
  if (!test::makes(*nibble::find_format(type))) return;
  auto options = to_type(type);
  options.importance = &m;
  options.importance_name = "some.imatrix";
  const auto report = nibble::quantise_file(source, folder / "out.gguf", options);
  for (const auto& t : report.tensors) {
    CHECK(t.weighted == (t.name == "blk.0.ffn_up_exps.weight"));
    CHECK(t.has_errors == (t.converted && t.to == *nibble::find_format(type)));
  }
  CHECK(report.unused_importance == std::vector<std::string>{"blk.7.not_there.weight"});
  const nibble::gguf::file out(folder / "out.gguf");
  CHECK(out.require<std::string_view>("quantize.imatrix.file") == "some.imatrix");
  CHECK(out.require<std::uint32_t>("quantize.imatrix.entries_count") == 3);
  const auto* const from = source.find_tensor("blk.0.ffn_up_exps.weight");
  const auto* const to = out.find_tensor("blk.0.ffn_up_exps.weight");
  REQUIRE(to != nullptr);
  const auto values = test::decoded(*from);
  for (std::size_t matrix = 0; matrix < 3; ++matrix) {
    const std::size_t size = 256 * 300, bytes = to->bytes / 3;
    std::vector<std::byte> expected(bytes);
    nibble::quantise_rows(to->view.format, std::span(values).subspan(matrix * size, size), 256,
                          up.weights(matrix, 3), expected);
    CHECK(std::ranges::equal(test::bytes_of(*to).subspan(matrix * bytes, bytes), expected));
  }

  m.model = "0123456789abcdef";
  test::check_error(refused(source, folder / "out2.gguf", options), errc::invalid_argument,
                    {"in.gguf", "'some.imatrix'", "another model"});
  m.model = nibble::model_fingerprint(source);
  up.in_sum2.assign(up.in_sum2.size(), 0.0f);
  test::check_error(refused(source, folder / "out2.gguf", options), errc::invalid_argument,
                    {"in.gguf", "'some.imatrix'", "are 0"});
  m.tensors["blk.0.attn_q.weight"] = {std::vector<float>(256, 1.0f), {3}};
  test::check_error(refused(source, folder / "out2.gguf", options), errc::invalid_argument,
                    {"in.gguf", "'blk.0.attn_q.weight'", "256 numbers", "[512, 70]", "512"});
  m.tensors.erase("blk.0.attn_q.weight");
  m.tensors.erase("blk.0.ffn_up_exps.weight");
  test::check_error(refused(source, folder / "out2.gguf", options), errc::invalid_argument,
                    {"in.gguf", "'some.imatrix'", "1 tensor,", "blk.7.not_there.weight"});
  m.tensors.clear();
  test::check_error(refused(source, folder / "out2.gguf", options), errc::invalid_argument,
                    {"in.gguf", "is empty"});
  CHECK(names_in(folder) == std::set<std::string>{"in.gguf", "out.gguf"});
}

TEST_CASE("quantise_file: values that are no numbers, or too large, are refused by name") {
  const test::temporary_folder folder;
  const auto with = [&](float x, const std::string& name) {
    test::made_file made;
    made.add("blk.0.attn_k.weight", {{256, 8, 1, 1}}, 1);
    auto values = test::gaussian(256 * 8, 2);
    values[256 * 5 + 7] = x;
    made.add(name, {{256, 8, 1, 1}}, std::move(values));
    return made.write(folder / "in.gguf");
  };
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const float x : {inf, -inf, nan}) {
    for (const char* name : {"blk.0.attn_q.weight", "blk.0.some_norm.weight"}) {  // also copied
      const auto file = with(x, name);
      test::check_error(refused(file, folder / "out.gguf", to_type("q8_0")), errc::bad_file,
                        {"in.gguf", name, "row 5, column 7", "finite"});
    }
  }
  const auto large = with(70000, "blk.0.attn_q.weight");
  test::check_error(refused(large, folder / "out.gguf", to_type("f16")), errc::bad_file,
                    {"'blk.0.attn_q.weight'", "reach 70000", "more than f16 can hold", "bf16"});
  CHECK(names_in(folder) == std::set<std::string>{"in.gguf"});
  nibble::quantise_file(large, folder / "out.gguf", to_type("q8_0"));
  nibble::quantise_file(large, folder / "out.gguf", to_type("bf16"));
  const auto larger = with(1e30f, "blk.0.attn_q.weight");
  test::check_error(refused(larger, folder / "out2.gguf", to_type("q8_0")), errc::bad_file,
                    {"more than q8_0 can hold"});
}

TEST_CASE("quantise_file: types that are only copied") {
  const test::temporary_folder folder;
  const std::vector<std::byte> blocks(66 * 4, std::byte{1}), numbers(4 * 256, std::byte{2});
  test::made_file made;
  made.add("blk.0.attn_k.weight", {{256, 8, 1, 1}}, 1);
  made.writer().add_tensor("blk.0.attn_q.weight", nibble::format_id{16}, {{256, 4, 1, 1}}, blocks);
  made.writer().add_tensor("ids", nibble::format_id{26}, {{256, 1, 1, 1}}, numbers);
  const auto file = made.write(folder / "in.gguf");
  auto options = to_type("q8_0");
  test::check_error(refused(file, folder / "out.gguf", options), errc::unsupported,
                    {"in.gguf", "'blk.0.attn_q.weight'", "iq2_xxs", "copied", "leave"});
  options.mix.leave = {"*attn_q*"};
  nibble::quantise_file(file, folder / "out.gguf", options);
  const nibble::gguf::file out(folder / "out.gguf");
  CHECK(std::ranges::equal(test::bytes_of(*out.find_tensor("blk.0.attn_q.weight")), blocks));
  CHECK(std::ranges::equal(test::bytes_of(*out.find_tensor("ids")), numbers));
  CHECK(out.find_tensor("blk.0.attn_k.weight")->view.format == *nibble::find_format("q8_0"));
}

TEST_CASE("quantise_file: the input is never the output, nor is a folder or a device") {
  const test::temporary_folder folder;
  const auto whole = small_model().write(folder / "in.gguf");
  const auto split = small_model().write(folder / "parts.gguf", 900000);
  std::filesystem::create_symlink(folder / "in.gguf", folder / "link");
  std::filesystem::create_hard_link(split.paths().back(), folder / "hard");
  const auto before = names_in(folder);
  test::check_error(refused(whole, folder / "in.gguf", to_type("q8_0")), errc::invalid_argument,
                    {"in.gguf", "is the input"});
  test::check_error(refused(whole, folder / "link", to_type("q8_0")), errc::invalid_argument,
                    {"link", "is the input"});
  test::check_error(refused(split, folder / "hard", to_type("q8_0")), errc::invalid_argument,
                    {"hard", "a part of it"});
  test::check_error(refused(split, split.paths()[1], to_type("q8_0")), errc::invalid_argument,
                    {"a part of it"});
  auto same_parts = to_type("f32");
  same_parts.max_part_bytes = 900000;
  test::check_error(refused(split, folder / "parts.gguf", same_parts), errc::invalid_argument,
                    {"parts-00001-of", "a part of it"});
  test::check_error(refused(whole, "", to_type("q8_0")), errc::invalid_argument, {"is empty"});
  test::check_error(refused(whole, folder.path(), to_type("q8_0")), errc::io, {"no regular file"});
  test::check_error(refused(whole, "/dev/null", to_type("q8_0")), errc::io, {"no regular file"});
  test::check_error(refused(whole, folder / "none" / "x", to_type("q8_0")), errc::io,
                    {"cannot be created"});
  CHECK(names_in(folder) == before);

  // a link to another file stays a link
  std::ofstream(folder / "old") << "old";
  std::filesystem::create_symlink("old", folder / "to_old");
  nibble::quantise_file(whole, folder / "to_old", to_type("q8_0"));
  CHECK(std::filesystem::is_symlink(folder / "to_old"));
  CHECK(nibble::gguf::file(folder / "old").tensors().size() == 7);
}

TEST_CASE("quantise_file: a tensor far larger than memory should be takes little of it") {
  const test::temporary_folder folder;
  const std::uint64_t rows = 20000, columns = 2048;  // 164 MB
  nibble::gguf::writer w;
  const std::vector<float> some = test::gaussian(columns * 100, 1);
  w.add_tensor("token_embd.weight", nibble::id_of<nibble::formats::f32>, {{columns, rows, 1, 1}},
               [&](const nibble::gguf::byte_sink& sink) {
                 for (std::uint64_t i = 0; i < rows; i += 100) sink(std::as_bytes(std::span(some)));
               });
  w.write(folder / "in.gguf");
  const auto peak = [] {  // KiB
    std::ifstream in("/proc/self/status");
    for (std::string word; in >> word;) {
      if (word == "VmHWM:" && in >> word) return std::stoull(word);
    }
    return 0ull;
  };
  const nibble::gguf::file source(folder / "in.gguf");
  std::ofstream("/proc/self/clear_refs") << "5";  // the peak begins anew
  const auto before = peak();
  nibble::quantise_file(source, folder / "out.gguf", to_type("bf16"));
  const auto more = (peak() - before) / 1024;
  INFO(more << " MiB more at the peak");
  CHECK(before > 0);
#ifndef __SANITIZE_THREAD__  // whose shadow of all that is read is the process's memory, too
  CHECK(more < 32);
#endif
  CHECK(std::filesystem::file_size(folder / "out.gguf") > columns * rows * 2);
}
