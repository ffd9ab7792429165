#include "checkpoint/safetensors.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/philox.h"
#include "support.h"

namespace sluice::safetensors {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::expect_user_error;
using test::raw_file;

constexpr std::array all_types{Type::f64, Type::f32, Type::f16,     Type::bf16,   Type::f8_e4m3, Type::f8_e5m2,
                               Type::i64, Type::i32, Type::i16,     Type::i8,     Type::u64,     Type::u32,
                               Type::u16, Type::u8,  Type::f8_e8m0, Type::boolean};

class Safetensors : public test::InDirectory {
 protected:
  // Refused as one file and as a model; `parts` must be in the message.
  void expect_refused(const std::string& contents, const std::vector<std::string>& parts) const {
    expect_user_error(error_of([&] { parse_header(test::bytes_of(contents), "bad.safetensors"); }), parts);
    const fs::path path = write("bad.safetensors", contents);
    expect_user_error(error_of([&] { Model model(path); }), parts);
  }
  void expect_index_refused(const std::string& index, const std::vector<std::string>& parts) const {
    write("model.safetensors.index.json", index);
    expect_user_error(error_of([&] { Model model(directory_); }), parts);
  }
};

// Bytes that are a function of the name.
std::string contents_of(const TensorSpec& spec) {
  std::string bytes(bytes_of(spec), '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(31 * i + 7 * spec.name.size() + spec.name[0]);
  return bytes;
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void write_file_of(const fs::path& path, const std::vector<TensorSpec>& specs, const Metadata& metadata = {}) {
  Writer writer(path, specs, metadata);
  const std::vector<Entry> entries = writer.entries();
  for (const Entry& entry : entries) writer.write(entry.spec.name, test::bytes_of(contents_of(entry.spec)));
  writer.finish();
}

std::vector<TensorSpec> one_of_each_type() {
  std::vector<TensorSpec> specs;
  for (const Type type : all_types) {
    const std::string name(name_of(type));
    specs.push_back({name, type, {3, 1, 5}});
    specs.push_back({name + " scalar", type, {}});
    specs.push_back({name + " empty", type, {2, 0}});
  }
  return specs;
}

TEST_F(Safetensors, EveryTypeGoesThereAndBack) {
  const std::vector<TensorSpec> specs = one_of_each_type();
  const Metadata metadata{{"format", "pt"}, {"a \"name\"\n", "\xc3\xa4"}};
  write_file_of(directory_ / "a.safetensors", specs, metadata);
  const Model model(directory_ / "a.safetensors");
  EXPECT_EQ(model.metadata(), metadata);
  ASSERT_EQ(model.tensors().size(), specs.size());
  for (const TensorSpec& spec : specs) {
    const StoredTensor& stored = model.at(spec.name);
    EXPECT_EQ(stored.spec, spec);
    EXPECT_EQ(text_of(stored.bytes), contents_of(spec)) << spec.name;
    EXPECT_EQ(type_named(name_of(spec.type)), spec.type);
  }
}

TEST_F(Safetensors, TensorsLieAtMultiplesOfTheirElements) {
  write_file_of(directory_ / "a.safetensors",
                {{"byte", Type::u8, {3}}, {"double", Type::f64, {1}}, {"half", Type::f16, {5}}});
  const std::string file = read_file(directory_ / "a.safetensors", 1 << 20);
  for (const Entry& entry : parse_header(test::bytes_of(file), "a").entries) {
    EXPECT_EQ(entry.begin % size_of(entry.spec.type), 0U) << entry.spec.name;
  }
}

TEST_F(Safetensors, TheHeaderIsJsonThatAnotherReaderUnderstands) {
  write_file_of(directory_ / "a.safetensors", one_of_each_type(), {{"k", "v"}});
  const std::string file = read_file(directory_ / "a.safetensors", 1 << 20);
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  const nlohmann::json header = nlohmann::json::parse(file.substr(8, length));
  EXPECT_EQ(header.at("__metadata__").at("k"), "v");
  for (const TensorSpec& spec : one_of_each_type()) {
    const nlohmann::json& entry = header.at(spec.name);
    EXPECT_EQ(entry.at("dtype"), std::string(name_of(spec.type)));
    EXPECT_EQ(entry.at("shape").get<Extents>(), spec.shape);
    const auto [begin, end] = entry.at("data_offsets").get<std::pair<uint64_t, uint64_t>>();
    EXPECT_EQ(file.substr(8 + length + begin, end - begin), contents_of(spec));
  }
}

// Files of Hugging Face's own library, read by this reader and by a JSON parser.
TEST_F(Safetensors, FilesOfPythonsLibrary) {
  size_t files = 0, tensors = 0;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(SLUICE_SOURCE_DIR "/tests/parity/goldens")) {
    if (entry.path().extension() != ".safetensors") continue;
    SCOPED_TRACE(entry.path().string());
    const std::string file = read_file(entry.path(), 1 << 24);
    uint64_t length = 0;
    std::memcpy(&length, file.data(), 8);
    nlohmann::json header = nlohmann::json::parse(file.substr(8, length));
    const Metadata metadata = header.value("__metadata__", Metadata());
    header.erase("__metadata__");
    const Model model(entry.path());
    EXPECT_EQ(model.metadata(), metadata);
    ASSERT_EQ(model.tensors().size(), header.size());
    for (const auto& [name, stored] : model.tensors()) {
      EXPECT_EQ(header.at(name).at("dtype"), std::string(name_of(stored.spec.type)));
      EXPECT_EQ(header.at(name).at("shape").get<Extents>(), stored.spec.shape);
      const auto [begin, end] = header.at(name).at("data_offsets").get<std::pair<uint64_t, uint64_t>>();
      EXPECT_EQ(text_of(stored.bytes), file.substr(8 + length + begin, end - begin));
      ++tensors;
    }
    ++files;
  }
  EXPECT_GE(files, 21U);
  EXPECT_GE(tensors, 1000U);
}

TEST_F(Safetensors, AModelIsCutIntoFilesOfTheSizeAsked) {
  std::vector<TensorSpec> specs;
  for (int i = 0; i < 10; ++i) specs.push_back({"t" + std::to_string(i), Type::f32, {i + 1}});
  specs.push_back({"none", Type::f32, {0}});
  const auto write_model = [&](uint64_t max_bytes) {
    ModelWriter writer(directory_, specs, max_bytes);
    const std::vector<TensorSpec> order = writer.tensors();
    for (const TensorSpec& spec : order) {
      const std::string bytes = contents_of(spec);
      const size_t half = bytes.size() / 2;
      writer.write(spec.name, test::bytes_of(bytes).first(half));
      writer.write(spec.name, test::bytes_of(bytes).subspan(half));
    }
    writer.finish();
  };
  write_model(64);
  size_t files = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory_)) {
    if (entry.path().extension() != ".safetensors") continue;
    EXPECT_LE(Model(entry.path()).bytes(), 64U);
    ++files;
  }
  EXPECT_GE(files, 4U);
  EXPECT_TRUE(fs::exists(directory_ / fmt::format("model-00001-of-{:05}.safetensors", files)));
  const Model model(directory_);
  EXPECT_EQ(model.bytes(), 220U);
  ASSERT_EQ(model.tensors().size(), specs.size());
  for (const TensorSpec& spec : specs) EXPECT_EQ(text_of(model.at(spec.name).bytes), contents_of(spec));
  const nlohmann::json index = nlohmann::json::parse(read_file(directory_ / "model.safetensors.index.json", 1 << 20));
  EXPECT_EQ(index.at("metadata").at("total_size"), 220);
  EXPECT_EQ(index.at("weight_map").size(), specs.size());

