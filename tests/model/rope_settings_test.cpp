// Rotary settings of the published models, and what is refused.
#include "model/rope_settings.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

namespace sluice {
namespace {

RopeSettings read(const std::string& json, int64_t dim = 64) {
  return read_rope(HfConfig::parse(json, "config.json"), 1e4, dim);
}

TEST(RopeSettings, DeepSeekV3) {
  const RopeSettings rope = read(R"({"rope_theta": 10000, "max_position_embeddings": 163840, "rope_scaling": {
      "type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
      "original_max_position_embeddings": 4096}})");
  EXPECT_EQ(rope.scaling, (RopeScaling{.factor = 40, .start = 10, .end = 23, .amplitude = 1}));
  EXPECT_EQ(rope.mscale_all_dim, 1);
  EXPECT_NEAR(yarn_mscale(40, 1), 1.3689, 5e-5);
}

TEST(RopeSettings, KimiK2) {
  const RopeSettings rope = read(R"({"rope_theta": 50000, "rope_scaling": {"type": "yarn", "factor": 32, "beta_fast": 1,
      "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096}})");
  EXPECT_EQ(rope.scaling, (RopeScaling{.factor = 32, .start = 19, .end = 20, .amplitude = 1}));
  EXPECT_NEAR(yarn_mscale(32, 1), 1.3466, 5e-5);
}

TEST(RopeSettings, GptOss) {
  const RopeSettings rope = read(R"({"rope_parameters": {"rope_type": "yarn", "rope_theta": 150000, "factor": 32,
      "beta_fast": 32, "beta_slow": 1, "truncate": false, "original_max_position_embeddings": 4096}})");
  EXPECT_EQ(rope.theta, 150000);
  EXPECT_NEAR(rope.scaling.start, 8.0927, 1e-4);
  EXPECT_NEAR(rope.scaling.end, 17.3980, 1e-4);
  EXPECT_NEAR(rope.scaling.amplitude, 1.3466, 5e-5);
}

TEST(RopeSettings, EqualEndsAreKeptApart) {
  const RopeSettings rope = read(R"({"rope_theta": 50000, "rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": 4,
      "beta_slow": 4, "truncate": false, "original_max_position_embeddings": 4096}})");
  EXPECT_NEAR(rope.scaling.end - rope.scaling.start, 0.001, 1e-12);
}

TEST(RopeSettings, Llama31) {
  const RopeSettings rope = read(R"({"rope_theta": 500000.0, "max_position_embeddings": 131072, "rope_scaling": {
      "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 8192}})");
  EXPECT_EQ(rope.theta, 500000);
  EXPECT_EQ(rope.scaling, (RopeScaling{.factor = 8, .start = 4, .end = 1, .amplitude = 1, .original = 8192}));
}

TEST(RopeSettings, Linear) {
  const RopeSettings rope = read(R"({"rope_scaling": {"type": "linear", "factor": 2}})");
  EXPECT_EQ(rope.scaling.factor, 2);
  EXPECT_LT(rope.scaling.end, 0);  // before the first pair
}

TEST(RopeSettings, RefusesWhatItDoesNotKnow) {
  const auto refused = [](const std::string& json) {
    try {
      read(json);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_NE(refused(R"({"rope_scaling": {"type": "longrope", "factor": 4}})").find("\"longrope\""), std::string::npos);
  EXPECT_NE(refused(R"({"rope_scaling": {"type": "yarn", "factor": 4, "alpha": 1}})").find("rope_scaling.alpha"),
            std::string::npos);
  EXPECT_NE(refused(R"({"rope_scaling": {"type": "yarn"}})").find("factor"), std::string::npos);
  EXPECT_NE(refused(R"({"rope_scaling": {"type": "yarn", "factor": 4, "beta_fast": 1, "beta_slow": 64}})")
                .find("the wrong way round"),
            std::string::npos);
  EXPECT_NE(
      refused(R"({"rope_scaling": {"type": "linear", "factor": 4, "beta_fast": 1}})").find("rope_scaling.beta_fast"),
      std::string::npos);
  EXPECT_NE(refused(R"({"rope_scaling": {"type": "llama3", "factor": 4, "low_freq_factor": 4, "high_freq_factor": 4,
      "original_max_position_embeddings": 64}})")
                .find("high_freq_factor 4 is not above low_freq_factor 4"),
            std::string::npos);
  EXPECT_NE(refused(R"({"rope_scaling": {"type": "llama3", "factor": 4, "low_freq_factor": 1, "high_freq_factor": 4}})")
                .find("original_max_position_embeddings"),
            std::string::npos);
  EXPECT_EQ(refused(R"({"rope_scaling": {"type": "yarn", "factor": 4}})"), "accepted");
}

}  // namespace
}  // namespace sluice
