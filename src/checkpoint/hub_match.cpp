#include "checkpoint/hub_match.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/hub_packing.h"

namespace sluice {
namespace {

bool same_shape(const safetensors::Extents& stored, const Shape& shape) {
  if (std::ssize(stored) != shape.rank()) return false;
  for (int i = 0; i < shape.rank(); ++i) {
    if (stored[static_cast<size_t>(i)] != shape[i]) return false;
  }
  return true;
}

bool holds_numbers(const HubWeight& weight) {
  using safetensors::Type;
  const Type type = weight.values.spec.type;
  return weight.coding != HubCoding::plain || type == Type::f64 || type == Type::f32 || type == Type::f16 ||
         type == Type::bf16;
}

// "\n  3 missing: a, b, c"; the names in the middle of a long list are left out.
std::string list_of(std::string_view what, const std::vector<std::string>& names) {
  constexpr size_t most = 20;
  if (names.empty()) return {};
  const auto shown = static_cast<std::ptrdiff_t>(std::min(most, names.size()));
  std::string text =
      fmt::format("\n  {} {}: {}", names.size(), what, fmt::join(names.begin(), names.begin() + shown, ", "));
  if (names.size() > most) text += fmt::format(", ... {}", names.back());
  return text;
}

// How the stored names were changed by a program that wrapped the model, so that without it they are all there; empty
// where they differ in another way.
std::string renamed(const std::vector<std::string>& missing, const std::vector<std::string>& extra) {
  if (extra.empty()) {
    return missing == std::vector<std::string>{"lm_head.weight"}
               ? "a model whose head is the embedding has tie_word_embeddings: true in its config.json; of others the "
                 "whole model is wanted, not its base"
               : "";
  }
  const auto all_in = [&](const std::set<std::string>& names) {
    return !missing.empty() &&
           std::ranges::all_of(missing, [&](const std::string& name) { return names.contains(name); });
  };
  for (const std::string_view part :
       {"module.", "_orig_mod.", "_fsdp_wrapped_module.", "base_model.model.", "model."}) {
    std::set<std::string> without;
    for (std::string name : extra) {
      if (const size_t at = name.find(part); at != std::string::npos) name.erase(at, part.size());
      without.insert(std::move(name));
    }
    if (all_in(without)) {
      return fmt::format("the stored names have \"{}\" in them, of a program that wrapped the model: save it unwrapped",
                         part);
    }
  }
  std::set<std::string> with;
  for (const std::string& name : extra) with.insert("model." + name);
  const bool inner = all_in(with) || (with.insert("lm_head.weight"), all_in(with));
  return inner ? "the stored names lack \"model.\" at their beginning: they are of the model without its head's class; "
                 "save the whole one"
               : "";
}

// The part of a stack of experts that stands for one expert's tensor of the family.
class Stacks {
 public:
  explicit Stacks(const HubWeights& hub) : hub_(hub) {}

  // Nothing where there is no such stack. "L.mlp.experts.3.up_proj.weight" is in "L.mlp.experts.gate_up_proj".
  std::optional<HubWeight> part(const HubTensor& tensor) {
    const std::string number = fmt::format(".experts.{}.", tensor.expert);
    const size_t at = tensor.expert < 0 ? std::string::npos : tensor.hub_name.find(number);
    if (at == std::string::npos) return {};
    const std::string_view last = std::string_view(tensor.hub_name).substr(at + number.size());
    const std::string stack =
        tensor.hub_name.substr(0, at) + ".experts." + (last == "down_proj.weight" ? "down_proj" : "gate_up_proj");
    const auto found = hub_.weights().find(stack);
    if (found == hub_.weights().end() || found->second.coding != HubCoding::plain ||
        !same_shape(found->second.shape, tensor.parameter_shape)) {
      return {};
    }
    used_.insert(stack);
    // Rows of the stack are those of the parameter.
    HubWeight weight = found->second;
    const size_t element = safetensors::size_of(weight.values.spec.type);
    weight.values.bytes = weight.values.bytes.subspan(static_cast<size_t>(tensor.first()) * element,
                                                      static_cast<size_t>(tensor.hub_shape.numel()) * element);
    weight.shape.clear();
    for (int i = 0; i < tensor.hub_shape.rank(); ++i) weight.shape.push_back(tensor.hub_shape[i]);
    return weight;
  }
  bool used(const std::string& name) const { return used_.contains(name); }

