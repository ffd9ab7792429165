#!/usr/bin/env python3
"""Writes goldens_bf16/: tiny random models with bf16 weights as Hugging Face transformers saves them, and how far its
own bf16 is from f64.

    venv/bin/python make_bf16_goldens.py           # writes goldens_bf16/; make_goldens.py says how to come by venv
    venv/bin/python make_bf16_goldens.py CASE      # writes one of them anew
    venv/bin/python make_bf16_goldens.py --check   # computes again and compares with goldens_bf16/

The models are those of make_goldens.py, drawn anew. Each folder holds
    config.json          as transformers saves it
    model.safetensors    likewise: bf16, but for selection biases, which transformers keeps in f32
    golden.safetensors   input_ids, labels [batch, seq] (a label is the next token); logits [batch, seq, vocab] and
                         token_losses [batch, seq] in f64; bf16.logits and bf16.token_losses of transformers in bf16;
                         mtp_logits and bf16.mtp_logits of the layer that predicts the token after the next;
                         bf16.gradient_error.NAME: norm of the error of transformers' bf16 gradient over the norm of
                         the gradient
transformers in bf16 is run with each form of attention and of experts that it has for the model on a CPU; stored is
the one whose logits are closest to f64. Routers are drawn until their choices are clear, one layer after the other: all
forms choose the experts that f64 chooses. An error norm then says how results are rounded, not which ties fell how.
"""

import argparse
import itertools
import json
import math
import pathlib
import re
import shutil
import sys
import tempfile

import numpy
import safetensors
import safetensors.torch
import torch
import transformers
import xxhash

import make_goldens as goldens

HERE = pathlib.Path(__file__).resolve().parent
STORED = HERE / "goldens_bf16"
SEQ_LEN, BATCH = 16, 2
# The smallest margin of a choice over the largest error that bf16 makes in a score.
CLEAR = 1.0
# Draws of a router, of which the one with the clearest choices is kept.
ROUTERS = 4000
CASES = goldens.CASES
ROUTER = re.compile(r"mlp\.(gate|router)\.weight$")


def forms(case):
    """Implementations of attention and experts. grouped_mm, with which models of whole multiples of 16 bytes run, rounds
    as batched_mm does."""
    attention = ["eager"] if case == "gpt_oss" else ["sdpa", "eager"]
    dense = "experts_implementation" not in CASES[case][4]
    return itertools.product(attention, [None] if dense else ["eager", "batched_mm"])


def save(case, weights, directory):
    """A model of bf16 weights as transformers writes it."""
    model = goldens.make_model(case, weights)
    keep = {name: value.clone() for name, value in model.state_dict().items() if "e_score_correction_bias" in name}
    model = model.to(torch.bfloat16)
    for name, buffer in model.named_buffers():
        if name in keep:
            buffer.data = keep[name]
    model.save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    for path in directory.iterdir():
        path.chmod(0o644)


class Scores(goldens.Probe):
    """Every score that a choice was made by, too. Softmax routers choose by their logits."""

    def __init__(self, model):
        self.scores = []
        super().__init__(model)

    def after_topk(self, layer, kind):
        def hook(_, __, outputs):
            logits, weights, experts = outputs
            self.choose(layer, logits.detach(), experts, weights)
        return hook

    def choose(self, layer, scores, experts, weights):
        # Of a group that is left out, minus infinity.
        self.scores.append(scores.detach().double().clone())
        super().choose(layer, scores, experts, weights)


def run(model, inputs, labels):
    """Logits, losses, gradients and choices; the loss is the mean over all tokens."""
    probe = Scores(model)
    extra = isinstance(model, goldens.DeepseekV3WithMtp)
    output = model(input_ids=inputs, labels=labels, shift_labels=labels)
    output.loss.backward()
    wide = torch.float64 if output.logits.dtype == torch.float64 else torch.float32
    losses = torch.nn.functional.cross_entropy(output.logits.detach().to(wide).flatten(0, 1), labels.flatten(),
                                               reduction="none").view_as(labels)
    result = {"logits": output.logits.detach().clone(), "token_losses": losses}
    if extra:
        result["mtp_logits"] = output.mtp_logits.detach().clone()
    gradients = {name: p.grad.double() for name, p in model.named_parameters()}
    return result, gradients, probe


