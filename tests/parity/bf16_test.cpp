// Models of bf16 weights, as Hugging Face transformers saves them, in bf16: as close to f64 as transformers' own bf16
// (make_bf16_goldens.py). What is compared is the norm of all errors, so the loss, a mean of those of the tokens, is
// held too. Each rounds what it keeps to bf16 in places of its own choice.
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <numeric>

#include "base/file.h"
#include "base/hash.h"
#include "comm/inproc/inproc.h"
#include "config/load.h"
#include "golden.h"
#include "parallel/decoder.h"
#include "support/backends.h"
#include "support/host_tensor.h"
#include "trainer/pretrained.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kTokens = 16, kSequences = 2;
// How far norms of errors may lie apart: of so many that a few percent are chance, and of one error for each token,
// which are 32. The ratio of two norms of n independent errors of equal deviation lies 1 / sqrt(n) from 1.
constexpr double kFactor = 1.25;
const double kTokensFactor = 1 + 3 / std::sqrt(kTokens * kSequences);

fs::path directory_of(const std::string& name) {
  return fs::path(SLUICE_SOURCE_DIR) / "tests/parity/goldens_bf16" / name;
}

nlohmann::json manifest() {
  std::ifstream file(directory_of("MANIFEST.json"));
  return nlohmann::json::parse(file);
}

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const auto& entry : fs::directory_iterator(directory_of(""))) {
    if (entry.is_directory()) all.push_back(entry.path().filename().string());
  }
  std::ranges::sort(all);
  return all;
}

// What transformers computed.
class Stored {
 public:
  explicit Stored(const std::string& name) : model_(directory_of(name) / "golden.safetensors") {}
  std::vector<double> values(const std::string& tensor) const { return stored_values(model_, tensor); }
  std::vector<int32_t> integers(const std::string& tensor) const { return stored_integers(model_, tensor); }
  bool has_mtp() const { return model_.tensors().contains("mtp_logits"); }

 private:
  safetensors::Model model_;
};

class StoredTokens final : public Dataset {
 public:
  StoredTokens(const Stored& stored, int64_t vocab)
      : inputs_(stored.integers("input_ids")), labels_(stored.integers("labels")), vocab_(vocab) {}
  void sample(int64_t id, std::span<int32_t> tokens) const override {
    std::copy_n(inputs_.begin() + id * kTokens, kTokens, tokens.begin());
    tokens[kTokens] = labels_[static_cast<size_t>((id + 1) * kTokens - 1)];
  }
  int64_t size() const override { return kSequences; }
  int64_t vocab_size() const override { return vocab_; }
  std::string identity() const override { return "StoredTokens"; }

 private:
  std::vector<int32_t> inputs_;
  std::vector<int32_t> labels_;
  int64_t vocab_;
};

// Over all elements, of the norm of what is expected.
double error_norm(const std::vector<double>& got, const std::vector<double>& expected) {
  if (got.size() != expected.size() || got.empty()) return HUGE_VAL;
  double error = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - expected[i]) * (got[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(error / norm);
}

// As a user's configuration names the model.
Config configured(const std::string& name, const Stored& stored, DType dtype) {
  return config::parse(fmt::format(R"(
step_scheduler: {{global_batch_size: {}, local_batch_size: {}, max_steps: 1}}
model: {{config: {{pretrained_model_name_or_path: {}}}, aux_loss_coef: 0, mtp_loss_weight: {}}}
benchmark: {{balance: router}}
dataset: {{_target_: mock, seq_len: {}}}
runtime: {{dtype: {}}}
)",
                                   kSequences, kSequences, directory_of(name).string(),
                                   stored.has_mtp() ? kMtpWeight : 0, kTokens, name_of(dtype)),
                       "bf16");
}