  fs::remove_all(directory_);
  fs::create_directories(directory_);
  write_model(1 << 20);
  EXPECT_TRUE(fs::exists(directory_ / "model.safetensors"));
  EXPECT_FALSE(fs::exists(directory_ / "model.safetensors.index.json"));
  EXPECT_EQ(Model(directory_).bytes(), 220U);
}

TEST_F(Safetensors, AModelLargerThanAFileMayBeGetsOneFileForEachTensor) {
  ModelWriter writer(directory_, {{"a", Type::f32, {4}}, {"b", Type::f32, {4}}}, 3);
  for (const TensorSpec& spec : std::vector<TensorSpec>(writer.tensors())) {
    writer.write(spec.name, test::bytes_of(contents_of(spec)));
  }
  writer.finish();
  EXPECT_TRUE(fs::exists(directory_ / "model-00002-of-00002.safetensors"));
  EXPECT_EQ(Model(directory_).tensors().size(), 2U);
}

TEST_F(Safetensors, WhatIsNotFinishedLeavesNothing) {
  {
    Writer writer(directory_ / "a.safetensors", {{"a", Type::f32, {4}}});
    writer.write("a", test::bytes_of(std::string(8, 'x')));
    EXPECT_THROW(writer.finish(), Error);
    EXPECT_THROW(writer.write("b", test::bytes_of(std::string(8, 'x'))), Error);
    EXPECT_THROW(writer.write("a", test::bytes_of(std::string(9, 'x'))), Error);
  }
  EXPECT_TRUE(fs::is_empty(directory_));
  expect_user_error(error_of([&] { Writer(directory_ / "a", {{"a", Type::f32, {1}}, {"a", Type::f32, {1}}}); }),
                    {"a second tensor \"a\""});
  EXPECT_TRUE(fs::is_empty(directory_));
}

