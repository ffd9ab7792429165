#include "checkpoint/safetensors_format.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/file_kind.h"
#include "model/hf_config.h"

namespace sluice::safetensors {
namespace {

using Json = nlohmann::json;

struct TypeFacts {
  Type type;
  std::string_view name;
  size_t size;
};
constexpr auto types = std::to_array<TypeFacts>({{Type::f64, "F64", 8},
                                                 {Type::f32, "F32", 4},
                                                 {Type::f16, "F16", 2},
                                                 {Type::bf16, "BF16", 2},
                                                 {Type::f8_e4m3, "F8_E4M3", 1},
                                                 {Type::f8_e5m2, "F8_E5M2", 1},
                                                 {Type::i64, "I64", 8},
                                                 {Type::i32, "I32", 4},
                                                 {Type::i16, "I16", 2},
                                                 {Type::i8, "I8", 1},
                                                 {Type::u64, "U64", 8},
                                                 {Type::u32, "U32", 4},
                                                 {Type::u16, "U16", 2},
                                                 {Type::u8, "U8", 1},
                                                 {Type::f8_e8m0, "F8_E8M0", 1},
                                                 {Type::boolean, "BOOL", 1}});

const TypeFacts& facts(Type type) {
  return types.at(static_cast<size_t>(type));
}

constexpr size_t kLengthBytes = 8;
constexpr std::string_view kMetadataKey = "__metadata__";

// Walks a JSON text of the shape {KEY: {KEY: scalar or list of numbers}}; what a reader does not ask for is passed
// over, anything else refused as it is met, so that what is held stays in proportion to the text.
class TwoLevelReader : public nlohmann::json_sax<Json> {
 public:
  TwoLevelReader(std::string_view source, std::string_view what) : source_(source), what_(what) {}

  void read(std::string_view json) {
    // The parser would take it for the end.
    if (const size_t at = json.find('\0'); at != std::string_view::npos) {
      throw fault("{} is not valid JSON at byte {}: a NUL", what_, at + 1);
    }
    Json::sax_parse(json.data(), json.data() + json.size(), static_cast<nlohmann::json_sax<Json>*>(this));
  }

 protected:
  // Whether a value is passed over, whatever it is: of a key at the top level, of a key in its object; and a null
  // there.
  virtual bool passes_section(const std::string& name) const = 0;
  virtual bool passes_value(const std::string& key) const = 0;
  virtual bool passes_null(const std::string& name) const = 0;
  virtual void enter(std::string name) = 0;  // an object at the top level
  virtual void leave() = 0;
  virtual void text(const std::string& key, std::string value) = 0;
  virtual void list(const std::string& key, std::vector<uint64_t> values) = 0;

  template <class... Args>
  Error fault(fmt::format_string<Args...> format, Args&&... args) const {
    return user_error("{}: {}", source_, fmt::vformat(format, fmt::make_format_args(args...)));
  }
  Error misplaced(std::string_view value) const {
    return fault("{} is out of place{}", value, key_.empty() ? "" : " at " + in_quotes(key_));
  }

 private:
  enum class Place : uint8_t { outside, top, inside, list };

  bool passes() const {
    return passed_ > 0 || (place_ == Place::top && passes_section(key_)) ||
           (place_ == Place::inside && passes_value(key_));
  }
  bool null() override {
    if (passes() || (place_ == Place::top && passes_null(key_))) return true;
    throw misplaced("null");
  }
  bool boolean(bool) override {
    if (passes()) return true;
    throw misplaced("true or false");
  }
  bool number_integer(number_integer_t value) override {
    if (passes()) return true;
    throw fault("{} is {}, below 0", in_quotes(key_), value);
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (passes()) return true;
    if (place_ != Place::list) throw misplaced("a number");
    if (values_.size() >= kMaxRank) throw fault("{} lists more than {} numbers", in_quotes(key_), kMaxRank);
    values_.push_back(value);
    return true;
  }
  bool number_float(number_float_t, const string_t&) override {
    if (passes()) return true;
    throw misplaced("a number that is not whole");
  }
  bool string(string_t& value) override {
    if (passes()) return true;
    if (place_ != Place::inside) throw misplaced("text");
    text(key_, std::move(value));
    return true;
  }
  bool binary(binary_t&) override { throw misplaced("binary data"); }
  bool key(string_t& name) override {
    if (passed_ == 0) key_ = name;
    return true;
  }
  bool start_object(size_t) override {
    if (passes()) {
      ++passed_;
    } else if (place_ == Place::outside) {
      place_ = Place::top;
    } else if (place_ == Place::top) {
      place_ = Place::inside;
      enter(key_);
    } else {
      throw misplaced("an object");
    }
    return true;
  }
  bool end_object() override {
    if (passed_ > 0) {
      --passed_;
    } else {
      if (place_ == Place::inside) leave();
      place_ = place_ == Place::inside ? Place::top : Place::outside;
    }
    return true;
  }
  bool start_array(size_t) override {
    if (passes()) {
      ++passed_;
    } else if (place_ == Place::inside) {
      place_ = Place::list;
      values_.clear();
    } else {
      throw misplaced("a list");
    }
    return true;
  }
  bool end_array() override {
    if (passed_ > 0) {
      --passed_;
    } else {
      place_ = Place::inside;
      list(key_, std::move(values_));
      values_ = {};
    }
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    std::string_view reason = error.what();
    if (const size_t at = reason.find("syntax error"); at != std::string_view::npos) reason.remove_prefix(at);
    constexpr size_t longest = 160;
    throw fault("{} is not valid JSON at byte {}: {}", what_, position, reason.substr(0, longest));
  }

