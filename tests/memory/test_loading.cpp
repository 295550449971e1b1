// Models that are loaded, and moved, without memory.
#include "small_models.hpp"

namespace {

void check_works(const nibble::model& model, const std::vector<float>& expected,
                 double tolerance = 0) {
  nibble::session session(model);
  CHECK(test::relative_rms(test::append(session), expected) <= tolerance);
}

std::vector<float> expected_of(const nibble::gguf::file& file) {
  const nibble::model model(file, test::hardware_with(nullptr), test::small_options());
  nibble::session session(model);
  return test::append(session);
}

}  // namespace

TEST_CASE("no memory: a model is loaded on the CPU") {
  const test::stored_model stored(test::one_layer("qwen3"));
  const nibble::gguf::file file(stored.path);
  const auto expected = expected_of(file);
  const auto options = test::small_options(2);
  const auto found = test::hardware_with(nullptr);
  CHECK(test::every_failure([&](test::turn& now) {
          std::optional<nibble::model> model;
          if (now.in([&] { model.emplace(file, found, options); })) check_works(*model, expected);
        }) > 200);
}

TEST_CASE("no memory: a model is loaded on a GPU and the CPU") {
  const test::stored_model stored(test::one_layer("llama"));
  const nibble::gguf::file file(stored.path);
  const auto expected = expected_of(file);
  auto options = test::small_options();
  options.device = "auto";
  options.plan.gpu_layers = 1;
  nibble::gpu::emulated_module module(std::vector{nibble::gpu::emulated_options{}});
  const auto found = test::hardware_with(&module);
  CHECK(test::every_failure([&](test::turn& now) {
          std::optional<nibble::model> model;
          if (now.in([&] { model.emplace(file, found, options); })) {
            CHECK(model->plan().devices.size() == 2);
          }
        }) > 300);
  check_works(nibble::model(file, found, options), expected, 1e-2);
}

TEST_CASE("no memory: a model is loaded that stays on disk") {
  const test::stored_model stored(test::one_layer("llama"));
  const nibble::gguf::file file(stored.path);
  const auto expected = expected_of(file);
  const auto options = test::small_options();
  CHECK(test::every_failure([&](test::turn& now) {
          std::optional<nibble::model> model;
          if (now.in([&] { model.emplace(test::load_from_disk(file, options)); })) {
            check_works(*model, expected);
          }
        }) > 200);
}

TEST_CASE("no memory: a model moves") {
  const test::stored_model stored(test::one_layer("llama"));
  const nibble::gguf::file file(stored.path);
  const auto options = test::small_options();
  const auto found = test::hardware_with(nullptr);
  const nibble::model still(file, found, options);
  const auto tokens = std::span(test::some_tokens);
  std::vector<float> expected;
  {
    nibble::session session(still);
    test::append(session, tokens.first(20));
    expected = test::append(session, tokens.subspan(20));
  }
  CHECK(test::every_failure([&](test::turn& now) {
          nibble::model model(file, found, options);
          nibble::session session(model);
          test::append(session, tokens.first(20));
          now.in([&] { model.move_to(file, test::one_cpu(options), still.plan(), options); });
          CHECK(test::append(session, tokens.subspan(20)) == expected);
        }) > 200);
}