template <class To>
std::vector<To> read_as(const StoredTensor& stored, int64_t first, int64_t count) {
  std::vector<To> values(static_cast<size_t>(count));
  read_elements(stored, first, tensor_of(values.data(), {count}));
  return values;
}

template <class From>
StoredTensor stored_as(Type type, const std::vector<From>& values) {
  return {{"t", type, {std::ssize(values)}}, std::as_bytes(std::span(values))};
}

TEST_F(Safetensors, ElementsAreConvertedWithOneRounding) {
  const std::vector<double> doubles{0.1, -2.5, 1e300, 3};
  EXPECT_EQ(read_as<double>(stored_as(Type::f64, doubles), 1, 3), (std::vector<double>{-2.5, 1e300, 3}));
  EXPECT_EQ(read_as<float>(stored_as(Type::f64, doubles), 0, 2), (std::vector<float>{0.1F, -2.5F}));
  const std::vector<float> floats{0.1F, -1.0F / 3, 65504};
  for (size_t i = 0; i < floats.size(); ++i) {
    EXPECT_EQ(read_as<bf16>(stored_as(Type::f32, floats), 0, 3)[i].bits, bf16(floats[i]).bits);
  }
  // Every half precision number: sign, exponent and fraction put together by arithmetic.
  std::vector<uint16_t> halves(1 << 16);
  std::iota(halves.begin(), halves.end(), uint16_t{0});
  const std::vector<float> read = read_as<float>(stored_as(Type::f16, halves), 0, 1 << 16);
  for (int bits = 0; bits < 1 << 16; ++bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double sign = bits < 0x8000 ? 1 : -1;
    const auto value = read[static_cast<size_t>(bits)];
    if (exponent == 31) {
      EXPECT_TRUE(fraction != 0 ? std::isnan(value) : value == static_cast<float>(sign * INFINITY)) << bits;
    } else {
      const double expected = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
      EXPECT_EQ(value, static_cast<float>(sign * expected)) << bits;
      EXPECT_EQ(std::signbit(value), sign < 0) << bits;
    }
  }
}

TEST_F(Safetensors, WhatIsNoNumberIsNotReadAsOne) {
  const std::vector<uint8_t> bytes(8);
  for (const Type type : {Type::i8, Type::u8, Type::boolean, Type::f8_e4m3}) {
    expect_user_error(error_of([&] { read_as<float>(stored_as(type, bytes), 0, 8); }),
                      {"\"t\"", std::string(name_of(type))});
  }
}

// --- hostile files --------------------------------------------------------------------------------------------------

