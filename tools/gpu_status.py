#!/usr/bin/env python3
"""Prints docs/gpu_status.md: what of the CUDA backend has run on a GPU, is right, and is fast, by the files that
tools/gpu_check.sh wrote and that are kept in benchmarks/results/gpu/. --write puts it in its place; --check fails if it
is not what is there. --results FOLDER takes other files."""
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "gpu_status.md"
CONFIGS = ROOT / "examples" / "benchmark" / "configs"
NEVER = "never run"
MET = 1.0


# --- what there is --------------------------------------------------------------------------------------------------

def operations():
    """The vocabulary of src/ops/all.h as (struct, name)."""
    ops = ROOT / "src" / "ops"
    structs = re.findall(r"\w+", re.search(r"using AllOps\s*=\s*OpList<([^>]*)>", (ops / "all.h").read_text())[1])
    names = {}
    for header in sorted(ops.glob("*.h")):
        names.update(re.findall(r"struct (\w+) \{\s*static constexpr std::string_view name = \"(\w+)\"",
                                header.read_text()))
    return [(struct, names[struct]) for struct in structs]


def kernel_files():
    return {path.name: path.read_text() for path in sorted((ROOT / "src" / "device" / "cuda").glob("*.c*"))}


def test_files():
    """The sources of the tests of operations, by their path in the repository."""
    folders = (ROOT / "tests" / "ops", ROOT / "tests" / "device" / "cuda")
    return {str(path.relative_to(ROOT)): path.read_text() for folder in folders for path in sorted(folder.glob("*.cpp"))}


