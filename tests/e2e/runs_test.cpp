// Whole runs of the program at sizes that take moments.
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <csignal>
#include <regex>

#include "base/file.h"
#include "device/cpu/bf16_dot.h"
#include "e2e/program.h"

namespace sluice::test {
namespace {

nlohmann::json read_json(const std::string& path) {
  return nlohmann::json::parse(read_file(path, 1 << 22));
}

int count_lines(const std::string& text, const std::string& beginning) {
  int count = 0;
  for (const std::string& line : lines_of(text)) count += line.starts_with(beginning) ? 1 : 0;
  return count;
}

TEST(Bench, PublishedRowsBesideOurs) {
  const Folder folder;
  const Outcome outcome = sluice({"bench", "--scale", "tiny", "--ops", "--json", folder.path("r.json")});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(count_lines(outcome.out, "           prec ranks  GBS MBS LBS GA  seq TP PP CP EP VP FSDP s/step  tok/s"),
            1);
  EXPECT_EQ(count_lines(outcome.out, "R4 Qwen3-30B-A3B"), 1);
  EXPECT_EQ(count_lines(outcome.out, " tiny      fp32     1   32   4   4  8   64  1  1  1  1  -    1"), 1);
  EXPECT_EQ(
      count_lines(outcome.out, " published BF16     8  512   4   4 16 4096  1  1  1  8  -    8 21.773 12,040   277T"),
      1);
  // As printed: 279, not the 299 of the model's head size, and no expert parallel ranks.
  EXPECT_EQ(
      count_lines(outcome.out, " published BF16     8  256   2   2 16 4096  1  1  1  -  -    8  10.04 13,058   279T"),
      1);
  EXPECT_EQ(count_lines(outcome.out, "published TFLOP/s: 279 of R5 is 299, 231 of R6 is 249 as the other rows"), 1);
  EXPECT_NE(outcome.out.find("mock data, balance published, load 1.00"), std::string::npos);
  EXPECT_NE(outcome.out.find("attention_backward"), std::string::npos);
  for (const std::string& line : lines_of(outcome.out)) EXPECT_LE(line.size(), 100U) << line;
  // Not a terminal: plain lines, one a step.
  EXPECT_EQ(outcome.err.find('\r'), std::string::npos);
  EXPECT_EQ(outcome.err.find('\033'), std::string::npos);
  EXPECT_EQ(count_lines(outcome.err, "R4 step "), 7);

  const nlohmann::json json = read_json(folder.path("r.json"));
  EXPECT_TRUE(json.contains("commit"));
  EXPECT_GT(json.at("machine").at("peak_gflops"), 0);
  for (const nlohmann::json& each : json.at("rows")) {
    EXPECT_FALSE(each.at("published").is_null()) << each.at("config") << " is in the folder, but no published row";
  }
  const nlohmann::json& rows = json.at("rows");
  ASSERT_EQ(rows.size(), 6U);
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i].at("row"), fmt::format("R{}", i + 1));
  EXPECT_NE(rows[0].at("features").get<std::string>().find("latent attention"), std::string::npos);
  EXPECT_NE(rows[4].at("features").get<std::string>().find("sinks"), std::string::npos);
  const nlohmann::json& row = rows[3];
  EXPECT_EQ(row.at("scale"), "tiny");
  EXPECT_EQ(row.at("layout"), "fitted");
  EXPECT_EQ(row.at("precision"), "fp32");
  EXPECT_EQ(row.at("step_time_s").at("all").size(), 5U);
  EXPECT_EQ(row.at("loss").size(), 7U);
  EXPECT_EQ(row.at("published").at("tokens_per_s_per_gpu"), 12040);
  EXPECT_EQ(row.at("published").at("gbs"), 512);
  EXPECT_EQ(row.at("published").at("kernels"), "TE + DeepEP");
  EXPECT_EQ(rows[4].at("published").at("tflops_per_s_per_gpu"), 279);
  EXPECT_EQ(rows[4].at("published").at("corrected_tflops"), 299);
  EXPECT_TRUE(rows[4].at("published").at("ep").is_null());
  EXPECT_EQ(row.at("max_memory_bytes"), row.at("planned_memory_bytes"));
  EXPECT_TRUE(row.at("ops").at("ops").size() > 10);