std::string entry(const std::string& type, const std::string& shape, uint64_t begin, uint64_t end) {
  return fmt::format(R"({{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", type, shape, begin, end);
}

TEST_F(Safetensors, FilesThatEndTooSoon) {
  for (size_t bytes = 0; bytes < 8; ++bytes) expect_refused(std::string(bytes, '\0'), {"bad.safetensors", "too short"});
  expect_refused(raw_file("{}", 0, 3), {"header of 3 bytes"});
  expect_refused(raw_file("{}", 0, uint64_t{1} << 63), {"header of 9223372036854775808 bytes"});
  expect_refused(raw_file("{}", 0, ~uint64_t{0}), {"header of 18446744073709551615 bytes"});
  expect_refused(raw_file("{}", 0, ~uint64_t{0} - 7), {"header of"});
  const std::string whole = raw_file("{\"a\":" + entry("F32", "[2]", 0, 8) + "}", 8);
  EXPECT_NO_THROW(parse_header(test::bytes_of(whole), "whole"));
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    const std::string part = whole.substr(0, bytes);
    // A copy of exactly this size, so that a read beyond its end is seen by the sanitizers.
    const std::vector<std::byte> exact(test::bytes_of(part).begin(), test::bytes_of(part).end());
    expect_user_error(error_of([&] { parse_header(exact, "part"); }), {"part"});
  }
  expect_refused(whole + "x", {"no tensor has the last 1 bytes"});
}

TEST_F(Safetensors, HeadersThatAreNoJson) {
  expect_refused(raw_file("", 0), {"does not begin with {"});
  expect_refused(raw_file("\xef\xbb\xbf{}", 0), {"does not begin with {"});
  expect_refused(raw_file("[]", 0), {"does not begin with {"});
  expect_refused(raw_file("{", 0), {"not valid JSON"});
  expect_refused(raw_file("{}}", 0), {"not valid JSON"});
  expect_refused(raw_file(std::string("{}\0", 3), 0), {"not valid JSON at byte 3: a NUL"});
  expect_refused(raw_file("{\"a\":" + entry("F32", "[2]", 0, 8), 8), {"not valid JSON"});
  expect_refused(raw_file("{\"\xff\":" + entry("F32", "[2]", 0, 8) + "}", 8), {"not valid JSON", "byte"});
  expect_refused(raw_file(std::string("{\"a\0b", 5) + "\":1}", 0), {"not valid JSON"});
  expect_refused(raw_file("{\"a\":" + std::string(100, '\x80') + "}", 0), {"not valid JSON"});
}

TEST_F(Safetensors, HeadersOfAnotherForm) {
  const auto with = [](const std::string& value) { return raw_file("{\"a\":" + value + "}", 8); };
  for (const char* const value : {"1", "-1", "1.5", "null", "true", "\"F32\"", "[]", "[[]]"}) {
    expect_refused(with(value), {"bad.safetensors"});
  }
  expect_refused(with("{}"), {"\"a\" lacks dtype"});
  expect_refused(with(R"({"dtype":"F32","shape":[2]})"), {"\"a\" lacks data_offsets"});
  expect_refused(with(R"({"dtype":"F32","data_offsets":[0,8]})"), {"\"a\" lacks shape"});
  expect_refused(with(R"({"dtype":["F32"],"shape":[2],"data_offsets":[0,8]})"), {"text is out of place"});
  expect_refused(with(R"({"dtype":"F32","shape":[[2]],"data_offsets":[0,8]})"), {"a list is out of place"});
  expect_refused(with(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), {"not whole"});
  expect_refused(with(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"), {"-2", "below 0"});
  expect_refused(with(R"({"dtype":"F32","shape":[2],"data_offsets":[-1,8]})"), {"-1", "below 0"});
  expect_refused(with(R"({"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8]})"), {"not whole"});
  expect_refused(with(R"({"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8]})"), {"extent of"});
  expect_refused(with(R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})"), {"\"shape\""});
  expect_refused(with(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,8]})"), {"data_offsets"});
  expect_refused(with(R"({"dtype":"F32","shape":[2],"data_offsets":[]})"), {"data_offsets"});
  expect_refused(
      with("{\"dtype\":\"F32\",\"shape\":[" + std::string(2000, '1').insert(1, ",") + "],\"data_offsets\":[0,8]}"),
      {"bad.safetensors"});
  std::string many = "1";
  for (int i = 0; i < 100; ++i) many += ",1";
  expect_refused(with(entry("F32", "[" + many + "]", 0, 8)), {"more than 16 numbers"});
}

