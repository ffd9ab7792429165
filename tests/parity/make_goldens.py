#!/usr/bin/env python3
"""Writes goldens/: tiny random models and what Hugging Face transformers computes with them.

    python3.11 -m venv venv && venv/bin/pip install --no-deps -r requirements.txt
    venv/bin/python make_goldens.py            # writes goldens/
    venv/bin/python make_goldens.py CASE       # writes one of them anew
    venv/bin/python make_goldens.py --check    # computes again and compares with goldens/

Each folder holds
    config.json               as transformers saves it
    weights.safetensors       f32, hub names and layout
    golden_f64.safetensors    input_ids, labels [steps, batch, seq] (a label is the next token; one batch a step);
                              logits [batch, seq, vocab] and loss of the first batch before any step; grad.NAME of its
                              loss; router.LAYER.experts (ascending) and .weights [tokens, K]; step_losses [steps]
                              (before each step); after.NAME: weights after all AdamW steps
    golden_f32.safetensors    logits, loss and step_losses of the same model in f32
deepseek_v3_mtp adds the layer that predicts the token after the next, which transformers has not, put together from
transformers' parts: its mtp_logits and mtp_step_losses are stored beside the model's own, and what is differentiated is
loss + 0.3 mtp_loss.

transformers casts norms, softmax, rotary tables and routers to fp32 by name. For f64, torch.float32, torch.float and
Tensor.float mean their f64 counterparts while a model is built and run, and every operation is watched: none may touch
an fp32 tensor.
"""

import argparse
import contextlib
import json
import math
import pathlib
import re
import shutil
import sys
import tempfile
import types

import numpy
import safetensors
import safetensors.torch
import torch
import transformers
import xxhash
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.masking_utils import create_causal_mask
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer, DeepseekV3RMSNorm
from transformers import (DeepseekV3Config, DeepseekV3ForCausalLM, GptOssConfig, GptOssForCausalLM, LlamaConfig,
                          LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM)

HERE = pathlib.Path(__file__).resolve().parent
STEPS, BATCH = 10, 2
ADAMW = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-4, weight_decay=0.0)
# Between the last score that is chosen and the first that is not, in every forward pass of every step; and between a
# pre-activation and the place where it is cut off.
MARGIN = 1e-4

COMMON = dict(vocab_size=72, hidden_size=24, num_hidden_layers=3, max_position_embeddings=256, use_cache=False,
              pad_token_id=None, bos_token_id=None, eos_token_id=None, attn_implementation="eager")
GQA = dict(num_attention_heads=4, num_key_value_heads=2)
EXPERTS = dict(experts_implementation="eager")
MLA = dict(num_attention_heads=3, num_key_value_heads=3, kv_lora_rank=14, qk_nope_head_dim=6, qk_rope_head_dim=8,
           v_head_dim=10)

MTP_WEIGHT = 0.3


class DeepseekV3WithMtp(DeepseekV3ForCausalLM):
    """The extra layer as the checkpoint has it, layer L: [DeepSeek-V3, arXiv:2412.19437, 2.2.2]. Embedding first."""

    def __init__(self, config):
        super().__init__(config)
        width, eps = config.hidden_size, config.rms_norm_eps
        layer = DeepseekV3DecoderLayer(config, config.num_hidden_layers)
        layer.enorm, layer.hnorm = DeepseekV3RMSNorm(width, eps), DeepseekV3RMSNorm(width, eps)
        layer.eh_proj = torch.nn.Linear(2 * width, width, bias=False)
        layer.shared_head = torch.nn.Module()
        layer.shared_head.norm = DeepseekV3RMSNorm(width, eps)
        self.model.layers.append(layer)

    def forward(self, input_ids, labels, shift_labels):
        del labels
        hidden = self.model(input_ids=input_ids).last_hidden_state
        layer = self.model.layers[self.config.num_hidden_layers]
        following = torch.cat((input_ids[:, 1:], input_ids[:, -1:]), 1)
        joined = torch.cat((layer.enorm(self.model.embed_tokens(following)), layer.hnorm(hidden)), -1)
        x = layer.eh_proj(joined)
        positions = torch.arange(x.shape[1]).unsqueeze(0)
        mask = create_causal_mask(config=self.config, inputs_embeds=x, attention_mask=None, past_key_values=None,
                                  position_ids=positions)
        x = layer(x, attention_mask=mask, position_ids=positions,
                  position_embeddings=self.model.rotary_emb(x, position_ids=positions))
        logits, mtp_logits = self.lm_head(hidden), self.lm_head(layer.shared_head.norm(x))
        sums = [torch.nn.functional.cross_entropy(a.flatten(0, 1), b.flatten(), reduction="sum")
                for a, b in ((logits, shift_labels), (mtp_logits[:, :-1], shift_labels[:, 1:]))]
        loss, mtp_loss = sums[0] / shift_labels.numel(), sums[1] / shift_labels.numel()
        return types.SimpleNamespace(loss=loss + MTP_WEIGHT * mtp_loss, logits=logits, own_loss=loss,
                                     mtp_logits=mtp_logits, mtp_loss=mtp_loss)


