#include "model/hf_config.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/file_kind.h"
#include "base/text.h"
#include "model/python_json.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

std::string json_text(std::string_view text) {
  constexpr size_t longest = 80;
  std::string json = Json(std::string(text.substr(0, longest))).dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > longest) json.insert(json.size() - 1, "...");
  return json;
}

// The characters of a document; counts the lines passed, so that a field can say where it stands.
struct CountingIterator {
  using iterator_category = std::forward_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* at = nullptr;
  int* line = nullptr;

  reference operator*() const { return *at; }
  CountingIterator& operator++() {
    if (*at++ == '\n') ++*line;
    return *this;
  }
  CountingIterator operator++(int) { return {std::exchange(at, at + 1), line}; }
  bool operator==(const CountingIterator& other) const { return at == other.at; }
};

bool below(std::string_view key, std::string_view ancestor) {
  return key.size() > ancestor.size() && key.starts_with(ancestor) && key[ancestor.size()] == '.';
}

}  // namespace

// Receives the events of a JSON text and adds each scalar to a configuration under its dotted path.
class HfReader final : public nlohmann::json_sax<Json> {
 public:
  // `root` is the key of the whole document (empty for a configuration itself). `where` is a fixed place; without it
  // places are "source:line".
  HfReader(HfConfig& config, std::string root, std::string where)
      : config_(config), where_(std::move(where)), overridden_(!root.empty()), path_(std::move(root)) {}

  void read(std::string_view json) {
    json_ = standard_json(json);
    // The parser would take it for the end.
    if (const size_t at = json_.find('\0'); at != std::string::npos) {
      key_line_ =
          1 + static_cast<int>(std::count(json_.begin(), json_.begin() + static_cast<std::ptrdiff_t>(at), '\n'));
      throw fault("not valid JSON: a NUL byte");
    }
    const char* const end = json_.data() + json_.size();
    Json::sax_parse(CountingIterator{json_.data(), &line_}, CountingIterator{end, &line_}, this);
  }

  bool null() override { return value({}); }
  bool boolean(bool v) override { return value(v); }
  bool number_integer(number_integer_t v) override { return value(int64_t{v}); }
  bool number_unsigned(number_unsigned_t v) override {
    if (v > static_cast<number_unsigned_t>(std::numeric_limits<int64_t>::max())) return value(static_cast<double>(v));
    return value(static_cast<int64_t>(v));
  }
  bool number_float(number_float_t v, const string_t&) override { return value(v); }
  bool string(string_t& v) override {
    if (const std::optional<double> number = unmarked(v)) return value(*number);
    return value(std::move(v));
  }
  bool binary(binary_t&) override { throw fault("binary data"); }

  bool start_object(size_t) override { return enter(false); }
  bool end_object() override { return leave(); }
  bool start_array(size_t) override { return enter(true); }
  bool end_array() override { return leave(); }
  bool key(string_t& name) override {
    Level& level = levels_.back();
    path_.resize(level.path);
    if (!path_.empty()) path_ += '.';
    path_ += name;
    key_line_ = line_;
    if (path_.size() > HfConfig::kMaxKey) throw fault(fmt::format("a key of {} characters", path_.size()));
    if (config_.fields_.contains(path_) || config_.present(path_))
      throw fault(fmt::format("a second {}", json_text(path_)));
    ++level.items;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    std::string_view reason = error.what();
    for (const std::string_view opening : {"syntax error", "number overflow"}) {
      if (const size_t at = reason.find(opening); at != std::string_view::npos) reason.remove_prefix(at);
    }
    // The character that is wrong may itself be the end of its line.
    const size_t wrong = std::min(position == 0 ? 0 : position - 1, json_.size());
    key_line_ =
        1 + static_cast<int>(std::count(json_.begin(), json_.begin() + static_cast<std::ptrdiff_t>(wrong), '\n'));
    const bool comment = wrong < json_.size() && (json_[wrong] == '/' || json_[wrong] == '#');
    throw fault(fmt::format("not valid JSON: {}", reason)).advise(comment ? "JSON has no comments: take it out" : "");
  }

 private:
  struct Level {
    bool list = false;
    size_t path = 0;  // length of the container's own path
    size_t items = 0;
  };

  std::string place() const { return where_.empty() ? fmt::format("{}:{}", config_.source(), key_line_) : where_; }
  Error fault(std::string_view message) const { return user_error("{}", message).at(place()); }

