#include <cstdlib>

#include "config/node.h"
#include "config/support.h"

namespace sluice::config {
namespace {

std::string yaml_error(const std::string& text) {
  return error_of([&] { parse_yaml(text, "f"); });
}

TEST(Yaml, KeepsLinesKindsAndOrder) {
  const Node root = parse_yaml("b: 1\na:\n  - x\n  - 'y'\nc:\nd: ~\n", "f");
  ASSERT_EQ(root.items.size(), 4U);
  EXPECT_EQ(root.items[0].key, "b");
  EXPECT_EQ(root.items[1].key, "a");
  EXPECT_EQ(root.items[1].kind, Node::Kind::list);
  EXPECT_TRUE(root.items[1].items[0].plain);
  EXPECT_FALSE(root.items[1].items[1].plain);
  EXPECT_EQ(root.items[1].items[1].line, 4);
  EXPECT_EQ(root.items[2].kind, Node::Kind::null);
  EXPECT_EQ(root.items[3].kind, Node::Kind::null);
  EXPECT_EQ(root.items[3].line, 6);
}

TEST(Yaml, AliasesAndMergeKeysAreExpanded) {
  const Node root = parse_yaml("a: &x {p: 1, q: 2}\nb: *x\nc:\n  <<: *x\n  q: 3\n", "f");
  EXPECT_EQ(to_json(root), R"({"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 2}, "c": {"q": 3, "p": 1}})");
}

TEST(Yaml, RefusesWhatIsNoConfiguration) {
  EXPECT_EQ(yaml_error("a: 1\nb: 2\na: 3\n"), "f:3: a is given twice, first in line 1\n       keep one of the two");
  EXPECT_EQ(yaml_error("a: {b: 1}\nc: [1, 2\n"), "f:3: not valid YAML: end of sequence flow not found");
  EXPECT_EQ(yaml_error("a: 1\n---\nb: 2\n"), "f: holds more than one document (---)");
  EXPECT_EQ(yaml_error("a: 1\nb: \xff\n"), "f:2: not UTF-8 text: byte 0xFF");
  EXPECT_EQ(yaml_error("a: \xed\xa0\x80\n"), "f:1: not UTF-8 text: byte 0xED");
  EXPECT_EQ(yaml_error(std::string("a: x\0y\n", 7)), "f:1: not plain text: control character 0x00");
  EXPECT_EQ(yaml_error("? [a, b]\n: 1\n"), "f:1: a key must be a word, not a list or a map");
  EXPECT_EQ(yaml_error("a: !!python/object:os.system x\n"),
            "f:1: the tag \"tag:yaml.org,2002:python/object:os.system\" is not supported");
  EXPECT_EQ(yaml_error("a: !mine x\n"), "f:1: the tag \"!mine\" is not supported");
  EXPECT_EQ(yaml_error("a: &x [1, *x]\n"), "f:1: an alias refers to the value it stands in");
}

TEST(Yaml, WhatIsNoTextIsNamed) {
  const std::string advice = "\n       name the configuration, a text file";
  EXPECT_EQ(yaml_error("\x89PNG\r\n\x1a\n"), "f: this is a PNG image, not YAML" + advice);
  EXPECT_EQ(yaml_error(std::string("\x98\5\0\0\0\0\0\0{\"a\":", 13)),
            "f: this is a safetensors file, not YAML" + advice);
  EXPECT_EQ(yaml_error(std::string(100, '\1')), "f: this is binary data, not YAML" + advice);
  EXPECT_NE(yaml_error("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 1\n").find("git lfs pull"),
            std::string::npos);
  EXPECT_NE(yaml_error(std::string("\xff\xfe\x61\0:\0", 6)).find("UTF-16 text, not YAML\n       make it UTF-8"),
            std::string::npos);
  EXPECT_NE(yaml_error("<!DOCTYPE html>\n<html>").find("an HTML page"), std::string::npos);
}