TEST_F(Safetensors, UnknownTypesAreNamed) {
  expect_refused(raw_file("{\"a\":" + entry("F4", "[2]", 0, 8) + "}", 8), {"\"a\"", "\"F4\""});
  expect_refused(raw_file("{\"a\":" + entry("f32", "[2]", 0, 8) + "}", 8), {"\"f32\""});
  expect_refused(raw_file("{\"a\":" + entry(std::string(5000, 'F'), "[2]", 0, 8) + "}", 8), {"unknown dtype"});
}

// As the format's own library reads them: what nobody uses may be anything, equal descriptions are one.
TEST_F(Safetensors, HeadersThatOthersRead) {
  const std::string a = entry("F32", "[2]", 0, 8);
  for (const std::string& json :
       {"{\"__metadata__\":null,\"a\":" + a + "}", "{\"__metadata__\":{},\"a\":" + a + "}",
        "{\"a\":" + a + ",\"__metadata__\":{\"format\":\"pt\"}}", "{\"a\":" + a + ",\"a\":" + a + "}",
        "{\"a\":" + a + ",\"\\u0061\":" + a + "}", " \n{\"a\":" + a + "}", "{\"a\":" + a + "}\n  ",
        std::string(R"({"a":{"dtype":"F32","shape":[2],"more":[1,{"x":null,"y":[true,-1.5]}],"data_offsets":[0,8]}})"),
        std::string(R"({"a":{"note":null,"dtype":"F32","shape":[2],"data_offsets":[0,8],"k":{"dtype":7}}})")}) {
    SCOPED_TRACE(json);
    const std::string file = raw_file(json, 8);
    const Header header = parse_header(test::bytes_of(file), "x");
    ASSERT_EQ(header.entries.size(), 1U);
    EXPECT_EQ(header.entries[0].spec, (TensorSpec{"a", Type::f32, {2}}));
    EXPECT_EQ(header.entries[0].bytes, 8U);
  }
  const std::string twice = raw_file(R"({"__metadata__":{"k":"1","k":"2"}})", 0);
  EXPECT_EQ(parse_header(test::bytes_of(twice), "x").metadata.at("k"), "2");
  for (const char* const value : {"[]", "1", "\"x\"", "true", "{\"k\":null}"}) {
    expect_refused(raw_file("{\"__metadata__\":" + std::string(value) + "}", 0), {"bad.safetensors"});
  }
}

TEST_F(Safetensors, AnotherFormatIsNamed) {
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n";
  expect_refused(pointer, {"bad.safetensors is a Git LFS pointer, not safetensors", "git lfs pull"});
  expect_refused("<!DOCTYPE html><html>Not found</html>", {"is an HTML page", "download the file itself"});
  expect_refused(std::string("PK\3\4\x14\0\0\1\x08\x08", 10), {"is a zip archive, not safetensors"});
  expect_refused(std::string("\x80\2}q\0(X\1", 8), {"is a Python pickle, not safetensors"});
  expect_index_refused(pointer, {"index.json is a Git LFS pointer, not safetensors", "git lfs pull"});
}

TEST_F(Safetensors, NamesThatStandTwice) {
  const std::string a = entry("F32", "[2]", 0, 8), b = entry("F32", "[1,2]", 0, 8);
  expect_refused(raw_file("{\"a\":" + a + ",\"a\":" + b + "}", 8), {"a second \"a\", described in another way"});
  expect_refused(raw_file("{\"a\":" + a + ",\"\\u0061\":" + b + "}", 8), {"a second \"a\""});
  expect_refused(raw_file(R"({"__metadata__":{},"__metadata__":{}})", 0), {"a second \"__metadata__\""});
  expect_refused(raw_file(R"({"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8),
                 {"second dtype"});
  expect_refused(raw_file(R"({"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}})", 8),
                 {"second shape"});
}

