#include "model/hf_config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"
#include "model/python_json.h"

namespace sluice {
namespace {

// The error that `f` throws; a test failure when it throws none.
template <class F>
Error error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::user);
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return user_error("nothing was thrown");
}

bool holds(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST(HfConfig, FlattensObjectsAndListsWithLines) {
  const HfConfig config = HfConfig::parse(R"({
  "hidden_size": 64,
  "rope_parameters": {
    "rope_theta": 1e6, "rope_type": "default"
  },
  "architectures": ["A", {"b": false}],
  "mlp_only_layers": [],
  "rope_scaling": null
})",
                                          "config.json");
  EXPECT_EQ(config.integer("hidden_size", {}), 64);
  EXPECT_EQ(config.number("rope_parameters.rope_theta", {}), 1e6);
  EXPECT_EQ(config.text("rope_parameters.rope_type"), "default");
  EXPECT_EQ(config.text("architectures.0"), "A");
  EXPECT_FALSE(config.boolean("architectures.1.b"));
  EXPECT_EQ(config.where("rope_parameters.rope_type"), "config.json:4");
  EXPECT_EQ(config.where("architectures.0"), "config.json:6");
  EXPECT_EQ(config.where("rope_parameters"), "config.json:4");
  EXPECT_TRUE(config.has("rope_parameters"));
  EXPECT_FALSE(config.has("rope"));
  EXPECT_FALSE(config.has("mlp_only_layers"));
  EXPECT_FALSE(config.has("rope_scaling"));
  EXPECT_EQ(config.fields().size(), 7u);
}

TEST(HfConfig, GettersNameKeyValueAndPlace) {
  const HfConfig config =
      HfConfig::parse("{\"a\": 1.5,\n\"b\": true,\n\"c\": \"x\\u001b\", \"d\": -3, \"e\": 8.0}", "f");
  const Error whole = error_of([&] { config.integer("a", {}); });
  EXPECT_STREQ(whole.what(), "a is 1.5, not an integer");
  EXPECT_EQ(whole.where(), "f:1");
  EXPECT_EQ(error_of([&] { config.integer("b", {}); }).where(), "f:2");
  EXPECT_STREQ(error_of([&] { config.number("c", {}); }).what(), "c is \"x\\u001b\", not a number");
  EXPECT_STREQ(error_of([&] { config.integer("d", {1, 9}); }).what(), "d is -3; it must be from 1 to 9");
  EXPECT_STREQ(error_of([&] { config.number("d", {0, 1}); }).what(), "d is -3; it must be from 0 to 1");
  EXPECT_STREQ(error_of([&] { config.boolean("a"); }).what(), "a is 1.5, not true or false");
  EXPECT_STREQ(error_of([&] { config.text("a"); }).what(), "a is 1.5, not text");
  const Error missing = error_of([&] { config.integer("zz", {}); });
  EXPECT_STREQ(missing.what(), "the model configuration lacks zz");
  EXPECT_EQ(missing.where(), "f");
  EXPECT_EQ(config.integer("e", {}), 8);
  EXPECT_EQ(config.integer("zz", {1, 2}, 7), 7);
  EXPECT_EQ(config.text("zz", "w"), "w");
  EXPECT_EQ(config.describe("d"), "d -3 (f:3)");
}

