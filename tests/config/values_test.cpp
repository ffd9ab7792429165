// What counts as a number, a truth, a class and null: the words and the ends of the ranges.
#include "config/support.h"

namespace sluice::config {
namespace {

TEST(Values, TruthsHaveThreeWordsEach) {
  const auto gate = [](const std::string& word) {
    return parse("model: {backend: {fake_balanced_gate: " + word + "}}", "my.yaml").model.backend.fake_balanced_gate;
  };
  for (const char* word : {"true", "True", "yes", "YES", "on"}) EXPECT_TRUE(gate(word)) << word;
  for (const char* word : {"false", "False", "no", "NO", "off"}) EXPECT_FALSE(gate(word)) << word;
  for (const char* word : {"1", "0", "y", "n", "truely", "[true]"}) {
    EXPECT_NE(parse_error("model: {backend: {fake_balanced_gate: " + std::string(word) + "}}").find("true or false"),
              std::string::npos)
        << word;
  }
}

TEST(Values, NumbersEndWhereTheirRangeDoes) {
  const auto lr = [](const std::string& text) {
    return parse("optimizer: {lr: " + text + "}", "my.yaml").optimizer.lr;
  };
  EXPECT_EQ(lr("1e-300"), 1e-300);
  EXPECT_EQ(lr("1"), 1);
  for (const char* text : {"0", "0.0", "-0.0", "-1e-9", "inf", "+inf", "-inf", "infinity", "nan", "1e400", "1e-4x"}) {
    EXPECT_NE(parse_error("optimizer: {lr: " + std::string(text) + "}").find("expected number > 0"), std::string::npos)
        << text;
  }
  // An end that belongs to the range.
  EXPECT_EQ(parse("optimizer: {weight_decay: 0}", "my.yaml").optimizer.weight_decay, 0);
  EXPECT_NE(parse_error("optimizer: {weight_decay: -1e-300}").find("expected number >= 0"), std::string::npos);
  EXPECT_EQ(parse("distributed: {ep_size: 1}", "my.yaml").distributed.ep_size, 1);
  EXPECT_NE(parse_error("distributed: {ep_size: 0}").find("expected integer >= 1"), std::string::npos);
}

TEST(Values, DigitsMayBeGrouped) {
  const auto seq_len = [](const std::string& text) {
    return parse("dataset: {seq_len: " + text + "}", "my.yaml").dataset.seq_len;
  };
  EXPECT_EQ(seq_len("4_096"), 4096);
  EXPECT_EQ(seq_len("+1_0_2_4"), 1024);
  EXPECT_EQ(parse("optimizer: {eps: 1_0.2_5}", "my.yaml").optimizer.eps, 10.25);
  for (const char* text : {"_4", "4_", "4__0", "++4", "0x10", "1e3", "4.0"}) {
    EXPECT_NE(parse_error("dataset: {seq_len: " + std::string(text) + "}").find("expected integer"), std::string::npos)
        << text;
  }
}

TEST(Values, AClassIsItsNameOrAPathThatEndsInIt) {
  const auto target = [](const std::string& text) { return "optimizer: {_target_: " + text + "}"; };
  for (const char* text : {"AdamW", "torch.optim.AdamW", "\"optim:AdamW\""}) {
    EXPECT_EQ(parse(target(text), "my.yaml").optimizer.target, OptimizerKind::adamw) << text;
  }
  for (const char* text : {"MyAdamW", "torch.optim.NotAdamW", "torch_optim_AdamW", "AdamW.torch"}) {
    EXPECT_NE(parse_error(target(text)).find("optimizer._target_: expected one of"), std::string::npos) << text;
  }
}

TEST(Values, NullInQuotesIsText) {
  const auto path = [](const std::string& text) {
    return parse("dataset: {path: " + text + "}", "my.yaml").dataset.path;
  };
  for (const char* text : {"null", "~", "Null", "none", ""}) EXPECT_EQ(path(text), std::nullopt) << text;
  EXPECT_EQ(path("'null'"), "null");
  EXPECT_EQ(path("\"~\""), "~");
  EXPECT_EQ(path("'none'"), "none");
  EXPECT_EQ(path("nulls"), "nulls");
}

TEST(Values, BytesAre256) {
  const auto with_vocab = [](const std::string& vocab) {
    Config config = parse(valid_yaml, "my.yaml");
    override_with(config, {"--dataset._target_", "bytes", "--dataset.path", "x", "--dataset.vocab_size", vocab});
    return config;
  };
  EXPECT_NO_THROW(validate(with_vocab("256")));
  EXPECT_NE(error_of([&] { validate(with_vocab("255")); }).find("vocab_size 255 is too small"), std::string::npos);
}

// What torch's class brought leaves with it; what the file says stays.
TEST(Values, DefaultsGoWithWhatBroughtThem) {
  Config config = parse("optimizer: {_target_: torch.optim.AdamW, eps: 1e-3}", "my.yaml");
  const Config ours = parse("optimizer: {_target_: AdamW, eps: 1e-3}", "my.yaml");
  EXPECT_NE(config.optimizer.lr, ours.optimizer.lr);
  EXPECT_NE(config.optimizer.weight_decay, ours.optimizer.weight_decay);
  override_with(config, {"--optimizer._target_", "AdamW"});
  EXPECT_EQ(config.optimizer.lr, ours.optimizer.lr);
  EXPECT_EQ(config.optimizer.weight_decay, ours.optimizer.weight_decay);
  EXPECT_EQ(config.optimizer.decay_parameters, ours.optimizer.decay_parameters);
  EXPECT_EQ(config.optimizer.eps, 1e-3);
  EXPECT_FALSE(config.is_set("optimizer.lr"));
}

}  // namespace
}  // namespace sluice::config