def error_norm(got, expected):
    return ((got.double() - expected).norm() / expected.norm()).item()


def with_labels_of_the_next_token(tokens):
    return tokens[..., :-1].contiguous(), tokens[..., 1:].contiguous()


def in_bf16(case, directory, attention, experts):
    settings = {"attn_implementation": attention}
    if experts is not None:
        settings["experts_implementation"] = experts
    model = CASES[case][1].from_pretrained(directory, dtype=torch.bfloat16, **settings).train()
    assert next(model.parameters()).dtype == torch.bfloat16
    return model


def scores_differ_by(probe, other):
    """The largest difference of scores that both have; infinity where other groups of experts were chosen."""
    worst = 0.0
    for mine, theirs in zip(probe.scores, other.scores, strict=True):
        if not torch.equal(mine.isinf(), theirs.isinf()):
            return math.inf
        worst = max(worst, (mine - theirs).masked_fill(mine.isinf(), 0).abs().max().item())
    return worst


def draw_routers(case, seed, weights, inputs, labels):
    """Gives each router in turn the weights, of many draws, whose smallest margin is the largest."""
    generator = torch.Generator().manual_seed(seed + 700_000)
    model = goldens.make_model(case, {name: value.double() for name, value in weights.items()})
    names = [name for name in weights if ROUTER.search(name)]
    for name in names:
        layer = model.get_submodule(name.removesuffix(".gate.weight").removesuffix(".router.weight"))
        seen = []
        handle = layer.register_forward_pre_hook(lambda _, arguments, seen=seen: seen.append(arguments[0].detach()))
        with torch.no_grad():
            model(input_ids=inputs, labels=labels, shift_labels=labels)
        handle.remove()
        hidden = seen[0].flatten(0, 1)
        probe = Scores(layer_in_a_model(name, layer))
        gate = layer.gate if hasattr(layer, "gate") else layer.router
        best = 0, None
        for _ in range(ROUTERS):
            drawn = torch.randn(gate.weight.shape, generator=generator, dtype=torch.float32) * 2 / hidden.shape[1]**0.5
            gate.weight.data = drawn.to(torch.bfloat16).double()
            probe.margin, probe.scores = math.inf, []
            with torch.no_grad():
                logits = gate(hidden)
                if hasattr(layer, "route_tokens_to_experts"):
                    layer.route_tokens_to_experts(logits)
            if probe.margin > best[0]:
                best = probe.margin, gate.weight.data
        gate.weight.data = best[1]
        weights[name] = best[1].float()


def layer_in_a_model(name, layer):
    """What a Probe takes: names that say which layer it is."""
    outer = torch.nn.Module()
    number = name.split("layers.")[1].split(".")[0]
    outer.add_module("layers", torch.nn.ModuleDict({number: torch.nn.ModuleDict({"mlp": layer})}))
    return outer