TEST_F(Safetensors, OffsetsThatDoNotTile) {
  const auto two = [](uint64_t a, uint64_t b, uint64_t c, uint64_t d, size_t data) {
    return raw_file("{\"a\":" + entry("U8", fmt::format("[{}]", b - a), a, b) +
                        ",\"b\":" + entry("U8", fmt::format("[{}]", d - c), c, d) + "}",
                    data);
  };
  EXPECT_EQ(parse_header(test::bytes_of(two(0, 4, 4, 8, 8)), "x").entries.at(0).spec.name, "a");
  // The order of the keys is free.
  EXPECT_EQ(parse_header(test::bytes_of(two(4, 8, 0, 4, 8)), "x").entries.at(0).spec.name, "b");
  expect_refused(two(0, 4, 3, 8, 8), {"\"a\" and \"b\" overlap at byte 3"});
  expect_refused(two(0, 8, 0, 8, 8), {"overlap at byte 0"});
  expect_refused(two(0, 8, 2, 4, 8), {"overlap at byte 2"});
  expect_refused(two(0, 3, 4, 8, 8), {"1 bytes before \"b\""});
  expect_refused(two(1, 4, 4, 8, 8), {"1 bytes before \"a\""});
  expect_refused(two(0, 4, 4, 8, 9), {"last 1 bytes"});
  expect_refused(two(0, 4, 4, 9, 8), {"data_offsets [4, 9]", "8 bytes"});
  expect_refused(raw_file("{\"a\":" + entry("U8", "[0]", 9, 9) + "}", 8), {"data_offsets [9, 9]"});
  expect_refused(raw_file("{\"a\":" + entry("U8", "[4]", 4, 0) + "}", 4), {"data_offsets [4, 0]"});
  expect_refused(raw_file("{\"a\":" + entry("U8", "[4]", ~uint64_t{0} - 3, ~uint64_t{0}) + "}", 4), {"data_offsets"});
}

TEST_F(Safetensors, ShapesThatDoNotFitTheirBytes) {
  const auto shaped = [](const std::string& shape) { return raw_file("{\"a\":" + entry("F32", shape, 0, 8) + "}", 8); };
  EXPECT_NO_THROW(parse_header(test::bytes_of(shaped("[1,2,1]")), "x"));
  expect_refused(shaped("[3]"), {"\"a\" of F32[3] takes 12 bytes", "span 8"});
  expect_refused(shaped("[]"), {"takes 4 bytes"});
  expect_refused(shaped("[0,2]"), {"takes 0 bytes"});
  // Products that are 8 modulo 2^64.
  expect_refused(shaped("[4611686018427387906]"), {"too large"});
  expect_refused(shaped("[4294967296,4294967296,2]"), {"too large"});
  expect_refused(shaped("[2,9223372036854775807,9223372036854775807]"), {"too large"});
  // An empty tensor takes nothing, whatever its other extents.
  EXPECT_NO_THROW(parse_header(
      test::bytes_of(raw_file("{\"a\":" + entry("F32", "[9223372036854775807,9223372036854775807,0]", 0, 0) + "}", 0)),
      "x"));
}

