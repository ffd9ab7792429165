#include "checkpoint/weight_files.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <system_error>

#include "checkpoint/safetensors.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

template <size_t n>
bool begins_with_one(std::string_view name, const std::array<std::string_view, n>& openings) {
  return std::ranges::any_of(openings, [&](std::string_view opening) { return name.starts_with(opening); });
}

template <size_t n>
bool ends_with_one(std::string_view name, const std::array<std::string_view, n>& endings) {
  return std::ranges::any_of(endings, [&](std::string_view ending) { return name.ends_with(ending); });
}

// What torch.save writes, or its index.
bool is_pickle(std::string_view name) {
  constexpr std::array<std::string_view, 5> endings{".bin", ".pt", ".pth", ".ckpt", ".bin.index.json"};
  return ends_with_one(name, endings);
}

bool is_safetensors(std::string_view name) {
  return name.find(".safetensors") != std::string_view::npos;
}

// Model weights by their name; other states of a training, and a tokenizer's files, are none.
bool holds_weights(std::string_view name) {
  constexpr std::array<std::string_view, 9> states{
      "optim", "scheduler", "scaler", "rng_state", "random_states", "trainer", "training_args", "tokenizer", "vocab"};
  constexpr std::array<std::string_view, 11> forms{".gguf", ".ggml", ".h5",     ".hdf5", ".msgpack", ".onnx",
                                                   ".npz",  ".nemo", ".distcp", ".ot",   ".pdparams"};
  if (begins_with_one(name, states)) return false;
  return is_safetensors(name) || is_pickle(name) || ends_with_one(name, forms) ||
         name.find(".ckpt.") != std::string_view::npos;
}

// Names of what stands in a directory.
std::vector<fs::directory_entry> entries_of(const fs::path& directory, std::error_code& failure) {
  std::vector<fs::directory_entry> entries;
  for (fs::directory_iterator entry(directory, failure), end; !failure && entry != end; entry.increment(failure))
    entries.push_back(*entry);
  return entries;
}

bool is_readable(std::string_view name) {
  return name == safetensors::kSingleFile || name == safetensors::kIndexFile;
}

std::string advice_for(const WeightFiles& files) {
  std::vector<std::string> tensors;
  std::ranges::copy_if(files.others, std::back_inserter(tensors),
                       [](const std::string& name) { return is_safetensors(name); });
  const auto found = std::ranges::find_if(tensors, [](const std::string& name) {
    return is_readable(name.substr(name.rfind('/') + 1)) && name.find('/') != std::string::npos;
  });
  if (found != tensors.end()) return fmt::format("name its directory {}", found->substr(0, found->find('/')));
  constexpr std::string_view convert =
      "save them as safetensors in the hub's layout: with transformers, from_pretrained(OLD).save_pretrained(NEW)";
  if (tensors.empty() || tensors.front().starts_with("consolidated")) return std::string(convert);
  if (tensors.front().starts_with("adapter")) return "merge the adapter into its model first, and save that";
  const auto broken = std::ranges::find_if(
      tensors, [](const std::string& name) { return !name.ends_with(".safetensors") && !name.ends_with(".json"); });
  if (broken != tensors.end()) return fmt::format("{} was not written to its end: fetch or write it again", *broken);
  const bool shard =
      tensors.front().find("-of-") != std::string::npos && tensors.front().find("-of-00001.") == std::string::npos;
  if (tensors.size() == 1 && tensors.front().ends_with(".safetensors") && !shard) {
    return fmt::format("if it is the whole model, rename it to {}", safetensors::kSingleFile);
  }
  return fmt::format("{} says which tensor is in which file: put it beside them", safetensors::kIndexFile);
}

}  // namespace

WeightFiles find_weight_files(const fs::path& directory) {
  std::error_code failure;
  WeightFiles files;
  const std::vector<fs::directory_entry> entries = entries_of(directory, failure);
  if (failure) throw user_error("cannot look for weights in {}: {}", directory.string(), failure.message());
  for (const fs::directory_entry& entry : entries) {
    const std::string name = entry.path().filename().string();
    if (is_readable(name)) {
      files.readable = true;
    } else if (holds_weights(name)) {
      files.others.push_back(name);
    } else if (!name.starts_with('.') && entry.is_directory(failure)) {
      for (const fs::directory_entry& below : entries_of(entry.path(), failure)) {
        const std::string inner = below.path().filename().string();
        if (holds_weights(inner)) files.others.push_back(fmt::format("{}/{}", name, inner));
      }
    }
  }
  std::ranges::sort(files.others);
  return files;
}

Error no_readable_weights(const fs::path& directory, const WeightFiles& files, const std::string& otherwise) {
  const std::string wanted = fmt::format("neither {} nor {}", safetensors::kSingleFile, safetensors::kIndexFile);
  const std::string also = otherwise.empty() ? "" : "; " + otherwise;
  if (files.others.empty()) {
    return user_error("{} has {}", directory.string(), wanted)
        .advise("name a directory with config.json and safetensors" + also);
  }
  const std::string more = files.others.size() == 1 ? "" : fmt::format(" and {} more", files.others.size() - 1);
  return user_error("{} has weights that are not read, {}{}, and {}", directory.string(), files.others.front(), more,
                    wanted)
      .advise(advice_for(files) + also);
}

}  // namespace sluice
