// `sluice generate`: a model continues a prompt. What it writes goes to stdout as it is made, all else to stderr.
#include <charconv>
#include <cmath>
#include <filesystem>
#include <memory>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "checkpoint/checkpoint_model.h"
#include "checkpoint/safetensors.h"
#include "cli/checkpoint_settings.h"
#include "cli/command.h"
#include "cli/model_notes.h"
#include "cli/outputs.h"
#include "cli/setup.h"
#include "cli/terminal.h"
#include "generation/generation.h"
#include "model/family.h"
#include "trainer/scale_config.h"
#include "twin/forecast.h"

namespace sluice::cli {
namespace {

constexpr int64_t kBytes = 256;          // tokens of a byte-level model that are bytes
constexpr int64_t kUsualTokens = 200;    // where --max-tokens is not given
constexpr size_t kMostPrompt = 1 << 26;  // bytes of a prompt's file

struct GenerateOptions {
  std::string source;
  std::optional<std::string> prompt;
  std::optional<std::string> tokens;
  std::optional<std::string> prompt_file;
  std::optional<int> max_tokens;
  double temperature = 0;
  int top_k = 0;
  double top_p = 1;
  int samples = 1;
  std::vector<std::string> stops;
  std::optional<std::string> logits;
  bool overwrite = false;
  Shortcuts shortcuts;
  std::vector<std::string> overrides;
};

// What is to write text.
struct Source {
  Config config;
  bool bytes = false;  // a token is a byte
};

// A directory stands for a configuration that says no more than its name.
Source load_source(const GenerateOptions& options) {
  const auto is_bytes = [](const Config& config) {
    const auto bytes = config::DatasetKind::bytes;
    return config.dataset.target == bytes || config.validation_dataset.target == bytes;
  };
  std::error_code ignored;
  if (!std::filesystem::is_directory(options.source, ignored)) {
    Config config = load_settings(options.source, options.overrides, options.shortcuts);
    const bool bytes = is_bytes(config);
    return {std::move(config), bytes};
  }
  const std::optional<std::filesystem::path> found = find_checkpoint(options.source);
  bool bytes = false;
  if (found) {
    const std::map<std::string, std::string> run = Checkpoint(*found).manifest().settings;
    const auto data = run.find("dataset._target_");
    bytes = data != run.end() && data->second == config::word(config::DatasetKind::bytes);
  }
  Config config = apply_settings(config_of_model(found.value_or(options.source)), options.overrides, options.shortcuts);
  bytes = bytes || is_bytes(config);
  return {std::move(config), bytes};
}

// One rank with the model's own router.
RunSpec resolve_for_one(const Config& config, const std::string& source) {
  if (const int ranks = ranks_of(config); ranks > 1) {
    throw user_error("{} is for {} ranks, and text is generated on one", source, ranks)
        .advise(
            "add --distributed.ep_size 1 --distributed.pp_size 1, or name the directory with config.json and "
            "safetensors alone");
  }
  RunSpec spec = resolve(config, 1);
  if (spec.local_shard > 1) {
    throw user_error("benchmark.local_shard {}: a part of the experts writes no text", spec.local_shard)
        .at(config.origin("benchmark.local_shard").place());
  }
  if (spec.model.num_experts > 0 && spec.router == RouterKind::forced) {
    throw user_error("the configuration has a forced gate, which chooses experts whatever the text")
        .at(config.origin(config.is_set("benchmark.balance") ? "benchmark.balance" : "model.backend.fake_balanced_gate")
                .place())
        .advise("add --benchmark.balance router");
  }
  spec.optimize = false;
  // A layer that predicts further tokens has no part in the next one.
  spec.model.mtp = false;
  spec.mtp_loss_weight = 0;
  return spec;
}

// How text and tokens turn into each other: a token is a byte, or there is no text.
class Codec {
 public:
  // With a vocabulary of 256 tokens are bytes in any case.
  Codec(bool bytes, const ModelConfig& model) : vocab_(model.vocab_size), bytes_(bytes || vocab_ == kBytes) {}