  // A list names its items by number as they come.
  void next_item() {
    if (levels_.empty() || !levels_.back().list) return;
    Level& level = levels_.back();
    path_.resize(level.path);
    path_ += fmt::format(".{}", level.items++);
  }
  bool value(HfValue v) {
    if (levels_.empty() && path_.empty()) throw fault("a configuration is a JSON object: {...}");
    next_item();
    add(std::move(v));
    return true;
  }
  void add(HfValue v) {
    if (config_.fields_.size() >= HfConfig::kMaxFields) {
      throw fault(fmt::format("more than {} fields", HfConfig::kMaxFields));
    }
    if (!config_.add(path_, {std::move(v), place(), path_, overridden_})) {
      throw fault(fmt::format("a second {}", json_text(path_)));
    }
  }
  bool enter(bool list) {
    if (levels_.size() >= HfConfig::kMaxDepth) {
      throw fault(fmt::format("nested more than {} levels deep", HfConfig::kMaxDepth));
    }
    if (list && path_.empty()) throw fault("a configuration is a JSON object: {...}");
    next_item();
    levels_.push_back({list, path_.size(), 0});
    return true;
  }
  bool leave() {
    const Level level = levels_.back();
    levels_.pop_back();
    path_.resize(level.path);
    if (level.items == 0 && !path_.empty()) add({});
    return true;
  }

  HfConfig& config_;
  std::string json_;
  std::string where_;
  bool overridden_;
  std::string path_;
  std::vector<Level> levels_;
  int line_ = 1;
  int key_line_ = 1;
};

HfConfig HfConfig::parse(std::string_view json, std::string source) {
  if (json.size() > kMaxBytes) {
    throw user_error("a model configuration of {} bytes; at most {} are read", json.size(), kMaxBytes).at(source);
  }
  const std::string_view head = json.substr(0, std::min<size_t>(json.size(), 4096));
  if (const FileFormat* format = format_of(head); format != nullptr) {
    throw user_error("{} is {}, not a model's configuration", source, format->name).advise(std::string(format->remedy));
  }
  HfConfig config(std::move(source));
  HfReader(config, "", "").read(json);
  return config;
}

HfConfig HfConfig::load(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "config.json";
  return parse(read_file(path, kMaxBytes), path.string());
}

void HfConfig::override_with(const HfOverride& change) {
  const std::string place = change.where.empty() ? "override" : change.where;
  if (change.key.empty() || change.key.size() > kMaxKey || change.text.size() > kMaxBytes) {
    throw user_error("an override with a key of {} and a value of {} characters", change.key.size(), change.text.size())
        .at(place);
  }
  std::erase_if(fields_, [&](const auto& entry) {
    return entry.first == change.key || below(entry.first, change.key) || below(change.key, entry.first);
  });
  if (Json::accept(change.text)) {
    HfReader(*this, change.key, place).read(change.text);
  } else {
    add(change.key, {change.text, place, change.key, true});
  }
}

void HfConfig::unify(std::string_view key, std::string_view other) {
  const auto at = fields_.find(other);
  if (at == fields_.end()) return;
  HfField field = std::move(at->second);
  fields_.erase(at);
  if (std::holds_alternative<std::monostate>(field.value)) return;
  const auto number = [](const HfValue& v) -> std::optional<double> {
    if (const auto* integer = std::get_if<int64_t>(&v)) return static_cast<double>(*integer);
    if (const auto* real = std::get_if<double>(&v)) return *real;
    return {};
  };
  if (const HfField* present = find(key); present != nullptr) {
    const auto mine = number(present->value), others = number(field.value);
    const bool equal = present->value == field.value || (mine && others && *mine == *others);
    if (present->overridden == field.overridden && !equal) {
      throw user_error("{} is {} but {} is {}: they mean the same", present->spelling, to_text(present->value),
                       field.spelling, to_text(field.value))
          .at(field.where)
          .advise(fmt::format("keep one of them; {} stands at {}", present->spelling, present->where));
    }
    if (present->overridden || equal) {
      read_->insert(field.spelling);
      return;
    }
  }
  fields_.insert_or_assign(std::string(key), std::move(field));
}

const HfField* HfConfig::find(std::string_view key) const {
  const auto at = fields_.find(key);
  return at == fields_.end() || std::holds_alternative<std::monostate>(at->second.value) ? nullptr : &at->second;
}

bool HfConfig::was_read(std::string_view key) const {
  for (std::string_view above = key;; above = above.substr(0, above.rfind('.'))) {
    if (read_->contains(above)) return true;
    if (above.find('.') == std::string_view::npos) return false;
  }
}

void HfConfig::note(std::string_view key) const {
  read_->emplace(key);
  if (const HfField* field = find(key); field != nullptr) read_->insert(field->spelling);
}

bool HfConfig::has(std::string_view key) const {
  note(key);
  return present(key);
}

bool HfConfig::present(std::string_view key) const {
  if (find(key) != nullptr) return true;
  const auto at = fields_.lower_bound(std::string(key) + '.');
  return at != fields_.end() && below(at->first, key);
}

