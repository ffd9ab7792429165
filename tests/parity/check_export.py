#!/usr/bin/env python3
"""Do models that sluice wrote load in Hugging Face transformers, and compute the same there?

    python3.11 -m venv venv && venv/bin/pip install --no-deps -r requirements.txt
    ./run doctor                                   # builds sluice
    venv/bin/python check_export.py                # writes export_check.json
    venv/bin/python check_export.py --sluice build/release/bin/sluice CASE ...     # prints alone

For each golden (its config.json and weights): sluice loads it, trains three steps and exports the result in f32
(`train --export`); transformers' AutoModelForCausalLM.from_pretrained reads the directory, with nothing missing, left
over or of another shape; logits of both in f32, `sluice generate --logits` and a forward pass, are compared on two
sequences, and so are 16 greedily chosen tokens. Then the export goes through `sluice convert --dtype bf16` into several
files, and the same is compared again, both sides computing in f32 from the rounded weights. tiny_text is written out in
YAML: its config.json is sluice's own.

Each golden is also trained on four ranks, pp 2 x ep 2 (a dense model: pp 2 x fsdp 2). The checkpoint that this leaves is
converted (`sluice convert`), and one rank that goes on from it, with no step left, exports: every file of the two
directories must be the same, byte for byte. The converted one is compared with transformers as above.
"""

import argparse
import contextlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import safetensors
import safetensors.torch
import torch
import transformers
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
GOLDENS = sorted(path.parent.name for path in (HERE / "goldens").glob("*/config.json"))
WRITTEN_OUT = {"tiny_text": ROOT / "examples" / "pretrain" / "tiny_text.yaml"}
# Largest difference of logits over the largest logit; fp32 sums in another order, a few layers deep.
BOUND = 2e-5
NEW_TOKENS = 16
# Of a greedy choice: between the largest logit and the next one, over the largest; closer ones may fall either way.
MARGIN = 10 * BOUND


def run(*words):
    result = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))}\n{result.stderr}")
    return result.stdout


def configuration(case, folder):
    """Of a golden, with its directory; both are made."""
    source = folder / case
    source.mkdir()
    shutil.copy(HERE / "goldens" / case / "config.json", source / "config.json")
    shutil.copy(HERE / "goldens" / case / "weights.safetensors", source / "model.safetensors")
    extra = json.loads((source / "config.json").read_text()).get("num_nextn_predict_layers", 0)
    config = folder / "run.yaml"
    config.write_text(f"""step_scheduler: {{global_batch_size: 4, local_batch_size: 2, max_steps: 3}}
model: {{config: {{pretrained_model_name_or_path: {source}}}, mtp_loss_weight: {0.3 if extra else 0}}}
optimizer: {{_target_: AdamW, lr: 1.0e-2}}
dataset: {{_target_: mock, seq_len: 16}}
""")
    return config, source


def export(sluice, case, folder):
    """Trains and exports; returns the directory and how far training moved the weights."""
    target = folder / "exported"
    if case in WRITTEN_OUT:
        run(sluice, "train", WRITTEN_OUT[case], "--export", target, "--step_scheduler.max_steps", 3,
            "--lr_scheduler.lr_warmup_steps", 0, "--checkpoint.checkpoint_dir", folder / "run")
        return target, None
    config, source = configuration(case, folder)
    run(sluice, "train", config, "--export", target, "--checkpoint.checkpoint_dir", folder / "run")
    before, after = (safetensors.torch.load_file(path / "model.safetensors") for path in (source, target))
    assert set(before) == set(after), "other tensors than were loaded"
    moved = min((after[name].double() - value.double()).abs().max().item() for name, value in before.items())
    assert moved > 0, "a tensor is as it was"
    return target, moved


@contextlib.contextmanager
def known_type(directory):
    """transformers has no kimi_k2: on the hub it comes with Python of its own, DeepSeek V3's under that name."""
    path = directory / "config.json"
    text = path.read_text()
    path.write_text(text.replace('"kimi_k2"', '"deepseek_v3"'))
    try:
        yield
    finally:
        path.write_text(text)


def of_transformers(directory, sequences):
    """The class, logits [sequence, position, vocab], greedy continuations, the least margin of a choice, keys of an
    extra layer that were left out."""
    # Its faster experts want rows of 16 bytes, which GPT-OSS's golden is too narrow for.
    with known_type(directory):
        model, report = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, output_loading_info=True,
                                                             experts_implementation="eager")
    # DeepSeek V3's extra layer, which transformers does not have: it knows to leave out number 61 only.
    extra = f"model.layers.{model.config.num_hidden_layers}."
    left_out = [key for key in report["unexpected_keys"] if key.startswith(extra)]
    report["unexpected_keys"] = set(report["unexpected_keys"]) - set(left_out)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[key], f"{key}: {report[key]}"
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=sequences).logits
        texts, margin = sequences, float("inf")
        for _ in range(NEW_TOKENS):
            last = model(input_ids=texts).logits[:, -1]
            best = last.topk(2).values
            margin = min(margin, ((best[:, 0] - best[:, 1]) / last.abs().amax()).min().item())
            texts = torch.cat([texts, last.argmax(-1, keepdim=True)], 1)
    return type(model).__name__, logits, texts[:, sequences.shape[1]:], margin, len(left_out)