  bool bytes() const { return bytes_; }
  int64_t drawn_vocab() const { return bytes_ ? std::min(vocab_, kBytes) : vocab_; }

  // `option` stands in messages.
  std::vector<int32_t> tokens_of_text(const std::string& text, const std::string& option) const {
    if (!bytes_) {
      throw user_error("{} is text, and the model's tokens are not bytes: there is no tokenizer", option)
          .at("command line")
          .advise(
              "give token ids: --tokens 1,2,3 (or --dataset._target_ bytes --dataset.path FILE, where a token is a "
              "byte)");
    }
    std::vector<int32_t> tokens;
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte >= vocab_) {
        throw user_error("{} has the byte {}, and the model's tokens are the numbers 0 to {}", option, byte, vocab_ - 1)
            .at("command line")
            .advise("the model was not made for bytes of text: give token ids, --tokens 1,2,3");
      }
      tokens.push_back(byte);
    }
    return tokens;
  }
  // "1,2 3"
  std::vector<int32_t> tokens_of_ids(const std::string& text, const std::string& option) const {
    constexpr std::string_view separators = ", \t\r\n";
    std::vector<int32_t> tokens;
    for (size_t begin = text.find_first_not_of(separators); begin != std::string::npos;) {
      const size_t end = std::min(text.find_first_of(separators, begin), text.size());
      const std::string word = text.substr(begin, end - begin);
      int64_t token = 0;
      const auto [stop, failure] = std::from_chars(word.data(), word.data() + word.size(), token);
      const bool number = failure == std::errc() && stop == word.data() + word.size();
      if (!number || token < 0 || token >= vocab_) {
        throw user_error("{}: {} is not a token", option, word.size() > 40 ? word.substr(0, 40) + "..." : word)
            .at("command line")
            .advise(
                fmt::format("the model's tokens are the numbers 0 to {}; commas or spaces between them", vocab_ - 1));
      }
      tokens.push_back(static_cast<int32_t>(token));
      begin = text.find_first_not_of(separators, end);
    }
    return tokens;
  }
  std::vector<int32_t> tokens_of(const std::string& words, const std::string& option) const {
    return bytes_ ? tokens_of_text(words, option) : tokens_of_ids(words, option);
  }

  // Text, or ids with a space behind each.
  std::string text_of(std::span<const int32_t> tokens) const {
    std::string text;
    for (const int32_t token : tokens)
      text += bytes_ ? std::string{static_cast<char>(token)} : fmt::format("{} ", token);
    return text;
  }

 private:
  int64_t vocab_;
  bool bytes_;
};

std::vector<int32_t> read_prompt(const GenerateOptions& options, const Codec& codec) {
  const int given =
      int{options.prompt.has_value()} + int{options.tokens.has_value()} + int{options.prompt_file.has_value()};
  if (given != 1) {
    throw user_error("there is {} prompt", given == 0 ? "no" : "more than one")
        .at("command line")
        .advise("one of --prompt TEXT, --tokens IDS and --prompt-file FILE");
  }
  std::vector<int32_t> tokens;
  if (options.prompt) tokens = codec.tokens_of_text(*options.prompt, "--prompt");
  if (options.tokens) tokens = codec.tokens_of_ids(*options.tokens, "--tokens");
  if (options.prompt_file) {
    tokens = codec.tokens_of(read_input(*options.prompt_file, kMostPrompt), "--prompt-file " + *options.prompt_file);
  }
  if (tokens.empty()) {
    throw user_error("the prompt is empty").at("command line").advise("a model continues at least one token");
  }
  return tokens;
}

