#!/usr/bin/env python3
"""Makes the parts of docs/table.md and README.md that show recorded results: the published table with what sluice plans
and runs, and the print of ./run bench. --write puts them between their marker lines, --check fails if they are not what
is there. --record first runs and plans the rows on this machine and keeps the results in benchmarks/results."""
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
CONFIGS = "examples/benchmark/configs"
BENCH, LAYOUTS, PLANS = RESULTS / "laptop.json", RESULTS / "layouts.json", RESULTS / "plans.json"
FP32 = RESULTS / "laptop_fp32.json"  # the rows that BENCH has in bf16, for docs/performance.md
SLUICE = ROOT / "build" / "release" / "bin" / "sluice"
PROFILE = "dgx-h100"
COLUMNS = ("ranks", "gbs", "mbs", "lbs", "ga", "seq_len", "tp", "pp", "cp", "ep", "vp", "fsdp")
HEADS = ("Model", "", "#GPUs", "GBS", "MBS", "LBS", "GA", "Seq Length", "TP", "PP", "CP", "EP", "VP", "FSDP",
         "Kernel Optimizations", "Time per Global Step (s)", "Model TFLOPs/sec/GPU", "Tokens/sec/GPU")


# --- recording --------------------------------------------------------------------------------------------------------

def sluice(*arguments):
    """What the program prints, run as a person would: from the repository's root into a pipe."""
    return subprocess.run([SLUICE, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout


def plan_of(config):
    """The figures of a plan that the page shows; a plan that does not fit has them too."""
    target = RESULTS / "plan.json"
    arguments = ["plan", config, "--profile", PROFILE]
    subprocess.run([SLUICE, *arguments, "--json", target, "--overwrite"], cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
    plan = json.loads(target.read_text())
    target.unlink()
    kept = COLUMNS + ("model", "profile", "dtype", "recompute", "step_time_s", "tokens_per_s_per_gpu",
                      "model_tflops_per_s_per_gpu", "peak_tflops", "mfu", "peak_bytes", "usable_bytes", "fits")
    return {"command": "sluice " + " ".join(arguments)} | {key: plan[key] for key in kept}


def record():
    sluice("bench", "--layout", "row", "--json", LAYOUTS, "--overwrite")
    layouts = json.loads(LAYOUTS.read_text())
    plans = {row["row"]: plan_of(row["config"]) for row in layouts["rows"]}
    PLANS.write_text(json.dumps({"commit": layouts["commit"], "plans": plans}, indent=2) + "\n")
    sluice("bench", "--ops", "--json", BENCH, "--overwrite")
    sluice("bench", "--layout", "fit", "--ops", "--runtime.dtype", "fp32", "--json", FP32, "--overwrite")


# --- docs/table.md ----------------------------------------------------------------------------------------------------

def cell(value):
    return "-" if value in (None, 0) else f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)


def line(model, what, row, kernels, seconds, tflops, tokens):
    cells = [model, what, *(cell(row[column]) for column in COLUMNS), kernels, seconds, tflops, tokens]
    return "| " + " | ".join(cells) + " |"


def difference(ours, theirs):
    return f"{100 * (ours / theirs - 1):+.0f} %"


def three_lines(row, plan):
    published = row["published"]
    model = f"**{row['row']} {row['model']}**"
    tflops, tokens = published["tflops_per_s_per_gpu"], published["tokens_per_s_per_gpu"]
    counted = published["corrected_tflops"]
    yield line(model, f"published, {published['precision']}", published, published["kernels"],
               as_printed(published["step_time_s"]), f"{tflops:g}", f"{tokens:,.0f}")
    yield line("", f"planned, {plan['dtype']}", plan, "-",
               f"{plan['step_time_s']:.2f} ({difference(plan['step_time_s'], published['step_time_s'])})",
               f"{plan['model_tflops_per_s_per_gpu']:.0f} "
               f"({difference(plan['model_tflops_per_s_per_gpu'], counted or tflops)})",
               f"{plan['tokens_per_s_per_gpu']:,.0f} ({difference(plan['tokens_per_s_per_gpu'], tokens)})")
    yield line("", f"run here, {row['precision']}", row, kernels_of(row),
               f"{row['step_time_s']['median']:.2f}", f"{row['model_tflops_per_s_per_gpu']:.6f}",
               f"{row['tokens_per_s_per_gpu']:,.0f}")


def as_printed(seconds):
    """Two or three decimals, as the page has them."""
    text = f"{seconds:.3f}"
    return text[:-1] if text.endswith("0") else text


def kernels_of(row):
    """What ran in the place of the published kernels, as the program prints it: alike ones together."""
    groups = {}
    for part, ours in row["kernels"].items():
        for one in ours.split("; "):
            kernel, _, masks = one.partition(": ")
            groups.setdefault(kernel, []).append(f"{part} ({masks})" if masks else part)
    return "; ".join(kernel if parts == ["dispatcher"] else f"{kernel}: {', '.join(parts)}"
                     for kernel, parts in groups.items())


def table():
    layouts, plans = json.loads(LAYOUTS.read_text()), json.loads(PLANS.read_text())
    machine = layouts["machine"]
    yield "| " + " | ".join(HEADS) + " |"
    yield "|" + "---|" * len(HEADS)
    for row in layouts["rows"]:
        yield from three_lines(row, plans["plans"][row["row"]])
    yield ""
    yield (f"**Run here**: {machine['cpu']}, {machine['cores']} cores, {machine['isa']}, commit {layouts['commit']}; model "
           f"and sequence of {layouts['rows'][0]['scale']} size, every rank a thread of one process, so the times are "
           f"those of the layout's bookkeeping, not of the model.")
    yield (f"**Planned**: `{PROFILE}`, commit {plans['commit']}, {CONFIGS}; a forecast that was never calibrated on such a "
           f"machine; in brackets how far it is from the published figure.")
    for row in layouts["rows"]:
        if row["published"]["corrected_tflops"]:
            yield (f"**{row['row']}**: the published {row['published']['tflops_per_s_per_gpu']:g} was "
                   f"{row['published']['corrected_because']}; counted as the other rows it is "
                   f"{row['published']['corrected_tflops']:g}, which the forecast is compared with.")


# --- README.md --------------------------------------------------------------------------------------------------------

def first_screen():
    yield "```"
    yield from sluice("bench", "--from", BENCH.relative_to(ROOT)).rstrip("\n").split("\n")
    yield "```"


# --- the documents ----------------------------------------------------------------------------------------------------

def with_block(document, lines):
    """The document's text with what stands between its markers replaced."""
    begin, end = "<!-- made by benchmarks/table_page.py -->", "<!-- end -->"
    text = document.read_text()
    pattern = re.escape(begin) + r"\n.*?" + re.escape(end)
    if len(re.findall(pattern, text, re.S)) != 1:
        sys.exit(f"{document.relative_to(ROOT)} has not one pair of the lines {begin} and {end}")
    return re.sub(pattern, lambda _: "\n".join([begin, *lines, end]), text, flags=re.S)


def unknown_terms(text):
    """Keys and files that the glossary names and that are not there."""
    keys = {entry.split(" | ")[0] for entry in (ROOT / "tests" / "config" / "keys.txt").read_text().splitlines()}
    for name in re.findall(r"`([^`\s]+)`", text):
        is_key = re.fullmatch(r"[a-z_0-9]+(\.[a-z_0-9]+)+", name) and "/" not in name
        if "/" in name and not (ROOT / name.split("#")[0]).exists() or is_key and name not in keys and not any(
                key.startswith(name + ".") for key in keys) and not (ROOT / name).exists():
            yield name


def main():
    if sys.argv[1:] not in (["--write"], ["--check"], ["--record"]):
        sys.exit(__doc__)
    if sys.argv[1] == "--record":
        record()
    missing = [str(path.relative_to(ROOT)) for path in (BENCH, LAYOUTS, PLANS) if not path.exists()]
    if missing:
        sys.exit(f"there is no {', '.join(missing)}: benchmarks/table_page.py --record")
    wrong = []
    for name, lines in (("docs/table.md", table), ("README.md", first_screen)):
        document = ROOT / name
        text = with_block(document, lines())
        if sys.argv[1] != "--check":
            document.write_text(text)
        elif text != document.read_text():
            wrong.append(f"{name} is not what the recorded results make of it: benchmarks/table_page.py --write")
    wrong += [f"docs/table.md names {name}, which is not there" for name in
              unknown_terms((ROOT / "docs" / "table.md").read_text())]
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
