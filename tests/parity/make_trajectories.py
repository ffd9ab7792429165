#!/usr/bin/env python3
"""Writes trajectories/: fifty steps of training of the models of goldens/, in f64, by transformers and torch.optim.

    (the virtual environment of make_goldens.py)
    venv/bin/python make_trajectories.py            # writes trajectories/
    venv/bin/python make_trajectories.py CASE       # writes one of them anew
    venv/bin/python make_trajectories.py --check    # computes again and compares with trajectories/

A run begins with the weights of goldens/CASE. Each step is of several micro-batches; the learning rate warms up and
falls along a cosine; matrices decay, norms, biases and sinks do not; gradients are clipped. What transformers does not
have is written here from the papers: the balance loss of a softmax router [Fedus et al. 2021, arXiv:2101.03961, 2.2],
that of a sequence and the step of the selection bias of a sigmoid router [DeepSeek-V3, arXiv:2412.19437, 2.1.2].

MANIFEST.json holds the settings of each run, CASE.safetensors
    tokens            u8 [steps, sequences, seq + 1]: inputs are all but the last, labels all but the first
    learning_rates, gradient_norms (before clipping), losses    f64 [steps]; mtp_losses of the extra layer, over the
                      labels of the model
    loads.LAYER       i32 [steps, experts]: slots each expert of a router with a selection bias got
    after.NAME        of the weights after the last step, by hub name: all of a small one, else [largest, products],
                      inner products with the vectors of `probe_vector`
"""

import argparse
import json
import math
import pathlib
import shutil
import sys
import tempfile

import numpy
import safetensors.torch
import torch
import transformers
import xxhash

import make_goldens as goldens

HERE = pathlib.Path(__file__).resolve().parent
STEPS, SEQ_LEN, MICRO_BATCH, MICRO_BATCHES = 50, 12, 2, 2
# Between a choice of a router, or a cut-off, and the other one; what two implementations differ by is far below.
MARGIN = 1e-6
# Weights of at most so many elements are stored whole.
WHOLE, PRODUCTS = 32, 3

SETTINGS = dict(peak=4e-3, minimum=4e-4, warmup=8, decay_end=44, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1,
                aux_loss_coef=0.0, selection_bias_rate=0.0)
# The selection bias moves by what DeepSeek-V3 was trained with.
CASES = {
    "llama": dict(SETTINGS, max_norm=1.8),
    "qwen3": dict(SETTINGS, max_norm=1.85),
    "qwen3_moe": dict(SETTINGS, max_norm=1.85, aux_loss_coef=0.02),
    "gpt_oss": dict(SETTINGS, max_norm=4.0, aux_loss_coef=0.02),
    "deepseek_v3": dict(SETTINGS, max_norm=3.0, aux_loss_coef=0.02, selection_bias_rate=1e-3),
    "deepseek_v3_mtp": dict(SETTINGS, max_norm=2.4, selection_bias_rate=1e-3),
    "kimi_k2": dict(SETTINGS, max_norm=2.8, selection_bias_rate=1e-3),
}


def learning_rate(settings, step):
    """Of a step counted from 0: a line to the peak, which step `warmup` has; a cosine to the minimum; the minimum."""
    warmup, peak, minimum = settings["warmup"], settings["peak"], settings["minimum"]
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    angle = math.pi * min(1.0, (step - warmup) / (settings["decay_end"] - warmup))
    return minimum + (peak - minimum) * (1 + math.cos(angle)) / 2