def runs(folder):
    """(name, result) of every kept file, oldest first."""
    loaded = [(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]
    return sorted(loaded, key=lambda run: (run[1]["date"], run[0]))


def newest(all_runs, wanted):
    """The last run for which `wanted` is true, as (name, result), or nothing."""
    return next(((name, run) for name, run in reversed(all_runs) if wanted(run)), (None, None))


def newest_of_each(all_runs, key):
    """name -> (run, result) of what the runs have under `key`, each from the last run that has it."""
    found = {name: (run, result) for run, one in all_runs for name, result in one.get(key, {}).items()}
    return dict(sorted(found.items()))


def on_gpu(run):
    return bool(run["ops"] and run["ops"]["gpus"])


# --- operations -----------------------------------------------------------------------------------------------------

def verdict_of_tests(tests):
    ran = [test for test in tests if test["status"] != "skipped" and test["status"] != "not run"]
    if not ran:
        return NEVER
    passed = sum(test["status"] == "passed" for test in ran)
    return f"yes, {passed} tests" if passed == len(ran) else f"**no**, {passed} of {len(ran)} tests"


def floors_of(timed):
    fractions = [op["fraction_of_floor"] for op in timed if op.get("fraction_of_floor")]
    if fractions:
        span = f"{min(fractions):.2f}" + (f" to {max(fractions):.2f}" if len(fractions) > 1 else "")
        return f"{span}, {sum(f >= MET for f in fractions)} of {len(fractions)} shapes met"
    return "no floor" if timed else NEVER


def operation_lines(all_runs):
    tests = newest(all_runs, lambda run: run["tests"])[1]
    timed = newest(all_runs, on_gpu)[1]
    kernels, sources = kernel_files(), test_files()
    yield "| operation | compiled | ran | matches the CPU | fraction of its floor |"
    yield "|---|---|---|---|---|"
    for struct, name in operations():
        compiled = [file for file, text in kernels.items() if f"CudaBackend::execute(const {struct}&" in text]
        of_it = [path for path, text in sources.items() if re.search(rf"\b{struct}\b", text)]
        its_tests = [test for test in (tests["tests"] if tests else []) if test["file"] in of_it]
        its_times = [op for op in (timed["ops"]["ops"] if timed else []) if op["op"] == name]
        matches = verdict_of_tests(its_tests)
        ran = "yes" if matches != NEVER or any("seconds" in op for op in its_times) else "no"
        failed = sum("failed" in op for op in its_times)
        floors = f"**{failed} shapes failed**" if failed else floors_of(its_times)
        yield f"| `{name}` | {', '.join(compiled) or '**no**'} | {ran} | {matches} | {floors} |"


def shape_lines(all_runs):
    name, run = newest(all_runs, on_gpu)
    if run is None:
        return
    ceilings = run["ops"]["ceilings"] or {}
    yield f"### Every shape, by {name}"
    yield ""
    if ceilings:
        yield (f"At best in the same call: {ceilings['gemm_8192_flop_per_s'] * 1e-12:.0f} TFLOP/s (8192^3, bf16, random), "
               f"{ceilings['copy_byte_per_s'] * 1e-12:.2f} TB/s copied.")
        yield ""
    for layer in run["ops"].get("expert_layers", []):
        yield (f"Expert layer, {layer['what']}, {layer['direction']}, the sum of its operations: "
               f"{1e-12 * layer['flop_per_s']:.0f} TFLOP/s, {layer['fraction_of_floor']:.2f} of {layer['floor']}.")
        yield ""
    yield "| operation | shape | us | TFLOP/s | GB/s | floor | of it | cuDNN alone, us |"
    yield "|---|---|---|---|---|---|---|---|"
    for op in run["ops"]["ops"]:
        if "seconds" not in op:
            yield f"| `{op['op']}` | {op['what']} | failed: {op.get('failed', '')} | | | | | |"
            continue
        fraction = f"{op['fraction_of_floor']:.2f}" if op.get("fraction_of_floor") else ""
        alone = f"{1e6 * op['alone_seconds']['median']:.0f} ({op['alone_by']})" if op.get("alone_seconds") else ""
        yield (f"| `{op['op']}` | {op['what']} | {1e6 * op['seconds']['median']:.1f} | {1e-12 * op['flop_per_s']:.1f} "
               f"| {1e-9 * op['byte_per_s']:.0f} | {op['floor']} | {fraction} | {alone} |")
    yield ""


# --- the rest -------------------------------------------------------------------------------------------------------

def transport_lines(all_runs):
    run = newest(all_runs, lambda run: any(test["file"].startswith("tests/comm/") for test in run["tests"]))[1]
    tests = [test for test in run["tests"] if test["file"].startswith("tests/comm/")] if run else []
    yield "| transport | its tests |"
    yield "|---|---|"
    for title, kind in (("CUDA memory, ranks in one process", ""), ("NCCL, ranks in one process", "nccl"),
                        ("NCCL, ranks in several processes", "nccl_processes")):
        its = [test for test in tests if transport_of(test) == kind]
        yield f"| {title} | {verdict_of_tests(its)} |"
    yield ""
    yield "Sizes of NCCL: " + (nccl_sizes(run) if run else NEVER) + "."


def transport_of(test):
    named = (test["name"] + test["file"]).lower()
    return next((kind for kind in ("nccl_processes", "nccl") if kind in named), "")


def nccl_sizes(run):
    sizes = {int(size) for test in run["tests"] if "nccl" in test["name"].lower() and test["status"] == "passed"
             for size in re.findall(r"(\d+)_?[Rr]anks?", test["name"])}
    return ", ".join(map(str, sorted(sizes))) + " ranks" if sizes else NEVER


def sanitizer_lines(all_runs):
    yield "| tool | run | tests | found |"
    yield "|---|---|---|---|"
    for tool in ("memcheck", "racecheck"):
        name, run = newest(all_runs, lambda run, tool=tool: tool in run["sanitizers"])
        if run is None:
            yield f"| {tool} | {NEVER} | | |"
        else:
            one = run["sanitizers"][tool]
            yield f"| {tool} | {name} | {one['tests']} | {one['summary'] if one['clean'] else '**' + one['summary'] + '**'} |"


def published_lines():
    """The published figures of each row, in their order."""
    texts = [path.read_text() for path in CONFIGS.glob("*.yaml")]
    value = lambda text, key: re.search(rf"^\s*{key}: (\S+)", text, re.M)[1]
    for text in sorted((text for text in texts if "  published:" in text), key=lambda text: value(text, "row")):
        model = value(text, "pretrained_model_name_or_path").split("/")[1]
        recompute = "full" if value(text, "activation_checkpointing") == "true" else "none"
        yield (f"| published {value(text, 'row')}: {model} on {value(text, 'gpus')} x {value(text, 'machine')} | - | all "
               f"| published | {recompute} | bf16 | {float(value(text, 'step_time_s')):.3f} "
               f"| {float(value(text, 'tokens_per_s_per_gpu')):,.0f} | {value(text, 'tflops_per_s_per_gpu')} |")


def step_line(title, run, layers, row):
    return (f"| {title} | {run} | {layers} | {row['balance']} | {row['recompute']} "
            f"| {row['optimizer_state_dtype']} | {row['step_time_s']['median']:.3f} | {row['tokens_per_s_per_gpu']:,.0f} "
            f"| {row['model_tflops_per_s_per_gpu']:.0f} |")


def layers_of(command):
    found = re.search(r"num_hidden_layers (\d+)", command)
    return found[1] if found else "as configured"


def step_lines(all_runs):
    yield "| steps | run | layers | balance | recompute | optimizer state | s/step | tok/s | model TFLOP/s |"
    yield "|---|---|---|---|---|---|---|---|---|"
    yield from published_lines()
    ours, theirs = newest_of_each(all_runs, "bench"), newest_of_each(all_runs, "peers")
    for key, (name, result) in ours.items():
        for row in result.get("rows", []):
            yield step_line(f"sluice, {key.replace('_', ' ')}", name, layers_of(result["command"]), row)
    for key, (name, row) in theirs.items():
        yield step_line(f"PyTorch {row['versions']['torch']}, local shard 1/{key}", name, row["layers"], row)
    if not ours:
        yield f"| sluice on one GPU | {NEVER} | | | | | | | |"
    if not theirs:
        yield f"| PyTorch on the same | {NEVER} | | | | | | | |"
    yield from profile_lines(ours)


def profile_lines(ours):
    """Where the time of the steps went that were timed by operation."""
    for key, (name, result) in ours.items():
        for row in (row for row in result.get("rows", []) if row.get("ops")):
            yield from ("", f"### One step of {key.replace('_', ' ')} by operation, by {name}", "",
                        "| operation | calls | share | ms | of its roofline |", "|---|---|---|---|---|")
            for op in row["ops"]["ops"]:
                reached = op["roofline_seconds"] / op["seconds"]
                yield (f"| `{op['name']}` | {op['calls']} | {100 * op['seconds'] / row['ops']['step_time_s']:.1f} % "
                       f"| {1e3 * op['seconds']:.1f} | "
                       f"{f'{100 * reached:.0f} %' if reached <= 1 else 'served by the cache'} |")


def kernel_lines(all_runs):
    """What Nsight Compute found, if it ever ran."""
    found = newest_of_each(all_runs, "kernels")
    if not found:
        return
    yield from ("", "## Kernels under Nsight Compute", "", "| kernel | run | what it says |", "|---|---|---|")
    for kernel, (name, metrics) in found.items():
        yield f"| `{kernel}` | {name} | " + "; ".join(f"{what}: {value}" for what, value in metrics.items()) + " |"


def run_lines(all_runs):
    if not all_runs:
        yield "**Nothing has run on a GPU yet.** All below says what is compiled, and held to the CPU in emulation only."
        return
    yield "| run | date | GPU | commit | versions | parts |"
    yield "|---|---|---|---|---|---|"
    for name, run in all_runs:
        gpu = (run["environment"] or {}).get("gpu", "")
        ops = run["ops"] or {}
        parts = ", ".join(f"{part['name']} {part['verdict']}" for part in run["parts"])
        yield f"| {name} | {run['date']} | {gpu} | {ops.get('commit', '')} | {ops.get('versions', '')} | {parts} |"


def document(all_runs):
    yield "# What has run on a GPU"
    yield ""
    yield "Made by `tools/gpu_status.py --write` from the files in `benchmarks/results/gpu/`, which `tools/gpu_check.sh`"
    yield "wrote on machines with a GPU. *Compiled*: the files that carry the operation out; every build with nvcc compiles"
    yield "them. *Matches the CPU*: the tests named `.../cuda` or `..._on_cuda` in the files that use the operation. *Floor*:"
    yield "the time it may take at most; a fraction of 1 or more meets it."
    yield ""
    yield from run_lines(all_runs)
    for title, lines in (("Operations", operation_lines), (None, shape_lines), ("Transports", transport_lines),
                         ("compute-sanitizer", sanitizer_lines), ("Whole steps", step_lines)):
        if title:
            yield from ("", f"## {title}", "")
        elif any(map(on_gpu, (run for _, run in all_runs))):
            yield ""
        yield from lines(all_runs)
    yield from kernel_lines(all_runs)


def main():
    arguments = sys.argv[1:]
    folder = ROOT / "benchmarks" / "results" / "gpu"
    if "--results" in arguments:
        at = arguments.index("--results")
        folder = pathlib.Path(arguments[at + 1])
        del arguments[at:at + 2]
    text = "\n".join(document(runs(folder))).rstrip("\n") + "\n"
    if arguments == ["--write"]:
        DOCUMENT.write_text(text, encoding="utf-8")
    elif arguments == ["--check"]:
        if not DOCUMENT.exists() or DOCUMENT.read_text(encoding="utf-8") != text:
            sys.exit("error: docs/gpu_status.md is not what the results give: tools/gpu_status.py --write")
    elif arguments:
        sys.exit(__doc__)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
