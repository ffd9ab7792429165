// What is written by any number of ranks is read by any other, and what was changed since is refused.
#include "checkpoint/checkpoint.h"

#include <array>
#include <fstream>

#include "checkpoint/checkpoint_model.h"
#include "saved.h"
#include "support.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::expect_user_error;
using test::HostTensor;
using test::SavedState;

struct CheckpointTest : test::InDirectory {
  const std::deque<SavedState> states = test::saved_states();
  const fs::path path = directory_ / "step-1";

  void save(int ranks, uint64_t seed = 1) const { test::save(path, test::cut(states, ranks, seed)); }
  void change(const std::string& file, size_t at, const std::function<char(char)>& to) const {
    std::string contents = read_file(path / file, 1 << 25);
    contents.at(at) = to(contents.at(at));
    write_file_atomic(path / file, contents);
  }
};

TEST_F(CheckpointTest, AnyCutIsReadInAnyOther) {
  Pool pool(2);
  for (const int ranks : {1, 2, 5}) {
    for (const uint64_t seed : {1, 2, 3}) {
      fs::remove_all(path);
      save(ranks, seed);
      const Checkpoint checkpoint(path);
      EXPECT_EQ(checkpoint.parameters().size(), 4U);
      for (const SavedState& state : states) {
        EXPECT_EQ(test::read_back(checkpoint, state, seed == 1 ? &pool : nullptr), state.values.values());
      }
      // All that other ranks want, in one call.
      std::deque<HostTensor> parts;
      std::vector<Checkpoint::Wanted> wanted;
      std::vector<std::vector<double>> expected;
      for (const test::Slices& slices : test::cut(states, 3, seed + 10)) {
        for (const StateSlice& slice : slices) {
          parts.emplace_back(Shape{slice.values.numel()}, slice.values.dtype());
          wanted.push_back({slice.kind, slice.param->name, slice.first, parts.back()});
          expected.push_back(test::values_of(slice.values));
        }
      }
      uint64_t told = 0, all = 0;
      checkpoint.read(wanted, &pool, [&](uint64_t done, uint64_t of) {
        EXPECT_GT(done, told);
        told = done;
        all = of;
      });
      EXPECT_EQ(told, all);
      for (size_t i = 0; i < parts.size(); ++i) EXPECT_EQ(parts[i].values(), expected[i]);
    }
  }
}

// Pages of files that this process holds.
int64_t file_pages() {
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0, resident = 0, of_files = 0;
  statm >> size >> resident >> of_files;
  return of_files;
}

TEST_F(CheckpointTest, MemoryIsGivenBack) {
  save(1);
  constexpr int64_t kPages = 300;  // of the 590 of the file
  const Checkpoint checkpoint(path);
  for (int round = 0; round < 2; ++round) {
    checkpoint.forget();
    const int64_t before = file_pages();
    for (const SavedState& state : states) EXPECT_EQ(test::read_back(checkpoint, state), state.values.values());
    EXPECT_GE(file_pages(), before + kPages);
    checkpoint.forget();
    EXPECT_LT(file_pages(), before + kPages);
  }
}

// A file that is removed while somebody has it mapped keeps its room.
TEST_F(CheckpointTest, ClosedItHoldsNoFileAndIsOpenedAnew) {
  save(2);
  const Checkpoint checkpoint(path);
  const auto held = [&] {
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
      if (line.find(path.string()) != std::string::npos) return true;
    }
    return false;
  };
  for (int round = 0; round < 2; ++round) {
    for (const SavedState& state : states) EXPECT_EQ(test::read_back(checkpoint, state), state.values.values());
    EXPECT_TRUE(held());
    checkpoint.close();
    EXPECT_FALSE(held());
    checkpoint.forget();
  }
  // What it was held against before does not count for a file that was changed since.
  const size_t last = fs::file_size(path / "rank-00001.safetensors") - 1;
  change("rank-00001.safetensors", last, [](char c) { return static_cast<char>(c ^ 1); });
  const auto read_all = [&] {
    for (const SavedState& state : states) test::read_back(checkpoint, state);
  };
  expect_user_error(error_of(read_all), {"are not those that were written"});
  checkpoint.close();
  fs::remove(path / "rank-00000.safetensors");
  expect_user_error(error_of(read_all), {"rank-00000.safetensors is missing"});
}