// What the options say, each value checked.
GenerationJob make_job(const GenerateOptions& options, const Config& config, const RunSpec& spec, const Codec& codec) {
  const auto check = [](bool ok, const std::string& message) {
    if (!ok) throw user_error("{}", message).at("command line");
  };
  check(options.max_tokens.value_or(0) >= 0,
        fmt::format("--max-tokens {}: not a number of tokens", options.max_tokens.value_or(0)));
  check(std::isfinite(options.temperature) && options.temperature >= 0,
        fmt::format("--temperature {}: 0 or more", options.temperature));
  check(options.top_k >= 0, fmt::format("--top-k {}: a number of tokens, or 0 for all", options.top_k));
  check(options.top_p > 0 && options.top_p <= 1, fmt::format("--top-p {}: above 0, at most 1", options.top_p));
  check(options.samples >= 1, fmt::format("--samples {}: at least one is needed", options.samples));
  check(!options.logits || options.samples == 1, "--logits is of one sample");
  GenerationJob job{.prompt = read_prompt(options, codec),
                    .samples = options.samples,
                    .vocab = codec.drawn_vocab(),
                    .sampling = {.temperature = options.temperature,
                                 .top_k = options.top_k,
                                 .top_p = options.top_p,
                                 .seed = static_cast<uint64_t>(config.seed)},
                    .every_logit = options.logits.has_value()};
  for (const std::string& stop : options.stops) {
    job.stops.push_back(codec.tokens_of(stop, "--stop"));
    check(!job.stops.back().empty(), "--stop is empty");
  }
  const int64_t most = spec.model.max_positions, length = std::ssize(job.prompt);
  const int64_t room = most > 0 ? most - length : kUsualTokens;
  const int64_t wanted = options.max_tokens.value_or(static_cast<int>(std::clamp<int64_t>(room, 0, kUsualTokens)));
  if (most > 0 && length + wanted > most) {
    throw user_error("a prompt of {} tokens and {} more: the model has {} positions", length, wanted, most)
        .at("command line")
        .advise(room > 0 ? fmt::format("--max-tokens {} is the most", room) : "shorten the prompt");
  }
  job.max_tokens = wanted;
  return job;
}

// Logits [positions, V] and the tokens they follow, as safetensors.
class LogitsFile {
 public:
  LogitsFile(OutputFile file, DType dtype) : file_(std::move(file)), dtype_(accumulator_of(dtype)) {}

  void add(int32_t token, std::span<const double> logits) {
    tokens_.push_back(token);
    values_.insert(values_.end(), logits.begin(), logits.end());
  }
  void write() {
    const auto rows = std::ssize(tokens_), cols = std::ssize(values_) / rows;
    std::string text = header_text(safetensors::lay_out(
        {{"logits", safetensors::type_of(dtype_), {rows, cols}}, {"tokens", safetensors::Type::i32, {rows}}}, {}));
    const auto add = [&](const auto& values) {
      const std::span<const std::byte> bytes = std::as_bytes(std::span(values));
      text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    };
    if (dtype_ == DType::f64) {
      add(values_);
    } else {
      add(std::vector<float>(values_.begin(), values_.end()));
    }
    add(tokens_);
    file_.write(text);
  }

 private:
  OutputFile file_;
  DType dtype_;
  std::vector<int32_t> tokens_;
  std::vector<double> values_;
};

std::string speed(int64_t tokens, double seconds, DType dtype) {
  const double per_second = static_cast<double>(tokens) / std::max(seconds, 1e-9);
  return fmt::format("{} tokens in {} ({} tok/s in {})", format_count(tokens), format_duration(seconds),
                     format_count(static_cast<int64_t>(per_second)), precision_name(dtype));
}