  std::string source_;
  std::string_view what_;
  Place place_ = Place::outside;
  std::string key_;
  std::vector<uint64_t> values_;
  size_t passed_ = 0;  // containers that are open in what is passed over
};

class HeaderReader final : public TwoLevelReader {
 public:
  // `data_begin` and `data_bytes`: where the tensors' bytes are.
  HeaderReader(std::string_view source, uint64_t data_begin, uint64_t data_bytes)
      : TwoLevelReader(source, "the header"), data_begin_(data_begin), data_bytes_(data_bytes) {}

  Header take() {
    check_tiling();
    return std::move(header_);
  }

 private:
  bool passes_section(const std::string&) const override { return false; }
  bool passes_value(const std::string& key) const override {
    return !in_metadata_ && key != "dtype" && key != "shape" && key != "data_offsets";
  }
  bool passes_null(const std::string& name) const override { return name == kMetadataKey; }

  void enter(std::string name) override {
    in_metadata_ = name == kMetadataKey;
    if (in_metadata_ && std::exchange(has_metadata_, true)) throw fault("a second {}", in_quotes(name));
    entry_ = {};
    entry_.spec.name = std::move(name);
    has_type_ = has_shape_ = has_offsets_ = false;
  }

  void leave() override {
    if (in_metadata_) return;
    const std::string name = in_quotes(entry_.spec.name);
    for (const auto& [present, what] :
         {std::pair{has_type_, "dtype"}, {has_shape_, "shape"}, {has_offsets_, "data_offsets"}}) {
      if (!present) throw fault("tensor {} lacks {}", name, what);
    }
    const uint64_t needed = bytes_of(entry_.spec);
    if (needed != entry_.bytes) {
      throw fault("tensor {} of {}{} takes {} bytes, its data_offsets span {}", name, name_of(entry_.spec.type),
                  to_text(entry_.spec.shape), needed, entry_.bytes);
    }
    const auto [earlier, is_new] = entry_of_.emplace(entry_.spec.name, header_.entries.size());
    if (is_new) {
      header_.entries.push_back(std::move(entry_));
    } else if (header_.entries[earlier->second] != entry_) {
      throw fault("a second {}, described in another way", name);
    }
  }

  void text(const std::string& key, std::string value) override {
    if (in_metadata_) {
      header_.metadata.insert_or_assign(key, std::move(value));
      return;
    }
    if (key != "dtype") throw unexpected(key);
    once(has_type_, key);
    const std::optional<Type> type = type_named(value);
    if (!type) throw fault("tensor {} has the unknown dtype {}", in_quotes(entry_.spec.name), in_quotes(value));
    entry_.spec.type = *type;
  }

  void list(const std::string& key, std::vector<uint64_t> values) override {
    if (in_metadata_) throw unexpected(key);
    if (key == "shape") {
      once(has_shape_, key);
      for (const uint64_t extent : values) {
        if (extent > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
          throw fault("tensor {} has an extent of {}", in_quotes(entry_.spec.name), extent);
        }
        entry_.spec.shape.push_back(static_cast<int64_t>(extent));
      }
    } else if (key == "data_offsets") {
      once(has_offsets_, key);
      if (values.size() != 2 || values[0] > values[1] || values[1] > data_bytes_) {
        throw fault("tensor {} has data_offsets [{}] in a file with {} bytes of tensors", in_quotes(entry_.spec.name),
                    fmt::join(values, ", "), data_bytes_)
            .advise("where the numbers are right the file was cut short: fetch it again");
      }
      entry_.begin = data_begin_ + values[0];
      entry_.bytes = values[1] - values[0];
    } else {
      throw unexpected(key);
    }
  }

  Error unexpected(const std::string& key) const {
    return fault("{} in {} is not part of the format", in_quotes(key), in_quotes(entry_.spec.name));
  }
  void once(bool& seen, const std::string& key) const {
    if (std::exchange(seen, true)) throw fault("tensor {} has a second {}", in_quotes(entry_.spec.name), key);
  }