TEST_F(CheckpointTest, OtherTypesAreConverted) {
  save(2);
  const Checkpoint checkpoint(path);
  const SavedState& large = states[0];
  const HostTensor half({300'000}, DType::bf16), wide({300'000}, DType::f64);
  checkpoint.read(std::array{Checkpoint::Wanted{StateKind::value, "large", 0, half},
                             Checkpoint::Wanted{StateKind::value, "large", 0, wide}},
                  nullptr);
  EXPECT_EQ(wide.values(), large.values.values());
  const std::vector<double> rounded = half.values(), exact = large.values.values();
  for (size_t i = 0; i < exact.size(); ++i) ASSERT_EQ(rounded[i], static_cast<double>(bf16(exact[i])));
}

TEST_F(CheckpointTest, WhatIsNotThereIsRefused) {
  save(2);
  const Checkpoint checkpoint(path);
  const HostTensor two({2}, DType::f32);
  const auto refused = [&](StateKind kind, const std::string& name, int64_t first, const std::string& what) {
    const std::array wanted{Checkpoint::Wanted{kind, name, first, two}};
    expect_user_error(error_of([&] { checkpoint.read(wanted, nullptr); }), {path.string(), what});
  };
  refused(StateKind::value, "other", 0, "has no elements 0 to 2 of value/other");
  refused(StateKind::moment1, "one", 0, "has no elements 0 to 2 of moment1/one");
  refused(StateKind::value, "one", 0, "has no elements 0 to 2 of value/one");
  refused(StateKind::value, "layers.0.norm", 6, "has no elements 6 to 8 of value/layers.0.norm");
  refused(StateKind::value, "layers.0.norm", -1, "has no elements -1 to 1");
  checkpoint.require_parameter("stack", {2, 3, 5});
  expect_user_error(error_of([&] { checkpoint.require_parameter("stack", {2, 15}); }),
                    {"has stack as [2, 3, 5], and the model's is [2, 15]"});
  expect_user_error(error_of([&] { checkpoint.require_parameter("more", {2}); }), {"has no parameter more"});
  expect_user_error(error_of([&] { Checkpoint nowhere(directory_ / "nowhere"); }),
                    {"there is no checkpoint", "nowhere"});
}

// Every byte belongs to a block with a hash: of the header, when it is opened; of the values, when they are read.
TEST_F(CheckpointTest, AnAlteredByteIsNoticed) {
  save(1);
  const std::string file = rank_file_name(0);
  const size_t size = fs::file_size(path / file);
  const size_t header = safetensors::header_bytes(test::bytes_of(read_file(path / file, 1 << 25)));
  for (const size_t at : {size_t{0}, size_t{7}, size_t{8}, header / 2, header - 1}) {
    change(file, at, [](char c) { return static_cast<char>(c ^ 1); });
    expect_user_error(error_of([&] { const Checkpoint damaged(path); }),
                      {path.string(), file, "their hash is another", "mv " + path.string()});
    change(file, at, [](char c) { return static_cast<char>(c ^ 1); });
  }
  change(file, size - 1, [](char c) { return static_cast<char>(c ^ 1); });
  const Checkpoint checkpoint(path);
  Pool pool(2);
  int bad = 0;
  for (const SavedState& state : states) {
    try {
      EXPECT_EQ(test::read_back(checkpoint, state, &pool), state.values.values());
    } catch (const Error& error) {
      expect_user_error(error, {file, "their hash is another"});
      ++bad;
    }
  }
  EXPECT_GE(bad, 1);
}

