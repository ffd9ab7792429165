#include "training/step_records.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <regex>
#include <set>
#include <sstream>

#include "base/file.h"

namespace sluice {
namespace {

using namespace std::chrono;

// 2026-11-30 03:22:05.123 of UTC, and a part of a millisecond.
constexpr system_clock::time_point now =
    sys_days{year{2026} / 11 / 30} + hours{3} + minutes{22} + seconds{5} + microseconds{123'900};

// Every field differs from its preset, and those of one type from each other.
TrainRecord full_step() {
  return {.step = 3,
          .epoch = 2,
          .learning_rate = 3e-4,
          .memory_bytes = uint64_t{5} << 29,
          .result = StepResult{.loss = 1.0 / 3,
                               .mtp_loss = 2.0 / 3,
                               .label_tokens = 30,
                               .expert_load = {{"layers.0", 1.5, 0.75, 2}, {"layers.1", 1.25, 0.5, 0}}},
          .gradient_norm = 0.7,
          .tokens = 32,
          .seconds = 2,
          .tokens_per_s = 16,
          .ranks = 8,
          .mfu = 0.25,
          .roofline = 0.5,
          .times = RankTimes{.slowest = 6, .most = 1.75, .mean_others = 1.125}};
}

TrainRecord validation() {
  return {.step = 4,
          .epoch = 1,
          .learning_rate = 1e-4,
          .memory_bytes = uint64_t{1} << 30,
          .validation_loss = 0.1,
          .validation_label_tokens = 99};
}

TEST(StepRecords, AStepHasTheNamesOfNemo) {
  EXPECT_EQ(record_json(full_step(), now),
            R"({"step":3,"epoch":2,"timestamp":"2026-11-30T03:22:05.123Z","loss":0.3333333333333333,)"
            R"("mtp_loss":0.6666666666666666,"grad_norm":0.7,"lr":0.0003,"mem":2.5,"tps":16.0,"tps_per_gpu":2.0,)"
            R"("mfu":25.0,"num_tokens_per_step":32,"num_label_tokens":30,"seconds":2.0,"roofline_percent":50.0,)"
            R"("slowest_rank":6,"slowest_seconds":1.75,"other_seconds":1.125,)"
            R"("expert_load":[{"layer":"layers.0","max_over_mean":1.5,"entropy":0.75,"unused":2},)"
            R"({"layer":"layers.1","max_over_mean":1.25,"entropy":0.5,"unused":0}]})");
}

TEST(StepRecords, WhatIsNotKnownIsNullAndWhatIsNotThereIsLeftOut) {
  TrainRecord record = full_step();
  record.gradient_norm = record.mfu = record.roofline = std::nullopt;
  record.result->mtp_loss = std::nullopt;
  record.result->expert_load.clear();
  record.times = std::nullopt;
  const auto json = nlohmann::json::parse(record_json(record, now));
  for (const char* name : {"grad_norm", "mfu", "roofline_percent"}) EXPECT_TRUE(json.at(name).is_null()) << name;
  for (const char* name : {"mtp_loss", "expert_load", "slowest_rank"}) EXPECT_FALSE(json.contains(name)) << name;
}

TEST(StepRecords, AValidationHasTheNamesOfNemo) {
  EXPECT_EQ(record_json(validation(), now),
            R"({"step":4,"epoch":1,"timestamp":"2026-11-30T03:22:05.123Z","val_loss":0.1,"lr":0.0001,)"
            R"("num_label_tokens":99,"mem":1.0})");
}

// The page lists exactly the names that are written.
TEST(StepRecords, ThePageListsEveryName) {
  const std::string page = read_file(SLUICE_SOURCE_DIR "/docs/records.md", 1 << 16);
  const std::string tables = page.substr(0, page.find("## Where a figure differs"));
  std::set<std::string> listed, written;
  const std::regex name("`([a-z_]+)`");
  std::istringstream lines(tables);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("| `")) continue;
    const std::string cell = line.substr(0, line.find('|', 1));
    for (std::sregex_iterator at(cell.begin(), cell.end(), name), end; at != end; ++at) listed.insert((*at)[1]);
  }
  TrainRecord full = full_step();
  full.left_out = true;
  const auto step = nlohmann::json::parse(record_json(full, now));
  for (const auto& json : {step, step.at("expert_load").at(0), nlohmann::json::parse(record_json(validation(), now))}) {
    for (const auto& [key, value] : json.items()) written.insert(key);
  }
  EXPECT_EQ(listed, written);
}

TEST(StepRecords, ALossReadsBackToTheLastBit) {
  TrainRecord record = full_step();
  record.result->loss = 2.3456789012345678;
  EXPECT_EQ(nlohmann::json::parse(record_json(record, now)).at("loss").get<double>(), 2.3456789012345678);
}

TEST(StepRecords, TheStepOfALineIsRead) {
  EXPECT_EQ(step_of_record(record_json(full_step(), now)), 3);
  EXPECT_EQ(step_of_record(record_json(validation(), now)), 4);
  EXPECT_EQ(step_of_record(record_json(full_step(), now) + "\r\n"), 3) << "an end of the line changes nothing";
  EXPECT_EQ(step_of_record(R"({"loss":1.5,"step":9223372036854775807})"), 9223372036854775807);
}

// Whatever a killed run has left of a line says no step.
TEST(StepRecords, ATornLineHasNoStep) {
  for (const std::string& line : {record_json(full_step(), now), record_json(validation(), now)}) {
    for (size_t bytes = 0; bytes < line.size(); ++bytes) {
      EXPECT_EQ(step_of_record(std::string_view(line).substr(0, bytes)), std::nullopt) << bytes;
    }
    EXPECT_EQ(step_of_record(line.substr(0, 40) + line), std::nullopt) << "a torn line that was written on";
    EXPECT_EQ(step_of_record(line + line), std::nullopt);
    EXPECT_EQ(step_of_record(line + std::string(8, '\0')), std::nullopt) << "blocks that a crash left empty";
  }
}

TEST(StepRecords, AnotherProgramsLineHasNoStep) {
  for (const char* line :
       {"", "{}", "3", "null", "[3]", "step 3/4  loss 1.5", R"({"step":3})", R"({"loss":1.5})",
        R"({"step":"3","loss":1.5})", R"({"step":3.0,"loss":1.5})", R"({"step":-3,"loss":1.5})",
        R"({"step":0,"loss":1.5})", R"({"step":null,"loss":1.5})", R"({"step":true,"loss":1.5})",
        R"({"step":9223372036854775808,"loss":1.5})", R"({"step":1e2,"loss":1.5})", R"([{"step":3,"loss":1.5}])",
        "{\"step\":3,\"loss\":1.5,\"layer\":\"\xff\"}", R"({"step":3,"inner":{"loss":1.5}})"}) {
    EXPECT_EQ(step_of_record(line), std::nullopt) << line;
  }
}

}  // namespace
}  // namespace sluice