// One step of a model: what its heads saw and gave, what its routers chose, its gradients.
class Step final : public OpObserver {
 public:
  Step(const std::string& name, DType dtype, const BackendCase& where) {
    const Stored stored(name);
    const Config config = configured(name, stored, dtype);
    const RunSpec spec = resolve(config, 1);
    const StoredTokens tokens(stored, spec.model.vocab_size);
    const auto backend = where.make();
    HostMemory memory;
    InprocWorld world(1);
    const auto communicator = world.communicator(0);
    Trainer trainer(spec, {backend.get(), &memory, communicator.get()}, &tokens, nullptr);
    find_pretrained(config, spec, true)->load(trainer);
    trainer.context().add_observer(this);
    const StepResult result = trainer.step(0);
    trainer.context().remove_observer(this);
    EXPECT_EQ(result.label_tokens, kTokens * kSequences);
    gradients = hub_values(trainer, [](const Param& param) { return values_of(param.grad); });
  }

  void after(const OpRecord& record) override {
    std::map<std::string_view, Tensor> tensors;
    for (const OpTensor& t : record.tensors) tensors[t.name] = t.tensor;
    if (record.name == SoftmaxTopKForward::name || record.name == SigmoidTopKForward::name) {
      // A token's experts, whatever their order.
      std::vector<double>& chosen = experts.emplace_back(values_of(tensors.at("experts")));
      const int64_t top_k = tensors.at("experts").dim(1);
      for (auto slot = chosen.begin(); slot != chosen.end(); slot += top_k) std::sort(slot, slot + top_k);
    }
    if (record.name != HeadLoss::name) return;
    losses.push_back(values_of(tensors.at("loss")));
    const std::vector<double> x = values_of(tensors.at("x")), w = values_of(tensors.at("w"));
    const int64_t width = tensors.at("x").dim(1);
    std::vector<double>& of_head = logits.emplace_back();
    for (auto row = x.begin(); row != x.end(); row += width) {
      for (auto column = w.begin(); column != w.end(); column += width) {
        of_head.push_back(std::inner_product(row, row + width, column, 0.0));
      }
    }
  }

  std::vector<std::vector<double>> logits;  // of the head, and of the extra layer
  std::vector<std::vector<double>> losses;  // of the tokens, likewise
  std::vector<std::vector<double>> experts;
  HubValues gradients;
};

// Of all sequences, each in these pieces, keys and values of earlier tokens being kept.
std::vector<double> decoded(const std::string& name, Backend& backend, const std::vector<int64_t>& pieces) {
  const Stored stored(name);
  const Config config = configured(name, stored, DType::bf16);
  RunSpec spec = resolve(config, 1);
  spec.model.mtp = false;
  spec.mtp_loss_weight = 0;
  HostMemory memory;
  Context ctx(backend, spec.dtype);
  InprocWorld world(1);
  const auto communicator = world.communicator(0);
  Mesh mesh(spec.mesh, *communicator);
  Stage stage(spec.stage().without_gradients(), mesh, memory);
  Decoder decoder(ctx, stage, kTokens, memory);
  find_pretrained(config, spec, true)->load(ctx, *communicator, stage, true);
  const std::vector<int32_t> inputs = stored.integers("input_ids");
  std::vector<double> logits;
  for (int64_t sample = 0; sample < kSequences; ++sample) {
    decoder.rewind(0);
    for (const int64_t piece : pieces) {
      const auto first = static_cast<size_t>(sample * kTokens + decoder.length());
      const std::vector<double> values =
          values_of(decoder.append(std::span(inputs).subspan(first, static_cast<size_t>(piece)), Decoder::Logits::all));
      logits.insert(logits.end(), values.begin(), values.end());
    }
  }
  return logits;
}

struct Case {
  std::string model;
  BackendCase backend;
  friend std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.model << " on " << c.backend; }
};

class Bf16 : public testing::TestWithParam<Case> {};