# name: (class of the configuration, of the model, sequence length, model_type on the hub where it differs, settings)
CASES = {
    "deepseek_v3": (DeepseekV3Config, DeepseekV3ForCausalLM, 32, None, dict(
        **COMMON, **MLA, **EXPERTS, q_lora_rank=18, intermediate_size=20, moe_intermediate_size=8, n_routed_experts=16,
        n_shared_experts=1, num_experts_per_tok=4, n_group=4, topk_group=2, first_k_dense_replace=1,
        routed_scaling_factor=2.5, rope_parameters=dict(
            rope_type="yarn", rope_theta=100.0, factor=40.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0,
            original_max_position_embeddings=256))),
    "deepseek_v3_plain_q": (DeepseekV3Config, DeepseekV3ForCausalLM, 32, None, dict(
        **COMMON, **MLA, **EXPERTS, q_lora_rank=None, intermediate_size=20, moe_intermediate_size=8,
        n_routed_experts=12, n_shared_experts=2, num_experts_per_tok=3, n_group=3, topk_group=2, rms_norm_eps=1e-5,
        first_k_dense_replace=2, routed_scaling_factor=1.5, rope_parameters=dict(
            rope_type="yarn", rope_theta=100.0, factor=8.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=0.7,
            original_max_position_embeddings=256))),
    "deepseek_v3_mtp": (DeepseekV3Config, DeepseekV3WithMtp, 32, None, dict(
        **{**COMMON, "num_hidden_layers": 2}, **MLA, **EXPERTS, q_lora_rank=18, intermediate_size=20,
        moe_intermediate_size=8, n_routed_experts=12, n_shared_experts=1, num_experts_per_tok=3, n_group=3,
        topk_group=2, first_k_dense_replace=1, routed_scaling_factor=2.5, num_nextn_predict_layers=1,
        rope_parameters=dict(rope_type="yarn", rope_theta=100.0, factor=40.0, beta_fast=32, beta_slow=1, mscale=1.0,
                             mscale_all_dim=1.0, original_max_position_embeddings=256))),
    # Both ends of YaRN's ramp coincide here.
    "kimi_k2": (DeepseekV3Config, DeepseekV3ForCausalLM, 32, "kimi_k2", dict(
        **COMMON, **MLA, **EXPERTS, q_lora_rank=18, intermediate_size=20, moe_intermediate_size=8, n_routed_experts=12,
        n_shared_experts=1, num_experts_per_tok=4, n_group=1, topk_group=1, first_k_dense_replace=1,
        routed_scaling_factor=2.827, rope_parameters=dict(
            rope_type="yarn", rope_theta=50.0, factor=32.0, beta_fast=1, beta_slow=1, mscale=1.0, mscale_all_dim=1.0,
            original_max_position_embeddings=6))),
    "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM, 32, None, dict(
        **COMMON, **GQA, **EXPERTS, head_dim=10, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=12,
        intermediate_size=20, norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[], rms_norm_eps=3e-6,
        rope_parameters=dict(rope_type="default", rope_theta=1000.0))),
    "gpt_oss": (GptOssConfig, GptOssForCausalLM, 32, None, dict(
        **{**COMMON, "num_hidden_layers": 4}, **GQA, **EXPERTS, head_dim=8, num_local_experts=8, num_experts_per_tok=3,
        intermediate_size=10, sliding_window=7, rope_parameters=dict(
            rope_type="yarn", rope_theta=150.0, factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
            original_max_position_embeddings=256))),
    "llama": (LlamaConfig, LlamaForCausalLM, 32, None, dict(
        **COMMON, **GQA, head_dim=6, intermediate_size=20, rms_norm_eps=1e-5, rope_parameters=dict(
            rope_type="default", rope_theta=1000.0))),
    # Pairs on both ends of Llama 3's ramp and on it.
    "llama_3": (LlamaConfig, LlamaForCausalLM, 32, None, dict(
        **COMMON, **GQA, head_dim=12, intermediate_size=20, attention_bias=True, rms_norm_eps=1e-5,
        tie_word_embeddings=True, rope_parameters=dict(rope_type="llama3", rope_theta=100.0, factor=8.0, low_freq_factor=1.0,
                             high_freq_factor=4.0, original_max_position_embeddings=64))),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, 32, None, dict(
        **COMMON, **GQA, head_dim=10, intermediate_size=20, rope_parameters=dict(
            rope_type="default", rope_theta=1000.0))),
    # Of six layers the second is an MLP by name and the others with even numbers by the step.
    "qwen3_moe_mixed": (Qwen3MoeConfig, Qwen3MoeForCausalLM, 32, None, dict(
        **{**COMMON, "num_hidden_layers": 6}, **GQA, **EXPERTS, head_dim=6, num_experts=8, num_experts_per_tok=3,
        moe_intermediate_size=12, intermediate_size=20, norm_topk_prob=False, decoder_sparse_step=2,
        mlp_only_layers=[1], attention_bias=True, rope_parameters=dict(
            rope_type="linear", rope_theta=1000.0, factor=4.0))),
}


