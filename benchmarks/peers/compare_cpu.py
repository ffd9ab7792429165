#!/usr/bin/env python3
"""sluice against PyTorch on the CPU yardstick, all in one run: benchmarks/configs/moe_hidden512.yaml by `sluice bench`,
the same model as a Hugging Face user trains it (hf_moe.py) and with rows sorted by expert (torch_moe.py), each in every
way it may be fast here: implementations of the experts, optimizers, torch.compile, Debian's torch with OpenBLAS and
BLIS. One round of all, then rounds of sluice and the fastest of each kind, in turns; medians over the rounds.

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
# The sizes of CONFIG, for torch_moe.py.
SIZES = ("--device cpu --hidden 512 --layers 8 --heads 8 --kv-heads 2 --head-dim 64 --experts 16 --top-k 4 --ffn 256 "
         "--vocab 8192 --seq 512 --micro-batch 8 --micro-batches 1 --balance router").split()
# Threads that wait let others run; malloc keeps the pages it was given once.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TOP_PAD_": "268435456"}


def settings(threads):
    return {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads), "BLIS_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", **MALLOC}


def portable(words, c):
    """A command without the paths of this machine: from the repository's root, Python from PyPI as PYTHON."""
    return " ".join("PYTHON" if word == c.python else word.replace(f"{ROOT}/", "") for word in words)


class Contestant:
    def __init__(self, kind, name, command, environment=None):
        self.kind, self.name, self.command, self.environment = kind, name, command, environment or {}
        self.times, self.details = [], None

    def run(self, threads):
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "out.json")
            command = [*self.command, "--json", out]
            done = subprocess.run(command, cwd=ROOT, env={**os.environ, **settings(threads), **self.environment},
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
                print(f"{self.name}: ended with {done.returncode}: {last}", file=sys.stderr)
                return False
            with open(out, encoding="utf-8") as file:
                self.details = json.load(file)
        row = self.details["rows"][0] if self.kind == "sluice" else self.details
        self.times.append(row["step_time_s"]["median"])
        print(f"{self.name}: {self.times[-1]:.3f} s/step", file=sys.stderr)
        return True

    def seconds(self):
        return statistics.median(self.times)


def contestants(c):
    steps = ["--warmup", "2", "--steps", str(c.steps)]
    yield Contestant("sluice", "sluice", [c.sluice, "bench", CONFIG, "--threads", str(c.threads),
                                          "--step_scheduler.max_steps", str(2 + c.steps)])
    hf, sorted_rows = str(ROOT / "benchmarks/peers/hf_moe.py"), str(ROOT / "benchmarks/peers/torch_moe.py")
    for experts in ("eager", "grouped_mm"):
        for optimizer in ("foreach", "fused"):
            yield Contestant("transformers", f"transformers, experts {experts}, AdamW {optimizer}",
                             [c.python, hf, "--experts", experts, "--optimizer", optimizer, *steps])
    for compile_flag in ("--no-compile", None):
        how = [compile_flag] if compile_flag else []
        yield Contestant("sorted rows", "PyPI torch, sorted rows" + ("" if how else ", compiled"),
                         [c.python, sorted_rows, *SIZES, *how, *steps])
    for name, folder in (("OpenBLAS", "openblas-pthread"), ("BLIS", "blis-openmp")):
        library = LIBRARIES / folder / "libblas.so.3"
        if library.exists():
            yield Contestant("sorted rows", f"Debian's torch, {name}, sorted rows",
                             [c.debian_python, sorted_rows, *SIZES, "--no-compile", *steps],
                             {"LD_PRELOAD": str(library)})


def main():
    p = argparse.ArgumentParser(description="sluice bench against its peers in PyTorch on a CPU")
    p.add_argument("--python", required=True, help="Python with torch and transformers from PyPI")
    p.add_argument("--debian-python", default="/usr/bin/python3", help="Python with Debian's torch")
    p.add_argument("--sluice", default="build/release/bin/sluice")
    p.add_argument("--rounds", type=int, default=3, help="after the first [3]")
    p.add_argument("--steps", type=int, default=5, help="timed steps of each run [5]")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--json", help="write the results to a file")
    c = p.parse_args()

    runs = [one for one in contestants(c) if one.run(c.threads)]
    kinds = {}
    for one in runs:
        kinds.setdefault(one.kind, []).append(one)
    missing = {"sluice", "transformers", "sorted rows"} - kinds.keys()
    if missing:
        raise SystemExit(f"error: nothing ran of: {', '.join(sorted(missing))}")
    finalists = [min(group, key=Contestant.seconds) for group in kinds.values()]
    for one in finalists:
        one.times.clear()
    peaks = []
    for _ in range(c.rounds):
        for one in finalists:
            if not one.run(c.threads):
                raise SystemExit(f"error: {one.name} ran in the first round and now does not")
            if one.kind == "sluice":
                peaks.append(one.details["machine"]["peak_gflops"])

    best = {one.kind: one for one in finalists}
    ours = best["sluice"]
    row = ours.details["rows"][0]
    gflop = row["gflop_per_token"] * row["gbs"] * row["seq_len"]
    peak = statistics.median(peaks)
    for one in runs:
        rate = gflop / one.seconds()
        final = f"  {one.seconds() / ours.seconds():5.2f} x" if one in finalists else "  (first round only)"
        print(f"{one.name:48} {one.seconds():7.3f} s/step  {rate:6.1f} GFLOP/s  {100 * rate / peak:5.1f} % of peak{final}")
    result = {
        "machine": ours.details["machine"], "peak_gflops": {"median": peak, "all": peaks}, "commit": ours.details["commit"],
        "command": portable(sys.argv, c), "environment": settings(c.threads), "python": platform.python_version(),
        "ratios": {one.kind: one.seconds() / ours.seconds() for one in finalists if one is not ours},
        "share_of_peak": {one.kind: gflop / one.seconds() / peak for one in finalists},
        "runs": [{"kind": one.kind, "name": one.name, "command": portable(one.command, c), "environment": one.environment,
                  "finalist": one in finalists, "seconds_per_step": one.seconds(), "all": one.times,
                  "versions": one.details.get("versions")} for one in runs]}
    if c.json:
        with open(c.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