TEST_F(Safetensors, DeepNestingEndsAtItsBeginning) {
  for (const char* const opening : {"[", "{\"a\":"}) {
    std::string deep = "{\"a\":{\"shape\":";
    for (int i = 0; i < 200'000; ++i) deep += opening;
    expect_refused(raw_file(deep, 0), {"out of place"});
  }
  expect_refused(raw_file("{\"__metadata__\":{\"a\":{}}}", 0), {"an object is out of place"});
  expect_refused(raw_file("{\"__metadata__\":{\"a\":[1]}}", 0), {"\"a\""});
  expect_refused(raw_file("{\"__metadata__\":{\"a\":1}}", 0), {"\"a\""});
}

TEST_F(Safetensors, LargeHeaders) {
  // Read, as long as it is in proportion to its file.
  const std::string text(4'000'000, 'm');
  const std::string file = raw_file("{\"__metadata__\":{\"long\":\"" + text + "\"}}", 0);
  EXPECT_EQ(parse_header(test::bytes_of(file), "x").metadata.at("long"), text);
  std::string many = "{";
  for (int i = 0; i < 20'000; ++i) many += fmt::format("\"t{}\":{},", i, entry("U8", "[1]", i, i + 1));
  many.back() = '}';
  EXPECT_EQ(parse_header(test::bytes_of(raw_file(many, 20'000)), "x").entries.size(), 20'000U);
  // A name that is a book is cut in messages.
  expect_refused(raw_file("{\"" + text + "\":{}}", 0), {"lacks dtype"});
  // Above the bound it is not even looked at: the file is 100 MB of nothing.
  const fs::path sparse = write("sparse.safetensors", raw_file("{", 0, kMaxHeaderBytes + 1));
  fs::resize_file(sparse, kMaxHeaderBytes + 4096);
  expect_user_error(error_of([&] { Model model(sparse); }), {"header of 100000001 bytes", "at most 100000000"});
}

TEST_F(Safetensors, DirectoriesWithoutAModel) {
  expect_user_error(error_of([&] { Model model(directory_); }), {directory_.string(), "model.safetensors"});
  expect_user_error(error_of([&] { Model model(directory_ / "no.safetensors"); }), {"no.safetensors", "No such file"});
  fs::create_directories(directory_ / "model.safetensors");
  expect_user_error(error_of([&] { Model model(directory_); }), {"model.safetensors"});
}

TEST_F(Safetensors, IndexAndFilesMustAgree) {
  write_file_of(directory_ / "one.safetensors", {{"a", Type::u8, {2}}});
  write_file_of(directory_ / "two.safetensors", {{"b", Type::u8, {2}}, {"c", Type::u8, {2}}});
  const auto map = [](const std::string& entries) { return "{\"weight_map\":{" + entries + "}}"; };
  const std::string good = R"("a":"one.safetensors","b":"two.safetensors","c":"two.safetensors")";
  write("model.safetensors.index.json", map(good));
  EXPECT_EQ(Model(directory_).tensors().size(), 3U);
  EXPECT_EQ(Model(directory_ / "model.safetensors.index.json").tensors().size(), 3U);
  expect_index_refused(map(good + ",\"d\":\"three.safetensors\""), {"three.safetensors", "No such file"});
  write("model.safetensors.index.json", map(good + ",\"d\":\"two.safetensors\""));
  const Model without(directory_);
  EXPECT_EQ(without.tensors().size(), 3U);
  ASSERT_EQ(without.absent().size(), 1U);
  EXPECT_EQ(without.absent().at("d"), (directory_ / "two.safetensors").string());
  expect_index_refused(map(R"("a":"one.safetensors","b":"two.safetensors")"), {"a tensor \"c\"", "index lacks"});
  write("model.safetensors.index.json", map(R"("a":"two.safetensors","b":"two.safetensors","c":"two.safetensors")"));
  EXPECT_EQ(Model(directory_).tensors().size(), 2U);
  expect_index_refused(
      map(R"("a":"two.safetensors","b":"two.safetensors","c":"two.safetensors","d":"one.safetensors")"),
      {"one.safetensors", "put tensors into different files"});
  write_file_of(directory_ / "three.safetensors", {{"a", Type::u8, {2}}, {"d", Type::u8, {1}}});
  expect_index_refused(map(good + ",\"d\":\"three.safetensors\""), {"\"a\"", "another file"});
}

TEST_F(Safetensors, IndexThatIsNone) {
  for (const char* const text :
       {"", "{", "[]", "1", "{\"weight_map\":[]}", "{\"weight_map\":1}", "{\"weight_map\":null}",
        "{\"weight_map\":{\"a\":1}}", "{\"weight_map\":{\"a\":[]}}", "{\"weight_map\":{\"a\":{}}}", "{\"x\":{}}",
        "{\"weight_map\":{},\"weight_map\":{}}", "{\"weight_map\":{\"a\":\"b\",\"a\":\"c\"}}"}) {
    SCOPED_TRACE(text);
    expect_index_refused(text, {"model.safetensors.index.json"});
  }
  expect_index_refused("{\"metadata\":{}}", {"no weight_map"});
}

// Nobody uses it.
TEST_F(Safetensors, TheRestOfAnIndexMayBeAnything) {
  write_file_of(directory_ / "one.safetensors", {{"a", Type::u8, {2}}});
  for (const std::string rest :
       {"", "\"metadata\":null,", "\"metadata\":[1,[2]],", "\"metadata\":true,",
        "\"metadata\":{\"note\":null,\"l\":[{}]},", "\"metadata\":{\"total_size\":12416.5},",
        "\"metadata\":{\"total_size\":-1},", "\"metadata\":{\"total_size\":\"2\"},", "\"format\":\"pt\",",
        "\"x\":{\"weight_map\":{\"b\":\"c\"}},", "\"n\":7,\"m\":-1.5,\"metadata\":{},\"metadata\":{},"}) {
    SCOPED_TRACE(rest);
    write("model.safetensors.index.json",
          "{" + rest + "\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"one.safetensors\"}}");
    EXPECT_EQ(Model(directory_).tensors().size(), 1U);
  }
}

TEST_F(Safetensors, IndexCannotLeadOutOfItsDirectory) {
  fs::create_directories(directory_ / "in");
  write_file_of(directory_ / "one.safetensors", {{"a", Type::u8, {2}}});
  for (const std::string& file : {std::string("../one.safetensors"), std::string(".."), std::string("."), std::string(),
                                  std::string("in/../one"), (directory_ / "one.safetensors").string(),
                                  std::string("..\\\\one"), std::string("one\\u0000"), std::string(256, 'x')}) {
    SCOPED_TRACE(file);
    write("in/model.safetensors.index.json", "{\"weight_map\":{\"a\":\"" + file + "\"}}");
    expect_user_error(error_of([&] { Model model(directory_ / "in"); }), {"\"a\"", "not the name of a file"});
  }
}

// Files with a few bytes changed are read or refused, and never anything else.
TEST_F(Safetensors, ChangedBytesAreReadOrRefused) {
  write_file_of(directory_ / "a.safetensors", one_of_each_type(), {{"k", "v"}});
  const std::string whole = read_file(directory_ / "a.safetensors", 1 << 20);
  const std::string index = R"({"metadata":{"total_size":12},"weight_map":{"a":"x.safetensors","b":"y"}})";
  size_t read = 0, refused = 0;
  uint64_t random = 1;
  const auto next = [&](uint64_t below) {
    random = random * 6364136223846793005U + 1442695040888963407U;
    return (random >> 33) % below;
  };
  for (int round = 0; round < 20'000; ++round) {
    const bool of_index = round % 4 == 0;
    std::string changed = of_index ? index : whole;
    for (uint64_t n = 1 + next(3); n > 0; --n) {
      const size_t at = next(of_index ? changed.size() : 600);
      static constexpr std::string_view marks = "{}[]\",:0123456789-.eE\\ \xff";
      changed[at] = next(2) == 0 ? marks[next(marks.size())] : static_cast<char>(next(256));
    }
    try {
      if (of_index) {
        parse_index(changed, "x");
      } else {
        const std::vector<std::byte> exact(test::bytes_of(changed).begin(), test::bytes_of(changed).end());
        for (const Entry& entry : parse_header(exact, "x").entries) {
          ASSERT_LE(entry.begin + entry.bytes, exact.size());
          ASSERT_EQ(entry.bytes, bytes_of(entry.spec));
        }
      }
      ++read;
    } catch (const Error& error) {
      ASSERT_EQ(error.kind(), ErrorKind::user) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(read, 100U);
  EXPECT_GT(refused, 10'000U);
}

}  // namespace
}  // namespace sluice::safetensors
