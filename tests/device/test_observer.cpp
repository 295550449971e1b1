// The observer of matrix products sees what the reference multiplies, in one order for any number
// of threads, and disturbs nothing.
#include <map>

#include "catch.hpp"
#include "models.hpp"

namespace {

// By weight and matrix: [columns] sums of squares, and how many rows they are of.
struct sums {
  std::vector<double> squares;
  std::size_t rows = 0;
  friend bool operator==(const sums&, const sums&) = default;
};
using table = std::map<std::pair<const std::byte*, std::int64_t>, sums>;

template <typename T>
void add(table& all, const nibble::weight& w, std::int64_t which, const T* x) {
  sums& to = all[{w.data, which}];
  to.squares.resize(w.shape.columns());
  ++to.rows;
  for (std::size_t i = 0; i < to.squares.size(); ++i) {
    to.squares[i] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
}

class squares final : public nibble::matmul_observer {
 public:
  void observe(const nibble::weight& w, std::int64_t which,
               std::span<const float> x) noexcept override {
    right_size = right_size && x.size() == w.shape.columns();
    // weights are told apart by their place in the order of first sight: each store has its own
    const auto known = order.emplace(w.data, order.size()).first->second;
    sums& to = all[{known, which}];
    to.squares.resize(x.size());
    ++to.rows;
    for (std::size_t i = 0; i < x.size(); ++i) {
      to.squares[i] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    }
  }

  std::map<const std::byte*, std::size_t> order;
  std::map<std::pair<std::size_t, std::int64_t>, sums> all;
  bool right_size = true;
};

struct found {
  squares seen;
  table expected;
  std::vector<float> logits;
};

found run(const test::small_model& model, int threads, nibble::activation_type type,
          const std::vector<std::int32_t>& cuts, bool observed = true) {
  found f;
  test::weight_store weights;
  const auto recording = model.record(weights);
  nibble::cpu_options options;
  options.threads = threads;
  options.activations = type;
  if (observed) options.observer = &f.seen;
  test::runner cpu(recording, weights, options, {40, 40}, model.layout(40));
  test::reference reference(recording);
  reference.observe = [&](const nibble::weight& w, std::size_t which, const double* x) {
    add(f.expected, w, static_cast<std::int64_t>(which), x);
  };
  std::int32_t n_past = 0;
  for (const std::int32_t n : cuts) {
    auto batch = test::plain_batch(n, n_past);
    if (n > 2) batch.outputs = {0, n - 1};  // the head sees these two only
    n_past += n;
    const auto logits = cpu.run(batch);
    f.logits.insert(f.logits.end(), logits.begin(), logits.end());
    reference.run(batch);
  }
  return f;
}

std::vector<test::small_model> models() {
  test::small_model dense, experts, normed;
  experts.experts = experts.biases = true;
  normed.post_norm = normed.quantised = true;
  return {dense, experts, normed};
}

constexpr auto exact = nibble::activation_type::float32;
constexpr auto int8 = nibble::activation_type::int8;

}  // namespace

TEST_CASE("observer: sums of squares agree with the reference") {
  for (const auto& model : models()) {
    CAPTURE(model.experts, model.post_norm);
    const found f = run(model, 2, exact, {30, 1, 5});
    CHECK(f.seen.right_size);
    // in the order in which the model uses them, on both sides
    REQUIRE(f.seen.all.size() == f.expected.size());
    std::size_t rows = 0;
    for (const auto& [data, index] : f.seen.order) {
      for (const auto& [key, expected] : f.expected) {
        if (key.first != data) continue;
        const auto seen = f.seen.all.find({index, key.second});
        REQUIRE(seen != f.seen.all.end());
        CHECK(seen->second.rows == expected.rows);
        rows += expected.rows;
        for (std::size_t i = 0; i < expected.squares.size(); ++i) {
          const double got = seen->second.squares[i], wanted = expected.squares[i];
          if (std::abs(got - wanted) > 1e-4 * wanted + 1e-9) CHECK(got == wanted);
        }
      }
    }
    CHECK(rows > 36 * 10);
  }
}

TEST_CASE("observer: the same for any number of threads, and the logits are as without it") {
  for (const auto& model : models()) {
    for (const auto type : {exact, int8}) {
      CAPTURE(model.experts, model.post_norm, type == int8);
      const found one = run(model, 1, type, {30, 1, 5});
      CHECK(one.logits == run(model, 1, type, {30, 1, 5}, false).logits);
      for (const int threads : {2, 3}) {
        const found several = run(model, threads, type, {30, 1, 5});
        CHECK(several.seen.all == one.seen.all);
        CHECK(several.logits == one.logits);
      }
    }
  }
}
