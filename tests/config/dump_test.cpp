#include <algorithm>
#include <fstream>
#include <sstream>

#include "config/support.h"

namespace sluice::config {
namespace {

std::string changes_of(const Config& before, const Config& after) {
  std::string text;
  for (const Change& change : differences(before, after)) {
    text += change.key + " " + change.before + " -> " + change.after + "\n";
  }
  return text;
}

TEST(Dump, ReadsBackAsTheSameValues) {
  Config config = parse(valid_yaml, "my.yaml");
  override_with(config, {"--logging.jsonl", R"(a: "b" #c \ d)", "--benchmark.row", "12", "--checkpoint.checkpoint_dir",
                         "true", "--benchmark.json_output_path", "-", "--benchmark.published.machine", "two\nlines",
                         "--model.config.note", "a 'quoted': \x1b[2J\x7f \xC2\x9B one", "--optimizer.eps", "1.5e-30"});
  const Config again = parse(to_yaml(config), "dump.yaml");
  EXPECT_EQ(changes_of(config, again), "");
  EXPECT_EQ(again.benchmark.row, "12");
  EXPECT_EQ(again.benchmark.published.machine, "two\nlines");
  for (const char* control : {"\x1b", "\x7f", "\xC2\x9B"}) EXPECT_EQ(to_yaml(config).find(control), std::string::npos);
  EXPECT_EQ(changes_of(config, parse(to_yaml(config, Show::given), "dump.yaml")), "");
  EXPECT_EQ(changes_of(Config{}, parse(to_yaml(Config{}), "dump.yaml")), "");
}

TEST(Dump, SaysWhereEachValueCameFrom) {
  Config config = parse("seed: 7\ndistributed:\n  tp_size: 2\nwandb: {project: x}\n", "my.yaml");
  override_with(config, {"--distributed.ep_size", "4", "--model.config.num_hidden_layers", "3"});
  set(config, "distributed.pipeline.virtual_stages", "2", Origin::rule("scale laptop"));
  EXPECT_EQ(to_yaml(config, Show::given),
            "seed: 7                                                 # my.yaml:1\n"
            "distributed:\n"
            "  tp_size: 2                                            # my.yaml:3\n"
            "  ep_size: 4                                            # --distributed.ep_size\n"
            "  pipeline:\n"
            "    virtual_stages: 2                                   # scale laptop\n"
            "model:\n"
            "  config:\n"
            "    num_hidden_layers: 3                                # --model.config.num_hidden_layers\n"
            "# given, without effect here:\n"
            "#   wandb (my.yaml:4): no reports leave the machine; see logging.jsonl\n");
  EXPECT_NE(to_yaml(config).find("\n  pp_size: 1                                            # preset\n"),
            std::string::npos);
}

TEST(Dump, KeepsToAWidth) {
  const std::string directory(60, 'd');
  Config config =
      parse("seed: 7\nwandb: {project: x}\nlogging: {jsonl: " + std::string(40, 'v') + "}\n", directory + "/my.yaml");
  override_with(config, {"--model.config.a_field_with_a_long_name_of_its_own", "3"});
  for (const std::size_t width : {80, 100}) {
    const std::string text = to_yaml(config, Show::all, width);
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      // A name of 60 letters cannot be broken.
      EXPECT_TRUE(line.size() <= width || line.find(directory) != std::string::npos) << line;
    }
    EXPECT_NE(text.find("# my.yaml:1\n"), std::string::npos) << text;
    EXPECT_EQ(changes_of(config, parse(text, "dump.yaml")), "");
  }
  EXPECT_NE(to_yaml(config, Show::given, 80)
                .find("    # --model.config.a_field_with_a_long_name_of_its_own\n"
                      "    a_field_with_a_long_name_of_its_own: 3\n"),
            std::string::npos);
}

TEST(Dump, DifferencesNameOldAndNew) {
  const Config before = parse(valid_yaml, "my.yaml");
  Config after = before;
  override_with(after, {"--seed", "8", "--distributed.ep_size", "2", "--model.config.num_hidden_layers", "4",
                        "--model.config.hidden_size", "64", "--model.config.rope_scaling", "null"});
  EXPECT_EQ(changes_of(before, after),
            "seed 7 -> 8\n"
            "distributed.ep_size 4 -> 2\n"
            "model.config.num_hidden_layers 8 -> 4\n"
            "model.config.hidden_size unset -> 64\n"
            "model.config.rope_scaling unset -> null\n"
            "model.config.rope_scaling.type \"yarn\" -> unset\n"
            "model.config.rope_scaling.factor 40 -> unset\n");
  EXPECT_TRUE(differences(before, before).empty());
}

TEST(Keys, OfASection) {
  const std::vector<KeyInfo> listed = keys("clip_grad_norm");
  ASSERT_EQ(listed.size(), 1U);
  EXPECT_EQ(listed[0].key, "clip_grad_norm.max_norm");
  EXPECT_EQ(listed[0].type, "number > 0, or null");
  EXPECT_EQ(listed[0].preset, "null");
  EXPECT_EQ(describe_keys("dist_env"),
            "dist_env.backend: nccl\n"
            "    checked, not used: the communicator follows the device and the launcher\n"
            "    one of nccl, gloo, mpi, inproc\n"
            "dist_env.timeout_minutes: 10\n"
            "    how long a collective may wait before the job is ended\n"
            "    number > 0\n");
  EXPECT_NE(describe_keys("step_scheduler").find("read, without effect:\n  step_scheduler.gc_every_steps: steers"),
            std::string::npos);
  EXPECT_EQ(error_of([] { keys("distribted"); }),
            "distribted is not a key\n       did you mean distributed?   (all keys: sluice config --keys)");
}

TEST(Keys, EachIsExplained) {
  for (const KeyInfo& info : keys()) {
    EXPECT_FALSE(info.doc.empty()) << info.key;
    EXPECT_EQ(info.kind != KeyInfo::Kind::value, info.type.empty()) << info.key;
    EXPECT_LE(info.doc.size(), 100U) << info.key;
  }
}

// The schema is a promise to the people who wrote files for it: a change here is a change of that promise.
TEST(Keys, AreFrozen) {
  std::ifstream file(SLUICE_SOURCE_DIR "/tests/config/keys.txt");
  std::stringstream frozen;
  frozen << file.rdbuf();
  std::string now;
  for (const KeyInfo& info : keys()) {
    switch (info.kind) {
      case KeyInfo::Kind::value:
        now += info.key + " | " + info.type + " | " + info.preset + "\n";
        break;
      case KeyInfo::Kind::ignored:
        now += info.key + " | ignored\n";
        break;
      case KeyInfo::Kind::refused:
        now += info.key + " | refused\n";
        break;
      case KeyInfo::Kind::renamed:
        now += info.key + " | now " + info.doc + "\n";
        break;
    }
  }
  EXPECT_EQ(now, frozen.str()) << "update tests/config/keys.txt if the change is meant";
}

}  // namespace
}  // namespace sluice::config