@contextlib.contextmanager
def f64_for_f32():
    saved = torch.float32, torch.float, torch.Tensor.float, torch.get_default_dtype()
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = saved[:3]
        torch.set_default_dtype(saved[3])


F32 = torch.float32


class Watch(TorchDispatchMode):
    """Fails on the first operation that reads or makes an fp32 tensor; counts the operations it saw."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, result)):
            if isinstance(value, torch.Tensor) and value.dtype in (F32, torch.bfloat16, torch.float16):
                raise AssertionError(f"{function} touches a tensor of {value.dtype}")
        self.seen += 1
        return result


def watched(watch, name, function):
    """function() under the watch; it must have seen operations."""
    if watch is None:
        return function()
    before = watch.seen
    with watch:
        result = function()
    assert watch.seen > before, f"nothing was seen of the {name}"
    return result


class Probe:
    """What every router chose, and the smallest distances from a decision that could fall the other way."""

    def __init__(self, model):
        self.margin = math.inf
        self.clamp_margin = math.inf
        self.clamped = {"gate": 0, "up": 0, "-up": 0, "free": 0}
        self.choices = {}
        for name, module in model.named_modules():
            kind = type(module).__name__
            layer = int(match[1]) if (match := re.search(r"layers\.(\d+)\.", name)) else None
            if kind in ("Qwen3MoeTopKRouter", "GptOssTopKRouter"):
                module.register_forward_hook(self.after_topk(layer, kind))
            elif kind == "DeepseekV3MoE":
                self.wrap_sigmoid(layer, module)
            elif kind == "GptOssExperts":
                self.wrap_gate(module)

    def choose(self, layer, scores, experts, weights):
        chosen = torch.zeros_like(scores).scatter(1, experts, 1).bool()
        rest = scores.masked_fill(chosen, -math.inf).amax(1)
        margin = scores.masked_fill(~chosen, math.inf).amin(1) - rest
        self.margin = min(self.margin, margin.min().item())
        experts, order = experts.sort(1)
        self.choices[layer] = experts.to(torch.int32), weights.detach().gather(1, order)

    def after_topk(self, layer, kind):
        def hook(_, __, outputs):
            logits, weights, experts = outputs
            scores = logits.detach()
            self.choose(layer, scores.softmax(-1) if kind.startswith("Qwen3") else scores, experts, weights)
        return hook

    def wrap_sigmoid(self, layer, module):
        route = module.route_tokens_to_experts

        def routed(logits):
            experts, weights = route(logits)
            scores = logits.detach().sigmoid() + module.gate.e_score_correction_bias
            groups = scores.view(len(scores), module.n_group, -1)
            if module.n_group > module.topk_group:
                by_group = groups.topk(2, -1)[0].sum(-1).sort(-1, descending=True)
                values, best = by_group.values, by_group.indices[:, :module.topk_group]
                gap = values[:, module.topk_group - 1] - values[:, module.topk_group]
                self.margin = min(self.margin, gap.min().item())
                kept = torch.zeros(groups.shape[:2], dtype=torch.bool).scatter(1, best, True)
                scores = groups.masked_fill(~kept[:, :, None], -math.inf).flatten(1)
            self.choose(layer, scores, experts, weights)
            return experts, weights
        module.route_tokens_to_experts = routed

    def wrap_gate(self, module):
        apply = module._apply_gate

        def applied(gate_up):
            gate, up, limit = gate_up.detach()[..., ::2], gate_up.detach()[..., 1::2], module.limit
            distance = min((gate - limit).abs().min().item(), (up.abs() - limit).abs().min().item())
            self.clamp_margin = min(self.clamp_margin, distance)
            for key, hit in (("gate", gate > limit), ("up", up > limit), ("-up", up < -limit),
                             ("free", (gate < limit) & (up.abs() < limit))):
                self.clamped[key] += int(hit.sum())
            return apply(gate_up)
        module._apply_gate = applied

    def check(self):
        """Why this draw will not do, or nothing."""
        if self.margin <= MARGIN:
            return f"a router's margin is {self.margin:.1e}"
        if self.clamp_margin <= MARGIN:
            return f"a clamp's margin is {self.clamp_margin:.1e}"
        if self.clamp_margin < math.inf and min(self.clamped.values()) == 0:
            return f"a side of the clamp is not reached: {self.clamped}"
        return None


def draw_weights(model, seed):
    """f32 values for all parameters and buffers of a model: nothing near its initialisation, all terms of weight."""
    generator = torch.Generator().manual_seed(seed)

    def normal(shape, scale, center=0.0):
        return center + scale * torch.randn(shape, generator=generator, dtype=torch.float32)

    values = {}
    for name, tensor in model.state_dict().items():
        shape = tensor.shape
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            values[name] = values["model.embed_tokens.weight"]
        elif name.endswith("e_score_correction_bias"):
            values[name] = normal(shape, 0.2)
            assert values[name].min() < 0 < values[name].max()
        elif "norm" in name:
            values[name] = normal(shape, 0.3, 1.0)
        elif name.endswith("bias"):
            values[name] = normal(shape, 0.3)
        elif name.endswith("sinks") or name.endswith("embed_tokens.weight"):
            values[name] = normal(shape, 1.0)
        elif re.search(r"mlp\.(gate|router)\.weight$", name):
            values[name] = normal(shape, 2 / math.sqrt(shape[-1]))
        elif type(model) is GptOssForCausalLM and name.endswith("gate_up_proj"):
            values[name] = normal(shape, 3 / math.sqrt(shape[-2]))
        elif type(model) is GptOssForCausalLM and name.endswith("down_proj"):
            values[name] = normal(shape, 0.5 / math.sqrt(shape[-2]))
        else:
            values[name] = normal(shape, 1 / math.sqrt(shape[-1]))
    return values


def draw_tokens(seed, seq_len, vocab_size):
    generator = torch.Generator().manual_seed(seed + 500_000)
    return torch.randint(vocab_size, (STEPS, BATCH, seq_len + 1), generator=generator)


def make_config(case):
    config_class, _, _, _, settings = CASES[case]
    return config_class(**json.loads(json.dumps(settings)))


def make_model(case, weights):
    """In torch's default dtype, which the weights have too."""
    model = CASES[case][1](make_config(case))
    model.load_state_dict(weights)
    assert model.config._attn_implementation == "eager"
    return model.train()


