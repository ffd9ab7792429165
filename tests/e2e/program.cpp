#include "e2e/program.h"

#include <gtest/gtest.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <sstream>
#include <utility>

#include "base/file.h"

namespace sluice::test {
namespace {

std::string quoted(const std::string& word) {
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

std::string command(const std::vector<std::string>& arguments, const std::string& environment) {
  std::string text = "cd " + quoted(SLUICE_SOURCE_DIR) + " && " + environment + " " + quoted(SLUICE_BINARY);
  for (const std::string& argument : arguments) text += " " + quoted(argument);
  return text;
}

int code_of(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

Outcome sluice(const std::vector<std::string>& arguments, const std::string& environment) {
  const Folder folder;
  const std::string out = folder.path("out");
  const std::string err = folder.path("err");
  const std::string line = command(arguments, environment) + " </dev/null >" + quoted(out) + " 2>" + quoted(err);
  const int status = std::system(line.c_str());
  return {code_of(status), read_file(out, 1 << 20), read_file(err, 1 << 20)};
}

namespace {

// In the child of a fork.
[[noreturn]] void become_program(const std::vector<std::string>& arguments, bool no_color) {
  ::setenv("TERM", "xterm", 1);
  if (::chdir(SLUICE_SOURCE_DIR) != 0) ::_exit(126);
  // Whatever the tests themselves were started with.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::signal(signal, SIG_DFL);
  if (no_color) {
    ::setenv("NO_COLOR", "1", 1);
  } else {
    ::unsetenv("NO_COLOR");
  }
  std::vector<char*> words{const_cast<char*>(SLUICE_BINARY)};
  for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  ::execv(SLUICE_BINARY, words.data());
  ::_exit(127);
}

Outcome on_terminal(const std::vector<std::string>& arguments, const std::string& seen, const std::vector<int>& then,
                    bool no_color) {
  int terminal = -1;
  const pid_t child = ::forkpty(&terminal, nullptr, nullptr, nullptr);
  if (child == 0) become_program(arguments, no_color);
  Outcome outcome;
  bool waits = !seen.empty();
  std::array<char, 4096> buffer{};
  // Reading fails when the program has closed its end.
  for (ssize_t count = 0; terminal >= 0 && (count = ::read(terminal, buffer.data(), buffer.size())) > 0;) {
    outcome.out.append(buffer.data(), static_cast<size_t>(count));
    if (!waits || outcome.out.find(seen) == std::string::npos) continue;
    waits = false;
    for (const int signal : then) {
      if (signal == kHangUp) {
        ::close(std::exchange(terminal, -1));
      } else {
        ::kill(child, signal);
      }
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (terminal >= 0) ::close(terminal);
  outcome.code = code_of(status);
  return outcome;
}

}  // namespace

Outcome on_terminal(const std::vector<std::string>& arguments, const std::string& interrupt_at, bool no_color) {
  return on_terminal(arguments, interrupt_at, {SIGINT}, no_color);
}

Outcome signalled(const std::vector<std::string>& arguments, const std::string& seen, const std::vector<int>& then) {
  return on_terminal(arguments, seen, then, false);
}

Outcome shell(const std::string& line) {
  const Folder folder;
  const std::string out = folder.path("out");
  const std::string err = folder.path("err");
  const std::string whole = "cd " + quoted(SLUICE_SOURCE_DIR) + " && SLUICE=" + quoted(SLUICE_BINARY) + " bash -c " +
                            quoted(line) + " </dev/null >" + quoted(out) + " 2>" + quoted(err);
  const int status = std::system(whole.c_str());
  return {code_of(status), read_file(out, 1 << 20), read_file(err, 1 << 20)};
}

Folder::Folder() {
  std::string name = (std::filesystem::temp_directory_path() / ("sluice-e2e-" + std::string(6, 'X'))).string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary directory");
  path_ = name;
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string Folder::file(const std::string& name, const std::string& contents) const {
  write_file_atomic(path_ / name, contents);
  return path(name);
}

std::string hub_directory(const Folder& folder, const std::string& golden) {
  namespace fs = std::filesystem;
  const fs::path from = fs::path(SLUICE_SOURCE_DIR "/tests/parity/goldens") / golden, to = folder.path(golden);
  fs::create_directories(to);
  fs::copy_file(from / "config.json", to / "config.json");
  fs::copy_file(from / "weights.safetensors", to / "model.safetensors");
  write_file_atomic(to / "tokenizer.json", "{}");
  return to.string();
}

void expect_in(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(text.find(part), std::string::npos) << part << " not in: " << text;
}

std::string small_model() {
  return R"(model:
  config:
    model_type: qwen3_moe
    vocab_size: 256
    hidden_size: 16
    num_hidden_layers: 2
    num_attention_heads: 2
    num_key_value_heads: 1
    head_dim: 8
    num_experts: 4
    num_experts_per_tok: 2
    norm_topk_prob: true
    moe_intermediate_size: 8
    max_position_embeddings: 32
    rope_theta: 10000.0
    rms_norm_eps: 1.0e-6
dataset: {_target_: mock, seq_len: 16}
)";
}

std::string small_config() {
  return "step_scheduler: {global_batch_size: 4, local_batch_size: 1, max_steps: 4}\n" + small_model() +
         "checkpoint: {enabled: false}\nbenchmark: {warmup_steps: 1}\n";
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

}  // namespace sluice::test
