// What a person should know of the model that a configuration names, before it is run.
#pragma once

#include <set>
#include <string>

#include "config/config.h"
#include "model/hf_config.h"

namespace sluice::cli {

// Warns of each field that nobody reads and whose value says that the network is another one (unread_fields), but of
// those in `told`, which grows by them.
void warn_of_unread_fields(const HfConfig& model, std::set<std::string>& told);
void warn_of_unread_fields(const Config& config, std::set<std::string>& told);
void warn_of_unread_fields(const Config& config);

// Says so where sequences are longer than the max_position_embeddings that the model states.
void note_long_sequences(const Config& config, int64_t seq_len);

}  // namespace sluice::cli