  // What was written prints the same again, but for the operations.
  const Outcome again = sluice({"bench", "--from", folder.path("r.json")});
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(outcome.out.substr(0, again.out.size()), again.out);
  EXPECT_EQ(sluice({"bench", "--from", "README.md"}).code, 2);
  EXPECT_EQ(sluice({"bench", "R4", "--from", folder.path("r.json")}).code, 2);
  EXPECT_EQ(sluice({"bench", "--threads", "1", "--from", folder.path("r.json")}).code, 2);
  EXPECT_EQ(sluice({"bench", "--from", ""}).code, 2);
}

TEST(Bench, ARowAtItsOwnLayout) {
  const Folder folder;
  const Outcome outcome = sluice({"bench", "r4", "--layout", "row", "--json", folder.path("r.json")});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(count_lines(outcome.out, " layout    fp32     8  512   4   4 16   64  1  1  1  8  -    8"), 1)
      << outcome.out;
  EXPECT_EQ(count_lines(outcome.out, "R4 layout changed: hidden_size 2048 -> 32"), 1) << outcome.out;
  const nlohmann::json rows = read_json(folder.path("r.json")).at("rows");
  ASSERT_EQ(rows.size(), 1U);
  for (const char* column : {"ranks", "gbs", "mbs", "lbs", "ga", "tp", "pp", "cp", "ep", "vp", "fsdp"}) {
    EXPECT_EQ(rows[0].at(column), rows[0].at("published").at(column)) << column;
  }
  const Outcome both = sluice({"bench", "R5", "--layout", "both", "--scale", "tiny", "--steps", "1"});
  ASSERT_EQ(both.code, 0) << both.err;
  EXPECT_EQ(count_lines(both.out, " tiny      fp32     1 "), 1) << both.out;
  EXPECT_EQ(count_lines(both.out, " layout    fp32     8 "), 1) << both.out;
  EXPECT_EQ(count_lines(both.out, " published "), 1) << both.out;

  const Outcome unknown = sluice({"bench", "R7"});
  EXPECT_EQ(unknown.code, 2);
  EXPECT_NE(unknown.err.find("R7 is no published row\n       there are: R1, R2, R3, R4, R5, R6"), std::string::npos)
      << unknown.err;
  EXPECT_EQ(sluice({"bench", "R4", "--layout", "row", "--ranks", "8"}).code, 2);
}

TEST(Bench, RanksGiveTheSameLosses) {
  const Folder folder;
  const std::string good = folder.file("good.yaml", small_config());
  std::vector<double> expected;
  for (const std::string layout : {"--distributed.ep_size=1", "--distributed.ep_size=2", "--distributed.pp_size=2"}) {
    const std::string ranks = layout.ends_with('1') ? "1" : "2";
    const Outcome outcome = sluice(
        {"bench", good, "--ranks", ranks, layout, "--async-comm", "--json", folder.path("r.json"), "--overwrite"});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const auto losses = read_json(folder.path("r.json")).at("rows").at(0).at("loss").get<std::vector<double>>();
    if (expected.empty()) expected = losses;
    ASSERT_EQ(losses.size(), 4U);
    for (size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], expected[i], 1e-4) << layout;
  }
}

// Each command that refuses a run for its memory advises what that command takes, and that helps.
TEST(Memory, TheAdviceIsForTheCommandThatGivesIt) {
  const Folder folder;
  std::string text = small_config();
  const std::string seq = "seq_len: 16";
  text.replace(text.find(seq), seq.size(), "seq_len: 134217728");
  const std::string large = folder.file("large.yaml", text);
  for (const std::string command : {"train", "eval"}) {
    const Outcome outcome = sluice({command, large});
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    expect_in(outcome.err, {"of memory and ", "lower step_scheduler.local_batch_size or dataset.seq_len; sluice plan"});
    std::vector<std::string> followed{command, large, "--dataset.seq_len", "16"};
    if (command == "eval") followed.insert(followed.end(), {"--batches", "1"});
    EXPECT_EQ(sluice(followed).code, 0) << command;
  }
  const Outcome outcome = sluice({"bench", large});
  EXPECT_EQ(outcome.code, 2) << outcome.err;
  expect_in(outcome.err, {"run it at --scale laptop; sluice plan"});
  EXPECT_EQ(sluice({"bench", large, "--scale", "tiny", "--steps", "1"}).code, 0);
}