TEST(Yaml, TabsThatIndentAreNamed) {
  const std::string said =
      ": not valid YAML: the line is indented by a tab\n"
      "       YAML takes spaces alone: replace each tab by spaces";
  EXPECT_EQ(yaml_error("a:\n\tb: 1\n"), "f:2" + said);
  EXPECT_EQ(yaml_error("a:\n  b: 1\n \tc: 1\n"), "f:3" + said);
  EXPECT_EQ(yaml_error("\ta: 1\n"), "f:1" + said);
  EXPECT_EQ(parse_yaml("a:\t1\nb: {\n\tc: 1}\n", "f").items.size(), 2U);
}

TEST(Yaml, TooLargeIntegersAreToldTheirBound) {
  const auto said = [](const std::string& text) { return parse_error(text); };
  EXPECT_EQ(said("seed: 99999999999999999999"),
            "my.yaml:1: seed: expected integer from 0 to 9007199254740992, got \"99999999999999999999\"");
  EXPECT_EQ(said("seed: 9007199254740993"),
            "my.yaml:1: seed: expected integer from 0 to 9007199254740992, got \"9007199254740993\"");
  EXPECT_EQ(said("step_scheduler: {max_steps: 3_000_000_000}"),
            "my.yaml:1: step_scheduler.max_steps: expected integer from 1 to 2147483647, got \"3_000_000_000\"");
  EXPECT_EQ(said("step_scheduler: {max_steps: -99999999999999999999}"),
            "my.yaml:1: step_scheduler.max_steps: expected integer >= 1, got \"-99999999999999999999\"");
  EXPECT_EQ(parse("seed: 9007199254740992\nmodel: {config: {model_type: llama}}", "my.yaml").seed, 9007199254740992);
}

TEST(Yaml, BoundsSizeDepthAndAliases) {
  EXPECT_EQ(yaml_error(std::string(max_file_bytes + 1, '#')), "f: 1048577 bytes; a configuration has at most 1048576");
  EXPECT_EQ(yaml_error("a: " + std::string(40, '[') + std::string(40, ']')), "f:1: nested deeper than 32 levels");
  EXPECT_NE(yaml_error("a: " + std::string(100'000, '[')).find("f:1:"), std::string::npos);
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) bomb += "*a" + std::to_string(i - 1) + ", ";
    bomb += "]\n";
  }
  EXPECT_NE(yaml_error(bomb).find("more than 20000 values"), std::string::npos);
}

TEST(Yaml, EnvironmentReferences) {
  ::setenv("SLUICE_TEST_SIZE", "48", 1);
  ::unsetenv("SLUICE_TEST_UNSET");
  EXPECT_EQ(expand_environment("${SLUICE_TEST_SIZE}"), "48");
  EXPECT_EQ(expand_environment("a/$SLUICE_TEST_SIZE/b"), "a/48/b");
  EXPECT_EQ(expand_environment("${SLUICE_TEST_UNSET,7}"), "7");
  EXPECT_EQ(expand_environment("${oc.env:SLUICE_TEST_SIZE, 3}"), "48");
  EXPECT_EQ(expand_environment("${SLUICE_TEST_UNSET,}x"), "x");
  EXPECT_EQ(expand_environment("5$ and $5 and ${"), "5$ and $5 and ${");
  const Config config = parse("step_scheduler:\n  global_batch_size: ${SLUICE_TEST_SIZE}\n", "my.yaml");
  EXPECT_EQ(config.step_scheduler.global_batch_size, 48);
  EXPECT_EQ(parse_error("seed: 1\nlogging:\n  jsonl: ${SLUICE_TEST_UNSET}\n"),
            "my.yaml:3: logging.jsonl: environment variable SLUICE_TEST_UNSET is not set\n"
            "       set it, or give a default: ${SLUICE_TEST_UNSET,default}");
}

TEST(Yaml, JsonFollowsTheCoreRules) {
  const Node root = parse_yaml("[1, -2, 1e-6, 1., .5, true, null, '3', yes, inf, 1-2, \"a\\\"b\"]", "f");
  EXPECT_EQ(to_json(root), R"([1, -2, 1e-06, 1, 0.5, true, null, "3", "yes", "inf", "1-2", "a\"b"])");
}

}  // namespace
}  // namespace sluice::config