 private:
  const HubWeights& hub_;
  std::set<std::string> used_;
};

// "model.layers.61." of a name in layer 61; empty outside of layers.
std::string_view layer_prefix(std::string_view name) {
  constexpr std::string_view layers = "model.layers.";
  if (!name.starts_with(layers)) return {};
  const size_t dot = name.find('.', layers.size());
  return dot == std::string_view::npos ? std::string_view() : name.substr(0, dot + 1);
}

bool has_no_use(const std::string& name, const HubWeights& hub, const std::set<std::string_view>& known_layers) {
  if (name.ends_with(".rotary_emb.inv_freq")) return true;
  if (hub.weights().find(name)->second.numel() == 0) return true;
  // A layer that predicts further tokens has a projection that others have not.
  const std::string_view layer = layer_prefix(name);
  return !layer.empty() && !known_layers.contains(layer) &&
         hub.weights().contains(std::string(layer) + "eh_proj.weight");
}

}  // namespace

HubMatch match_weights(const HubWeights& hub, const ModelConfig& model) {
  HubMatch match;
  std::vector<std::string> missing, misshaped, extra;
  const std::vector<HubTensor> tensors = family_of(model).tensors(model);
  std::set<std::string_view> known, known_layers;
  Stacks stacks(hub);
  for (const HubTensor& tensor : tensors) {
    known.insert(tensor.hub_name);
    known_layers.insert(layer_prefix(tensor.hub_name));
    const auto found = hub.weights().find(tensor.hub_name);
    std::optional<HubWeight> weight;
    if (found == hub.weights().end()) {
      weight = stacks.part(tensor);
    } else {
      weight = found->second;
    }
    if (!weight) {
      if (!tensor.repeated) missing.push_back(tensor.hub_name);
    } else if (!same_shape(weight->shape, tensor.hub_shape) || !holds_numbers(*weight)) {
      misshaped.push_back(fmt::format("{} is {}{}, not {}", tensor.hub_name,
                                      safetensors::name_of(weight->values.spec.type),
                                      safetensors::to_text(weight->shape), tensor.hub_shape.str()));
    } else if (tensor.repeated) {
      match.repeats.push_back({tensor, *std::move(weight)});
    } else {
      match.elements += weight->numel();
      match.quantized += weight->coding == HubCoding::plain ? 0 : 1;
      match.items.push_back({tensor, *std::move(weight)});
    }
  }
  for (const auto& [name, weight] : hub.weights()) {
    if (known.contains(name) || stacks.used(name)) continue;
    (has_no_use(name, hub, known_layers) ? match.left_out : extra).push_back(name);
  }
  if (!missing.empty() || !misshaped.empty() || !extra.empty()) {
    if (!missing.empty() && !extra.empty()) {
      if (const std::optional<std::string> packing = unread_packing(hub.stored())) {
        throw packed_by(hub.path(), *packing);
      }
    }
    const std::string cause = renamed(missing, extra);
    for (std::string& name : extra) name = safetensors::in_quotes(name);
    for (std::string& name : missing) {
      const auto file = hub.stored().absent().find(name);
      if (file != hub.stored().absent().end()) name += fmt::format(" (the index puts it into {})", file->second);
    }
    throw user_error("{} does not hold the {} tensors of {} ({}):{}{}{}", hub.path().string(), tensors.size(),
                     model.name, model.model_type, list_of("missing", missing),
                     list_of("of another shape or type", misshaped), list_of("that the model lacks", extra))
        .advise(
            cause.empty()
                ? "config.json and the weights must be of one model, and fields overridden must not change its shape"
                : cause);
  }
  const int64_t expected = param_count(model).total;
  require(match.elements == expected, "{} tensors hold {} of {} parameters", match.items.size(), match.elements,
          expected);
  return match;
}

void check_repeats(const HubMatch& match) {
  constexpr int64_t kPiece = 1 << 16;
  std::vector<float> one(kPiece), other(kPiece);
  for (const HubMatch::Item& repeat : match.repeats) {
    const auto original = std::find_if(match.items.begin(), match.items.end(), [&](const HubMatch::Item& item) {
      return item.tensor.parameter == repeat.tensor.parameter;
    });
    require(original != match.items.end(), "{} repeats nothing", repeat.tensor.hub_name);
    for (int64_t at = 0; at < repeat.weight.numel(); at += kPiece) {
      const int64_t count = std::min(kPiece, repeat.weight.numel() - at);
      read_line(original->weight, at, 1, tensor_of(one.data(), {count}));
      read_line(repeat.weight, at, 1, tensor_of(other.data(), {count}));
      const auto end = one.begin() + count;
      const auto [a, b] = std::mismatch(one.begin(), end, other.begin());
      if (a == end) continue;
      throw user_error("{} repeats {}, but element {} is {} there and {} here", repeat.tensor.hub_name,
                       original->tensor.hub_name, at + (a - one.begin()), *a, *b)
          .advise("the extra layer shares embedding and head with the model; leave it out: model.mtp_loss_weight 0");
    }
  }
}

std::string describe(const HubMatch& match, const HubWeights& hub) {
  std::string text = fmt::format("{} tensors, {} parameters ({}) from {}", format_count(std::ssize(match.items)),
                                 format_magnitude(static_cast<double>(match.elements)), format_bytes(hub.bytes()),
                                 hub.path().string());
  if (match.quantized > 0) text += fmt::format(", {} of them quantised", format_count(match.quantized));
  if (!match.left_out.empty()) {
    text += fmt::format("; {} without use here were left out, {} the first", format_count(std::ssize(match.left_out)),
                        match.left_out.front());
  }
  if (const auto& absent = hub.stored().absent(); !absent.empty()) {
    text += fmt::format("; the index has {} more that no file holds, {} the first", format_count(std::ssize(absent)),
                        absent.begin()->first);
  }
  return text;
}

}  // namespace sluice