def hub_tensors(case, values, directory=None):
    """Tensors named and laid out as transformers saves them, from values by the names of its modules."""
    with tempfile.TemporaryDirectory() as temporary:
        model = CASES[case][1](make_config(case)).to(next(iter(values.values())).dtype)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name in values:
                tensor.data = values[name]
        model.save_pretrained(temporary)
        if directory is not None:
            save_config(case, pathlib.Path(temporary) / "config.json", directory / "config.json")
        tensors = safetensors.torch.load_file(pathlib.Path(temporary) / "model.safetensors")
    return {name: value.clone() for name, value in tensors.items()
            if "e_score_correction_bias" not in name or any("e_score_correction_bias" in key for key in values)}


def save_config(case, source, target):
    text = source.read_text().replace('"DeepseekV3WithMtp"', '"DeepseekV3ForCausalLM"')
    renamed = CASES[case][3]
    if renamed is not None:
        text, count = re.subn(r'"model_type": "\w+"', f'"model_type": "{renamed}"', text)
        assert count == 1
    target.write_text(text if text.endswith("\n") else text + "\n")


def own_loss(output):
    """Of the next token."""
    return getattr(output, "own_loss", output.loss).detach()


def run(case, weights, tokens, watch):
    """All that is stored of one precision, torch's default dtype, and the probe."""
    weights = {name: value.to(torch.get_default_dtype()) for name, value in weights.items()}
    model = watched(watch, "construction", lambda: make_model(case, weights))
    probe = Probe(model)
    inputs, labels = tokens[..., :-1].contiguous(), tokens[..., 1:].contiguous()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False, **ADAMW)
    result = {"step_losses": [], "mtp_step_losses": []}
    for step in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        output = watched(watch, "forward", lambda: model(input_ids=inputs[step], labels=labels[step],
                                                         shift_labels=labels[step]))
        watched(watch, "backward", output.loss.backward)
        if step == 0:
            result["logits"], result["loss"] = output.logits.detach().clone(), own_loss(output).clone()
            if hasattr(output, "mtp_loss"):
                result["mtp_logits"] = output.mtp_logits.detach().clone()
            result["gradients"] = {name: p.grad.clone() for name, p in model.named_parameters()}
            result["choices"] = dict(probe.choices)
        result["step_losses"].append(own_loss(output))
        if hasattr(output, "mtp_loss"):
            result["mtp_step_losses"].append(output.mtp_loss.detach())
        watched(watch, "step", optimizer.step)
        if probe.check() is not None and "side" not in probe.check():
            break
    result["step_losses"] = torch.stack(result["step_losses"])
    if result["mtp_step_losses"]:
        result["mtp_step_losses"] = torch.stack(result["mtp_step_losses"])
    result["after"] = {name: p.detach().clone() for name, p in model.named_parameters()}
    return result, probe


