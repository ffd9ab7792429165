// A hub directory's weights held against a model: every tensor of the family there, of the right shape, and nothing
// else. Experts may also be stored stacked, NAME.experts.gate_up_proj [E, 2F, D] and NAME.experts.down_proj [E, D, F]
// (rows as in our parameters), where the family names one tensor for each expert.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/hub_weights.h"
#include "model/family.h"

namespace sluice {

struct HubMatch {
  struct Item {
    HubTensor tensor;
    HubWeight weight;
  };
  std::vector<Item> items;            // in the order of the network
  std::vector<Item> repeats;          // stored once more (HubTensor::repeated)
  std::vector<std::string> left_out;  // stored names that the model has no use for: a multi-token prediction layer that
                                      // is not trained, buffers of old files, tensors without elements
  int64_t elements = 0;               // all of the model's parameters
  int64_t quantized = 0;              // items
};

// User error listing by name what is missing, of another shape or type, or not the model's. `hub` must outlive the
// result.
HubMatch match_weights(const HubWeights& hub, const ModelConfig& model);

// User error unless what is stored once more has the same values. Reads all of it.
void check_repeats(const HubMatch& match);

// "291 tensors, 8.03 B parameters (15.0 GiB) from DIRECTORY", and what was left out or decoded.
std::string describe(const HubMatch& match, const HubWeights& hub);

}  // namespace sluice
