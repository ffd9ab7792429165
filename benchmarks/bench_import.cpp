// How fast a hub directory becomes a model's parameters. Writes a sharded bf16 checkpoint of about 2 GB into a
// temporary folder and imports it, its files in the page cache, into memory never touched before and into the same
// memory again; beside that a plain copy of the same files by as many threads, each to its own half.
//   bench_import [FOLDER [THREADS]]        FOLDER: where the temporary one is made
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "checkpoint/hub_import.h"
#include "comm/inproc/inproc.h"
#include "device/cpu/cpu_backend.h"
#include "parallel/stage.h"
#include "temporary_folder.h"

namespace {

using namespace sluice;
namespace fs = std::filesystem;

constexpr uint64_t file_bytes = 500'000'000;
constexpr int repetitions = 5;

ModelConfig model_config() {
  ModelConfig model;
  model.model_type = model.name = "qwen3_moe";
  model.vocab_size = 32000;
  model.hidden_size = 2048;
  model.num_layers = 8;
  model.num_heads = 16;
  model.num_kv_heads = 4;
  model.head_dim = 128;
  model.num_experts = 24;
  model.top_k = 8;
  model.moe_ffn = 768;
  model.qk_norm = true;
  return model;
}

void write_checkpoint(const fs::path& folder, const ModelConfig& model) {
  std::vector<safetensors::TensorSpec> specs;
  for (const HubTensor& tensor : family_of(model).tensors(model)) {
    safetensors::Extents shape;
    for (int i = 0; i < tensor.hub_shape.rank(); ++i) shape.push_back(tensor.hub_shape[i]);
    specs.push_back({tensor.hub_name, safetensors::Type::bf16, shape});
  }
  safetensors::ModelWriter writer(folder, specs, file_bytes);
  std::vector<std::byte> contents;
  for (const safetensors::TensorSpec& spec : writer.tensors()) {
    contents.resize(bytes_of(spec));
    for (size_t i = 0; i < contents.size(); ++i) contents[i] = static_cast<std::byte>((i * 37 + i / 251) & 0x3f);
    writer.write(spec.name, contents);
  }
  writer.finish();
}

// The shards of a model on one rank, not yet touched.
class Parameters {
 public:
  Parameters(const ModelConfig& model, Communicator& world, Pool& pool)
      : backend_(pool), mesh_({}, world), context_(backend_, DType::bf16), stage_(config(model), mesh_, memory_) {
    for (FlatGroup* group : stage_.groups()) shards_.push_back({group});
  }
  double import_seconds(const HubMatch& match, Pool& pool) {
    const Stopwatch watch;
    import_weights(context_, match, shards_, {.pool = &pool});
    return watch.seconds();
  }

 private:
  static StageConfig config(const ModelConfig& model) {
    StageConfig stage;
    for (int64_t layer = 0; layer < model.num_layers; ++layer) {
      stage.blocks.push_back(family_of(model).block(model, layer, 128));
    }
    stage.vocab = model.vocab_size;
    stage.hidden = model.hidden_size;
    stage.seq_len = 128;
    stage.norm_eps = model.norm_eps;
    stage.rope_theta = model.rope_theta;
    stage.dense_groups.dtype = stage.expert_groups.dtype = DType::bf16;
    return stage;
  }

  HostMemory memory_;
  CpuBackend backend_;
  Mesh mesh_;
  Context context_;
  Stage stage_;
  std::vector<GroupShard> shards_;
};

// The bytes of all files into one array, cut equally.
class PlainCopy {
 public:
  PlainCopy(const fs::path& folder, int threads) : folder_(folder), threads_(threads) {
    open();
    for (const MappedFile& file : files_) bytes_ += file.bytes().size();
    to_ = static_cast<std::byte*>(memory_.allocate(MemoryKind::weights, bytes_));
  }
  ~PlainCopy() { memory_.release(MemoryKind::weights, to_, bytes_); }
  PlainCopy(const PlainCopy&) = delete;
  PlainCopy& operator=(const PlainCopy&) = delete;

  double seconds() {
    open();
    const Stopwatch watch;
    std::vector<std::jthread> workers;
    const auto parts = static_cast<size_t>(threads_);
    for (size_t part = 0; part < parts; ++part) {
      workers.emplace_back(
          [this, begin = bytes_ * part / parts, end = bytes_ * (part + 1) / parts] { copy(begin, end); });
    }
    workers.clear();
    return watch.seconds();
  }

 private:
  void open() {
    files_.clear();
    for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
      if (entry.path().extension() == ".safetensors") files_.emplace_back(entry.path());
    }
  }
  void copy(size_t begin, size_t end) const {
    size_t at = 0;
    for (const MappedFile& file : files_) {
      const size_t from = std::max(begin, at), to = std::min(end, at + file.bytes().size());
      if (from < to) std::memcpy(to_ + from, file.bytes().data() + (from - at), to - from);
      at += file.bytes().size();
    }
  }

  fs::path folder_;
  int threads_;
  HostMemory memory_;
  std::vector<MappedFile> files_;
  size_t bytes_ = 0;
  std::byte* to_ = nullptr;
};

struct Figures {
  std::vector<double> import_fresh, import_touched, copy_fresh, copy_touched;
};

double best(const std::vector<double>& seconds) {
  return *std::min_element(seconds.begin(), seconds.end());
}

void run(const fs::path& parent, int threads) {
  const ModelConfig model = model_config();
  const TemporaryFolder folder(parent, "import");
  write_checkpoint(folder.path(), model);
  Pool pool(threads);
  InprocWorld ranks(1);
  const std::unique_ptr<Communicator> world = ranks.communicator(0);
  Figures figures;
  double gb = 0;
  for (int i = 0; i < repetitions; ++i) {
    // Opened anew each time: no page of the files is mapped yet, for either.
    {
      const HubWeights hub(folder.path());
      const HubMatch match = match_weights(hub, model);
      gb = static_cast<double>(hub.bytes()) * 1e-9;
      Parameters parameters(model, *world, pool);
      figures.import_fresh.push_back(parameters.import_seconds(match, pool));
      const HubWeights again(folder.path());
      figures.import_touched.push_back(parameters.import_seconds(match_weights(again, model), pool));
    }
    PlainCopy copy(folder.path(), threads);
    figures.copy_fresh.push_back(copy.seconds());
    figures.copy_touched.push_back(copy.seconds());
  }
  fmt::print("{:.2f} GB of bf16 in files of {:.1f} GB, {} threads, best of {}; files in the page cache\n", gb,
             static_cast<double>(file_bytes) * 1e-9, threads, repetitions);
  const auto line = [&](const char* what, const std::vector<double>& seconds, const std::vector<double>& copy) {
    fmt::print("{:<24} {:6.3f} s  {:5.2f} GB/s   plain copy {:6.3f} s  {:5.2f} GB/s   time x {:.2f}\n", what,
               best(seconds), gb / best(seconds), best(copy), gb / best(copy), best(seconds) / best(copy));
  };
  line("into fresh memory", figures.import_fresh, figures.copy_fresh);
  line("into touched memory", figures.import_touched, figures.copy_touched);
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