def compute(case):
    """The first draw whose decisions are all clear, and its results in both precisions."""
    _, _, seq_len, _, settings = CASES[case]
    for seed in range(1, 100_000):
        weights = draw_weights(CASES[case][1](make_config(case)), seed)
        tokens = draw_tokens(seed, seq_len, settings["vocab_size"])
        with f64_for_f32():
            watch = Watch()
            f64, probe = run(case, weights, tokens, watch)
        if probe.check() is None:
            break
    f32, probe_f32 = run(case, weights, tokens, None)
    assert f32["logits"].dtype == torch.float32 and f64["logits"].dtype == torch.float64
    assert probe_f32.check() is None, probe_f32.check()
    for layer, (experts, _) in f64["choices"].items():
        assert torch.equal(experts, f32["choices"][layer][0])
    for name, gradient in f64["gradients"].items():
        assert gradient.abs().max() > 1e-6, f"{name} has no gradient"
    worst = ((f32["step_losses"].double() - f64["step_losses"]) / f64["step_losses"]).abs().max().item()
    print(f"{case}: draw {seed}, router margin {probe.margin:.1e}, clamp margin {probe.clamp_margin:.1e} "
          f"{probe.clamped if probe.clamp_margin < math.inf else ''}, {watch.seen} operations watched, loss "
          f"{f64['step_losses'][0]:.4f} .. {f64['step_losses'][-1]:.4f}, f32 within {worst:.1e}, "
          f"{sum(value.numel() for value in weights.values())} parameters")
    facts = {"seed": seed, "router_margin": probe.margin if probe.choices else None,
             "clamp_margin": probe.clamp_margin if probe.clamp_margin < math.inf else None,
             "step_loss_of_f32_within": worst}
    return weights, tokens, f64, f32, facts


