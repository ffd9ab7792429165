// Our models against Hugging Face transformers: logits, loss, every gradient, routing, ten steps of AdamW and the
// weights after them. In f64 on the reference loops within 1e-8; in f32 on the fast path within its rounding.
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <fstream>
#include <map>
#include <numeric>

#include "base/file.h"
#include "base/hash.h"
#include "comm/inproc/inproc.h"
#include "device/ref/ref_backend.h"
#include "golden.h"
#include "model/family.h"
#include "support/backends.h"
#include "support/host_tensor.h"
#include "support/tolerance.h"
#include "training/session.h"

namespace sluice::test {
namespace {

// The logits and the routing of one forward pass.
class Probe final : public OpObserver {
 public:
  void after(const OpRecord& record) override {
    std::map<std::string_view, Tensor> tensors;
    for (const OpTensor& t : record.tensors) tensors[t.name] = t.tensor;
    if (record.name == SoftmaxTopKForward::name || record.name == SigmoidTopKForward::name) {
      experts.push_back(values_of(tensors.at("experts")));
      weights.push_back(values_of(tensors.at("weights")));
      top_k = tensors.at("experts").dim(1);
    }
    if (record.name != HeadLoss::name) return;
    const std::vector<double> x = values_of(tensors.at("x")), w = values_of(tensors.at("w"));
    std::vector<double>& logits = all_logits.emplace_back();
    const auto width = static_cast<size_t>(tensors.at("x").dim(1));
    for (size_t t = 0; t < x.size(); t += width) {
      for (size_t v = 0; v < w.size(); v += width) {
        logits.push_back(std::inner_product(x.begin() + static_cast<int64_t>(t),
                                            x.begin() + static_cast<int64_t>(t + width),
                                            w.begin() + static_cast<int64_t>(v), 0.0));
      }
    }
  }

