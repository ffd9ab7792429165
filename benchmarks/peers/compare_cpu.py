#!/usr/bin/env python3
"""sluice against PyTorch on the CPU yardstick, all in one run: benchmarks/configs/moe_hidden512.yaml by `sluice bench`,
the same model as a Hugging Face user trains it (hf_moe.py) and with rows sorted by expert (torch_moe.py), in fp32, bf16 or
both, each in every way it may be fast here: implementations of the experts, torch.compile, forms of AdamW, Debian's torch
with OpenBLAS and BLIS. One short round of all, then rounds of sluice and the fastest of each kind and precision, in
turns; medians over the rounds.

  compare_cpu.py --python VENV/bin/python --json benchmarks/results/cpu_peers.json

VENV has the wheels of tests/parity/requirements.txt; Debian's torch is python3-torch, libopenblas0-pthread and
libblis4-openmp, and is left out where it is missing."""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = "benchmarks/configs/moe_hidden512.yaml"
LIBRARIES = pathlib.Path("/usr/lib/x86_64-linux-gnu")
WARMUP = 2
KINDS = ("sluice", "transformers", "sorted rows")
# Threads that wait let others run; malloc keeps the pages it was given once.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TOP_PAD_": "268435456"}


def settings(threads):
    return {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads), "BLIS_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", **MALLOC}


def portable(words, c):
    """A command without the paths of this machine: from the repository's root, Python from PyPI as PYTHON."""
    return " ".join("PYTHON" if word == c.python else word.replace(f"{ROOT}/", "") for word in words)