def check_learning_rates(settings):
    """The formula is what torch's schedulers give."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settings["peak"])
    warmup, span = settings["warmup"], settings["decay_end"] - settings["warmup"]
    line = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=span, eta_min=settings["minimum"])
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [line, cosine], milestones=[warmup])
    for step in range(settings["decay_end"] + 1):
        got, expected = optimizer.param_groups[0]["lr"], learning_rate(settings, step)
        assert abs(got - expected) <= 1e-12 * expected, (step, got, expected)
        optimizer.step()
        both.step()


def decays(name):
    """Whether a parameter is a matrix: biases of stacked experts have two dimensions too."""
    return not (name.endswith("bias") or name.endswith("sinks") or "norm" in name)


def draw_tokens(seed, vocab_size):
    """Text that can be learned: four times in five a token says which follows."""
    generator = torch.Generator().manual_seed(seed + 900_000)
    following = torch.randperm(vocab_size, generator=torch.Generator().manual_seed(7))
    shape = (STEPS, MICRO_BATCHES * MICRO_BATCH, SEQ_LEN + 1)
    tokens = torch.randint(vocab_size, shape, generator=generator)
    kept = torch.rand(shape, generator=generator) < 0.8
    for position in range(1, SEQ_LEN + 1):
        tokens[..., position] = torch.where(kept[..., position], following[tokens[..., position - 1]],
                                            tokens[..., position])
    return tokens


class Routers:
    """What the routers of a model did in the micro-batches since `begin`: logits [T, E] and choices [T, K]."""

    def __init__(self, model, probe):
        self.calls = []
        self.biases = {}
        for name, module in model.named_modules():
            kind = type(module).__name__
            if kind in ("Qwen3MoeTopKRouter", "GptOssTopKRouter"):
                module.register_forward_hook(self.after_softmax)
            elif kind == "DeepseekV3MoE":
                self.biases[name] = module.gate.e_score_correction_bias
                self.wrap_sigmoid(name, module)
        self.probe = probe

    def after_softmax(self, _, __, outputs):
        logits, _, experts = outputs
        self.calls.append((None, logits, experts))

    def wrap_sigmoid(self, name, module):
        route = module.route_tokens_to_experts

        def routed(logits):
            experts, weights = route(logits)
            self.calls.append((name, logits, experts))
            return experts, weights
        module.route_tokens_to_experts = routed

    def begin(self):
        self.calls = []

    def balance_loss(self):
        """The sum over the routers, of the micro-batch."""
        return sum(self.softmax_loss(logits, experts) if name is None else self.sequence_loss(logits, experts.shape[1])
                   for name, logits, experts in self.calls)

    @staticmethod
    def softmax_loss(logits, experts):
        """N sum_i f_i P_i: f the share of the slots, P the mean probability."""
        count = logits.shape[1]
        share = torch.bincount(experts.flatten(), minlength=count).to(logits.dtype) / experts.numel()
        return count * (share * logits.softmax(-1).mean(0)).sum()

    def sequence_loss(self, logits, top_k):
        """The mean over the sequences of sum_i f_i P_i, equations 17 to 20: of the scores without groups and bias."""
        scores = logits.sigmoid().unflatten(0, (-1, SEQ_LEN))
        best = scores.detach().topk(top_k + 1, -1)
        self.probe.margin = min(self.probe.margin, (best.values[..., -2] - best.values[..., -1]).min().item())
        chosen = torch.zeros_like(scores).scatter(-1, best.indices[..., :top_k], 1.0)
        f = chosen.sum(1) * logits.shape[1] / (top_k * SEQ_LEN)
        p = (scores / scores.sum(-1, keepdim=True)).mean(1)
        return (f * p).sum(-1).mean()

    def loads(self):
        """Slots by expert, of the routers with a selection bias."""
        return {name: torch.bincount(experts.flatten(), minlength=logits.shape[1])
                for name, logits, experts in self.calls if name is not None}


def move_biases(routers, loads, rate):
    """The overloaded get less, the underloaded more; one with exactly its share stays."""
    for name, load in loads.items():
        share = load.sum().item() / load.numel()
        for expert, slots in enumerate(load.tolist()):
            if slots > share:
                routers.biases[name][expert] -= rate
            elif slots < share:
                routers.biases[name][expert] += rate


def sums_of_losses(model, inputs, labels):
    """Cross-entropies added up: of the next token, and of the extra layer or None."""
    if isinstance(model, goldens.DeepseekV3WithMtp):
        output = model(input_ids=inputs, labels=labels, shift_labels=labels)
        return output.own_loss * labels.numel(), output.mtp_loss * labels.numel()
    logits = model(input_ids=inputs).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum"), None


def train(case, weights, tokens, watch):
    """All that is stored, and the probe; ends early at a decision that is not clear."""
    settings = CASES[case]
    weights = {name: value.to(torch.get_default_dtype()) for name, value in weights.items()}
    model = goldens.watched(watch, "construction", lambda: goldens.make_model(case, weights))
    probe = goldens.Probe(model)
    routers = Routers(model, probe)
    named = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [{"params": [p for name, p in named.items() if decays(name)], "weight_decay": settings["weight_decay"]},
         {"params": [p for name, p in named.items() if not decays(name)], "weight_decay": 0.0}],
        lr=settings["peak"], betas=settings["betas"], eps=settings["eps"], foreach=False)
    result = {key: [] for key in ("losses", "mtp_losses", "gradient_norms", "learning_rates")}
    all_loads = {name: [] for name in routers.biases}
    for step in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        batch = tokens[step]
        labels_of_step = batch[:, 1:].numel()
        losses, mtp_losses, loads = [], [], {}
        for first in range(0, len(batch), MICRO_BATCH):
            micro = batch[first:first + MICRO_BATCH]
            inputs, labels = micro[:, :-1].contiguous(), micro[:, 1:].contiguous()
            routers.begin()

            def forward():
                own, extra = sums_of_losses(model, inputs, labels)
                objective = own if extra is None else own + goldens.MTP_WEIGHT * extra
                if settings["aux_loss_coef"] > 0:
                    objective = objective + settings["aux_loss_coef"] * labels.numel() * routers.balance_loss()
                return own, extra, objective / labels_of_step
            own, extra, objective = goldens.watched(watch, "forward", forward)
            goldens.watched(watch, "backward", objective.backward)
            losses.append(own.item() / labels_of_step)
            mtp_losses.append(0.0 if extra is None else extra.item() / labels_of_step)
            for name, load in routers.loads().items():
                loads[name] = loads.get(name, 0) + load
        if probe.check() is not None and "side" not in probe.check():
            return None, probe
        norm = goldens.watched(watch, "clipping", lambda: torch.nn.utils.clip_grad_norm_(
            named.values(), settings["max_norm"], foreach=False))
        rate = learning_rate(settings, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        goldens.watched(watch, "step", optimizer.step)
        move_biases(routers, loads, settings["selection_bias_rate"])
        for name, load in loads.items():
            all_loads[name].append(load)
        result["losses"].append(math.fsum(losses))
        result["mtp_losses"].append(math.fsum(mtp_losses))
        result["gradient_norms"].append(norm.item())
        result["learning_rates"].append(rate)
    result["loads"] = {name: torch.stack(values).to(torch.int32) for name, values in all_loads.items()}
    result["after"] = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return result, probe


def probe_vector(index, count):
    """`count` numbers in [-1, 1): ((i + 1) m mod 2^32) / 2^31 - 1 with an odd number m for each index."""
    multiplier = (2654435761, 2246822519, 3266489917)[index]
    i = numpy.arange(1, count + 1, dtype=numpy.uint64)
    return (i * numpy.uint64(multiplier) % numpy.uint64(1 << 32)).astype(numpy.float64) / 2**31 - 1


def digest(tensor):
    """What is stored of a weight."""
    values = tensor.detach().numpy().reshape(-1)
    if len(values) <= WHOLE:
        return torch.from_numpy(values.copy())
    products = [math.fsum(values * probe_vector(index, len(values))) for index in range(PRODUCTS)]
    return torch.tensor([numpy.abs(values).max(), *products], dtype=torch.float64)


def check_facts(case, result, before, after):
    """The run shows all that it is for; returns what MANIFEST.json says of it."""
    settings = CASES[case]
    clipped = sum(norm > settings["max_norm"] for norm in result["gradient_norms"])
    assert 5 <= clipped <= STEPS - 5, f"{case}: {clipped} steps are clipped"
    for name, value in before.items():
        assert not torch.equal(after[name], value.double()), f"{case}: {name} did not move"
    ties = 0
    for name, loads in result["loads"].items():
        share = loads[0].sum().item() / loads.shape[1]
        ties += int((loads == share).sum())
        assert (loads > share).any() and (loads < share).any(), name
    assert ties > 0 or not result["loads"], f"{case}: no load is ever the mean"
    return {"clipped_steps": clipped, "loads_at_the_mean": ties}


def compute(case):
    """The first draw of tokens whose decisions are all clear."""
    kept = json.loads((goldens.HERE / "goldens" / "MANIFEST.json").read_text())["models"][case]
    model_class, config = goldens.CASES[case][1], goldens.make_config(case)
    weights = goldens.draw_weights(model_class(config), kept["seed"])
    hub = goldens.hub_tensors(case, weights)
    stored = safetensors.torch.load_file(goldens.HERE / "goldens" / case / "weights.safetensors")
    assert all(torch.equal(stored[name], value) for name, value in hub.items()), f"{case}: not the golden's weights"
    for seed in range(1, 10_000):
        tokens = draw_tokens(seed, config.vocab_size)
        with goldens.f64_for_f32():
            watch = goldens.Watch()
            result, probe = train(case, weights, tokens, watch)
        if result is not None:
            break
    after = goldens.hub_tensors(case, result["after"])
    assert set(after) == set(hub) and {value.dtype for value in after.values()} == {torch.float64}
    facts = {"seed": seed, "router_margin": probe.margin if probe.choices else None,
             "clamp_margin": probe.clamp_margin if probe.clamp_margin < math.inf else None}
    facts |= check_facts(case, result, hub, after)
    print(f"{case}: draw {seed}, margins {probe.margin:.1e} {probe.clamp_margin:.1e}, loss {result['losses'][0]:.3f} .. "
          f"{result['losses'][-1]:.3f}, norms {result['gradient_norms'][0]:.2f} .. {result['gradient_norms'][-1]:.2f} "
          f"median {sorted(result['gradient_norms'])[STEPS // 2]:.2f}, {facts['clipped_steps']} clipped, "
          f"{facts['loads_at_the_mean']} loads at the mean, {watch.seen} operations watched")
    return tokens, result, after, facts


def write(case, directory):
    tokens, result, after, facts = compute(case)
    stored = {"tokens": tokens.to(torch.uint8)}
    stored |= {key: torch.tensor(result[key], dtype=torch.float64)
               for key in ("learning_rates", "gradient_norms", "losses", "mtp_losses") if any(result[key])}
    stored |= {f"loads.{name.split('.')[2]}": value for name, value in result["loads"].items()}
    stored |= {f"after.{name}": digest(value) for name, value in after.items()}
    path = directory / f"{case}.safetensors"
    safetensors.torch.save_file(stored, path)
    path.chmod(0o644)
    return {"settings": CASES[case], **facts, "bytes": path.stat().st_size,
            "hash": xxhash.xxh3_64_hexdigest(path.read_bytes())}


def compare(case, made, kept):
    """Fails unless what was made now is what is kept, up to the last bits of another machine."""
    new, old = (safetensors.torch.load_file(folder / f"{case}.safetensors") for folder in (made, kept))
    assert set(new) == set(old), case
    for name, value in old.items():
        error = (new[name].double() - value.double()).abs().max() / value.double().abs().max()
        assert error <= 1e-10, f"{case}: {name} differs by {error:.1e}"


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
    goldens.MARGIN = MARGIN
    check_learning_rates(SETTINGS)
    kept = HERE / "trajectories"
    with tempfile.TemporaryDirectory(dir=HERE) as temporary:
        made = pathlib.Path(temporary)
        facts = {case: write(case, made) for case in options.cases or CASES}
        if options.check:
            for case in facts:
                compare(case, made, kept)
            print(f"{len(facts)} trajectories are as stored")
            return
        kept.mkdir(exist_ok=True)
        if options.cases:
            facts = json.loads((kept / "MANIFEST.json").read_text())["models"] | facts
        for case in options.cases or CASES:
            shutil.move(made / f"{case}.safetensors", kept / f"{case}.safetensors")
        manifest = {"versions": {"python": ".".join(map(str, sys.version_info[:3])), "torch": torch.__version__,
                                 "transformers": transformers.__version__, "numpy": numpy.__version__},
                    "hash": "XXH3, 64 bits, seed 0", "steps": STEPS, "seq_len": SEQ_LEN, "micro_batch": MICRO_BATCH,
                    "micro_batches": MICRO_BATCHES, "margin": MARGIN, "models": {case: facts[case] for case in CASES}}
        (kept / "MANIFEST.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    main()
