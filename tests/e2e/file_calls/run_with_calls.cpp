#include "e2e/file_calls/run_with_calls.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>

#include "base/file.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostBytes = size_t{1} << 24;

std::string config() {
  return "step_scheduler: {global_batch_size: 4, local_batch_size: 1, max_steps: 2, ckpt_every_steps: 1, "
         "val_every_steps: 1}\n" +
         small_model() +
         "validation_dataset: {_target_: mock, seq_len: 16, num_samples: 4}\n"
         "lr_scheduler: {lr_decay_steps: 2}\n"
         "checkpoint: {max_recent_checkpoints: 1, save_consolidated: every}\n";
}

// What is complete and could not get its name is kept under another one beside it, and said.
bool is_kept_aside(const std::string& name) {
  return name.starts_with("run/step-1.2") || name.starts_with("run/step-2.2") || name.starts_with("out.2");
}

// Without times.
std::string losses(const std::string& log) {
  std::string text;
  for (const std::string& line : lines_of(log)) {
    const auto json = nlohmann::json::parse(line);
    text += json.at("step").dump() + " " + json.at(json.contains("loss") ? "loss" : "val_loss").dump() + "\n";
  }
  return text;
}

}  // namespace

RunWithCalls::RunWithCalls() : file_(folder_.file("run.yaml", config())) {}

Outcome RunWithCalls::train(const Calls& calls, const std::vector<std::string>& more) const {
  std::vector<std::string> words = {"train",     file_,      "--resume",  "--checkpoint.checkpoint_dir",
                                    path("run"), "--export", path("out"), "--overwrite"};
  words.insert(words.end(), more.begin(), more.end());
  if (calls.kinds.empty()) return sluice(words);
  const fs::path folder = fs::canonical(path(""));
  const fs::path place = calls.under.empty() ? folder : folder / calls.under;
  return sluice(words, fmt::format("LD_PRELOAD='{}' SLUICE_CALLS={} SLUICE_CALLS_UNDER='{}' SLUICE_CALLS_FIRST={} "
                                   "SLUICE_CALLS_LAST={} SLUICE_CALLS_THEN={} SLUICE_CALLS_COUNT='{}'",
                                   fs::absolute(SLUICE_FILE_CALLS).string(), calls.kinds, place.string(), calls.first,
                                   calls.last, calls.then, calls.then.empty() ? path("count") : ""));
}

long RunWithCalls::count(const std::string& kinds) const {
  const Outcome outcome = train(Calls{.kinds = kinds});
  if (outcome.code != 0) throw std::runtime_error(outcome.err);
  const std::string text = read_file(path("count"), kMostBytes);
  fs::remove(path("count"));
  return std::stol(text);
}

Left RunWithCalls::left() const {
  Left left;
  for (const auto& entry : fs::recursive_directory_iterator(path(""))) {
    const std::string name = fs::relative(entry.path(), path("")).string();
    if (is_kept_aside(name)) continue;
    if (entry.is_symlink()) {
      left[name] = fs::read_symlink(entry.path()).string();
    } else if (entry.is_directory()) {
      left[name] = "a directory";
    } else {
      const std::string text = read_file(entry.path(), kMostBytes);
      left[name] = name.ends_with(".jsonl") ? losses(text) : text;
    }
  }
  return left;
}

std::string differences(const Left& left, const Left& expected) {
  std::string text;
  for (const auto& [name, contents] : expected) {
    const auto found = left.find(name);
    if (found == left.end()) {
      text += name + " is missing\n";
    } else if (found->second != contents) {
      const bool log = name.ends_with(".jsonl");
      text += name + " is another one" + (log ? ":\n" + found->second + "not\n" + contents : "\n");
    }
  }
  for (const auto& [name, contents] : left) {
    if (!expected.contains(name)) text += name + " is left over\n";
  }
  return text;
}

void RunWithCalls::remove_all() const {
  for (const auto& entry : fs::directory_iterator(path(""))) {
    if (entry.path() != file_) fs::remove_all(entry.path());
  }
}

void RunWithCalls::leave_half_done() {
  const fs::path kept = half_done_.path("run"), run = path("run");
  remove_all();
  if (fs::exists(kept)) {
    fs::copy(kept, run, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    return;
  }
  const Outcome outcome = train({"--step_scheduler.max_steps", "1"});
  if (outcome.code != 0) throw std::runtime_error(outcome.err);
  fs::remove_all(path("out"));
  const fs::path unfinished = run / ".step-2.sluice-unfinished";
  fs::copy(run / "step-1", unfinished, fs::copy_options::recursive);
  fs::remove(unfinished / "manifest.json");
  for (const char* log : {"training.jsonl", "validation.jsonl"}) {
    std::ofstream(run / log, std::ios::app) << R"({"step": 2, "loss": 1.5, "val_loss": 1.5})" << "\n"
                                            << R"({"step": 3, "lo)";
  }
  fs::copy(run, kept, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
}

std::vector<long> all_of(long most) {
  std::vector<long> numbers(static_cast<size_t>(most));
  std::iota(numbers.begin(), numbers.end(), 1);
  return numbers;
}

std::vector<long> some_of(long most, size_t count) {
  const std::vector<long> all = all_of(most);
  std::vector<long> some;
  std::mt19937 random(std::random_device{}());
  std::ranges::sample(all, std::back_inserter(some), static_cast<std::ptrdiff_t>(count), random);
  return some;
}

}  // namespace sluice::test