int run_generate(const GenerateOptions& options) {
  const auto [config, bytes] = load_source(options);
  const RunSpec spec = resolve_for_one(config, options.source);
  warn_of_unread_fields(config);
  const LaunchOptions session = launch_options(config);
  const Codec codec(bytes, spec.model);
  GenerationJob job = make_job(options, config, spec, codec);
  std::optional<LogitsFile> logits;
  if (options.logits) {
    outlive_readers();
    Inputs inputs(config, file_of_row(options.source));
    if (options.prompt_file) inputs.add_file(*options.prompt_file, "--prompt-file");
    Outputs outputs(std::move(inputs), options.overwrite);
    const OutputPlace place = outputs.file(*options.logits, "--logits", "command line");
    logits.emplace(OutputFile(place, options.overwrite), spec.dtype);
  }
  const std::unique_ptr<Pretrained> weights = find_pretrained(config, spec, true);
  job.weights = weights.get();
  const uint64_t needed = plan_generation(spec, job, target_of(session.device, session.threads)).bytes;
  if (const uint64_t there = memory_for(spec, session); needed > there) {
    throw user_error("generating needs {} of memory and {} can be had", format_bytes(needed), format_bytes(there))
        .advise("fewer --max-tokens need less, and so does a smaller model");
  }
  log::info("{}: {} parameters{}, {} prompt tokens, up to {} more, {} memory", options.source,
            format_magnitude(static_cast<double>(param_count(spec.model).total)), weights ? "" : " drawn at random",
            format_count(std::ssize(job.prompt)), format_count(job.max_tokens), format_bytes(needed));

  const bool named = codec.bytes() && options.samples > 1;
  GenerationEvents events;
  events.begins = [&](int64_t sample) {
    if (named) print(fmt::format("--- sample {} of {} ---\n", sample + 1, options.samples));
  };
  // A file or a pipe gets what the model wrote, byte for byte; a terminal nothing that it would obey.
  Printable shown;
  const bool terminal = prints_to_terminal();
  events.tokens = [&](std::span<const int32_t> tokens) {
    const std::string text = codec.text_of(tokens);
    print_bytes(terminal ? shown.add(text) : text);
    std::fflush(stdout);
  };
  events.ended = [&](int64_t) {
    print_bytes(shown.finish());
    if (job.max_tokens > 0) print("\n");
    std::fflush(stdout);
  };
  events.logits = [&](int32_t token, std::span<const double> row) { logits->add(token, row); };
  const GenerationResult result = run_generation(spec, session, job, events);
  if (logits) logits->write();
  log::info("prompt {}, then {}", speed(result.prompt_tokens, result.prompt_seconds, spec.dtype),
            speed(result.tokens, result.decode_seconds, spec.dtype));
  return 0;
}

}  // namespace

Command generate_command() {
  auto options = std::make_shared<GenerateOptions>();
  Command command{
      .name = "generate",
      .summary = "continue a prompt, token by token",
      .details =
          "Tokens are bytes, and prompt and output text, where the dataset of the configuration, or of a checkpoint's\n"
          "run, is bytes or the vocabulary has 256 entries; else both are token ids, for there is no tokenizer. The\n"
          "output goes to stdout, the rest to stderr. Weights are those of the directory, or of model.config's, where\n"
          "it has some; a run's directory stands for its newest checkpoint. --seed N draws another text; the same one\n"
          "gives the same text, whatever the threads.",
      .options = {{"SOURCE",
                   &options->source,
                   "a configuration, a checkpoint, a run's directory, or one with config.json and safetensors",
                   "",
                   {},
                   true},
                  {"--prompt", &options->prompt, "the beginning, for a model of bytes", "TEXT"},
                  {"--tokens", &options->tokens, "the beginning as token ids: 1,2,3", "IDS"},
                  {"--prompt-file", &options->prompt_file, "a file with either", "FILE"},
                  {"--max-tokens", &options->max_tokens, "to add at most (default: 200, or as many as the model can)",
                   "N"},
                  {"--temperature", &options->temperature,
                   "0: always the most probable token (default); 1: as the model says", "X"},
                  {"--top-k", &options->top_k, "draw among the N most probable tokens (default: all)", "N"},
                  {"--top-p", &options->top_p, "draw among the most probable ones that make up this share (default: 1)",
                   "X"},
                  {"--samples", &options->samples, "continuations, each drawn on its own (default: 1)", "N"},
                  {"--stop", &options->stops, "end before this text (or these ids); may be given again", "TEXT|IDS"},
                  {"--logits", &options->logits, "write the logits after every token, as safetensors", "FILE"},
                  overwrite_option(options->overwrite)},
      .overrides = &options->overrides,
      .one_process = true,
      .run = [options] { return run_generate(*options); }};
  add_shortcuts(command, options->shortcuts);
  return command;
}

}  // namespace sluice::cli