def of_sluice(sluice, directory, sequences, folder, *more):
    logits, texts = [], []
    for tokens in sequences:
        file = folder / "logits.safetensors"
        # A model of bytes takes ids as well, but writes bytes; the tokens that ran are beside the logits.
        run(sluice, "generate", directory, "--tokens", ",".join(map(str, tokens.tolist())), "--max-tokens",
            NEW_TOKENS + 1, "--logits", file, "--overwrite", *more)
        stored = safetensors.torch.load_file(file)
        logits.append(stored["logits"][: len(tokens)])
        texts.append(stored["tokens"][len(tokens):].long())
    return torch.stack(logits), torch.stack(texts)


def compare(sluice, directory, folder):
    config = json.loads((directory / "config.json").read_text())
    length = min(32, config.get("max_position_embeddings", 64) // 2)
    sequences = torch.randint(config["vocab_size"], (2, length), generator=torch.Generator().manual_seed(5))
    name, theirs, their_texts, margin, left_out = of_transformers(directory, sequences)
    ours, our_texts = of_sluice(sluice, directory, sequences, folder)
    assert ours.dtype == theirs.dtype == torch.float32 and ours.shape == theirs.shape
    difference = ((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()).item()
    assert difference <= BOUND, f"logits differ by {difference:.1e}"
    same = bool((our_texts == their_texts).all())
    assert same or margin < MARGIN, "the greedy texts differ"
    files = sorted(directory.glob("*.safetensors"))
    tensors = [tensor for file in files for tensor in safetensors.torch.load_file(file).values()]
    return {"class": name, "files": len(files), "tensors": len(tensors),
            "elements": sum(tensor.numel() for tensor in tensors),
            "dtypes": ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})),
            "missing_keys": 0, "unexpected_keys": 0, "mismatched_keys": 0, "keys_of_extra_layer": left_out,
            "logits": " x ".join(map(str, ours.shape)), "logits_differ_by": float(f"{difference:.2e}"),
            "greedy_tokens": our_texts.numel(), "greedy_tokens_equal": same, "greedy_margin": float(f"{margin:.1e}")}


def convert_layout(sluice, case, folder):
    """Trains on four ranks and converts the checkpoint; returns that directory, how many bytes of it are those that one
    rank exports, and the layout."""
    config = folder / "run.yaml"
    text = (folder / case / "config.json").read_text()
    layout = {"pp": 2, "ep": 2} if "experts" in text else {"pp": 2, "fsdp": 2}
    words = ["--ranks", 4, "--distributed.pp_size", 2]
    if "ep" in layout:
        words += ["--distributed.ep_size", 2]
    several, one = folder / "of_four_ranks", folder / "of_one_rank"
    run(sluice, "train", config, *words, "--checkpoint.checkpoint_dir", folder / "run4")
    newest = (folder / "run4" / "LATEST").resolve()
    assert len(list(newest.glob("rank-*.safetensors"))) == 4, "four ranks have other than four files"
    run(sluice, "convert", folder / "run4", several)
    run(sluice, "train", config, "--checkpoint.restore_from", newest, "--checkpoint.checkpoint_dir", folder / "run1",
        "--export", one)
    names = sorted(path.name for path in several.iterdir())
    assert names == sorted(path.name for path in one.iterdir()), "other files"
    for name in names:
        assert (several / name).read_bytes() == (one / name).read_bytes(), f"{name}: other bytes"
    return several, sum((several / name).stat().st_size for name in names), layout


def check(sluice, case):
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        exported, moved = export(sluice, case, folder)
        result = {"least_change_of_a_tensor_by_training": moved, "exported": compare(sluice, exported, folder)}
        converted = folder / "converted"
        size = (exported / "model.safetensors").stat().st_size
        run(sluice, "convert", exported, converted, "--dtype", "bf16", "--max-shard-size", size // 6)
        result["converted"] = compare(sluice, converted, folder)
        assert result["converted"]["files"] > 1
        if case not in WRITTEN_OUT:
            several, equal, layout = convert_layout(sluice, case, folder)
            result["checkpoint"] = {"layout": layout, "bytes_as_of_one_rank": equal, **compare(sluice, several, folder)}
    for kind in ("exported", "converted", "checkpoint"):
        if kind not in result:
            continue
        r = result[kind]
        print(f"{case}, {kind}: {r['class']}, {r['tensors']} tensors in {r['files']} files ({r['dtypes']}), "
              f"logits within {r['logits_differ_by']:.1e}, {r['greedy_tokens']} greedy tokens "
              f"{'equal' if r['greedy_tokens_equal'] else 'differ'}")
    return result


def main():
    cases = [*GOLDENS, *WRITTEN_OUT]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sluice", default=ROOT / "build" / "release" / "bin" / "sluice", type=pathlib.Path)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"without writing the results; of {', '.join(cases)}")
    options = parser.parse_args()
    assert set(options.cases) <= set(cases), "see --help"
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    results = {case: check(options.sluice, case) for case in options.cases or cases}
    if options.cases:
        return
    versions = {"sluice": run(options.sluice, "--version").strip(), "python": ".".join(map(str, sys.version_info[:3])),
                "torch": torch.__version__, "transformers": transformers.__version__,
                "safetensors": safetensors.__version__}
    (HERE / "export_check.json").write_text(
        json.dumps({"versions": versions, "bound_of_logits": BOUND, "models": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
