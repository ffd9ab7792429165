#include "checkpoint/manifest.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <set>

#include "base/error.h"
#include "base/hash.h"
#include "base/text.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kFormat = 1;
constexpr std::string_view kOpening = R"({"hash": ")", kAfterHash = "\",\n";
constexpr size_t kHashDigits = 16;

std::string hex(uint64_t hash) {
  return fmt::format("{:016x}", hash);
}

// What is wrong with a manifest; its name is added where it is known.
struct Wrong {
  std::string what;
};

uint64_t hash_of(std::string_view digits) {
  uint64_t hash = 0;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), hash, 16);
  if (failure != std::errc() || end != digits.data() + digits.size() || digits.size() != kHashDigits) {
    throw Wrong{"a hash that is not 16 hexadecimal digits"};
  }
  return hash;
}

const Json& member(const Json& json, const char* name) {
  const auto found = json.find(name);
  if (found == json.end()) throw Wrong{fmt::format("there is no \"{}\"", name)};
  return *found;
}

int64_t count_of(const Json& value, const char* name) {
  // A signed type takes no more than 63 bits.
  if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{1} << 62) ||
      value.get<int64_t>() < 0) {
    throw Wrong{fmt::format("\"{}\" is not a number from 0", name)};
  }
  return value.get<int64_t>();
}

int64_t count_in(const Json& json, const char* name) {
  return count_of(member(json, name), name);
}

// Of a later version than the first manifests.
std::optional<int64_t> later_count_in(const Json& json, const char* name) {
  const auto found = json.find(name);
  if (found == json.end() || found->is_null()) return std::nullopt;
  return count_of(*found, name);
}

double real_in(const Json& value, const char* name) {
  if (!value.is_number()) throw Wrong{fmt::format("\"{}\" is not a number", name)};
  return value.get<double>();
}

std::string text_in(const Json& value, const char* name) {
  if (!value.is_string()) throw Wrong{fmt::format("\"{}\" is not a text", name)};
  return value.get<std::string>();
}

const Json& list_in(const Json& json, const char* name) {
  const Json& list = member(json, name);
  if (!list.is_array()) throw Wrong{fmt::format("\"{}\" is not a list", name)};
  return list;
}

std::map<std::string, std::string> texts_in(const Json& json, const char* name) {
  const Json& object = member(json, name);
  if (!object.is_object()) throw Wrong{fmt::format("\"{}\" is not an object", name)};
  std::map<std::string, std::string> texts;
  for (const auto& [key, value] : object.items()) texts[key] = text_in(value, name);
  return texts;
}

Json json_of(const HashedFile& file) {
  Json hashes = Json::array();
  for (const uint64_t hash : file.hashes) hashes.push_back(hex(hash));
  return {{"name", file.name}, {"bytes", file.bytes}, {"block_bytes", file.block_bytes}, {"hashes", std::move(hashes)}};
}

HashedFile file_in(const Json& json) {
  if (!json.is_object()) throw Wrong{"a file that is not an object"};
  HashedFile file;
  file.name = text_in(member(json, "name"), "name");
  constexpr size_t kMostLetters = 255;  // of a file's name
  const auto control = [](char letter) { return static_cast<unsigned char>(letter) < ' '; };
  if (file.name.empty() || file.name.size() > kMostLetters || file.name.starts_with('.') ||
      file.name.find('/') != std::string::npos || std::ranges::any_of(file.name, control)) {
    throw Wrong{"a file whose name is none in the checkpoint"};
  }
  file.bytes = static_cast<uint64_t>(count_in(json, "bytes"));
  file.block_bytes = static_cast<uint64_t>(count_in(json, "block_bytes"));
  constexpr uint64_t kLeastBlock = 8, kMostBlock = uint64_t{1} << 40;
  if (file.block_bytes < kLeastBlock || file.block_bytes > kMostBlock || file.block_bytes % kLeastBlock != 0) {
    throw Wrong{fmt::format("blocks of {} bytes", file.block_bytes)};
  }
  for (const Json& hash : list_in(json, "hashes")) file.hashes.push_back(hash_of(text_in(hash, "hashes")));
  if (file.hashes.size() != (file.bytes + file.block_bytes - 1) / file.block_bytes) {
    throw Wrong{fmt::format("{} hashes for the blocks of a file of {} bytes", file.hashes.size(), file.bytes)};
  }
  return file;
}

Json json_of(const RunState& run) {
  Json json;
  json["step"] = run.step;
  json["updates"] = run.updates;
  json["consumed_samples"] = run.consumed_samples;
  json["schedule_steps"] = run.schedule_steps;
  json["first_loss"] = run.first_loss;
  json["recent_losses"] = run.recent_losses;
  json["passed_over"] = run.passed_over;
  json["best"] = run.best ? Json{{"loss", run.best->loss}, {"step", run.best->step}} : Json();
  json["validation_loss"] = run.validation_loss ? Json(*run.validation_loss) : Json();
  json["validated_at"] = run.validated_at ? Json(*run.validated_at) : Json();
  json["left_out_in_a_row"] = run.left_out_in_a_row;
  json["rollbacks"] = run.rollbacks;
  if (run.decay_steps) json["decay_steps"] = *run.decay_steps;
  if (run.weight_decay_steps) json["weight_decay_steps"] = *run.weight_decay_steps;
  return json;
}

