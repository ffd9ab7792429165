#!/usr/bin/env python3
"""Prints the tables of docs/performance.md from benchmarks/results/*.json (as `sluice bench --json FILE --ops` and
benchmarks/peers/compare_cpu.py write them). `benchmarks/table.py --write` puts them into the document, between its two
marker lines."""
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results: made by benchmarks/table.py -->", "<!-- end of results -->"


def share(value, decimals, beyond):
    """A share in percent; the words of `beyond` above 100 %, as `sluice bench` has them: what it was divided by was no
    bound then."""
    text = f"{100 * value:.{decimals}f} %"
    return text if value <= 1 or text == f"{100:.{decimals}f} %" else beyond


def title_lines(name, result):
    machine = result["machine"]
    yield (f"**{name}**: {machine['cpu']}, {machine['cores']} cores, {machine['isa']}, {machine['os'].split(',')[0]}, "
           f"{machine['compiler']}; peak {machine['peak_gflops']:.0f} GFLOP/s, {machine['bandwidth_gbs']:.1f} GB/s "
           f"(measured in the run); commit {result['commit']}")
    yield ""


def peer_lines(name, result):
    yield from title_lines(name, result)
    yield "| program | s/step | of the peak | sluice is faster by |"
    yield "|---|---|---|---|"
    ours = next(run["seconds_per_step"] for run in result["runs"] if run["kind"] == "sluice")
    of_peak = result["share_of_peak"]["sluice"]
    for run in sorted(result["runs"], key=lambda run: run["seconds_per_step"]):
        seconds = run["seconds_per_step"]
        ratio = "" if run["kind"] == "sluice" else f"{seconds / ours:.2f} x"
        note = "" if run["finalist"] else ", first round only"
        yield f"| {run['name']}{note} | {seconds:.2f} | {share(of_peak * ours / seconds, 1, 'above peak')} | {ratio} |"
    yield ""


def fitted(result):
    """The rows that are no layout of many ranks: those stand in docs/table.md."""
    return [row for row in result.get("rows", []) if row.get("layout") != "row"]


def row_lines(name, result):
    yield from title_lines(name, result)
    yield "| row | threads | batch x seq | s/step (min-max) | tok/s | GFLOP/s | MFU | loss first, last | memory |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in fitted(result):
        time = row["step_time_s"]
        yield (f"| {row['row']} {row['model']} | {row['threads']} | {row['gbs']} x {row['seq_len']} "
               f"| {time['median']:.3f} ({time['min']:.3f}-{time['max']:.3f}) | {row['tokens_per_s_per_gpu']:,.0f} "
               f"| {1000 * row['model_tflops_per_s_per_gpu']:.1f} | {share(row['mfu'], 1, 'above peak')} "
               f"| {row['loss'][0]:.3f}, {row['loss'][-1]:.3f} | {row['max_memory_bytes'] / 2**20:,.0f} MiB |")
    for row in fitted(result):
        yield from operation_lines(row)
    yield ""


def operation_lines(row):
    if "ops" not in row:
        return
    profile = row["ops"]
    step = profile["step_time_s"]
    yield ""
    yield f"One step of {row['row']} by operation ({step:.3f} s, {1000 * profile['outside_ops_s']:.1f} ms of it outside):"
    yield ""
    yield "| operation | calls | share | ms | GFLOP/s | GB/s | of its roofline |"
    yield "|---|---|---|---|---|---|---|"
    for op in profile["ops"]:
        seconds = op["seconds"]
        beyond = "above peak" if op["flops"] / (1e12 * row["peak_tflops"]) > seconds else "cache"
        if seconds >= 0.002 * step:
            yield (f"| {op['name']} | {op['calls']} | {100 * seconds / step:.1f} % | {1000 * seconds:.1f} "
                   f"| {op['flops'] / seconds / 1e9:.1f} | {op['bytes'] / seconds / 1e9:.1f} "
                   f"| {share(op['roofline_seconds'] / seconds, 0, beyond)} |")


def main():
    lines = [BEGIN, ""]
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        result = json.loads(path.read_text())
        if "ratios" in result:
            lines += peer_lines(path.stem, result)
        elif fitted(result):
            lines += row_lines(path.stem, result)
    text = "\n".join(lines + [END])
    if sys.argv[1:] == ["--write"]:
        document = ROOT / "docs" / "performance.md"
        before, rest = document.read_text().split(BEGIN)
        document.write_text(before + text + rest.split(END)[1])
    else:
        print(text)


if __name__ == "__main__":
    main()
