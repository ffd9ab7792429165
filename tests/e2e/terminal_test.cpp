// What a person at a terminal of 80 columns sees: nothing is longer, and no text from outside moves the cursor.
#include <gtest/gtest.h>

#include <regex>

#include "base/text.h"
#include "e2e/program.h"

namespace sluice::test {
namespace {

// The lines that stood on the terminal one after the other: what was written over counts too.
std::vector<std::string> seen(const std::string& out) {
  static const std::regex codes("\033\\[[0-9;]*[A-Za-z]");
  const std::string plain = std::regex_replace(out, codes, "");
  std::vector<std::string> lines{""};
  for (const char c : plain) {
    if (c == '\n' || c == '\r') {
      lines.emplace_back();
    } else {
      lines.back() += c;
    }
  }
  return lines;
}

void expect_width(const Outcome& outcome) {
  for (const std::string& line : seen(outcome.out)) EXPECT_LE(columns_of(line), 80U) << line;
}

TEST(Terminal, PlansOfAllRowsFit) {
  int plans = 0;
  for (const char* row :
       {"deepseek_v3_1024", "deepseek_v3_256", "kimi_k2_256", "qwen3_moe_30b_8", "gpt_oss_20b_8", "gpt_oss_120b_64"}) {
    SCOPED_TRACE(row);
    const std::string file = std::string("examples/benchmark/configs/") + row + ".yaml";
    const Outcome outcome = on_terminal({"plan", file});
    EXPECT_LE(outcome.code, 1) << outcome.out;
    expect_in(outcome.out, {"tok/s/rank", "peak reached at"});
    expect_width(outcome);
    ++plans;
  }
  EXPECT_EQ(plans, 6);
}

TEST(Terminal, OtherCommandsFit) {
  const Folder folder;
  const std::string good = folder.file("good.yaml", small_config());
  const std::string row = "examples/benchmark/configs/qwen3_moe_30b_8.yaml";
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"doctor"},
        {"config", row},
        {"config", "--keys"},
        {"train", good},
        {"eval", good, "--batches", "1"},
        {"convert", hub_directory(folder, "qwen3"), folder.path("out")},
        {"plan", row, "--scale", "laptop", "--ranks", "2", "--profile", "h100"}}) {
    SCOPED_TRACE(command.front());
    const Outcome outcome = on_terminal(command);
    EXPECT_EQ(outcome.code, 0) << outcome.out;
    expect_width(outcome);
  }
}

TEST(Terminal, TheProfileOfAStepFits) {
  const Folder folder;
  const Outcome outcome = on_terminal({"bench", folder.file("good.yaml", small_config()), "--ops"});
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  const size_t table = outcome.out.find(": where the ");
  ASSERT_NE(table, std::string::npos);
  expect_width({.code = 0, .out = outcome.out.substr(table), .err = ""});
}

// Names of files, keys and values with codes that would clear the screen or set the title.
TEST(Terminal, TextFromOutsideIsShownNotObeyed) {
  const Folder folder;
  const std::string evil =
      "\033[2J\a\xC2\x9B"
      "3J";
  const std::string shown = R"(\x1b[2J\x07\xc2\x9b3J)";
  const std::string good = folder.file("good" + evil + ".yaml", small_config());
  const std::string wrong = folder.file("wrong" + evil + ".yaml", small_config() + "seed: many\n");
  const std::vector<std::vector<std::string>> commands = {{"train", good},
                                                          {"eval", good, "--batches", "1"},
                                                          {"bench", good, "--steps", "1"},
                                                          {"config", good},
                                                          {"config", wrong},
                                                          {"config", "nowhere" + evil + ".yaml"},
                                                          {"train", good, "--key." + evil, "1"},
                                                          {"train", good, "--seed", evil},
                                                          {"train", good, "--checkpoint.checkpoint_dir", evil},
                                                          {"config", good, "--checkpoint.checkpoint_dir", evil},
                                                          {"no" + evil},
                                                          {"config", "--keys", evil},
                                                          {"doctor", evil},
                                                          {"generate", folder.path(evil), "--tokens", "1"},
                                                          {"plan", good, "--profile", evil}};
  for (const std::vector<std::string>& command : commands) {
    SCOPED_TRACE(printable(command.front() + " " + command.back()));
    const Outcome outcome = on_terminal(command);
    for (const char* code : {"\033[2J", "\a", "\xC2\x9B"}) EXPECT_EQ(outcome.out.find(code), std::string::npos);
    if (outcome.code == 0) continue;  // takes its time
    const Outcome piped = sluice(command);
    const std::string text = piped.out + piped.err;
    for (const char* code : {"\033", "\a", "\xC2\x9B"})
      EXPECT_EQ(text.find(code), std::string::npos) << printable(text);
  }
  EXPECT_NE(sluice({"config", "nowhere" + evil + ".yaml"}).err.find("nowhere" + shown + ".yaml"), std::string::npos);
}

// A model of bytes may write any byte; a file gets them as they are.
TEST(Terminal, WhatAModelWritesIsNotObeyed) {
  const Folder folder;
  const std::string good = folder.file("good.yaml", small_config() + "\n");
  const std::vector<std::string> command{"generate", good,           "--prompt", "a",         "--temperature",
                                         "3",        "--max-tokens", "30",       "--samples", "40"};
  const std::string piped = sluice(command).out;
  const auto controls = [](const std::string& text) {
    return std::count_if(text.begin(), text.end(), [](char c) {
      const auto byte = static_cast<unsigned char>(c);
      return (byte < 0x20U && c != '\n' && c != '\t' && c != '\r') || byte == 0x7FU;
    });
  };
  EXPECT_GT(controls(piped), 20) << "random bytes have some";
  const Outcome outcome = on_terminal(command);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_NE(outcome.out.find("\\x"), std::string::npos);
  // What Progress and messages write over is the program's own.
  const size_t text = outcome.out.find("--- sample 1 of 40 ---"), end = outcome.out.rfind("prompt 1 tokens");
  ASSERT_NE(text, std::string::npos);
  EXPECT_EQ(controls(outcome.out.substr(text, end - text)), 0);
}

}  // namespace
}  // namespace sluice::test
