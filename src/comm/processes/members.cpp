#include "comm/processes/members.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <map>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/text.h"

namespace sluice {

namespace {

constexpr std::string_view kFields[] = {"process", "host", "first_rank", "ranks"};
// Members named in one part of a message; the rest is counted.
constexpr size_t kNamed = 3;

bool is_plain(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         std::string_view("._-+:/,").find(c) != std::string_view::npos;
}

// Every byte that is not plain as %XX.
std::string escaped(std::string_view text) {
  std::string line;
  for (const char c : text) {
    line += is_plain(c) ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return line;
}

std::optional<std::string> unescaped(std::string_view line) {
  std::string text;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] != '%') {
      text += line[i];
      continue;
    }
    unsigned value = 0;
    const char* const end = line.data() + std::min(i + 3, line.size());
    if (std::from_chars(line.data() + i + 1, end, value, 16).ptr != line.data() + i + 3) return std::nullopt;
    text += static_cast<char>(value);
    i += 2;
  }
  return text;
}

std::optional<int> number(std::string_view text) {
  int value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

using Field = std::pair<std::string, std::string>;

std::optional<std::vector<Field>> fields_of(std::string_view line) {
  std::vector<Field> fields;
  while (true) {
    const std::string_view word = line.substr(0, line.find(' '));
    const size_t equals = word.find('=');
    if (equals == std::string_view::npos) return std::nullopt;
    const std::optional<std::string> name = unescaped(word.substr(0, equals));
    const std::optional<std::string> value = unescaped(word.substr(equals + 1));
    if (!name || !value) return std::nullopt;
    fields.emplace_back(*name, *value);
    if (word.size() == line.size()) return fields;
    line.remove_prefix(word.size() + 1);
  }
}

std::string ranks_of(int64_t first, int64_t count) {
  return count == 1 ? fmt::format("rank {}", first) : fmt::format("ranks {}-{}", first, first + count - 1);
}

// "process 2 (ranks 4-7 on host b)"
std::string named(const Member& member) {
  return fmt::format("process {} ({})", member.process, member.str());
}

// What can be shown of a value in a message: of several lines the one where values differ, which is the same one in all
// of them; all of a short line, else what is round the place.
std::string excerpt(std::string value, size_t differ_at) {
  constexpr size_t most = 60;
  if (differ_at != std::string::npos && differ_at <= value.size()) {
    const size_t line = differ_at == 0 ? 0 : value.rfind('\n', differ_at - 1) + 1;  // npos + 1 is 0
    value = value.substr(line, value.find('\n', line) - line);
    differ_at -= line;
  }
  if (value.empty()) return "nothing";
  if (value.size() <= most) return printable_line(value);
  const size_t begin = differ_at < most / 2 ? 0 : std::min(differ_at - most / 2, value.size() - 1);
  const std::string part = printable_line(std::string_view(value).substr(begin, most));
  return fmt::format("{}{}{}", begin > 0 ? "..." : "", part, begin + most < value.size() ? "..." : "");
}

// Who has which value; none who lacks the name.
using Groups = std::map<std::optional<std::string>, std::vector<const Member*>>;

std::string members_of(const std::vector<const Member*>& group) {
  std::string text;
  for (size_t i = 0; i < std::min(group.size(), kNamed); ++i) text += (i > 0 ? ", " : "") + group[i]->str();
  if (group.size() > kNamed) text += fmt::format(" and {} more processes", group.size() - kNamed);
  return text;
}

// "the version differs: 0.6.1 (ranks 0-3 on host a), 0.6.2 (ranks 4-7 on host b)": in the order of the first who has
// it.
std::string difference(const std::string& name, const Groups& groups) {
  const std::string* first = nullptr;
  size_t differ_at = std::string::npos;
  std::vector<const Groups::value_type*> rising;
  for (const auto& group : groups) {
    rising.push_back(&group);
    if (!group.first) continue;
    if (first == nullptr) first = &*group.first;
    const auto apart = std::mismatch(first->begin(), first->end(), group.first->begin(), group.first->end());
    if (first != &*group.first) differ_at = std::min(differ_at, static_cast<size_t>(apart.first - first->begin()));
  }
  std::sort(rising.begin(), rising.end(),
            [](const auto* a, const auto* b) { return a->second[0]->process < b->second[0]->process; });
  std::string text = fmt::format("the {} differs: ", printable_line(name));
  for (const auto* group : rising) {
    const std::string value = group->first ? excerpt(*group->first, differ_at) : "not said";
    text += fmt::format("{}{} ({})", group == rising[0] ? "" : ", ", value, members_of(group->second));
  }
  return text;
}

void check_common(const std::vector<Member>& members) {
  std::vector<std::string> names;
  std::map<std::string, Groups> values;
  for (const Member& member : members) {
    for (const auto& field : member.common) {
      if (values.try_emplace(field.first).second) names.push_back(field.first);
    }
  }
  for (const Member& member : members) {
    for (auto& [name, groups] : values) {
      const auto at = std::find_if(member.common.begin(), member.common.end(),
                                   [&wanted = name](const auto& field) { return field.first == wanted; });
      const bool has = at != member.common.end();
      groups[has ? std::optional(at->second) : std::nullopt].push_back(&member);
    }
  }
  std::string differences;
  for (const std::string& name : names) {
    const Groups& groups = values.at(name);
    if (groups.size() > 1) differences += (differences.empty() ? "" : "; ") + difference(name, groups);
  }
  if (differences.empty()) return;
  throw user_error("the processes of the job do not agree: {}", differences)
      .advise("start the same build of the program with the same files and options on every host");
}

}  // namespace

