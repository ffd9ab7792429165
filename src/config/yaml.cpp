#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "base/file_kind.h"
#include "base/text.h"
#include "config/node.h"

namespace sluice::config {
namespace {

std::size_t size_of(const Node& node) {
  std::size_t size = 1;
  for (const Node& item : node.items) size += size_of(item);
  return size;
}

int depth_of(const Node& node) {
  int deepest = 0;
  for (const Node& item : node.items) deepest = std::max(deepest, depth_of(item));
  return deepest + 1;
}

// Builds the tree from the parser's events. Every bound is checked as the tree grows, so a small file cannot become a
// large tree.
class Builder : public YAML::EventHandler {
 public:
  explicit Builder(std::string_view name) : name_(name) {}

  Node take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { add(leaf(mark, Node::Kind::null), anchor); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    // An alias inside the value its own anchor names has nothing to copy yet.
    if (found == anchors_.end()) throw user_error("an alias refers to the value it stands in").at(at(mark));
    // The anchor's own key is replaced by that of the alias.
    Node copy = found->second;
    if (depth_of(copy) + static_cast<int>(open_.size()) > max_depth) throw too_deep(mark);
    count(mark, size_of(copy));
    copy.line = mark.line + 1;
    place_in_parent(std::move(copy));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    Node node = leaf(mark, Node::Kind::scalar);
    node.text = value;
    node.plain = tag != "!" && tag != "tag:yaml.org,2002:str";
    check_tag(mark, tag);
    if (node.plain && (value == "~" || value == "null" || value == "Null" || value == "NULL" || value.empty())) {
      node.kind = Node::Kind::null;
    }
    add(std::move(node), anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    begin(mark, tag, anchor, Node::Kind::list);
  }
  void OnSequenceEnd() override { end(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    begin(mark, tag, anchor, Node::Kind::map);
  }
  void OnMapEnd() override { end(); }

 private:
  // A list or map that has begun and not ended.
  struct Open {
    Node node;
    YAML::anchor_t anchor = 0;
    bool has_key = false;  // of a map: the next value belongs to `key`
    std::string key;
    int key_line = 0;
    std::map<std::string, int, std::less<>> lines{};  // of a map: where each key stood
    std::vector<Node> merged{};                       // of a map: values of its merge keys
  };

  std::string at(const YAML::Mark& mark) const { return place(name_, mark.line + 1); }
  Error too_deep(const YAML::Mark& mark) const {
    return user_error("nested deeper than {} levels", max_depth).at(at(mark));
  }
  // Unquoted, quoted, and YAML's own types; anything else asks for a language's objects.
  void check_tag(const YAML::Mark& mark, std::string_view tag) const {
    constexpr std::string_view core = "tag:yaml.org,2002:";
    if (tag.empty() || tag == "?" || tag == "!") return;
    const std::string_view type = tag.starts_with(core) ? tag.substr(core.size()) : std::string_view{};
    for (const std::string_view known : {"str", "int", "float", "bool", "null", "seq", "map"}) {
      if (type == known) return;
    }
    throw user_error("the tag {} is not supported", json_quote(tag)).at(at(mark));
  }

  static Node leaf(const YAML::Mark& mark, Node::Kind kind) {
    Node node;
    node.kind = kind;
    node.line = mark.line + 1;
    return node;
  }

  void count(const YAML::Mark& mark, std::size_t nodes) {
    num_nodes_ += nodes;
    if (num_nodes_ > max_nodes) {
      throw user_error("more than {} values, aliases expanded: this is no configuration", max_nodes).at(at(mark));
    }
  }

  void begin(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Node::Kind kind) {
    check_tag(mark, tag);
    if (static_cast<int>(open_.size()) + 1 >= max_depth) throw too_deep(mark);
    if (!open_.empty() && open_.back().node.kind == Node::Kind::map && !open_.back().has_key) {
      throw user_error("a key must be a word, not a list or a map").at(at(mark));
    }
    count(mark, 1);
    open_.push_back({.node = leaf(mark, kind), .anchor = anchor, .has_key = false, .key = {}, .key_line = 0});
  }

  void end() {
    Open done = std::move(open_.back());
    open_.pop_back();
    // What a merge key brings stands behind the map's own entries, and only where they are silent.
    for (Node& source : done.merged) {
      for (Node& entry : source.items) {
        const bool own = std::ranges::any_of(done.node.items, [&](const Node& item) { return item.key == entry.key; });
        if (!own) done.node.items.push_back(std::move(entry));
      }
    }
    if (done.anchor != 0) anchors_[done.anchor] = done.node;
    place_in_parent(std::move(done.node));
  }

  void add(Node node, YAML::anchor_t anchor) {
    ++num_nodes_;
    if (num_nodes_ > max_nodes) {
      throw user_error("more than {} values: this is no configuration", max_nodes).at(place(name_, node.line));
    }
    if (anchor != 0) anchors_[anchor] = node;
    place_in_parent(std::move(node));
  }

  void place_in_parent(Node node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& parent = open_.back();
    if (parent.node.kind == Node::Kind::list) {
      node.key.clear();
      parent.node.items.push_back(std::move(node));
    } else if (!parent.has_key) {
      take_key(parent, node);
    } else {
      parent.has_key = false;
      if (parent.key == "<<") {
        merge(parent, std::move(node));
        return;
      }
      node.key = parent.key;
      // A section is best known by the line of its key, which for a block map is the line above its first entry.
      if (node.kind == Node::Kind::map || node.kind == Node::Kind::null) node.line = parent.key_line;
      parent.node.items.push_back(std::move(node));
    }
  }

  void take_key(Open& parent, const Node& node) {
    if (node.kind != Node::Kind::scalar || node.text.empty()) {
      throw user_error("a key must be a word").at(place(name_, node.line));
    }
    const auto [earlier, is_new] = parent.lines.emplace(node.text, node.line);
    if (!is_new && node.text != "<<") {
      throw user_error("{} is given twice, first in line {}", node.text, earlier->second)
          .at(place(name_, node.line))
          .advise("keep one of the two");
    }
    parent.key = node.text;
    parent.key_line = node.line;
    parent.has_key = true;
  }

  void merge(Open& parent, Node node) {
    const int line = node.line;
    std::vector<Node> sources;
    if (node.kind == Node::Kind::list) {
      sources = std::move(node.items);
    } else {
      sources.push_back(std::move(node));
    }
    for (Node& source : sources) {
      if (source.kind != Node::Kind::map) throw user_error("<< merges maps only").at(place(name_, line));
      parent.merged.push_back(std::move(source));
    }
  }

  std::string_view name_;
  Node root_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, Node> anchors_;
  std::size_t num_nodes_ = 0;
};

// What is no text at all is named as what it is.
void check_format(std::string_view text, std::string_view name) {
  constexpr std::size_t enough = 4096, few = 64;
  const std::string_view head = text.substr(0, std::min(text.size(), enough));
  const FileFormat* const format = format_of(head);
  if (format == nullptr && (text.size() < few || !looks_binary(head))) return;
  throw user_error("this is {}, not YAML", format != nullptr ? format->name : "binary data")
      .at(std::string(name))
      .advise(format != nullptr && !format->remedy.empty() ? std::string(format->remedy)
                                                           : "name the configuration, a text file");
}

// Lines are counted from 0. Whether one begins with a tab among its spaces.
bool tab_indents(std::string_view text, int line) {
  for (; line > 0 && !text.empty(); --line) text.remove_prefix(std::min(text.find('\n'), text.size() - 1) + 1);
  return text.substr(0, text.find_first_not_of(" \t")).find('\t') != std::string_view::npos;
}

void check_text(std::string_view text, std::string_view name) {
  int line = 1;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_length(text.substr(i));
    if (length == 0) {
      throw user_error("not UTF-8 text: byte 0x{:02X}", static_cast<unsigned char>(text[i])).at(place(name, line));
    }
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '\n') ++line;
    if ((c < 0x20U && c != '\n' && c != '\r' && c != '\t') || c == 0x7FU) {
      throw user_error("not plain text: control character 0x{:02X}", c).at(place(name, line));
    }
    i += length;
  }
}

}  // namespace

std::string place(std::string_view name, int line) {
  return line > 0 ? fmt::format("{}:{}", name, line) : std::string(name);
}

Node parse_yaml(std::string_view text, std::string_view name) {
  if (text.size() > max_file_bytes) {
    throw user_error("{} bytes; a configuration has at most {}", text.size(), max_file_bytes).at(std::string(name));
  }
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  check_format(text, name);
  check_text(text, name);
  std::istringstream stream{std::string(text)};
  try {
    YAML::Parser parser(stream);
    Builder builder(name);
    if (!parser.HandleNextDocument(builder)) return {};
    Builder second(name);
    if (parser.HandleNextDocument(second)) {
      throw user_error("holds more than one document (---)").at(std::string(name));
    }
    return builder.take();
  } catch (const YAML::Exception& error) {
    if (tab_indents(text, error.mark.line)) {
      throw user_error("not valid YAML: the line is indented by a tab")
          .at(place(name, error.mark.line + 1))
          .advise("YAML takes spaces alone: replace each tab by spaces");
    }
    throw user_error("not valid YAML: {}", error.msg).at(place(name, error.mark.line + 1));
  }
}

}  // namespace sluice::config