TEST_F(CheckpointTest, AFileThatIsNotTheWrittenOneIsRefused) {
  const auto refused = [&](const std::vector<std::string>& parts) {
    expect_user_error(error_of([&] { const Checkpoint damaged(path); }), parts);
    fs::remove_all(path);
  };
  save(2);
  fs::resize_file(path / rank_file_name(1), fs::file_size(path / rank_file_name(1)) - 1);
  refused({rank_file_name(1), "and the manifest says"});
  save(2);
  fs::resize_file(path / rank_file_name(1), 0);
  refused({rank_file_name(1), "has 0 bytes"});
  save(2);
  fs::remove(path / rank_file_name(0));
  refused({rank_file_name(0) + " is missing"});
  save(2);
  fs::remove(path / kManifestFile);
  EXPECT_TRUE(is_checkpoint(path));
  refused({"it has no manifest.json"});
  EXPECT_FALSE(is_checkpoint(path));
  save(2);
  fs::resize_file(path / kManifestFile, fs::file_size(path / kManifestFile) / 2);
  refused({"manifest.json is damaged", "altered or cut short", "mv "});
  save(2);
  change("manifest.json", fs::file_size(path / kManifestFile) / 2, [](char c) { return static_cast<char>(c + 1); });
  refused({"manifest.json is damaged", "altered"});
  // Of the same sizes and cut, but other values.
  save(2);
  const std::deque<SavedState> others = test::saved_states(50);
  test::save(directory_ / "other", test::cut(others, 2, 1));
  fs::copy_file(directory_ / "other" / rank_file_name(0), path / rank_file_name(0),
                fs::copy_options::overwrite_existing);
  refused({rank_file_name(0), "their hash is another"});
}

TEST_F(CheckpointTest, ElementsAreThereOnce) {
  const SavedState& norm = states[3];
  const auto fault = [&](const std::vector<std::pair<int64_t, int64_t>>& slices, const std::string& what) {
    fs::remove_all(path);
    std::vector<test::Slices> ranks;
    for (const auto& [first, count] : slices) ranks.push_back({norm.slice(first, count)});
    test::save(path, ranks);
    expect_user_error(error_of([&] { const Checkpoint faulty(path); }), {what, "layers.0.norm", "is damaged"});
  };
  fault({{0, 3}, {4, 3}}, "elements 3 to 4 of");
  fault({{1, 6}}, "elements 0 to 1 of");
  fault({{0, 6}}, "elements 6 to 7 of");
  fault({{0, 4}, {3, 4}}, "are in two of its files");
  fault({{0, 7}, {0, 7}}, "are in two of its files");
}

TEST_F(CheckpointTest, FilesThatContradictEachOtherAreRefused) {
  const SavedState wide("stack", {2, 3, 5}, StateKind::value, DType::f64, 1),
      flat("stack", {30}, StateKind::value, DType::bf16, 1);
  const SavedState& stack = states[4];
  test::save(path, {{stack.slice(0, 10)}, {wide.slice(10, 20)}});
  expect_user_error(error_of([&] { const Checkpoint mixed(path); }),
                    {rank_file_name(1), "F64 [20]", "no slice of BF16 [2, 3, 5]"});
  fs::remove_all(path);
  test::save(path, {{stack.slice(0, 10)}, {flat.slice(10, 20)}});
  expect_user_error(error_of([&] { const Checkpoint mixed(path); }),
                    {rank_file_name(1), "of [30]", "no slice of BF16 [2, 3, 5]"});
}