TEST(Bench, AnOwnFileRunsAsWritten) {
  const Folder folder;
  const std::string good = folder.file("good.yaml", small_config());
  const Outcome outcome =
      sluice({"bench", good, "--steps", "2", "--device", "ref", "--threads", "1", "--json", folder.path("r.json")});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out.find("changed:"), std::string::npos) << outcome.out;
  EXPECT_EQ(outcome.out.find("published"), std::string::npos) << outcome.out;
  const nlohmann::json row = read_json(folder.path("r.json")).at("rows").at(0);
  EXPECT_EQ(row.at("scale"), "full");
  EXPECT_EQ(row.at("device"), "ref");
  EXPECT_EQ(row.at("threads"), 1);
  EXPECT_EQ(row.at("balance"), "router");
  EXPECT_EQ(row.at("step_time_s").at("all").size(), 2U);
  EXPECT_TRUE(row.at("published").is_null());
}

// As NeMo's files were when the rows were measured, with products it has and sluice does not.
TEST(Bench, NemosFilesRunAndSayWhatIsNotThere) {
  const Folder folder;
  const std::string file = folder.file("qwen3_moe_30b_te_fp8.yaml", R"(
benchmark: {warmup_steps: 10, peak_tflops: 989, nsys_start: -1}
step_scheduler: {global_batch_size: 128, local_batch_size: 4, max_steps: 30}
distributed:
  _target_: nemo_automodel.components.distributed.fsdp2.FSDP2Manager
  ep_size: 8
autopipeline: {_target_: nemo_automodel.components.distributed.pipelining.AutoPipeline, pp_microbatch_size: 2}
parallelizer:
  _target_: nemo_automodel.components.moe.parallelizer.parallelize_model
  activation_checkpointing: true
model:
  _target_: nemo_automodel.components.models.qwen3_moe.model.Qwen3MoeForCausalLM.from_config
  config:
    _target_: transformers.AutoConfig.from_pretrained
    pretrained_model_name_or_path: Qwen/Qwen3-30B-A3B
  backend:
    enable_deepep: true
    fake_balanced_gate: true
    te_fp8:
      recipe: block
dataset:
  _target_: nemo_automodel.components.datasets.llm.mock_iterable_dataset.MockIterableDataset
optimizer: {_target_: torch.optim.Adam, lr: 0.0001}
clip_grad_norm: {max_norm: 1.0}
)");
  const std::vector<std::string> bench{"bench",      file, "--scale", "tiny", "--json", folder.path("r.json"),
                                       "--overwrite"};
  const Outcome outcome = sluice(bench);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const std::string instead = "8-bit products are not available, all have runtime.dtype";
  EXPECT_NE(outcome.err.find(file + ":20: model.backend.te_fp8.recipe block: " + instead), std::string::npos)
      << outcome.err;
  EXPECT_NE(outcome.out.find("Qwen3-30B-A3B asks for model.backend.te_fp8.recipe block: "), std::string::npos)
      << outcome.out;
  EXPECT_NE(outcome.err.find(":24: clip_grad_norm.max_norm: NeMo's benchmark does not clip"), std::string::npos)
      << outcome.err;
  // torch's optimizer keeps moments as the weights are: on the CPU in fp32.
  EXPECT_EQ(outcome.out.find("optimizer state bf16"), std::string::npos);
  EXPECT_EQ(read_json(folder.path("r.json")).at("rows").at(0).at("recompute"), "full");
  EXPECT_EQ(read_json(folder.path("r.json")).at("rows").at(0).at("not_available").at(0).at("value"), "block");
  std::vector<std::string> without = bench;
  without.insert(without.end(), {"--model.backend.te_fp8.recipe", "null"});
  const Outcome silent = sluice(without);
  EXPECT_EQ(silent.code, 0);
  EXPECT_EQ(silent.err.find("8-bit"), std::string::npos);
  EXPECT_EQ(silent.out.find("asks for"), std::string::npos);
}

