// The sources against the rules of the house, and each rule against a snippet that breaks it.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "house/rules.h"
#include "house/scanner.h"

namespace sluice::house {
namespace {

const std::filesystem::path root = SLUICE_SOURCE_DIR;

std::vector<std::string> rooms() {
  return room_order(read_file(root / "src" / "CMakeLists.txt", 1 << 20));
}

std::vector<SourceFile> all_files() {
  std::vector<SourceFile> files = scan_folder(root, "src");
  for (const char* folder : {"tests", "benchmarks"}) {
    std::vector<SourceFile> more = scan_folder(root, folder);
    std::move(more.begin(), more.end(), std::back_inserter(files));
  }
  return files;
}

Violations each(const std::vector<SourceFile>& files, const std::function<Violations(const SourceFile&)>& rule) {
  Violations all;
  for (const SourceFile& file : files) {
    for (Violation& violation : rule(file)) all.push_back(std::move(violation));
  }
  return all;
}

std::string output_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "r"), ::pclose);
  std::string text;
  std::array<char, 4096> buffer{};
  while (const std::size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe.get()))
    text.append(buffer.data(), count);
  return text;
}

// --- the sources ---

TEST(House, IncludesGoOneWay) {
  const std::vector<SourceFile> files = scan_folder(root, "src");
  ASSERT_GE(files.size(), 10U);
  const std::vector<std::string> order = rooms();
  EXPECT_EQ(listing(each(files, [&](const SourceFile& file) { return include_order(file, order); })), "");
}

TEST(House, NoMutableStatics) {
  EXPECT_EQ(listing(each(scan_folder(root, "src"), no_mutable_statics)), "");
}

TEST(House, NoWritableSymbols) {
  int libraries = 0;
  // A constant of a header shows in every library that uses it.
  const std::vector<SourceFile> sources = scan_folder(root, "src");
  for (const std::string& room : rooms()) {
    const std::filesystem::path library = std::filesystem::path(SLUICE_LIBRARY_DIR) / ("libsluice_" + room + ".a");
    if (!std::filesystem::exists(library)) continue;
    const std::string symbols = output_of("nm --defined-only -C -A -f posix '" + library.string() + "'");
    ASSERT_NE(symbols.find("sluice::"), std::string::npos) << library << " has no symbols: is nm installed?";
    EXPECT_EQ(listing(no_writable_symbols(symbols, sources)), "") << library;
    ++libraries;
  }
  EXPECT_GE(libraries, 2);
}

TEST(House, NoConditionalsInModules) {
  EXPECT_EQ(listing(each(scan_folder(root, "src"), no_conditionals)), "");
}

TEST(House, HeavyHeadersStayInFewFiles) {
  EXPECT_EQ(listing(heavy_headers(scan_folder(root, "src"))), "");
}

TEST(House, FilesAreShort) {
  EXPECT_EQ(listing(each(all_files(), short_files)), "");
}

TEST(House, NothingIsMarkedUnfinished) {
  EXPECT_EQ(listing(each(all_files(), no_unfinished_marks)), "");
}

TEST(House, HeadersOpenWithTheirContract) {
  EXPECT_EQ(listing(each(all_files(), headers_open_with_contract)), "");
}

TEST(House, OnlyMainExits) {
  EXPECT_EQ(listing(each(scan_folder(root, "src"), no_exit)), "");
}

// --- each rule can fail ---

const std::vector<std::string> two_rooms{"base", "nn"};

TEST(HouseRules, RoomOrderIsReadFromCMake) {
  EXPECT_EQ(room_order("# c\nset(rooms base\n    nn)\nset(x y)"), two_rooms);
  EXPECT_TRUE(room_order("set(other base)").empty());
}

TEST(HouseRules, IncludeOrder) {
  const auto check = [](const char* path, const char* text) {
    return listing(include_order(scan(path, text), two_rooms));
  };
  EXPECT_EQ(check("src/nn/a.h", "#include <x>\n#include \"base/b.h\"\n#include \"nn/c.h\"\n// #include \"zz.h\"\n"),
            "");
  EXPECT_EQ(check("src/base/a.h", "\n#include \"nn/c.h\"\n"),
            "src/base/a.h:2: base may not include \"nn/c.h\": nn lies below\n");
  EXPECT_EQ(check("src/nn/a.h", "#include \"c.h\"\n"), "src/nn/a.h:1: \"c.h\" is not \"room/file.h\"\n");
  EXPECT_EQ(check("src/attic/a.h", ""), "src/attic/a.h:1: attic is no room of src/CMakeLists.txt\n");
}