bool HfConfig::add(const std::string& key, HfField field) {
  for (size_t dot = key.find('.'); dot != std::string::npos; dot = key.find('.', dot + 1)) {
    if (fields_.contains(std::string_view(key).substr(0, dot))) return false;
  }
  const auto after = fields_.lower_bound(key + '.');
  if (after != fields_.end() && below(after->first, key)) return false;
  return fields_.emplace(key, std::move(field)).second;
}

const HfField& HfConfig::required(std::string_view key) const {
  note(key);
  const HfField* field = find(key);
  if (field != nullptr) return *field;
  if (present(key)) throw user_error("{} must be one value, not a list or a map", key).at(where(key));
  // One laid over the file that nobody asked for may be this one misspelt.
  std::vector<std::string> others;
  for (const auto& [name, other] : fields_) {
    if (other.overridden && !was_read(name)) others.push_back(name);
  }
  const std::string near = nearest(key, others);
  throw user_error("the model configuration lacks {}", key)
      .at(near.empty() ? source_ : where(near))
      .advise(near.empty() ? fmt::format("give it: model.config.{}", key)
                           : fmt::format("did you mean model.config.{} by model.config.{}?", key, near));
}

int64_t HfConfig::integer(std::string_view key, IntegerRange range, std::optional<int64_t> fallback) const {
  if (fallback && !has(key)) return *fallback;
  const HfField& field = required(key);
  std::optional<int64_t> value;
  constexpr double exact = 9007199254740992.0;  // 2^53
  if (const auto* whole = std::get_if<int64_t>(&field.value)) {
    value = *whole;
  } else if (const auto* real = std::get_if<double>(&field.value)) {
    if (std::abs(*real) <= exact && *real == std::floor(*real)) value = static_cast<int64_t>(*real);
  }
  if (!value) throw user_error("{} is {}, not an integer", field.spelling, to_text(field.value)).at(field.where);
  if (*value < range.low || *value > range.high) {
    throw user_error("{} is {}; it must be from {} to {}", field.spelling, *value, range.low, range.high)
        .at(field.where);
  }
  return *value;
}

double HfConfig::number(std::string_view key, NumberRange range, std::optional<double> fallback) const {
  if (fallback && !has(key)) return *fallback;
  const HfField& field = required(key);
  double value = 0;
  if (const auto* whole = std::get_if<int64_t>(&field.value)) {
    value = static_cast<double>(*whole);
  } else if (const auto* real = std::get_if<double>(&field.value)) {
    value = *real;
  } else {
    throw user_error("{} is {}, not a number", field.spelling, to_text(field.value)).at(field.where);
  }
  if (!(value >= range.low && value <= range.high)) {
    throw user_error("{} is {}; it must be from {} to {}", field.spelling, to_text(field.value), range.low, range.high)
        .at(field.where);
  }
  return value;
}

bool HfConfig::boolean(std::string_view key, std::optional<bool> fallback) const {
  if (fallback && !has(key)) return *fallback;
  const HfField& field = required(key);
  if (const auto* value = std::get_if<bool>(&field.value)) return *value;
  throw user_error("{} is {}, not true or false", field.spelling, to_text(field.value)).at(field.where);
}

std::string HfConfig::text(std::string_view key, std::optional<std::string> fallback) const {
  if (fallback && !has(key)) return *std::move(fallback);
  const HfField& field = required(key);
  if (const auto* value = std::get_if<std::string>(&field.value)) return *value;
  throw user_error("{} is {}, not text", field.spelling, to_text(field.value)).at(field.where);
}

std::string HfConfig::where(std::string_view key) const {
  if (const HfField* field = find(key)) return field->where;
  const auto at = fields_.lower_bound(std::string(key) + '.');
  return at != fields_.end() && below(at->first, key) ? at->second.where : source_;
}

std::string HfConfig::describe(std::string_view key) const {
  const HfField* field = find(key);
  if (field == nullptr) return std::string(key);
  return fmt::format("{} {} ({})", field->spelling, to_text(field->value), field->where);
}

std::string to_text(const HfValue& value) {
  struct Writer {
    std::string operator()(std::monostate) const { return "null"; }
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(int64_t v) const { return fmt::format("{}", v); }
    std::string operator()(double v) const {
      return std::isfinite(v) ? fmt::format("{}", v)
                              : std::string(std::isnan(v) ? "NaN"
                                            : v > 0       ? "Infinity"
                                                          : "-Infinity");
    }
    std::string operator()(const std::string& v) const { return json_text(v); }
  };
  return std::visit(Writer{}, value);
}

}  // namespace sluice