RunState run_in(const Json& json) {
  RunState run;
  run.step = count_in(json, "step");
  run.updates = count_in(json, "updates");
  run.consumed_samples = count_in(json, "consumed_samples");
  run.schedule_steps = count_in(json, "schedule_steps");
  if (run.updates > run.step) throw Wrong{"more updates than steps"};
  run.first_loss = real_in(member(json, "first_loss"), "first_loss");
  for (const Json& loss : list_in(json, "recent_losses")) run.recent_losses.push_back(real_in(loss, "recent_losses"));
  for (const Json& sample : list_in(json, "passed_over")) {
    run.passed_over.push_back(count_of(sample, "passed_over"));
  }
  if (const Json& best = member(json, "best"); !best.is_null()) {
    if (!best.is_object()) throw Wrong{"\"best\" is not an object"};
    // Earlier versions took one that was no number for the best.
    const Json& loss = member(best, "loss");
    if (!loss.is_null()) run.best = BestLoss{real_in(loss, "best"), count_in(best, "step")};
  }
  if (const Json& loss = member(json, "validation_loss"); !loss.is_null()) {
    run.validation_loss = real_in(loss, "validation_loss");
  }
  run.validated_at = later_count_in(json, "validated_at");
  run.left_out_in_a_row = later_count_in(json, "left_out_in_a_row").value_or(0);
  run.rollbacks = later_count_in(json, "rollbacks").value_or(0);
  run.decay_steps = later_count_in(json, "decay_steps");
  run.weight_decay_steps = later_count_in(json, "weight_decay_steps");
  if (run.left_out_in_a_row > run.step) throw Wrong{"more steps left out than made"};
  if (run.validated_at && *run.validated_at > run.step) throw Wrong{"a validation after the last step"};
  return run;
}

Json parse_json(std::string_view text) {
  // Nesting is for the stack of the parser; a manifest has four levels.
  constexpr int kMostLevels = 8;
  const auto shallow = [](int depth, Json::parse_event_t, Json&) {
    if (depth > kMostLevels) throw Wrong{"more levels than a manifest has"};
    return true;
  };
  try {
    Json json = Json::parse(text, shallow);
    if (!json.is_object()) throw Wrong{"it is not an object"};
    return json;
  } catch (const Json::exception& error) {
    // Which repeats what it could not read.
    constexpr size_t kMostShown = 200;
    throw Wrong{printable_line(std::string_view(error.what()).substr(0, kMostShown))};
  }
}

template <class F>
auto from_source(std::string_view source, F&& read) {
  try {
    return read();
  } catch (const Wrong& wrong) {
    throw user_error("{} is damaged: {}", source, wrong.what);
  }
}

}  // namespace

std::string seal_manifest(std::string_view body) {
  return fmt::format("{}{}{}{}", kOpening, hex(hash64(body)), kAfterHash, body);
}

std::string manifest_text(const Manifest& manifest) {
  Json json;
  json["format"] = kFormat;
  json["version"] = manifest.version;
  const Json run = json_of(manifest.run);
  for (const auto& [name, value] : run.items()) json[name] = value;
  json["settings"] = manifest.settings;
  json["identity"] = manifest.identity;
  json["files"] = Json::array();
  for (const HashedFile& file : manifest.files) json["files"].push_back(json_of(file));
  // Values from files need not be UTF-8. Without the brace that the hash stands behind.
  return seal_manifest(json.dump(1, ' ', false, Json::error_handler_t::replace).substr(1) + "\n");
}

Manifest parse_manifest(std::string_view text, std::string_view source) {
  return from_source(source, [&] {
    const size_t begin = kOpening.size() + kHashDigits + kAfterHash.size();
    if (text.size() < begin || !text.starts_with(kOpening) ||
        text.substr(kOpening.size() + kHashDigits, kAfterHash.size()) != kAfterHash) {
      throw Wrong{"it does not begin with its hash"};
    }
    const std::string_view body = text.substr(begin);
    if (hash_of(text.substr(kOpening.size(), kHashDigits)) != hash64(body)) {
      throw Wrong{"its hash is of another text, so it was altered or cut short"};
    }
    const Json json = parse_json(text);
    if (const int64_t format = count_in(json, "format"); format != kFormat) {
      throw user_error("{} has format {}, and this program reads format {}", source, format, kFormat)
          .advise("a newer version of this program reads it");
    }
    Manifest manifest;
    manifest.version = text_in(member(json, "version"), "version");
    manifest.run = run_in(json);
    manifest.settings = texts_in(json, "settings");
    manifest.identity = texts_in(json, "identity");
    std::set<std::string> names;
    for (const Json& file : list_in(json, "files")) {
      manifest.files.push_back(file_in(file));
      if (!names.insert(manifest.files.back().name).second) throw Wrong{"a file that is listed twice"};
    }
    return manifest;
  });
}

std::string hashed_file_text(const HashedFile& file) {
  return json_of(file).dump();
}

HashedFile parse_hashed_file(std::string_view text, std::string_view source) {
  return from_source(source, [&] { return file_in(parse_json(text)); });
}

}  // namespace sluice
