// Generation against transformers' whole sequences: logits of tokens that come one by one or in pieces, keys and values
// of earlier ones being kept, equal those of the golden at every position. Sequences are longer than GPT-OSS's window.
#include <gtest/gtest.h>

#include <algorithm>

#include "comm/inproc/inproc.h"
#include "device/ref/ref_backend.h"
#include "golden.h"
#include "parallel/decoder.h"
#include "support/backends.h"
#include "support/host_tensor.h"
#include "support/tolerance.h"

namespace sluice::test {
namespace {

// A golden's model with its weights, and room for so many tokens.
class Rig {
 public:
  Rig(const std::string& name, DType dtype, Backend& backend, int64_t capacity)
      : golden_(name),
        spec_(spec_of(golden_, 1, dtype)),
        ctx_(backend, dtype),
        communicator_(world_.communicator(0)),
        mesh_(spec_.mesh, *communicator_),
        stage_(spec_.stage().without_gradients(), mesh_, memory_),
        decoder_(ctx_, stage_, capacity, memory_),
        inputs_(golden_.integers("input_ids")) {
    import_weights(ctx_, stage_, spec_.model, golden_);
  }

  const ModelConfig& model() const { return spec_.model; }
  Decoder& decoder() { return decoder_; }
  // Tokens [first, first + count) of sequence `sample`.
  std::span<const int32_t> tokens(int64_t sample, int64_t first, int64_t count) const {
    return std::span(inputs_).subspan(static_cast<size_t>(sample * kSeqLen + first), static_cast<size_t>(count));
  }
  // Logits of the sequences of the first batch, each in pieces of these lengths.
  std::vector<double> in_pieces(const std::vector<int64_t>& pieces, Decoder::Logits which = Decoder::Logits::all) {
    std::vector<double> all;
    for (int64_t sample = 0; sample < kBatch; ++sample) {
      decoder_.rewind(0);
      for (const int64_t piece : pieces) {
        const Tensor logits = decoder_.append(tokens(sample, decoder_.length(), piece), which);
        const std::vector<double> values = values_of(logits);
        all.insert(all.end(), values.begin(), values.end());
      }
    }
    return all;
  }
  // The golden's logits of one position.
  std::vector<double> golden_row(int64_t sample, int64_t position) const {
    const std::vector<double> all = golden_.values("logits");
    const auto begin = all.begin() + (sample * kSeqLen + position) * model().vocab_size;
    return {begin, begin + model().vocab_size};
  }
  std::vector<double> golden_logits() const { return golden_.values("logits"); }

 private:
  Golden golden_;
  RunSpec spec_;
  HostMemory memory_;
  Context ctx_;
  InprocWorld world_{1};
  std::unique_ptr<Communicator> communicator_;
  Mesh mesh_;
  Stage stage_;
  Decoder decoder_;
  std::vector<int32_t> inputs_;
};

const std::vector<std::vector<int64_t>>& cuts() {
  static const std::vector<std::vector<int64_t>> list{
      std::vector<int64_t>(kSeqLen, 1), {kSeqLen}, {5, 1, 1, 9, 1, 15}, {8, 8, 8, 8}};
  return list;
}

class Decode : public testing::TestWithParam<std::string> {};

TEST_P(Decode, EveryCutGivesTheLogitsOfTheWholeSequence) {
  RefBackend backend;
  Rig rig(GetParam(), DType::f64, backend, kSeqLen);
  const std::vector<double> whole = rig.in_pieces({kSeqLen});
  EXPECT_LE(error_of(whole, rig.golden_logits()), 1e-8);
  for (const std::vector<int64_t>& cut : cuts()) EXPECT_LE(error_of(rig.in_pieces(cut), whole), 1e-12);
}

TEST_P(Decode, OnTheFastPathInSinglePrecision) {
  const auto backend = cpu_backend(2).make();
  Rig rig(GetParam(), DType::f32, *backend, kSeqLen + 3);
  const Tolerance allowed = tolerance(DType::f32, 72 * kSeqLen * kBatch * 4);
  for (const std::vector<int64_t>& cut : cuts()) {
    EXPECT_LE(error_of(rig.in_pieces(cut), rig.golden_logits()), allowed.global);
  }
}

TEST_P(Decode, OnTheEmulatedGpuInDoublePrecision) {
  const auto backend = emulated_backend().make();
  Rig rig(GetParam(), DType::f64, *backend, kSeqLen);
  EXPECT_LE(error_of(rig.in_pieces({4, 1, 17, 1, 1, 8}), rig.golden_logits()), 1e-8);
}

TEST_P(Decode, TheLastLogitsAloneAndWhatIsTakenBack) {
  RefBackend backend;
  Rig rig(GetParam(), DType::f64, backend, kSeqLen);
  Decoder& decoder = rig.decoder();
  decoder.append(rig.tokens(0, 0, 10));
  EXPECT_EQ(decoder.length(), 10);
  const Tensor last = decoder.append(rig.tokens(0, 10, 3));
  EXPECT_EQ(last.shape(), Shape({1, rig.model().vocab_size}));
  EXPECT_LE(error_of(values_of(last), rig.golden_row(0, 12)), 1e-8);
  // Other tokens in their place, which are taken back.
  decoder.rewind(10);
  decoder.append(rig.tokens(1, 3, 7));
  decoder.rewind(10);
  EXPECT_LE(error_of(values_of(decoder.append(rig.tokens(0, 10, 6))), rig.golden_row(0, 15)), 1e-8);
  // Another sequence from its start.
  decoder.rewind(0);
  EXPECT_LE(error_of(values_of(decoder.append(rig.tokens(1, 0, 20))), rig.golden_row(1, 19)), 1e-8);
}

INSTANTIATE_TEST_SUITE_P(Models, Decode, testing::ValuesIn(golden_names()),
                         [](const auto& instance) { return instance.param; });

TEST(Decoder, RefusesWhatItHasNoRoomFor) {
  RefBackend backend;
  Rig rig("llama", DType::f64, backend, 8);
  Decoder& decoder = rig.decoder();
  EXPECT_EQ(decoder.capacity(), 8);
  EXPECT_THROW(decoder.append({}), Error);
  EXPECT_THROW(decoder.append(rig.tokens(0, 0, 9)), Error);
  decoder.append(rig.tokens(0, 0, 8));
  EXPECT_THROW(decoder.append(rig.tokens(0, 8, 1)), Error);
  EXPECT_THROW(decoder.rewind(9), Error);
  decoder.rewind(0);
  EXPECT_THROW(decoder.append(std::array{-1}), Error);
  EXPECT_THROW(decoder.append(std::array{72}), Error);
}

}  // namespace
}  // namespace sluice::test
