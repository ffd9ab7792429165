#!/usr/bin/env python3
"""Makes one file of what the parts of tools/gpu_check.sh have left in a folder so far.

  tools/gpu_collect.py FOLDER FILE [--summary]

Its keys: date, environment, parts (name, verdict, seconds, reason), tests (of tools/gpu_tests.py), ops (of bench_ops),
bench (of sluice bench, by name), peers (of benchmarks/peers/torch_moe.py, by name), sanitizers (by tool), kernels (what
Nsight Compute says of one launch, by kernel). With --summary also prints them as a table; then the status is 0 if no
part failed."""
import csv
import json
import os
import pathlib
import re
import sys

KEPT_LINES = 60


def load(path):
    """None for a file that is not there, or that its writer did not finish."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def text_of(path):
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def parts(folder):
    fields = (line.split("\t") for line in text_of(folder / "parts.tsv").splitlines())
    return [{"name": name, "verdict": verdict, "seconds": int(seconds), "reason": reason}
            for name, verdict, seconds, reason in fields]


def sanitizer(log):
    if not log:
        return None
    summaries = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", log)
    passed = re.findall(r"\[  PASSED  \] (\d+) test", log)
    found = [line for line in log.splitlines() if line.startswith("=========")]
    return {"summary": summaries[-1] if summaries else "it did not end",
            "clean": bool(summaries) and re.match(r"0 (errors|hazards)", summaries[-1]) is not None,
            "tests": int(passed[-1]) if passed else 0, "report": found[:KEPT_LINES]}


def named(folder, prefix):
    loaded = {path.stem[len(prefix):]: load(path) for path in sorted(folder.glob(prefix + "*.json"))}
    return {name: result for name, result in loaded.items() if result is not None}


def benchmarks(folder):
    """Results of sluice bench, each with the command that gave it."""
    results = named(folder, "bench_")
    for name, result in results.items():
        result["command"] = text_of(folder / f"command_{name}").strip()
    return results


def kernel_metrics(text):
    """"name, unit" -> value of the comma-separated details that ncu prints among the program's own lines."""
    lines = text.splitlines()
    begin = next((at for at, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    rows = csv.DictReader(line for line in lines[begin:] if line.startswith('"'))
    return {", ".join(filter(None, (row["Metric Name"], row["Metric Unit"]))): row["Metric Value"]
            for row in rows if row.get("Metric Name")}


def kernels(folder):
    found = {path.stem[len("kernel_"):]: kernel_metrics(text_of(path)) for path in sorted(folder.glob("kernel_*.csv"))}
    return {name: metrics for name, metrics in found.items() if metrics}


def all_tests(folder):
    """Of the parts `first` and `tests`; what both ran, as the later one found it."""
    both = (load(folder / "first.json") or []) + (load(folder / "tests.json") or [])
    return list({(test["binary"], test["name"]): test for test in both}.values())


def collect(folder):
    tests = all_tests(folder)
    for test in tests:
        test["file"] = test["file"][max(test["file"].rfind("tests/"), 0):]
    checked = {tool: sanitizer(text_of(folder / f"{tool}.log")) for tool in ("memcheck", "racecheck")}
    return {"date": text_of(folder / "date").strip(), "environment": load(folder / "environment.json"),
            "parts": parts(folder), "tests": tests, "ops": load(folder / "ops.json"), "bench": benchmarks(folder),
            "peers": named(folder, "peer_"), "sanitizers": {tool: one for tool, one in checked.items() if one},
            "kernels": kernels(folder)}


def counts(items, key):
    numbers = {}
    for item in items:
        numbers[item[key]] = numbers.get(item[key], 0) + 1
    return ", ".join(f"{number} {what}" for what, number in sorted(numbers.items()))


def details(result, part):
    """What a part found, in a line."""
    if part == "tests":
        return counts(result["tests"], "status")
    if part == "kernels":
        return ", ".join(sorted(result["kernels"]))
    if part == "ops" and result["ops"]:
        fractions = [op["fraction_of_floor"] for op in result["ops"]["ops"] if op.get("fraction_of_floor")]
        return f"{len(result['ops']['ops'])} timed, {sum(f >= 1 for f in fractions)} of {len(fractions)} at their floor"
    if part in result["sanitizers"]:
        one = result["sanitizers"][part]
        return f"{one['summary']} in {one['tests']} tests"
    return ""


def summary(result):
    print(f"{'part':<12}{'verdict':<14}{'s':>5}  found")
    for part in result["parts"]:
        found = part["reason"] or details(result, part["name"])
        print(f"{part['name']:<12}{part['verdict']:<14}{part['seconds']:>5}  {found}".rstrip())
    steps = [("sluice " + name, one["rows"][0]) for name, one in result["bench"].items() if one.get("rows")]
    steps += [("PyTorch " + name, one) for name, one in result["peers"].items()]
    if steps:
        print(f"\n{'steps':<34}{'s/step':>9}{'tok/s':>10}{'TFLOP/s':>9}")
    for name, one in steps:
        print(f"{name:<34}{one['step_time_s']['median']:>9.3f}{one['tokens_per_s_per_gpu']:>10,.0f}"
              f"{one['model_tflops_per_s_per_gpu']:>9.1f}")
    return all(part["verdict"] in ("ok", "skipped") for part in result["parts"])


def main():
    folder, path = pathlib.Path(sys.argv[1]), sys.argv[2]
    result = collect(folder)
    with open(path + ".part", "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    os.replace(path + ".part", path)
    if sys.argv[3:] == ["--summary"] and not summary(result):
        sys.exit(1)


if __name__ == "__main__":
    main()