TEST(Bench, WhatDoesNotFitIsRefusedBeforeItStarts) {
  const Outcome outcome =
      sluice({"bench", std::string(SLUICE_SOURCE_DIR) + "/examples/benchmark/configs/qwen3_moe_30b_8.yaml", "--scale",
              "full", "--dataset.seq_len", "65536", "--step_scheduler.global_batch_size", "4"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_NE(outcome.err.find("error: this run needs "), std::string::npos) << outcome.err;
  EXPECT_EQ(outcome.err.find("step 1/"), std::string::npos);
}

TEST(Train, LearnsValidatesAndKeepsRecords) {
  const Folder folder;
  const std::string text = folder.file("text", std::string(4096, 'a') + std::string(4096, 'b'));
  const std::string config =
      folder.file("train.yaml", small_config() + "recipe: train\nvalidation_dataset: {_target_: bytes, path: " + text +
                                    ", split: validation}\nlogging: {jsonl: " + folder.path("log.jsonl") + "}\n");
  const Outcome outcome = sluice({"train", config, "--dataset", "{_target_: bytes, path: " + text + ", split: train}",
                                  "--step_scheduler.max_steps", "30", "--step_scheduler.val_every_steps", "10",
                                  "--optimizer.lr", "0.01", "--ranks", "2", "--distributed.ep_size", "2"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(count_lines(outcome.out, "done: 30 steps, 1,920 tokens in "), 1) << outcome.out;
  EXPECT_EQ(count_lines(outcome.out, "validation loss "), 1);
  expect_in(outcome.out, {"training loss ", " in step 1, ", " mean of the last 20 steps (nats/byte)\n"});
  EXPECT_EQ(count_lines(outcome.err, "step 10/30  validation loss "), 1) << outcome.err;
  int steps = 0, validations = 0;
  double first = 0;
  double last = 0;
  for (const std::string& line : lines_of(read_file(folder.path("log.jsonl"), 1 << 20))) {
    const nlohmann::json record = nlohmann::json::parse(line);
    EXPECT_GT(record.at("mem"), 0) << line;
    if (record.contains("val_loss")) {
      EXPECT_EQ(record.at("step"), 10 * ++validations);
      continue;
    }
    last = record.at("loss");
    if (steps++ == 0) first = last;
    EXPECT_EQ(record.at("step"), steps);
    EXPECT_GT(record.at("grad_norm"), 0);
    EXPECT_EQ(record.at("tps_per_gpu").get<double>() * 2, record.at("tps").get<double>());
    // On a busy machine a step may seem faster than the peak, which is null then.
    EXPECT_TRUE(record.at("mfu").is_null() || (record.at("mfu") > 0 && record.at("mfu") <= 100)) << line;
  }
  EXPECT_EQ(steps, 30);
  EXPECT_EQ(validations, 3);
  EXPECT_LT(last, 0.5 * first);
}

// Each part of the line that a person follows a run by; of a benchmark those that it has.
TEST(Train, ShowsRateNormAndTimes) {
  const Folder folder;
  const std::string file = folder.file("small.yaml", small_config());
  const std::regex line(R"(step 1/2  loss \d\.\d{3}  lr 1\.0e-3  norm \d+\.\d\d  [\d,]+ tok/s fp32  MFU [^ ]+ [^ ]+  )"
                        R"((roofline \d+ %|cache-served)  0:0\d, ETA 0:0\d)");
  const auto lines_like = [&](const Outcome& outcome) {
    EXPECT_EQ(outcome.code, 0);
    const std::vector<std::string> lines = lines_of(outcome.err);
    return std::ranges::count_if(lines, [&](const std::string& each) { return std::regex_match(each, line); });
  };
  const Outcome trained =
      sluice({"train", file, "--recipe=train", "--step_scheduler.max_steps=2", "--optimizer.lr=1e-3"});
  EXPECT_EQ(lines_like(trained), 1) << trained.err;
  const Outcome timed = sluice({"bench", file, "--steps", "2", "--benchmark.warmup_steps", "0"});
  EXPECT_EQ(timed.code, 0);
  expect_in(timed.err, {"step 1/2  loss ", "  ETA 0:0"});
  EXPECT_EQ(timed.err.find("  lr "), std::string::npos) << timed.err;
}

TEST(Train, ALossThatIsNotANumberNamesItsTensor) {
  const Folder folder;
  const std::string good = folder.file("good.yaml", small_config());
  const Outcome outcome = sluice({"train", good, "--optimizer.lr", "1e38"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_NE(outcome.err.find("at step 2: first bad tensor "), std::string::npos) << outcome.err;
  EXPECT_EQ(count_lines(outcome.err, "error: "), 1);
}

TEST(Train, AnInterruptEndsItAfterTheStep) {
  const Folder folder;
  const std::string good = folder.file("good.yaml", small_config());
  const Outcome outcome = on_terminal({"train", good, "--step_scheduler.max_steps", "1000000"}, "step 5/");
  EXPECT_EQ(outcome.code, 128 + SIGINT);
  EXPECT_NE(outcome.out.find("\033[Kending after this step"), std::string::npos);
  EXPECT_NE(outcome.out.find("stopped: "), std::string::npos) << outcome.out.substr(outcome.out.size() - 400);
  // A live line, written over.
  EXPECT_NE(outcome.out.find("\rstep 2/1000000  loss "), std::string::npos);
  EXPECT_NE(outcome.out.find("\033[K"), std::string::npos);
}

// `train` trains, whatever the recipe of the file says that it is for.
TEST(Train, AFileOfABenchmarkTrainsLikeAnother) {
  const Folder folder;
  const Outcome outcome = sluice({"train", folder.file("run.yaml", small_config()), "--recipe", "benchmark",
                                  "--clip_grad_norm.max_norm", "null", "--logging.jsonl", folder.path("log.jsonl")});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<std::string> lines = lines_of(read_file(folder.path("log.jsonl"), 1 << 20));
  ASSERT_EQ(lines.size(), 4U);
  for (const std::string& line : lines) {
    const auto record = nlohmann::json::parse(line);
    EXPECT_GT(record.at("grad_norm"), 0) << line;
    EXPECT_EQ(record.at("expert_load").size(), 2U) << line;
  }
}

TEST(Train, SaysWhatChangesNothing) {
  const Folder folder;
  const std::string file = folder.file("run.yaml", small_config());
  const auto said = [&](const std::vector<std::string>& settings) {
    std::vector<std::string> words = {"train",
                                      file,
                                      "--step_scheduler.max_steps",
                                      "2",
                                      "--benchmark.warmup_steps",
                                      "1",
                                      "--model.aux_loss_over",
                                      "global_batch"};
    words.insert(words.end(), settings.begin(), settings.end());
    const Outcome outcome = sluice(words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome.err;
  };
  expect_in(said({"--benchmark.balance", "spread"}),
            {"command line: model.aux_loss_over global_batch: a forced gate (spread) sends tokens to experts"});
  expect_in(said({"--model.aux_loss_coef", "0"}), {"model.aux_loss_over global_batch: the balance loss has weight 0"});
  expect_in(said({"--model.config.router_aux_loss_coef", "0"}),
            {"command line: model.aux_loss_over global_batch: the balance loss of qwen3_moe has weight 0 unless"});
  EXPECT_EQ(said({}).find("aux_loss_over"), std::string::npos);
}

TEST(ConfigCommand, ResolvedWithOriginsReadsBack) {
  const Folder folder;
  const Outcome outcome = sluice({"config", "examples/benchmark/configs/qwen3_moe_30b_8.yaml", "--scale", "laptop",
                                  "--ranks", "2", "--optimizer.lr", "0.5"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto has_line = [&](const std::string& begin, const std::string& end) {
    const std::vector<std::string> lines = lines_of(outcome.out);
    return std::any_of(lines.begin(), lines.end(),
                       [&](const std::string& line) { return line.starts_with(begin) && line.ends_with(end); });
  };
  EXPECT_TRUE(has_line("  ep_size: 2 ", "# 2 ranks")) << outcome.out;
  EXPECT_TRUE(has_line("  lr: 0.5 ", "# --optimizer.lr"));
  EXPECT_TRUE(has_line("    hidden_size: 256 ", "# scale laptop"));
  EXPECT_TRUE(has_line("  seq_len: 512 ", "# scale laptop"));
  EXPECT_TRUE(has_line("#   full ", " %"));
  EXPECT_EQ(has_line("  dtype: bf16 ", "# published in BF16"), cpu::has_bf16_dot()) << "as bench would run it";
  EXPECT_NE(outcome.out.find("# bytes kept for backward by rank 0: "), std::string::npos);
  EXPECT_NE(outcome.out.find("#   use_cache (built-in card"), std::string::npos);

  const std::string again = folder.file("again.yaml", outcome.out);
  const Outcome second = sluice({"config", again, "--ranks", "2"});
  ASSERT_EQ(second.code, 0) << second.err;
  EXPECT_NE(second.out.find("ep_size: 2"), std::string::npos);
}

TEST(ConfigCommand, ListsKeys) {
  const Outcome outcome = sluice({"config", "--keys", "clip_grad_norm"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_NE(outcome.out.find("clip_grad_norm.max_norm: null\n"), std::string::npos) << outcome.out;
}

TEST(Doctor, EndsWithAVerdict) {
  const Outcome outcome = sluice({"doctor"});
  const std::string last = lines_of(outcome.out).back();
  const bool ready = last == "ready" || last.starts_with("ready, but busy: ");
  EXPECT_TRUE(ready || last.starts_with("not ready: ")) << last;
  EXPECT_EQ(outcome.code, ready ? 0 : 1);
  EXPECT_NE(outcome.out.find("GFLOP/s fp32 multiply-adds"), std::string::npos);
}

}  // namespace
}  // namespace sluice::test
