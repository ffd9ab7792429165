#include "targets.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "checkpoint/manifest.h"
#include "checkpoint/rank_file.h"
#include "checkpoint/safetensors_format.h"
#include "checkpoint/slice_table.h"
#include "config/load.h"
#include "model/family.h"
#include "training/step_records.h"

namespace sluice::fuzz {
namespace {

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::abort();
}

void hold(bool ok, const char* what) {
  if (!ok) fail(what);
}

template <class Read>
void accepted_or_refused(Read&& read) {
  try {
    read();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::user) fail(std::string("no user error: ") + error.what());
    hold(std::strlen(error.what()) > 0, "an error without a message");
    hold(describe(error).size() < 20'000, "a message that is a book");
  }
}

std::string_view text_of(Input input) {
  return {reinterpret_cast<const char*>(input.data()), input.size()};
}

void read_file_of(Input file) {
  accepted_or_refused([&] {
    const safetensors::Header header = safetensors::parse_header(file, "input");
    uint64_t end = file.size();
    if (!header.entries.empty()) end = header.entries.front().begin;
    for (const safetensors::Entry& entry : header.entries) {
      hold(entry.begin == end && entry.bytes <= file.size() - end, "tensors do not tile the file");
      hold(entry.bytes == bytes_of(entry.spec), "a tensor that is not as large as its shape");
      end += entry.bytes;
    }
    hold(end == file.size() || header.entries.empty(), "bytes that no tensor has");
    // What was read can be written, and reads back as the same.
    std::vector<safetensors::TensorSpec> specs;
    for (const safetensors::Entry& entry : header.entries) specs.push_back(entry.spec);
    hold(safetensors::lay_out(specs, header.metadata).entries.size() == specs.size(),
         "a header that cannot be written");
  });
}

// A file of safetensors with this JSON and so many bytes of tensors.
std::vector<std::byte> file_of(Input json, size_t data_bytes) {
  std::vector<std::byte> file(8 + json.size() + data_bytes);
  const uint64_t length = json.size();
  for (size_t i = 0; i < 8; ++i) file[i] = static_cast<std::byte>(length >> (8 * i) & 0xff);
  std::copy(json.begin(), json.end(), file.begin() + 8);
  return file;
}

// What is there of a parameter's state, from the files that hold it.
void check_runs(const SliceTable& table, StateKind kind, const std::string& name, int64_t first, int64_t count,
                const std::vector<uint64_t>& files) {
  const uint64_t element = safetensors::size_of(table.parameters().at(name).kinds.at(kind));
  int64_t end = first;
  for (const StoredRun& run : table.runs(kind, name, first, count)) {
    hold(run.first == end && run.count > 0, "runs that do not follow each other");
    hold(run.file < files.size() && run.begin % element == 0, "a run that is in no file, or between its elements");
    hold(run.begin <= files[run.file] && static_cast<uint64_t>(run.count) <= (files[run.file] - run.begin) / element,
         "a run beyond its file");
    end += run.count;
  }
  hold(end == first + count, "runs that are not all that was wanted");
}

// What is computed of a model before anything is allocated.
void check_model(const ModelConfig& model) {
  const double flops = model_flops_per_sequence(model, 1);
  hold(std::isfinite(flops) && flops > 0, "a model without work");
  for (const int64_t layer : {int64_t{0}, model.num_layers - 1}) {
    const BlockConfig block = family_of(model).block(model, layer, 1);
    hold(block.hidden() == model.hidden_size && block.sizes().rope_dim > 0, "a block of another model");
    hold(block.moe.num_experts > 0 || block.mlp_ffn > 0, "a block with neither experts nor an MLP");
    hold(block.moe.top_k <= block.moe.num_experts, "more choices than experts");
  }
}

}  // namespace

void safetensors(Input input) {
  // Copies of exactly the size, so that a read beyond the end is seen.
  read_file_of(std::vector<std::byte>(input.begin(), input.end()));
  accepted_or_refused([&] { sluice::safetensors::parse_index(text_of(input), "input"); });
  if (input.empty()) return;
  read_file_of(file_of(input.subspan(1), static_cast<size_t>(input.front())));
}