class Contestant:
    def __init__(self, kind, dtype, name, command, environment=None):
        self.kind, self.dtype, self.name, self.command, self.environment = kind, dtype, name, command, environment or {}
        self.times, self.details, self.ran = [], None, []

    def run(self, c, steps):
        """Whether it did; why not is said."""
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "out.json")
            self.ran = [*self.command, "--steps", str(steps)]
            try:
                done = subprocess.run([*self.ran, "--json", out], cwd=ROOT, timeout=c.limit, check=False, text=True,
                                      env={**os.environ, **settings(c.threads), **self.environment},
                                      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            except subprocess.TimeoutExpired:
                print(f"{self.dtype} {self.name}: not done after {c.limit} s (--limit)", file=sys.stderr)
                return False
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
                print(f"{self.dtype} {self.name}: ended with {done.returncode}: {last}", file=sys.stderr)
                return False
            with open(out, encoding="utf-8") as file:
                self.details = json.load(file)
        self.times.append(self.row()["step_time_s"]["median"])
        print(f"{self.dtype} {self.name}: {self.times[-1]:.3f} s/step", file=sys.stderr)
        return True

    def row(self):
        return self.details["rows"][0] if self.kind == "sluice" else self.details

    def seconds(self):
        return statistics.median(self.times)


def contestants(c, dtype):
    warmup = ["--warmup", str(WARMUP)]
    yield Contestant("sluice", dtype, "sluice",
                     [c.sluice, "bench", CONFIG, "--threads", str(c.threads), "--runtime.dtype", dtype,
                      "--benchmark.warmup_steps", str(WARMUP), "--model.config.num_hidden_layers", str(c.layers),
                      "--step_scheduler.local_batch_size", str(c.batch), "--step_scheduler.global_batch_size", str(c.batch)])
    hf = [c.python, str(ROOT / "benchmarks/peers/hf_moe.py"), "--dtype", dtype, "--layers", str(c.layers),
          "--batch", str(c.batch), *warmup]
    for experts in ("eager", "grouped_mm"):
        for compiled in (False, True):
            for adamw in ("loop", "foreach", "fused"):
                yield Contestant("transformers", dtype,
                                 f"transformers, experts {experts}, {'compiled, ' if compiled else ''}AdamW {adamw}",
                                 [*hf, "--experts", experts, "--adamw", adamw, *(["--compile"] if compiled else [])])
    rows = [str(ROOT / "benchmarks/peers/torch_moe.py"), *sizes(c), "--dtype", dtype, *warmup]
    for compiled in (False, True):
        for adamw in ("loop", "foreach", "fused"):
            yield Contestant("sorted rows", dtype,
                             f"PyPI torch, sorted rows, {'compiled, ' if compiled else ''}AdamW {adamw}",
                             [c.python, *rows, "--adamw", adamw, *([] if compiled else ["--no-compile"])])
    # Products of bf16 are none of a BLAS: whichever is there.
    libraries = (("OpenBLAS", "openblas-pthread"), ("BLIS", "blis-openmp"))
    for name, folder in libraries if dtype == "fp32" else libraries[:1]:
        library = LIBRARIES / folder / "libblas.so.3"
        if library.exists():
            for adamw in ("loop", "foreach"):  # its version has no fused one on a CPU
                yield Contestant("sorted rows", dtype, f"Debian's torch, {name}, sorted rows, AdamW {adamw}",
                                 [c.debian_python, *rows, "--adamw", adamw, "--no-compile"], {"LD_PRELOAD": str(library)})


def sizes(c):
    """Those of CONFIG, for torch_moe.py."""
    return (f"--device cpu --hidden 512 --layers {c.layers} --heads 8 --kv-heads 2 --head-dim 64 --experts 16 --top-k 4 "
            f"--ffn 256 --vocab 8192 --seq 512 --micro-batch {c.batch} --micro-batches 1 --balance router").split()


def final_rounds(c, finalists):
    """Rounds in turns; returns the peak of each precision, GFLOP/s, as sluice measured it in each of its runs."""
    peaks = {}
    for one in finalists:
        one.times.clear()
    for _ in range(c.rounds):
        for one in finalists:
            if not one.run(c, c.steps):
                raise SystemExit(f"error: {one.dtype} {one.name} ran in the first round and now does not")
            if one.kind == "sluice":
                peaks.setdefault(one.dtype, []).append(1000 * one.row()["peak_tflops"])
    return peaks


def summary(dtype, finalists, peaks):
    """What the finalists of one precision did, and the peak of that precision, which their shares are of."""
    best = {one.kind: one for one in finalists if one.dtype == dtype}
    row = best["sluice"].row()
    gflop = row["gflop_per_token"] * row["gbs"] * row["seq_len"]
    peak = statistics.median(peaks[dtype])
    return {"peak_gflops": {"median": peak, "all": peaks[dtype], "precision": row["peak_precision"]},
            "gflop_per_step": gflop,
            "ratios": {kind: one.seconds() / best["sluice"].seconds() for kind, one in best.items() if kind != "sluice"},
            "share_of_peak": {kind: gflop / one.seconds() / peak for kind, one in best.items()}}


def arguments():
    p = argparse.ArgumentParser(description="sluice bench against its peers in PyTorch on a CPU")
    p.add_argument("--python", required=True, help="Python with torch and transformers from PyPI")
    p.add_argument("--debian-python", default="/usr/bin/python3", help="Python with Debian's torch")
    p.add_argument("--sluice", default="build/release/bin/sluice")
    p.add_argument("--dtype", choices=("fp32", "bf16", "both"), default="both", help="precisions to compare in [both]")
    p.add_argument("--first-steps", type=int, default=2, help="timed steps of each in the first round [2]")
    p.add_argument("--rounds", type=int, default=3, help="after the first [3]")
    p.add_argument("--steps", type=int, default=5, help="timed steps of each run in these [5]")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--layers", type=int, default=8, help="fewer to try the script itself [8]")
    p.add_argument("--batch", type=int, default=8, help="likewise, sequences of 512 tokens [8]")
    p.add_argument("--limit", type=int, default=900, help="seconds after which a run is left out [900]")
    p.add_argument("--only", default="", help="peers whose name holds this word alone, to try them")
    p.add_argument("--json", help="write the results to a file")
    return p.parse_args()


def main():
    c = arguments()
    dtypes = ("fp32", "bf16") if c.dtype == "both" else (c.dtype,)
    runs = [one for dtype in dtypes for one in contestants(c, dtype)
            if (one.kind == "sluice" or c.only in one.name) and one.run(c, c.first_steps)]
    groups = {}
    for one in runs:
        groups.setdefault((one.dtype, one.kind), []).append(one)
    missing = [f"{dtype} {kind}" for dtype in dtypes for kind in KINDS if (dtype, kind) not in groups]
    if missing and not c.only:
        raise SystemExit(f"error: nothing ran of: {', '.join(missing)}")
    finalists = [min(group, key=Contestant.seconds) for group in groups.values()]
    peaks = final_rounds(c, finalists)
    results = {dtype: summary(dtype, finalists, peaks) for dtype in dtypes}
    ours = {one.dtype: one for one in finalists if one.kind == "sluice"}
    for one in sorted(runs, key=lambda one: (dtypes.index(one.dtype), one.seconds())):
        result = results[one.dtype]
        rate, peak = result["gflop_per_step"] / one.seconds(), result["peak_gflops"]["median"]
        final = f"  {one.seconds() / ours[one.dtype].seconds():5.2f} x" if one in finalists else "  (first round only)"
        print(f"{one.dtype} {one.name:58} {one.seconds():7.3f} s/step  {rate:6.1f} GFLOP/s  {100 * rate / peak:5.1f} % of "
              f"the {result['peak_gflops']['precision']} peak{final}")
    if c.json:
        last = ours[dtypes[-1]].details
        result = {
            "machine": last["machine"], "commit": last["commit"], "command": portable(sys.argv, c),
            "environment": settings(c.threads), "python": platform.python_version(), "precisions": results,
            "runs": [{"kind": one.kind, "dtype": one.dtype, "name": one.name, "command": portable(one.ran, c),
                      "environment": one.environment, "finalist": one in finalists, "seconds_per_step": one.seconds(),
                      "all": one.times, "versions": one.details.get("versions")} for one in runs]}
        with open(c.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