def write(case, directory):
    weights, tokens, f64, f32, facts = compute(case)
    directory.mkdir(parents=True)
    hub = hub_tensors(case, weights, directory)
    assert all(tensor.dtype == torch.float32 for tensor in hub.values())
    stored = dict(hub)
    if "mtp_logits" in f64:
        # The hub repeats what the extra layer shares with the model.
        extra = f"model.layers.{CASES[case][4]['num_hidden_layers']}."
        stored[extra + "embed_tokens.weight"] = hub["model.embed_tokens.weight"].clone()
        stored[extra + "shared_head.head.weight"] = hub["lm_head.weight"].clone()
    safetensors.torch.save_file(stored, directory / "weights.safetensors", metadata={"format": "pt"})
    gradients, after = hub_tensors(case, f64["gradients"]), hub_tensors(case, f64["after"])
    parameters = {name for name in hub if "e_score_correction_bias" not in name}
    after = {name: after[name] for name in parameters}
    assert set(gradients) == parameters
    golden = {"input_ids": tokens[..., :-1].to(torch.int32).contiguous(),
              "labels": tokens[..., 1:].to(torch.int32).contiguous(),
              "logits": f64["logits"], "loss": f64["loss"], "step_losses": f64["step_losses"]}
    golden |= {key: f64[key] for key in ("mtp_logits", "mtp_step_losses") if len(f64.get(key, ()))}
    for layer, (experts, router_weights) in f64["choices"].items():
        golden[f"router.{layer}.experts"], golden[f"router.{layer}.weights"] = experts, router_weights
    golden |= {f"grad.{name}": value for name, value in gradients.items()}
    golden |= {f"after.{name}": value for name, value in after.items()}
    assert {value.dtype for value in golden.values()} == {torch.float64, torch.int32}
    safetensors.torch.save_file(golden, directory / "golden_f64.safetensors")
    safetensors.torch.save_file({key: f32[key] for key in ("logits", "loss", "step_losses")},
                                directory / "golden_f32.safetensors")
    for path in directory.iterdir():
        path.chmod(0o644)
    facts["files"] = {path.name: {"bytes": path.stat().st_size, "hash": xxhash.xxh3_64_hexdigest(path.read_bytes())}
                      for path in sorted(directory.iterdir())}
    return facts


def compare(case, made, kept):
    """Fails unless what was made now is what is kept, up to the last bits of another machine."""
    assert (made / "config.json").read_bytes() == (kept / "config.json").read_bytes(), case
    for file, bound in (("weights.safetensors", 0), ("golden_f64.safetensors", 1e-11), ("golden_f32.safetensors", 1e-5)):
        new, old = (safetensors.torch.load_file(folder / file) for folder in (made, kept))
        assert set(new) == set(old), f"{case}/{file}"
        for name, value in old.items():
            error = (new[name] - value).abs().max().double() / value.abs().max().double().clamp(min=1e-300)
            assert error <= bound, f"{case}/{file}: {name} differs by {error:.1e}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with what is stored instead of writing")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all")
    options = parser.parse_args()
    assert set(options.cases) <= set(CASES), "see --help"
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    goldens = HERE / "goldens"
    with tempfile.TemporaryDirectory(dir=HERE) as temporary:
        made = pathlib.Path(temporary) / "goldens"
        facts = {case: write(case, made / case) for case in options.cases or CASES}
        if options.check:
            for case in facts:
                compare(case, made / case, goldens / case)
            print(f"{len(facts)} models are as stored")
            return
        kept = json.loads((goldens / "MANIFEST.json").read_text())["models"] if options.cases else {}
        facts = {case: (kept | facts)[case] for case in CASES}
        manifest = {"versions": {"python": ".".join(map(str, sys.version_info[:3])), "torch": torch.__version__,
                                 "transformers": transformers.__version__, "safetensors": safetensors.__version__,
                                 "numpy": numpy.__version__},
                    "hash": "XXH3, 64 bits, seed 0", "adamw": ADAMW, "margin": MARGIN, "steps": STEPS, "models": facts}
        for case in options.cases or CASES:
            shutil.rmtree(goldens / case, ignore_errors=True)
            (made / case).rename(goldens / case)
        (goldens / "MANIFEST.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    main()