  std::vector<std::vector<double>> all_logits;  // of the head, and of the extra layer
  std::vector<std::vector<double>> experts;
  std::vector<std::vector<double>> weights;
  int64_t top_k = 0;
};

void expect_same_routing(const Golden& golden, const Probe& probe, double tolerance) {
  const std::vector<int64_t> layers = golden.routed_layers();
  ASSERT_EQ(probe.experts.size(), layers.size());
  for (size_t l = 0; l < layers.size(); ++l) {
    SCOPED_TRACE(fmt::format("layer {}", layers[l]));
    // Stored by number within a token.
    std::vector<double> experts = probe.experts[l], weights = probe.weights[l];
    for (size_t begin = 0; begin < experts.size(); begin += static_cast<size_t>(probe.top_k)) {
      std::vector<std::pair<double, double>> slots;
      for (size_t j = begin; j < begin + static_cast<size_t>(probe.top_k); ++j)
        slots.emplace_back(experts[j], weights[j]);
      std::ranges::sort(slots);
      for (size_t j = 0; j < slots.size(); ++j) std::tie(experts[begin + j], weights[begin + j]) = slots[j];
    }
    const std::vector<int32_t> expected = golden.integers(fmt::format("router.{}.experts", layers[l]));
    EXPECT_EQ(std::vector<int32_t>(experts.begin(), experts.end()), expected);
    EXPECT_LE(error_of(weights, golden.values(fmt::format("router.{}.weights", layers[l]))), tolerance);
  }
}

void expect_parity(const std::string& name, DType dtype, Backend& backend, double tolerance) {
  const Golden golden(name);
  const std::vector<double> losses = golden.values("step_losses");
  const RunSpec spec = spec_of(golden, std::ssize(losses), dtype);
  const GoldenTokens tokens(golden, kSeqLen, spec.model.vocab_size);
  ASSERT_EQ(tokens.size(), kBatch * std::ssize(losses));
  HostMemory memory;
  InprocWorld world(1);
  const auto communicator = world.communicator(0);
  Trainer trainer(spec, {&backend, &memory, communicator.get()}, &tokens, nullptr);
  import_weights(trainer.context(), trainer.stage(), trainer.spec().model, golden);

  Probe probe;
  trainer.context().add_observer(&probe);
  std::vector<double> got, further;
  const auto step = [&](int64_t number) {
    const StepResult result = trainer.step(number);
    got.push_back(result.loss);
    if (!result.mtp_loss) return;
    // The golden's is what is differentiated, over all of the step's labels; what is shown is over the layer's own.
    EXPECT_EQ(result.mtp_label_tokens, kBatch * (kSeqLen - 1));
    further.push_back(*result.mtp_loss * static_cast<double>(result.mtp_label_tokens) /
                      static_cast<double>(result.label_tokens));
  };
  step(0);
  trainer.context().remove_observer(&probe);
  ASSERT_EQ(probe.all_logits.size(), golden.has_mtp() ? 2U : 1U);
  EXPECT_LE(error_of(probe.all_logits[0], golden.values("logits")), tolerance) << "logits";
  if (golden.has_mtp()) {
    EXPECT_LE(error_of(probe.all_logits[1], golden.values("mtp_logits")), tolerance) << "logits of the extra layer";
  }
  EXPECT_LE(error_of(got, golden.values("loss")), tolerance) << "loss";
  expect_same_routing(golden, probe, tolerance);

  double worst = 0;
  int64_t compared = 0;
  const auto expect_all = [&](const std::string& prefix, const HubValues& values) {
    compared = 0;
    worst = 0;
    for (const auto& [hub, mine] : values) {
      if (hub.ends_with("e_score_correction_bias")) continue;
      const double error = error_of(mine, golden.values(prefix + hub));
      EXPECT_LE(error, tolerance) << prefix << hub;
      worst = std::max(worst, error);
      ++compared;
    }
    EXPECT_EQ(compared, golden.count(prefix));
    testing::Test::RecordProperty(prefix + "error", fmt::format("{:.1e}", worst));
  };
  expect_all("grad.", hub_values(trainer, [](const Param& param) { return values_of(param.grad); }));
  for (int64_t number = 1; number < std::ssize(losses); ++number) step(number);
  EXPECT_LE(error_of(got, losses), tolerance) << "losses of ten steps";
  EXPECT_EQ(further.size(), golden.has_mtp() ? losses.size() : 0);
  if (golden.has_mtp()) {
    EXPECT_LE(error_of(further, golden.values("mtp_step_losses")), tolerance) << "losses of the extra layer";
  }
  expect_all("after.", hub_values(trainer, [](const Param& param) { return values_of(param.value); }));
  testing::Test::RecordProperty("logits_error",
                                fmt::format("{:.1e}", error_of(probe.all_logits[0], golden.values("logits"))));
  testing::Test::RecordProperty("losses_error", fmt::format("{:.1e}", error_of(got, losses)));
}

class Parity : public testing::TestWithParam<std::string> {};

TEST_P(Parity, InDoublePrecision) {
  RefBackend backend;
  expect_parity(GetParam(), DType::f64, backend, 1e-8);
}

// Sums of the longest product and of a gradient over all tokens follow each other in every layer.
TEST_P(Parity, OfTheFastPathInSinglePrecision) {
  constexpr int64_t kWidth = 72, kLayers = 4;
  const Tolerance allowed = tolerance(DType::f32, kWidth * kSeqLen * kBatch * kLayers);
  ASSERT_LE(allowed.global, 1e-4);
  const auto backend = cpu_backend(2).make();
  expect_parity(GetParam(), DType::f32, *backend, allowed.global);
}

TEST_P(Parity, OfTheEmulatedGpuInDoublePrecision) {
  const auto backend = emulated_backend().make();
  expect_parity(GetParam(), DType::f64, *backend, 1e-8);
}

INSTANTIATE_TEST_SUITE_P(Models, Parity, testing::ValuesIn(golden_names()),
                         [](const auto& instance) { return instance.param; });

// The extra layer's projection reads the embedding from its first half of columns, as the checkpoint stores it.
TEST(Mtp, WithHalvesSwappedIsNotTheGolden) {
  const Golden golden("deepseek_v3_mtp");
  const RunSpec spec = spec_of(golden, 1, DType::f64);
  const GoldenTokens tokens(golden, kSeqLen, spec.model.vocab_size);
  RefBackend backend;
  HostMemory memory;
  InprocWorld world(1);
  const auto communicator = world.communicator(0);
  Trainer trainer(spec, {&backend, &memory, communicator.get()}, &tokens, nullptr);
  import_weights(trainer.context(), trainer.stage(), trainer.spec().model, golden);
  int swapped = 0;
  for (FlatGroup* group : trainer.stage().groups()) {
    for (const FlatGroup::Piece& piece : group->pieces()) {
      if (!piece.param->spec.name.ends_with("eh_proj.weight")) continue;
      std::vector<double> values = values_of(piece.value);
      const int64_t half = piece.param->spec.shape[1] / 2;
      for (auto row = values.begin(); row != values.end(); row += 2 * half)
        std::swap_ranges(row, row + half, row + half);
      assign(piece.value, values);
      ++swapped;
    }
  }
  ASSERT_EQ(swapped, 1);
  const StepResult result = trainer.step(0);
  EXPECT_LE(error_of({result.loss}, golden.values("loss")), 1e-8);
  const double sum = *result.mtp_loss * static_cast<double>(result.mtp_label_tokens);
  const double expected = golden.values("mtp_step_losses")[0] * static_cast<double>(result.label_tokens);
  EXPECT_GT(std::abs(sum / expected - 1), 1e-3);
}

TEST(Goldens, AreThoseOfTheManifest) {
  std::ifstream file(goldens_directory() / "MANIFEST.json");
  const nlohmann::json manifest = nlohmann::json::parse(file);
  int files = 0;
  ASSERT_EQ(manifest.at("models").size(), golden_names().size());
  for (const std::string& name : golden_names()) {
    for (const auto& [path, facts] : manifest.at("models").at(name).at("files").items()) {
      const MappedFile stored(goldens_directory() / name / path);
      EXPECT_EQ(stored.bytes().size(), facts.at("bytes").get<size_t>()) << name << "/" << path;
      EXPECT_EQ(fmt::format("{:016x}", hash64(stored.bytes())), facts.at("hash").get<std::string>())
          << name << "/" << path;
      ++files;
    }
  }
  EXPECT_EQ(files, 4 * 10);
}

}  // namespace
}  // namespace sluice::test