  // The tensors follow each other without gap or overlap up to the end of the file.
  void check_tiling() {
    std::vector<Entry>& entries = header_.entries;
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return std::tie(a.begin, a.bytes, a.spec.name) < std::tie(b.begin, b.bytes, b.spec.name);
    });
    uint64_t end = data_begin_;
    std::string_view previous;
    for (const Entry& entry : entries) {
      if (entry.begin < end) {
        throw fault("tensors {} and {} overlap at byte {}", in_quotes(previous), in_quotes(entry.spec.name),
                    entry.begin - data_begin_);
      }
      if (entry.begin > end) {
        throw fault("no tensor has the {} bytes before {}", entry.begin - end, in_quotes(entry.spec.name));
      }
      end += entry.bytes;
      previous = entry.spec.name;
    }
    if (end != data_begin_ + data_bytes_) {
      throw fault("no tensor has the last {} bytes of the file", data_begin_ + data_bytes_ - end);
    }
  }

  uint64_t data_begin_;
  uint64_t data_bytes_;
  Header header_;
  std::map<std::string, size_t> entry_of_;  // where in the header
  Entry entry_;
  bool in_metadata_ = false, has_metadata_ = false;
  bool has_type_ = false, has_shape_ = false, has_offsets_ = false;
};

class IndexReader final : public TwoLevelReader {
 public:
  explicit IndexReader(std::string_view source) : TwoLevelReader(source, "the index") {}

  Index take() {
    if (!has_map_) throw fault("it has no weight_map");
    return std::move(index_);
  }

 private:
  bool passes_section(const std::string& name) const override { return name != "weight_map"; }
  bool passes_value(const std::string&) const override { return false; }
  bool passes_null(const std::string&) const override { return false; }
  void enter(std::string name) override {
    if (std::exchange(has_map_, true)) throw fault("a second {}", in_quotes(name));
  }
  void leave() override {}
  void text(const std::string& key, std::string value) override {
    // A path could lead out of the model's directory.
    const bool plain = !value.empty() && value.size() <= 255 &&
                       value.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos && value != "." &&
                       value != "..";
    if (!plain) throw fault("tensor {} is in {}, which is not the name of a file", in_quotes(key), in_quotes(value));
    const auto [earlier, is_new] = index_.files.emplace(key, value);
    if (!is_new && earlier->second != value) throw fault("a second {}, in another file", in_quotes(key));
  }
  void list(const std::string& key, std::vector<uint64_t>) override {
    throw fault("{} is not the name of a file", in_quotes(key));
  }

  Index index_;
  bool has_map_ = false;
};

Error another_format(const FileFormat& format, std::string_view source) {
  return user_error("{} is {}, not safetensors", source, format.name)
      .advise(format.remedy.empty() ? "the model's own file belongs there: fetch it, or save the model as safetensors"
                                    : std::string(format.remedy));
}

std::string json_text(const std::string& text) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    throw user_error("{} is not UTF-8", in_quotes(text));
  }
}

}  // namespace

std::string in_quotes(std::string_view name) {
  return sluice::to_text(HfValue(std::string(name)));
}

size_t size_of(Type type) {
  return facts(type).size;
}

std::string_view name_of(Type type) {
  return facts(type).name;
}

std::optional<Type> type_named(std::string_view name) {
  for (const TypeFacts& known : types) {
    if (known.name == name) return known.type;
  }
  return {};
}

Type type_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return Type::f64;
    case DType::f32:
      return Type::f32;
    case DType::bf16:
      return Type::bf16;
    case DType::e4m3:
      return Type::f8_e4m3;
    case DType::e5m2:
      return Type::f8_e5m2;
    case DType::i64:
      return Type::i64;
    case DType::i32:
      return Type::i32;
    case DType::u8:
      break;
  }
  return Type::u8;
}