TEST(HfConfig, BadFilesAreUserErrorsWithTheLine) {
  const auto broken = [](std::string_view json) { return error_of([&] { HfConfig::parse(json, "c.json"); }); };
  EXPECT_EQ(broken("{\"a\": 1,\n\"b\": tru\n}").where(), "c.json:2");
  EXPECT_TRUE(holds(broken("{\"a\": nan}").what(), "not valid JSON"));
  EXPECT_TRUE(holds(broken("{\"a\": 1e999}").what(), "not valid JSON"));
  EXPECT_TRUE(holds(broken("").what(), "not valid JSON"));
  EXPECT_TRUE(holds(broken(std::string_view("{\"a\": 1}\n\0{", 11)).what(), "not valid JSON: a NUL byte"));
  EXPECT_TRUE(holds(broken("{\"a\": \"\xff\"}").what(), "not valid JSON"));
  EXPECT_TRUE(holds(broken("[1]").what(), "a JSON object"));
  EXPECT_TRUE(holds(broken("7").what(), "a JSON object"));
  EXPECT_TRUE(holds(broken("{\"a\": 1,\n \"a\": 2}").what(), "a second \"a\""));
  EXPECT_TRUE(holds(broken("{\"a\": {\"b\": 1}, \"a.b\": 2}").what(), "a second \"a.b\""));
  EXPECT_TRUE(holds(broken("{\"a\": {\"b\": 1}, \"a\": 2}").what(), "a second \"a\""));
  EXPECT_TRUE(holds(broken("{\"a\": 1, \"a\": {\"b\": 2}}").what(), "a second \"a\""));
  EXPECT_TRUE(holds(broken("{\"a\": [], \"a\": []}").what(), "a second \"a\""));

  std::string deep = "{\"a\": ";
  deep.append(100'000, '[');
  EXPECT_TRUE(holds(broken(deep).what(), "levels deep"));
  std::string many = "{\"a\": [0";
  for (size_t i = 0; i < HfConfig::kMaxFields; ++i) many += ",0";
  EXPECT_TRUE(holds(broken(many + "]}").what(), "more than 20000 fields"));
  EXPECT_TRUE(holds(broken("{\"" + std::string(HfConfig::kMaxKey + 1, 'k') + "\": 1}").what(), "a key of 513"));
  EXPECT_TRUE(holds(broken("{\"a\": 1}" + std::string(HfConfig::kMaxBytes, ' ')).what(), "are read"));
}

// As Python's json reads and writes them.
TEST(HfConfig, NumbersThatAreNotFinite) {
  const std::string text = "{\"a\": Infinity, \"b\": [-Infinity,\n NaN], \"c\": \"NaN \\\" Infinity\", \"d\": NaN}";
  const HfConfig config = HfConfig::parse(text, "f");
  EXPECT_EQ(config.number("a", {}), std::numeric_limits<double>::infinity());
  EXPECT_EQ(config.number("b.0", {}), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(config.where("b.1"), "f:1");
  EXPECT_EQ(config.describe("b.1"), "b.1 NaN (f:1)");
  EXPECT_EQ(config.text("c"), "NaN \" Infinity");
  EXPECT_TRUE(holds(error_of([&] { config.number("d", {}); }).what(), "d is NaN"));
  EXPECT_TRUE(holds(error_of([&] { config.number("a", {0, 1}); }).what(), "a is Infinity; it must be from 0 to 1"));
  EXPECT_TRUE(holds(error_of([&] { config.integer("a", {}); }).what(), "a is Infinity, not an integer"));
  EXPECT_EQ(python_json(standard_json(text)), text);
  for (const char* const broken :
       {"{\"a\": nan}", "{\"a\": Inf}", "{\"a\": +Infinity}", "{\"a\": NaNN}", "{\"a\": -NaN}"})
    EXPECT_TRUE(holds(error_of([&] { HfConfig::parse(broken, "f"); }).what(), "not valid JSON")) << broken;
}

TEST(HfConfig, WhatIsNoConfigurationIsNamed) {
  const auto broken = [](std::string_view json) {
    return describe(error_of([&] { HfConfig::parse(json, "c.json"); }));
  };
  EXPECT_TRUE(holds(broken("// from the hub\n{}"), "JSON has no comments: take it out"));
  EXPECT_TRUE(holds(broken("{\"a\": 1, # one\n \"b\": 2}"), "c.json:1: not valid JSON"));
  EXPECT_TRUE(holds(broken("{\"a\": 1, # one\n \"b\": 2}"), "JSON has no comments: take it out"));
  const std::string pointer = broken("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 1\n");
  EXPECT_TRUE(holds(pointer, "c.json is a Git LFS pointer, not a model's configuration")) << pointer;
  EXPECT_TRUE(holds(broken("<!doctype html>"), "c.json is an HTML page"));
  EXPECT_TRUE(holds(broken(std::string_view("\xff\xfe{\0}\0", 6)), "c.json is UTF-16 text"));
  EXPECT_EQ(HfConfig::parse("\xef\xbb\xbf{\"a\": 1}", "f").integer("a", {}), 1);
}

TEST(HfConfig, RemembersWhatWasAskedFor) {
  HfConfig config = HfConfig::parse(R"({"a": 1, "b": {"c": 2, "d": 3}, "e": 4, "old": 5, "same": 4})", "f");
  HfConfig copy = config;
  EXPECT_EQ(copy.integer("a", {}), 1);
  EXPECT_TRUE(config.was_read("a"));
  EXPECT_FALSE(config.was_read("b.c"));
  EXPECT_TRUE(copy.has("b"));
  EXPECT_TRUE(config.was_read("b.c"));
  EXPECT_FALSE(config.was_read("old"));
  copy.unify("new", "old");
  EXPECT_FALSE(config.was_read("old"));
  EXPECT_EQ(copy.integer("new", {}), 5);
  EXPECT_TRUE(config.was_read("old"));
  copy.unify("e", "same");
  EXPECT_TRUE(config.was_read("same"));
  EXPECT_FALSE(config.was_read("e"));
  EXPECT_EQ(config.number("absent", {}, 7), 7);
  EXPECT_TRUE(config.names_read().contains("absent"));
  EXPECT_FALSE(HfConfig::parse("{}", "g").was_read("a"));
}

TEST(HfConfig, HugeIntegersAreNoIntegers) {
  const HfConfig config = HfConfig::parse(R"({"a": 18446744073709551615, "b": 9223372036854775807, "c": 1e300})", "f");
  EXPECT_TRUE(holds(error_of([&] { config.integer("a", {}); }).what(), "not an integer"));
  EXPECT_EQ(config.integer("b", {}), std::numeric_limits<int64_t>::max());
  EXPECT_TRUE(holds(error_of([&] { config.integer("c", {}); }).what(), "not an integer"));
}

TEST(HfConfig, OverridesReplaceWhatLiesAboveAndBelow) {
  HfConfig config = HfConfig::parse(R"({"a": 1, "r": {"t": 1, "u": 2}, "s": 3})", "f");
  config.override_with({"a", "2", "cli:a"});
  config.override_with({"r", R"({"t": 5})", "cli:r"});
  config.override_with({"s.v", "true", "cli:s"});
  config.override_with({"w", "plain words", "cli:w"});
  config.override_with({"x", "\"7\"", ""});
  EXPECT_EQ(config.integer("a", {}), 2);
  EXPECT_EQ(config.where("a"), "cli:a");
  EXPECT_EQ(config.integer("r.t", {}), 5);
  EXPECT_FALSE(config.has("r.u"));
  EXPECT_TRUE(config.boolean("s.v"));
  EXPECT_EQ(config.find("s"), nullptr);
  EXPECT_EQ(config.text("w"), "plain words");
  EXPECT_EQ(config.text("x"), "7");
  config.override_with({"r", "null", "cli"});
  EXPECT_FALSE(config.has("r"));
  EXPECT_EQ(error_of([&] { config.override_with({"", "1", "here"}); }).where(), "here");
  for (const auto& [key, field] : config.fields()) EXPECT_TRUE(field.overridden) << key;
}

TEST(HfConfig, TwoSpellingsOfOneField) {
  const auto both = [](std::string_view json) {
    HfConfig config = HfConfig::parse(json, "f");
    return config;
  };
  HfConfig other = both(R"({"y": 4})");
  other.unify("x", "y");
  EXPECT_EQ(other.integer("x", {}), 4);
  EXPECT_FALSE(other.has("y"));
  EXPECT_TRUE(holds(error_of([&] { other.integer("x", {5, 6}); }).what(), "y is 4"));

  HfConfig same = both(R"({"x": 4, "y": 4.0})");
  same.unify("x", "y");
  EXPECT_EQ(same.integer("x", {}), 4);

  HfConfig differ = both("{\"x\": 4,\n\"y\": 5}");
  const Error error = error_of([&] { differ.unify("x", "y"); });
  EXPECT_STREQ(error.what(), "x is 4 but y is 5: they mean the same");
  EXPECT_EQ(error.where(), "f:2");

  for (const char* changed : {"x", "y"}) {
    HfConfig config = both(R"({"x": 4, "y": 4})");
    config.override_with({changed, "9", "cli"});
    config.unify("x", "y");
    EXPECT_EQ(config.integer("x", {}), 9) << changed;
  }
}

TEST(HfConfig, LoadsADirectory) {
  const auto directory = std::filesystem::temp_directory_path() / fmt::format("sluice_hf_config_{}", ::getpid());
  std::filesystem::create_directories(directory);
  const Error missing = error_of([&] { HfConfig::load(directory); });
  EXPECT_TRUE(holds(missing.what(), "config.json"));
  std::ofstream(directory / "config.json") << "{\n\"a\": 3\n}\n";
  const HfConfig config = HfConfig::load(directory);
  EXPECT_EQ(config.integer("a", {}), 3);
  EXPECT_EQ(config.where("a"), (directory / "config.json").string() + ":2");
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace sluice
