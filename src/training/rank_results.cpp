#include "training/rank_results.h"

#include <fmt/format.h>

#include <sstream>

namespace sluice {

std::string to_text(const ProcessResult& result) {
  std::string text = fmt::format("{} {}\n", result.threads, result.ranks.size());
  for (const RankResult& rank : result.ranks) {
    text += fmt::format("{} {} {} {}\n", rank.load_factor, rank.memory, rank.planned, rank.grown.size());
    for (const ArenaGrowth& growth : rank.grown) {
      text += fmt::format("{} {} {}\n", growth.chunks, growth.bytes, growth.arena);
    }
  }
  return text;
}

ProcessResult process_result_of(const std::string& text) {
  std::istringstream words(text);
  ProcessResult result;
  size_t ranks = 0;
  words >> result.threads >> ranks;
  for (size_t i = 0; i < ranks && words; ++i) {
    RankResult& rank = result.ranks.emplace_back();
    size_t grown = 0;
    words >> rank.load_factor >> rank.memory >> rank.planned >> grown;
    for (size_t k = 0; k < grown && words; ++k) {
      ArenaGrowth& growth = rank.grown.emplace_back();
      words >> growth.chunks >> growth.bytes;
      words.get();
      std::getline(words, growth.arena);
    }
  }
  require(static_cast<bool>(words), "another process's results cannot be read");
  return result;
}

std::vector<ProcessResult> gather(const ProcessResult& mine, Courier* courier) {
  if (courier == nullptr) return {mine};
  std::vector<ProcessResult> all;
  for (const std::string& text : courier->exchange(to_text(mine))) all.push_back(process_result_of(text));
  return all;
}

}  // namespace sluice