def draw(case, seed):
    """All that is stored of a draw, or why it will not do."""
    config = goldens.make_config(case)
    weights = {name: value.to(torch.bfloat16).float() for name, value in
               goldens.draw_weights(CASES[case][1](config), seed).items()}
    tokens = goldens.draw_tokens(seed, SEQ_LEN, config.vocab_size)[0]
    assert len(tokens) == BATCH
    inputs, labels = with_labels_of_the_next_token(tokens)
    with goldens.f64_for_f32():
        draw_routers(case, seed, weights, inputs, labels)
        model = goldens.make_model(case, {name: value.double() for name, value in weights.items()})
        f64, gradients, probe = run(model, inputs, labels)
    with tempfile.TemporaryDirectory() as temporary:
        directory = pathlib.Path(temporary)
        save(case, weights, directory)
        best = None
        facts = {"seed": seed, "margin": probe.margin if probe.choices else None, "logits_error": {}}
        for attention, experts in forms(case):
            form = f"{attention} attention" + (f", {experts} experts" if experts else "")
            bf16, narrow, chosen = run(in_bf16(case, directory, attention, experts), inputs, labels)
            if probe.choices:
                assert chosen.scores, f"{form}: no choice was seen"
                distance = scores_differ_by(probe, chosen)
                if probe.margin < CLEAR * distance:
                    return f"{form}: scores differ by {distance:.1e}, and a margin is {probe.margin:.1e}"
            error = error_norm(bf16["logits"], f64["logits"])
            facts["logits_error"][form] = error
            if best is None or error < best[0]:
                best = error, form, bf16, narrow
        # Only now: transformers converts stacked experts by the model type, and has no kimi_k2.
        goldens.save_config(case, directory / "config.json", directory / "config.json")
        files = {path.name: path.read_bytes() for path in directory.iterdir()}
    _, form, bf16, narrow = best
    golden = {"input_ids": inputs.to(torch.int32), "labels": labels.to(torch.int32), **f64}
    golden |= {f"bf16.{name}": value for name, value in bf16.items()}
    narrow = goldens.hub_tensors(case, narrow)
    for name, expected in goldens.hub_tensors(case, gradients).items():
        # An expert that no token chose has none.
        error = error_norm(narrow[name], expected) if expected.norm() > 0 else 0.0
        golden[f"bf16.gradient_error.{name}"] = torch.tensor(error, dtype=torch.float64)
    facts["closest"] = form
    return golden, files, facts


def write(case, directory):
    for seed in range(1, 100_000):
        result = draw(case, seed)
        if not isinstance(result, str):
            break
    golden, files, facts = result
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    safetensors.torch.save_file(golden, directory / "golden.safetensors")
    for path in directory.iterdir():
        path.chmod(0o644)
    print(f"{case}: draw {facts['seed']}, margin {facts['margin']}, "
          + "; ".join(f"{form} {error:.2e}" for form, error in facts["logits_error"].items()))
    facts["files"] = {path.name: {"bytes": path.stat().st_size, "hash": xxhash.xxh3_64_hexdigest(path.read_bytes())}
                      for path in sorted(directory.iterdir())}
    return facts


def compare(case, made, kept):
    """Fails unless what was made now is what is kept; bf16 up to what another machine's products differ by."""
    for file in ("config.json", "model.safetensors"):
        assert (made / file).read_bytes() == (kept / file).read_bytes(), f"{case}/{file}"
    new, old = (safetensors.torch.load_file(folder / "golden.safetensors") for folder in (made, kept))
    assert set(new) == set(old), case
    for name, value in old.items():
        if name.startswith("bf16."):
            continue
        assert error_norm(new[name], value.double()) <= 1e-11, f"{case}: {name}"
    new_error, old_error = (error_norm(golden["bf16.logits"], golden["logits"]) for golden in (new, old))
    assert abs(new_error / old_error - 1) < 0.25, f"{case}: bf16 is {new_error} from f64, and was {old_error}"


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
    STORED.mkdir(exist_ok=True)
    manifest = STORED / "MANIFEST.json"
    facts = json.loads(manifest.read_text())["models"] if manifest.exists() else {}
    for case in options.cases or CASES:
        with tempfile.TemporaryDirectory(dir=HERE) as temporary:
            made = pathlib.Path(temporary) / case
            new = write(case, made)
            if options.check:
                compare(case, made, STORED / case)
                print(f"{case} is as stored")
                continue
            shutil.rmtree(STORED / case, ignore_errors=True)
            made.rename(STORED / case)
        facts[case] = new
        versions = {"python": ".".join(map(str, sys.version_info[:3])), "torch": torch.__version__,
                    "transformers": transformers.__version__, "safetensors": safetensors.__version__,
                    "numpy": numpy.__version__}
        manifest.write_text(json.dumps({"versions": versions, "hash": "XXH3, 64 bits, seed 0", "clear": CLEAR,
                                        "models": {each: facts[each] for each in CASES if each in facts}},
                                       indent=2) + "\n")


if __name__ == "__main__":
    main()
