// What saving a run costs: a checkpoint of about 2 GB on one rank, in turn a plain synchronised write of as many bytes,
// a save with staging for all of it, and its load beside a plain read of the same files by as many threads; then saves
// with less staging, where weights shall change as soon as the save has begun. Medians of five.
//   bench_checkpoint [FOLDER [THREADS]]    FOLDER: on the disk that is measured; a temporary one is made in it
#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "config/load.h"
#include "data/mock.h"
#include "temporary_folder.h"
#include "training/saver.h"
#include "training/session.h"

namespace {

using namespace sluice;
namespace fs = std::filesystem;

constexpr int kRepetitions = 5;

Config configuration(double staging_gib, int threads) {
  return config::parse(fmt::format(R"(
step_scheduler: {{global_batch_size: 4, local_batch_size: 4, max_steps: 1000}}
model:
  config: {{model_type: qwen3_moe, vocab_size: 16384, hidden_size: 1024, num_hidden_layers: 6, num_attention_heads: 16,
           num_key_value_heads: 4, head_dim: 64, num_experts: 16, num_experts_per_tok: 2, norm_topk_prob: true,
           moe_intermediate_size: 448, max_position_embeddings: 256, rope_theta: 10000.0, rms_norm_eps: 1.0e-6}}
dataset: {{_target_: mock, seq_len: 64}}
checkpoint: {{staging_gib: {}}}
runtime: {{threads: {}}}
)",
                                   staging_gib, threads),
                       "bench");
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

double plain_write(const fs::path& file, const std::vector<std::byte>& bytes) {
  fs::remove(file);
  const Stopwatch watch;
  const Descriptor descriptor(file, O_WRONLY | O_CREAT | O_EXCL, "create", 0666);
  constexpr size_t kPiece = size_t{1} << 20;
  for (size_t at = 0; at < bytes.size(); at += kPiece) {
    const auto* const piece = reinterpret_cast<const char*>(bytes.data() + at);
    write_all(descriptor, std::string_view(piece, std::min(kPiece, bytes.size() - at)), file);
  }
  if (::fsync(descriptor.number()) != 0) throw system_failure("sync", file, errno);
  const double seconds = watch.seconds();
  fs::remove(file);
  return seconds;
}

// By so many threads, each its part, into memory that was touched.
double plain_read(const fs::path& file, std::vector<std::byte>& to, int threads) {
  const Stopwatch watch;
  std::vector<std::jthread> readers;
  const size_t bytes = fs::file_size(file), parts = static_cast<size_t>(threads);
  for (size_t part = 0; part < parts; ++part) {
    readers.emplace_back([&, begin = bytes * part / parts, end = bytes * (part + 1) / parts] {
      const Descriptor descriptor(file, O_RDONLY, "open");
      constexpr size_t kPiece = size_t{1} << 20;
      for (size_t at = begin; at < end; at += kPiece) {
        const size_t count = std::min(kPiece, end - at);
        if (::pread(descriptor.number(), to.data() + at, count, static_cast<off_t>(at)) < 0) std::abort();
      }
    });
  }
  readers.clear();
  return watch.seconds();
}

struct Figures {
  std::vector<double> plain_write, write, blocked, expected, load, plain_read;
  uint64_t bytes = 0;
  size_t staging = 0;
};

Figures measure(const fs::path& folder_path, double staging_gib, int threads, bool with_plain, bool at_once) {
  Figures figures;
  const Config config = configuration(staging_gib, threads);
  const RunSpec spec = resolve(config, 1, Purpose::train);
  const MockDataset dataset(1, spec.model.vocab_size);
  LaunchOptions session;
  session.threads = threads;
  run_session(spec, session, dataset, [&](Trainer& trainer) {
    const CheckpointFolder folder(folder_path);
    SaveReport report;
    Saver saver(trainer,
                {.folder = &folder, .retention = {.recent = 1}, .saved = [&](const SaveReport& r) { report = r; }});
    std::vector<std::byte> buffer;
    double until_update = 0;
    for (int i = 0; i < kRepetitions + 1; ++i) {
      const int64_t step = i + 1;
      if (with_plain && i > 0) figures.plain_write.push_back(plain_write(folder_path / "plain", buffer));
      const Stopwatch beginning;
      saver.begin({.step = step, .updates = step}, until_update, false);
      const double began = beginning.seconds();
      if (!at_once) {
        const Stopwatch watch;
        trainer.compute_gradients({step, step, step});
        until_update = watch.seconds();
      }
      const Stopwatch releasing;
      saver.release();
      const double blocked = began + releasing.seconds();
      if (!at_once) trainer.update_weights();
      saver.finish();
      figures.bytes = report.bytes;
      figures.staging = trainer.staging().size();
      // The first one finds out how fast the disk is.
      if (i > 0) {
        figures.write.push_back(report.seconds);
        figures.blocked.push_back(blocked);
        figures.expected.push_back(report.forecast_blocked.value_or(0));
      }
      if (!with_plain) continue;
      const fs::path file = folder.of_step(step) / "rank-00000.safetensors";
      buffer.resize(fs::file_size(file));
      if (i == 0) plain_read(file, buffer, threads);
      figures.plain_read.push_back(plain_read(file, buffer, threads));
      const Checkpoint checkpoint(folder.of_step(step));
      const Stopwatch loading;
      trainer.load(checkpoint, {});
      figures.load.push_back(loading.seconds());
    }
  });
  return figures;
}

void run(const fs::path& parent, int threads) {
  const TemporaryFolder folder(parent, "checkpoint");
  constexpr double kAll = 64;
  const Figures all = measure(folder.path() / "all", kAll, threads, true, false);
  const double gb = static_cast<double>(all.bytes) * 1e-9;
  const auto speed = [&](double seconds) { return gb / seconds; };
  fmt::print("a checkpoint of {:.2f} GB, {} threads, medians of {}\n", gb, threads, kRepetitions);
  fmt::print("write    {:.2f} s ({:.2f} GB/s), plain synchronised write {:.2f} s ({:.2f} GB/s): time x {:.2f}\n",
             median(all.write), speed(median(all.write)), median(all.plain_write), speed(median(all.plain_write)),
             median(all.write) / median(all.plain_write));
  fmt::print("load     {:.2f} s ({:.2f} GB/s), hashes verified; plain read {:.2f} s ({:.2f} GB/s): speed x {:.2f}\n",
             median(all.load), speed(median(all.load)), median(all.plain_read), speed(median(all.plain_read)),
             median(all.plain_read) / median(all.load));
  const auto line = [&](const Figures& figures) {
    fmt::print("staging {:.2f} GB: training waited {:.3f} s, {:.1f} % of the write; {:.3f} s expected\n",
               static_cast<double>(figures.staging) * 1e-9, median(figures.blocked),
               100 * median(figures.blocked) / median(figures.write), median(figures.expected));
  };
  fmt::print("a step between the save and the change of weights:\n");
  line(all);
  fmt::print("weights that shall change at once:\n");
  for (const double gib : {kAll, 1.5, 1.0, 0.5, 0.0}) {
    line(measure(folder.path() / fmt::format("{}", gib), gib, threads, false, true));
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc > 1 ? fs::path(argv[1]) : fs::temp_directory_path(), argc > 2 ? std::atoi(argv[2]) : 2);
    return 0;
  } catch (const sluice::Error& error) {
    fmt::print(stderr, "error: {}\n", sluice::describe(error));
    return 1;
  }
}