TEST(HouseRules, MutableStatics) {
  const auto check = [](const char* text) { return no_mutable_statics(scan("src/nn/a.cpp", text)).size(); };
  EXPECT_EQ(check("int f() {\n  static int calls = 0;\n  return ++calls;\n}"), 1U);
  EXPECT_EQ(check("static std::map<int, const char*> table{};"), 1U);
  EXPECT_EQ(check("struct A { static const char* name; };"), 1U);
  EXPECT_EQ(check("thread_local const int x = 0;"), 1U);
  EXPECT_EQ(check("static constexpr const char* name = \"x\"; static const std::map<int, char*> t{};"), 0U);
  EXPECT_EQ(check("static int f(int x); struct A { static A make() { return {}; } };"), 0U);
  EXPECT_EQ(check("// static int x;\nconst char* s = \"static int x;\"; auto t = R\"(static int x;)\"; char c = '\"';"),
            0U);
  EXPECT_EQ(no_mutable_statics(scan("src/base/log.cpp", "thread_local int rank;")).size(), 0U);
}

TEST(HouseRules, WritableSymbols) {
  const std::vector<SourceFile> room{
      scan("src/nn/a.cpp",
           "int count; const char* name; const char* const fixed = 0; const std::map<int, char*> table = f();")};
  const auto check = [&](const std::string& symbol) {
    return listing(no_writable_symbols("lib.a[a.cpp.o]: " + symbol + "\n", room));
  };
  EXPECT_EQ(check("sluice::(anonymous namespace)::count b 0000 0004"),
            "a.cpp.o: sluice::(anonymous namespace)::count: a variable that outlives its function can change\n");
  EXPECT_NE(check("sluice::f(int, char const*)::name D 0000 0008"), "");
  EXPECT_NE(check("sluice::elsewhere[abi:cxx11] B 0 8"), "");
  EXPECT_EQ(check("sluice::(anonymous namespace)::fixed d 0 8"), "");
  EXPECT_EQ(check("sluice::f()::table[abi:cxx11] b 0 8"), "");
  EXPECT_EQ(check("guard variable for sluice::f()::count b 0 8"), "");
  EXPECT_EQ(check("vtable for sluice::A V 0 8"), "");
  EXPECT_EQ(check("sluice::f(int) T 0 8"), "");
  EXPECT_EQ(check("sluice::(anonymous namespace)::limits r 0 8"), "");
}

TEST(HouseRules, Conditionals) {
  EXPECT_EQ(listing(no_conditionals(scan("src/nn/a.cpp", "\n#ifdef X\n#endif\n"))),
            "src/nn/a.cpp:2: #ifdef in nn: choose by linking or a table\n");
  EXPECT_EQ(no_conditionals(scan("src/parallel/a.cpp", "#  if X\n#endif\n")).size(), 1U);
  EXPECT_EQ(no_conditionals(scan("src/device/a.cpp", "#if X\n#endif\n")).size(), 0U);
}

TEST(HouseRules, HeavyHeaders) {
  EXPECT_EQ(listing(heavy_headers({scan("src/data/a.h", "#include <nlohmann/json.hpp>\n")})),
            "src/data/a.h:1: <nlohmann/json.hpp> in a header\n");
  EXPECT_EQ(
      heavy_headers({scan("src/base/log.cpp", "#include <spdlog/spdlog.h>\n#include <spdlog/sinks/a.h>\n")}).size(),
      0U);
  EXPECT_EQ(heavy_headers({scan("src/base/log.cpp", "#include <spdlog/spdlog.h>\n"),
                           scan("src/base/b.cpp", "#include <spdlog/spdlog.h>\n")})
                .size(),
            2U);
}

TEST(HouseRules, LongFiles) {
  std::string text;
  for (int i = 0; i < 600; ++i) text += "int x;\n";
  EXPECT_EQ(short_files(scan("src/nn/a.cpp", text)).size(), 0U);
  EXPECT_EQ(listing(short_files(scan("src/nn/a.cpp", text + "int y;\n"))),
            "src/nn/a.cpp:601: 601 lines, more than 600\n");
}

TEST(HouseRules, UnfinishedMarks) {
  const std::string mark = std::string("TO") + "DO";
  EXPECT_EQ(listing(no_unfinished_marks(scan("src/nn/a.cpp", "int x;  // " + mark + " later\n"))),
            "src/nn/a.cpp:1: unfinished mark " + mark + "\n");
}

TEST(HouseRules, HeaderContract) {
  EXPECT_EQ(headers_open_with_contract(scan("src/nn/a.h", "// What it is.\n#pragma once\n")).size(), 0U);
  EXPECT_EQ(headers_open_with_contract(scan("src/nn/a.h", "#include <x>\n")).size(), 2U);
}

TEST(HouseRules, Exit) {
  EXPECT_EQ(listing(no_exit(scan("src/nn/a.cpp", "void f() {\n  std::exit(1);\n}\n"))),
            "src/nn/a.cpp:2: exit() outside of main: throw\n");
  EXPECT_EQ(no_exit(scan("src/cli/main.cpp", "int main() { std::exit(1); }\n")).size(), 0U);
}

}  // namespace
}  // namespace sluice::house