std::string Member::str() const {
  return fmt::format("{} on host {}", ranks_of(first_rank, ranks), printable_line(host));
}

std::string to_line(const Member& member) {
  std::string line = fmt::format("{}={} {}={} {}={} {}={}", kFields[0], member.process, kFields[1],
                                 escaped(member.host), kFields[2], member.first_rank, kFields[3], member.ranks);
  for (const auto& [name, value] : member.common) line += fmt::format(" {}={}", escaped(name), escaped(value));
  return line;
}

bool from_line(const std::string& line, Member& member) {
  const std::optional<std::vector<Field>> fields = fields_of(line);
  if (!fields || fields->size() < std::size(kFields)) return false;
  for (size_t i = 0; i < std::size(kFields); ++i) {
    if ((*fields)[i].first != kFields[i]) return false;
  }
  const std::optional<int> process = number((*fields)[0].second);
  const std::optional<int> first_rank = number((*fields)[2].second);
  const std::optional<int> ranks = number((*fields)[3].second);
  if (!process || !first_rank || !ranks) return false;
  const Member read{.process = *process,
                    .host = (*fields)[1].second,
                    .first_rank = *first_rank,
                    .ranks = *ranks,
                    .common = {fields->begin() + std::size(kFields), fields->end()}};
  // What says the same in other words is no such line.
  if (to_line(read) != line) return false;
  member = read;
  return true;
}

void check_members(const std::vector<Member>& members, int world) {
  const char* const numbers = "the launcher gives every process its number, its first rank and how many ranks it has";
  // What is after the last rank of those before, in the order of ranks.
  std::vector<const Member*> rising;
  for (size_t i = 0; i < members.size(); ++i) {
    const Member& member = members[i];
    require(member.process == static_cast<int>(i), "process {} stands at place {}", member.process, i);
    if (member.ranks < 1) throw user_error("{} has {} ranks", named(member), member.ranks).advise(numbers);
    const int64_t end = int64_t{member.first_rank} + member.ranks;
    if (member.first_rank < 0 || end > world) {
      throw user_error("{} has {}, but the job has ranks 0 to {}", named(member),
                       ranks_of(member.first_rank, member.ranks), world - 1)
          .advise("the number of ranks of the job has to be the same in every process, and enough for all");
    }
    rising.push_back(&member);
  }
  std::sort(rising.begin(), rising.end(), [](const Member* a, const Member* b) {
    return std::pair(a->first_rank, a->process) < std::pair(b->first_rank, b->process);
  });
  std::string missing;
  int64_t next = 0;
  const Member* before = nullptr;
  for (const Member* member : rising) {
    if (member->first_rank < next) {
      const int64_t both = std::min(next, int64_t{member->first_rank} + member->ranks) - member->first_rank;
      throw user_error("{} {} there twice: in {} and in {}", ranks_of(member->first_rank, both),
                       both == 1 ? "is" : "are", named(*before), named(*member))
          .advise(numbers);
    }
    if (member->first_rank > next) {
      missing += (missing.empty() ? "" : ", ") + ranks_of(next, member->first_rank - next);
    }
    next = int64_t{member->first_rank} + member->ranks;
    before = member;
  }
  if (next < world) missing += (missing.empty() ? "" : ", ") + ranks_of(next, world - next);
  if (!missing.empty()) {
    int64_t sum = 0;
    for (const Member& member : members) sum += member.ranks;
    throw user_error("no process has {}: the job has {} ranks, its {} {}", missing, world, members.size(),
                     members.size() == 1 ? fmt::format("process has {}", sum) : fmt::format("processes have {}", sum))
        .advise(numbers);
  }
  check_common(members);
}

}  // namespace sluice