// With the right hashes: numbers are checked all the same.
TEST_F(CheckpointTest, HostileHeadersAreRefused) {
  fs::create_directories(path);
  const auto refused = [&](const std::string& tensor, const std::string& place, const std::string& type = "F32") {
    const std::string json = fmt::format(
        R"({{"__metadata__": {{"a": {}}}, "{}": {{"dtype": "{}", "shape": [2], "data_offsets": [0, {}]}}}})",
        safetensors::in_quotes(place), tensor, type, type == "F32" ? 8 : 16);
    std::string padded = json;
    padded.resize((padded.size() + 7) / 8 * 8, ' ');
    const std::string file = test::raw_file(padded, type == "F32" ? 8 : 16);
    write_file_atomic(path / "a.safetensors", file);
    test::write_manifest(path, {test::hashed("a.safetensors", file)});
    expect_user_error(error_of([&] { const Checkpoint hostile(path); }), {"a.safetensors"});
  };
  refused("a", "2 from 0");
  refused("value/b", "2 from 0");
  refused("value/", "2 from 0");
  refused("value/a", "2 from 0", "I64");
  for (const char* const place : {"",
                                  "2",
                                  "from 0",
                                  "2 from",
                                  "2 from ",
                                  "2 from -1",
                                  "2 from 1",
                                  "2 from 2",
                                  "2 from 0.0",
                                  "2 from 0 ",
                                  " 2 from 0",
                                  "2from 0",
                                  "2 from 0 from 0",
                                  "0 from 0",
                                  "-2 from 0",
                                  "+2 from 0",
                                  "2.0 from 0",
                                  "1e300 from 0",
                                  "x2 from 0",
                                  "2x from 1",
                                  "1xx2 from 0",
                                  "1x1x1x1x2 from 0",
                                  "9223372036854775808 from 0",
                                  "18446744073709551615 from 0",
                                  "4294967296x4294967296 from 0",
                                  "1099511627777x1099511627777 from 0",
                                  "9223372036854775807 from 9223372036854775806",
                                  "1152921504606846975 from 1152921504606846974",
                                  "2 from 9223372036854775807",
                                  "2 from 18446744073709551616",
                                  R"({"shape": [2], "first": 0})"}) {
    SCOPED_TRACE(place);
    refused("value/a", place);
  }
  std::string many = "1";
  for (int i = 0; i < 100'000; ++i) many += "x1";
  refused("value/a", many + " from 0");
}

TEST_F(CheckpointTest, ALongHeaderIsHeldAgainstItsHashes) {
  std::deque<SavedState> many;
  for (int i = 0; i < 9000; ++i) {
    many.emplace_back(fmt::format("layers.{}.a_parameter_with_a_long_name", i), Shape{2}, StateKind::value, DType::f32,
                      1);
  }
  test::save(path, test::cut(many, 1, 1));
  ASSERT_GT(safetensors::header_bytes(test::bytes_of(read_file(path / rank_file_name(0), 1 << 25))), 1U << 20);
  EXPECT_EQ(test::read_back(Checkpoint(path), many[8999]), many[8999].values.values());
  // A digit in the second block.
  change(rank_file_name(0), (1 << 20) + 5, [](char c) { return static_cast<char>(c + 1); });
  expect_user_error(error_of([&] { const Checkpoint damaged(path); }), {"bytes 1048576 to ", "their hash is another"});
}

TEST_F(CheckpointTest, ADirectoryIsACheckpointARunOrNeither) {
  EXPECT_EQ(find_checkpoint(directory_ / "nowhere"), std::nullopt);
  EXPECT_EQ(find_checkpoint(directory_), std::nullopt);
  save(2);
  EXPECT_EQ(find_checkpoint(path), path);
  fs::create_directory_symlink("step-1", directory_ / "LATEST");
  EXPECT_EQ(find_checkpoint(directory_), path);
  // Weights of the hub beside the ranks' files do not make it less of a checkpoint.
  write("step-1/model.safetensors", "weights");
  EXPECT_EQ(find_checkpoint(path), path);
  // Damaged, but one.
  fs::remove(path / "manifest.json");
  EXPECT_EQ(find_checkpoint(path), path);
  fs::remove(path / rank_file_name(0));
  expect_user_error(error_of([&] { find_checkpoint(directory_); }),
                    {"LATEST leads to " + path.string(), "where no checkpoint is"});
  // A manifest of another program beside weights of the hub.
  write("step-1/manifest.json", "{}");
  EXPECT_EQ(find_checkpoint(path), std::nullopt);
}

}  // namespace
}  // namespace sluice
