#include <fstream>
#include <random>
#include <sstream>

#include "config/support.h"

namespace sluice::config {
namespace {

// Whatever the text, the outcome is a configuration or a user error with a message.
void survives(const std::string& text) {
  try {
    Config config = parse(text, "fuzz.yaml");
    validate(config);
    const Config again = parse(to_yaml(config), "dump.yaml");
    EXPECT_TRUE(differences(config, again).empty()) << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::user) << text << "\n" << error.what();
    EXPECT_STRNE(error.what(), "") << text;
  }
}

TEST(Fuzz, RandomMutationsOfAValidFile) {
  std::mt19937 random(20240607);
  const std::string fragments[] = {
      "\n", ":", " ",   "  ",  "-",    "[",    "]",     "{",    "}",    "&a ",
      "*a", "#", "'",   "\"",  "|",    ">",    "!!int", "<<: ", "null", "1e99",
      "%",  "@", "---", "...", "\xc3", "\xff", "\t",    "? ",   "${X,", "99999999999999999999",
      "é"};
  int parsed = 0;
  constexpr int num_cases = 1500;
  for (int i = 0; i < num_cases; ++i) {
    std::string text = valid_yaml;
    const int num_edits = 1 + static_cast<int>(random() % 4);
    for (int edit = 0; edit < num_edits; ++edit) {
      const std::size_t at = random() % text.size();
      switch (random() % 5) {
        case 0:
          text.erase(at, 1 + random() % 12);
          break;
        case 1:
          text.insert(at, fragments[random() % std::size(fragments)]);
          break;
        case 2:
          text[at] = static_cast<char>(random() % 256);
          break;
        case 3:
          text.insert(at, text.substr(random() % text.size(), random() % 60));
          break;
        default:
          text.resize(at + 1);
          break;
      }
      if (text.empty()) text = "a";
    }
    survives(text);
    ++parsed;
    if (HasFailure()) break;
  }
  EXPECT_EQ(parsed, num_cases);
}

TEST(Fuzz, RandomOverrides) {
  std::mt19937 random(7);
  const std::vector<KeyInfo> all = keys();
  const std::string values[] = {"",     "1",    "-1", "0",    "x",   "[",    "[1, 2]",  "{a: 1}", "null",
                                "true", "none", "~",  "1e-3", "inf", "full", "'quote'", "\"",     "9223372036854775808",
                                "{",    "$HOME"};
  const Config base = parse(valid_yaml, "my.yaml");
  for (int i = 0; i < 2000; ++i) {
    std::string key = all[random() % all.size()].key;
    if (random() % 4 == 0) key.erase(random() % key.size(), 1);
    Config config = base;
    try {
      apply_overrides(config, std::vector<std::string>{"--" + key + "=" + values[random() % std::size(values)]});
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::user) << key << ": " << error.what();
    }
  }
}

}  // namespace
}  // namespace sluice::config
