#include "checkpoint/manifest.h"

#include <functional>

#include "base/file.h"
#include "checkpoint/rank_parts.h"
#include "support.h"

namespace sluice {
namespace {

using test::error_of;
using test::expect_user_error;

Manifest example() {
  Manifest manifest{.version = "0.1.0 (abc)",
                    .run = {.step = 12,
                            .updates = 11,
                            .consumed_samples = 1536,
                            .schedule_steps = 100,
                            .first_loss = 5.125,
                            .recent_losses = {0.1, 1e-300, 3},
                            .passed_over = {0, int64_t{1} << 50},
                            .best = BestLoss{2.25, 8},
                            .validation_loss = 1.0 / 3,
                            .validated_at = 12,
                            .left_out_in_a_row = 1,
                            .rollbacks = 7,
                            .decay_steps = 90,
                            .weight_decay_steps = 80},
                    .settings = {{"dataset.path", "/a \"b\"\n\xc3\xa4"}, {"optimizer.lr", "0.001"}},
                    .identity = {{"model", "llama"}},
                    .files = {}};
  manifest.files.push_back({"rank-00000.safetensors", 20, 8, {0, 1, ~uint64_t{0}}});
  manifest.files.push_back({"rank-00001.safetensors", 0, 1 << 20, {}});
  return manifest;
}

TEST(Manifest, ReadsBackAsItWas) {
  EXPECT_EQ(parse_manifest(manifest_text(example()), "m"), example());
  Manifest plain = example();
  plain.run.best.reset();
  plain.run.validation_loss.reset();
  plain.run.validated_at.reset();
  plain.files.clear();
  EXPECT_EQ(parse_manifest(manifest_text(plain), "m"), plain);
  const HashedFile file = example().files.front();
  EXPECT_EQ(parse_hashed_file(hashed_file_text(file), "m"), file);
}

TEST(Manifest, EveryChangedByteAndEveryCutIsNoticed) {
  const std::string text = manifest_text(example());
  for (size_t i = 0; i < text.size(); ++i) {
    std::string changed = text;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    expect_user_error(error_of([&] { parse_manifest(changed, "m.json"); }), {"m.json is damaged"});
    expect_user_error(error_of([&] { parse_manifest(text.substr(0, i), "m.json"); }), {"m.json is damaged"});
  }
  expect_user_error(error_of([&] { parse_manifest(text + " ", "m.json"); }), {"m.json is damaged"});
}

TEST(Manifest, WhatEarlierVersionsDidNotWriteIsNothing) {
  Manifest earlier = example();
  earlier.run.decay_steps.reset();
  earlier.run.weight_decay_steps.reset();
  std::string body = manifest_text(earlier);
  body = body.substr(body.find('\n') + 1);
  for (const char* later : {" \"validated_at\": 12,\n", " \"left_out_in_a_row\": 1,\n", " \"rollbacks\": 7,\n"}) {
    const size_t at = body.find(later);
    ASSERT_NE(at, std::string::npos) << later;
    body.erase(at, std::string(later).size());
  }
  earlier.run.validated_at.reset();
  earlier.run.left_out_in_a_row = earlier.run.rollbacks = 0;
  EXPECT_EQ(parse_manifest(seal_manifest(body), "m"), earlier);
}

// Behind a hash that is right.
TEST(Manifest, HostileOnesAreRefused) {
  const std::string text = manifest_text(example());
  const std::string body = text.substr(text.find('\n') + 1);
  ASSERT_EQ(seal_manifest(body), text);
  const auto with = [&](const std::string& what, const std::string& other) {
    std::string changed = body;
    const size_t at = changed.find(what);
    EXPECT_NE(at, std::string::npos) << what;
    return changed.replace(at, what.size(), other);
  };
  const std::vector<std::string> bodies = {
      "",
      "}",
      R"("step": 1})",
      "[",
      std::string(100'000, '['),
      R"("a": )" + std::string(100'000, '['),
      R"("a": )" + std::string(20, '[') + std::string(20, ']') + "}",
      R"("a": ")" + std::string(100'000, 'x'),
      "\"a\": \"\xff\"}",
      with(R"("step": 12)", R"("step": -1)"),
      with(R"("step": 12)", R"("step": 12.0)"),
      with(R"("step": 12)", R"("step": "12")"),
      with(R"("step": 12)", R"("step": 9223372036854775808)"),
      with(R"("step": 12)", R"("step": 18446744073709551615)"),
      with(R"("step": 12)", R"("step": 1e400)"),
      with(R"("step": 12)", R"("step": 10)"),  // fewer than updates
      with(R"("step": 12,)", ""),
      with("5.125", "null"),
      with("5.125", "1e999"),
      with("1125899906842624", "18446744073709551615"),
      with("1125899906842624", "-1"),
      with(R"("best": {)", R"("best": [], "x": {)"),
      with(R"("left_out_in_a_row": 1)", R"("left_out_in_a_row": -1)"),
      with(R"("left_out_in_a_row": 1)", R"("left_out_in_a_row": 13)"),  // more than steps
      with(R"("rollbacks": 7)", R"("rollbacks": "7")"),
      with(R"("rollbacks": 7)", R"("rollbacks": 1.5)"),
      with(R"("validated_at": 12)", R"("validated_at": 13)"),
      with(R"("settings": {)", R"("settings": {"a": 1, )"),
      with(R"("settings": {)", R"("settings": [], "x": {)"),
      with(R"("bytes": 20)", R"("bytes": 4611686018427387904)"),
      with(R"("bytes": 20)", R"("bytes": 9223372036854775807)"),
      with(R"("bytes": 20)", R"("bytes": 25)"),
      with(R"("block_bytes": 8)", R"("block_bytes": 0)"),
      with(R"("block_bytes": 8)", R"("block_bytes": 7)"),
      with(R"("block_bytes": 8)", R"("block_bytes": 4611686018427387904)"),
      with("ffffffffffffffff", "fffffffffffffff"),
      with("ffffffffffffffff", "0xffffffffffffff"),
      with("ffffffffffffffff", "-fffffffffffffff"),
      with("rank-00001", "rank-00000"),
      with("rank-00001", "../secret"),
      with("rank-00001", ".hidden"),
      with("rank-00001", "a\\u0000b"),
      with("rank-00001", "a\\nb"),
      with("rank-00001", std::string(300, 'a')),
      with(R"("rank-00001.safetensors")", R"("")"),
      with(R"("files": [)", R"("files": [7, )"),
  };
  for (const std::string& hostile : bodies) {
    SCOPED_TRACE(hostile.substr(0, 200));
    expect_user_error(error_of([&] { parse_manifest(seal_manifest(hostile), "m.json"); }), {"m.json is damaged"});
  }
}

TEST(Manifest, AnotherFormatIsSaid) {
  std::string body = manifest_text(example());
  body = body.substr(body.find('\n') + 1);
  body.replace(body.find(R"("format": 1)"), 11, R"("format": 2)");
  expect_user_error(error_of([&] { parse_manifest(seal_manifest(body), "m.json"); }),
                    {"m.json has format 2, and this program reads format 1", "newer"});
}

struct PartsTest : test::InDirectory {};

TEST_F(PartsTest, TheHashesOfAllRanksAreCollected) {
  const std::vector<HashedFile> files = example().files;
  for (const HashedFile& file : files) leave_part(directory_, file);
  EXPECT_EQ(collect_parts(directory_, 2), files);
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
  leave_part(directory_, files[0]);
  expect_user_error(error_of([&] { collect_parts(directory_, 2); }), {"rank-00001"});
}

}  // namespace
}  // namespace sluice