TEST_P(Bf16, IsAsCloseToDoublePrecisionAsTransformers) {
  const std::string& name = GetParam().model;
  const Stored stored(name);
  const Step f64(name, DType::f64, ref_backend()), bf16(name, DType::bf16, GetParam().backend);
  ASSERT_EQ(f64.logits.size(), stored.has_mtp() ? 2U : 1U);
  ASSERT_EQ(bf16.logits.size(), f64.logits.size());
  // What gradients are compared with.
  EXPECT_LE(error_of(f64.logits[0], stored.values("logits")), 1e-8);
  EXPECT_LE(error_of(f64.losses[0], stored.values("token_losses")), 1e-8);
  EXPECT_EQ(bf16.experts, f64.experts) << "these choices are clear";

  const auto expect_as_close = [&](const std::string& what, double ours, double theirs, double factor = kFactor) {
    EXPECT_GT(theirs, 1e-4) << what << ": no bf16";
    EXPECT_LE(ours, factor * theirs) << what;
    RecordProperty(what, fmt::format("{:.2e}, of transformers {:.2e}", ours, theirs));
  };
  const auto expect_close = [&](const std::string& tensor, const std::vector<double>& ours, double factor = kFactor) {
    const std::vector<double> exact = stored.values(tensor);
    expect_as_close(tensor, error_norm(ours, exact), error_norm(stored.values("bf16." + tensor), exact), factor);
  };
  expect_close("logits", bf16.logits[0]);
  expect_close("token_losses", bf16.losses[0], kTokensFactor);
  if (stored.has_mtp()) expect_close("mtp_logits", bf16.logits[1]);

  ASSERT_EQ(bf16.gradients.size(), f64.gradients.size());
  struct Sums {
    double ours = 0, theirs = 0, norm = 0;  // squared
    size_t elements = 0;
  };
  Sums whole;
  std::map<std::string, Sums> kinds;  // of all layers and experts together
  for (const auto& [hub, exact] : f64.gradients) {
    if (hub.ends_with("e_score_correction_bias")) continue;
    const double squared = std::inner_product(exact.begin(), exact.end(), exact.begin(), 0.0);
    if (squared == 0) continue;  // an expert that no token chose
    std::string kind = hub;
    std::erase_if(kind, [](char c) { return c >= '0' && c <= '9'; });
    for (Sums* sums : {&whole, &kinds[kind]}) {
      sums->ours += std::pow(error_norm(bf16.gradients.at(hub), exact), 2) * squared;
      sums->theirs += std::pow(stored.values("bf16.gradient_error." + hub).front(), 2) * squared;
      sums->norm += squared;
      sums->elements += exact.size();
    }
  }
  for (const auto& [kind, sums] : kinds) {
    // One kind's errors hang on fewer roundings than those of all; of a few numbers, such as a model's sinks, on
    // chance.
    constexpr size_t kFew = 16;
    if (sums.elements <= kFew) continue;
    EXPECT_LE(std::sqrt(sums.ours), 2 * kFactor * std::sqrt(sums.theirs)) << kind;
  }
  expect_as_close("gradients", std::sqrt(whole.ours / whole.norm), std::sqrt(whole.theirs / whole.norm));
}

// Token by token too, as text is generated.
TEST_P(Bf16, DecodesAsCloselyToDoublePrecisionAsTransformers) {
  const Stored stored(GetParam().model);
  const std::vector<double> exact = stored.values("logits");
  const double theirs = error_norm(stored.values("bf16.logits"), exact);
  const auto backend = GetParam().backend.make();
  for (const std::vector<int64_t>& pieces :
       {std::vector<int64_t>{kTokens}, std::vector<int64_t>(kTokens, 1), {5, 1, 10}}) {
    EXPECT_LE(error_norm(decoded(GetParam().model, *backend, pieces), exact), kFactor * theirs) << pieces.size();
  }
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const BackendCase& backend : {ref_backend(), cpu_backend(2), emulated_backend()}) {
    for (const std::string& name : names()) all.push_back({name, backend});
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Models, Bf16, testing::ValuesIn(cases()), [](const auto& instance) {
  return instance.param.model + "_on_" + instance.param.backend.name;
});

TEST(Bf16Goldens, AreThoseOfTheManifest) {
  int files = 0;
  const nlohmann::json all = manifest();
  EXPECT_EQ(all.at("models").size(), names().size());
  for (const auto& [name, facts] : all.at("models").items()) {
    for (const auto& [path, stored] : facts.at("files").items()) {
      const MappedFile file(directory_of(name) / path);
      EXPECT_EQ(fmt::format("{:016x}", hash64(file.bytes())), stored.at("hash").get<std::string>()) << name << path;
      ++files;
    }
  }
  EXPECT_EQ(files, 3 * 8);
}

}  // namespace
}  // namespace sluice::test