void hf_config(Input input) {
  accepted_or_refused([&] {
    HfConfig config = HfConfig::parse(text_of(input), "input");
    for (const auto& [key, field] : config.fields()) {
      hold(config.describe(key).size() < 10'000, "a description that is a book");
      hold(config.has(key) == (config.find(key) != nullptr), "a field that is there and is not");
    }
    accepted_or_refused([&] { config.unify("rope_theta", "rope_parameters.rope_theta"); });
    accepted_or_refused([&] { check_model(make_model(config)); });
    accepted_or_refused([&] { config.integer("hidden_size", {1, 100}); });
    accepted_or_refused([&] { config.number("rope_theta", {0, 1}, 0.5); });
    accepted_or_refused([&] { config.boolean("tie_word_embeddings", false); });
    accepted_or_refused([&] { config.text("model_type"); });
    accepted_or_refused([&] { config.override_with({"rope_scaling", std::string(text_of(input)), "override"}); });
  });
}

void yaml(Input input) {
  accepted_or_refused([&] {
    const Config read = config::parse(text_of(input), "input");
    config::validate(read);
    const Config again = config::parse(config::to_yaml(read), "dump");
    for (const config::Change& change : config::differences(read, again)) {
      fail(fmt::format("{} was {} and reads back as {}", change.key, change.before, change.after));
    }
  });
}

void step_record(Input input) {
  const std::string line(text_of(input));
  const std::optional<int64_t> step = step_of_record(line);
  if (!step) return;
  hold(*step >= 1, "a step that no run takes");
  hold(step_of_record(line + "{") == std::nullopt, "a line that is torn in the next");
}

void manifest(Input input) {
  for (const std::string& text : {std::string(text_of(input)), seal_manifest(text_of(input))}) {
    accepted_or_refused([&] {
      const Manifest read = parse_manifest(text, "input");
      hold(parse_manifest(manifest_text(read), "written") == read, "a manifest that reads back as another");
    });
  }
  accepted_or_refused([&] {
    const HashedFile read = parse_hashed_file(text_of(input), "input");
    hold(parse_hashed_file(hashed_file_text(read), "written") == read, "a file that reads back as another");
  });
}

void checkpoint(Input input) {
  accepted_or_refused([&] {
    const SlicePlace place = parse_slice_place(text_of(input), "input");
    const SlicePlace again = parse_slice_place(slice_place_text(place), "written");
    hold(again.shape == place.shape && again.first == place.first, "a place that reads back as another");
  });
  accepted_or_refused([&] {
    SliceTable table;
    std::vector<uint64_t> files;
    while (input.size() >= 2) {
      const auto end = std::find(input.begin() + 2, input.end(), std::byte{0xff});
      const auto data_bytes = static_cast<size_t>(input[0]) | static_cast<size_t>(input[1]) << 8;
      const std::vector<std::byte> file = file_of(Input(input.begin() + 2, end), data_bytes);
      hold(sluice::safetensors::header_bytes(file) == file.size() - data_bytes, "a header of another length");
      table.add_file(sluice::safetensors::parse_header(file, "input"), "input");
      files.push_back(file.size());
      input = end == input.end() ? Input() : Input(end + 1, input.end());
    }
    if (table.find_fault()) return;
    for (const auto& [name, parameter] : table.parameters()) {
      const int64_t all = parameter.numel(), third = all / 3;
      for (const auto& [kind, type] : parameter.kinds) {
        check_runs(table, kind, name, 0, all, files);
        check_runs(table, kind, name, third, all - 2 * third, files);
        check_runs(table, kind, name, all - 1, 1, files);
        hold(table.runs(kind, name, all, 1).empty() && table.runs(kind, name, 0, all + 1).empty(),
             "more than is there");
      }
    }
  });
}

}  // namespace sluice::fuzz