std::string to_text(const Extents& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

uint64_t bytes_of(const TensorSpec& spec) {
  uint64_t bytes = size_of(spec.type);
  // An extent of 0 makes any product 0, whatever the others.
  if (std::find(spec.shape.begin(), spec.shape.end(), 0) != spec.shape.end()) return 0;
  for (const int64_t extent : spec.shape) {
    const auto most = static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / bytes;
    if (extent < 0 || static_cast<uint64_t>(extent) > most) {
      throw user_error("tensor {} of {}{} is too large", in_quotes(spec.name), name_of(spec.type), to_text(spec.shape));
    }
    bytes *= static_cast<uint64_t>(extent);
  }
  return bytes;
}

namespace {

// What the file says; it has at least these bytes.
uint64_t length_of_json(std::span<const std::byte> file) {
  uint64_t length = 0;
  for (size_t i = kLengthBytes; i-- > 0;) length = length << 8 | static_cast<uint64_t>(file[i]);
  return length;
}

}  // namespace

uint64_t header_bytes(std::span<const std::byte> file) {
  if (file.size() < kLengthBytes) return file.size();
  return kLengthBytes + std::min<uint64_t>(length_of_json(file), file.size() - kLengthBytes);
}

Header parse_header(std::span<const std::byte> file, std::string_view source) {
  if (file.size() < kLengthBytes) {
    throw user_error("{} has {} bytes: too short for a safetensors file", source, file.size());
  }
  const uint64_t length = length_of_json(file);
  if (length > kMaxHeaderBytes || length > file.size() - kLengthBytes) {
    const std::string_view head(reinterpret_cast<const char*>(file.data()), std::min<size_t>(file.size(), 512));
    if (const FileFormat* format = format_of(head); format != nullptr) throw another_format(*format, source);
    throw user_error("{} announces a header of {} bytes; the file has {}, and at most {} are read", source, length,
                     file.size(), kMaxHeaderBytes)
        .advise("it is no safetensors file, or was cut short: fetch it again");
  }
  const std::string_view json(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
  if (!json.substr(std::min(json.find_first_not_of(" \t\r\n"), json.size())).starts_with('{'))
    throw user_error("{}: the header does not begin with {{", source);
  HeaderReader reader(source, kLengthBytes + length, file.size() - kLengthBytes - length);
  reader.read(json);
  return reader.take();
}

Header lay_out(std::vector<TensorSpec> tensors, Metadata metadata) {
  Header header{{}, std::move(metadata)};
  std::set<std::string> names;
  uint64_t end = 0;
  const auto add = [&](TensorSpec spec) {
    const uint64_t bytes = bytes_of(spec);
    if (bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) - end || spec.shape.size() > kMaxRank) {
      throw user_error("tensor {} of {}{} is too large", in_quotes(spec.name), name_of(spec.type), to_text(spec.shape));
    }
    if (spec.name == kMetadataKey || !names.insert(spec.name).second) {
      throw user_error("a second tensor {}", in_quotes(spec.name));
    }
    header.entries.push_back({std::move(spec), end, bytes});
    end += bytes;
  };
  header.entries.reserve(tensors.size());
  for (const size_t size : {8, 4, 2, 1}) {
    for (TensorSpec& spec : tensors) {
      if (size_of(spec.type) == size) add(std::move(spec));
    }
  }
  const uint64_t data_begin = header_text(header).size();
  for (Entry& entry : header.entries) entry.begin += data_begin;
  return header;
}

std::string header_text(const Header& header) {
  std::string json = "{";
  if (!header.metadata.empty()) {
    json += fmt::format("{}:{{", json_text(std::string(kMetadataKey)));
    for (const auto& [key, value] : header.metadata) json += fmt::format("{}:{},", json_text(key), json_text(value));
    json.back() = '}';
    json += ',';
  }
  const uint64_t first = header.entries.empty() ? 0 : header.entries.front().begin;
  for (const auto& [spec, begin, bytes] : header.entries) {
    json += fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}},)", json_text(spec.name),
                        name_of(spec.type), fmt::join(spec.shape, ","), begin - first, begin - first + bytes);
  }
  if (json.back() == ',') json.pop_back();
  json += '}';
  json.resize((json.size() + 7) / 8 * 8, ' ');
  if (json.size() > kMaxHeaderBytes) throw user_error("a header of {} bytes for safetensors", json.size());
  std::string length(kLengthBytes, '\0');
  for (size_t i = 0; i < kLengthBytes; ++i) length[i] = static_cast<char>(json.size() >> (8 * i) & 0xff);
  return length + json;
}

Index parse_index(std::string_view json, std::string_view source) {
  const FileFormat* const format = format_of(json.substr(0, std::min<size_t>(json.size(), 512)));
  if (format != nullptr) throw another_format(*format, source);
  if (json.size() > kMaxHeaderBytes) {
    throw user_error("{} has {} bytes; at most {} are read", source, json.size(), kMaxHeaderBytes);
  }
  IndexReader reader(source);
  reader.read(json);
  return reader.take();
}

std::string index_text(const Index& index) {
  std::string json =
      fmt::format("{{\n  \"metadata\": {{\n    \"total_size\": {}\n  }},\n  \"weight_map\": {{", index.total_bytes);
  const char* separator = "\n    ";
  for (const auto& [tensor, file] : index.files) {
    json += fmt::format("{}{}: {}", separator, json_text(tensor), json_text(file));
    separator = ",\n    ";
  }
  return json + "\n  }\n}\n";
}

}  // namespace sluice::safetensors
