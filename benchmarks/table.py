#!/usr/bin/env python3
"""Prints the tables of docs/performance.md from benchmarks/results/*.json (as `sluice bench --json FILE --ops` and
benchmarks/peers/compare_cpu.py write them). Rows that a file NAME_fp32.json or NAME_bf16.json has beside NAME.json stand
side by side. `benchmarks/table.py --write` puts the tables into the document, between its two marker lines."""
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


PRECISIONS = ("fp32", "bf16")


def peaks_of(machine):
    """"228 GFLOP/s fp32, 455 bf16": both where the processor multiplies bf16."""
    bf16 = machine.get("bf16_peak_gflops")
    kind = "fp32" if machine["peak_dtype"] == "f32" else machine["peak_dtype"]
    return f"{machine['peak_gflops']:.0f} GFLOP/s {kind}" + (f", {bf16:.0f} bf16" if bf16 else "")


def title_lines(name, result):
    machine = result["machine"]
    yield (f"**{name}**: {machine['cpu']}, {machine['cores']} cores, {machine['isa']}, {machine['os'].split(',')[0]}, "
           f"{machine['compiler']}; peak {peaks_of(machine)}, {machine['bandwidth_gbs']:.1f} GB/s "
           f"(measured in the run); commit {result['commit']}")
    yield ""


def peer_lines(name, result):
    yield from title_lines(name, result)
    for dtype, of_dtype in result["precisions"].items():
        runs = sorted((run for run in result["runs"] if run["dtype"] == dtype), key=lambda run: run["seconds_per_step"])
        ours = next(run["seconds_per_step"] for run in runs if run["kind"] == "sluice")
        peak = of_dtype["peak_gflops"]
        yield f"In {dtype}, of the {peak['precision']} peak of {peak['median']:.0f} GFLOP/s:"
        yield ""
        yield "| program | s/step | of the peak | sluice is faster by |"
        yield "|---|---|---|---|"
        for run in runs:
            seconds = run["seconds_per_step"]
            ratio = "" if run["kind"] == "sluice" else f"{seconds / ours:.2f} x"
            note = "" if run["finalist"] else ", first round only"
            of_peak = of_dtype["share_of_peak"]["sluice"] * ours / seconds
            yield f"| {run['name']}{note} | {seconds:.2f} | {share(of_peak, 1, 'above peak')} | {ratio} |"
        yield ""


def fitted(result):
    """The rows that are no layout of many ranks: those stand in docs/table.md."""
    return [row for row in result.get("rows", []) if row.get("layout") != "row"]


def row_lines(results):
    """What runs of the same rows measured, by the names of their files: in one precision or in both."""
    for name, result in results.items():
        yield from title_lines(name, result)
    yield "| row | precision | threads | batch x seq | s/step (min-max) | tok/s | GFLOP/s | of the peak | loss first, last | memory |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    by_row = {}
    for result in results.values():
        for row in fitted(result):
            by_row.setdefault(row["row"], []).append(row)
    for rows in by_row.values():
        rows.sort(key=lambda row: PRECISIONS.index(row["precision"]) if row["precision"] in PRECISIONS else -1)
        for row in rows:
            time = row["step_time_s"]
            yield (f"| {row['row']} {row['model']} | {row['precision']} | {row['threads']} | {row['gbs']} x {row['seq_len']} "
                   f"| {time['median']:.3f} ({time['min']:.3f}-{time['max']:.3f}) | {row['tokens_per_s_per_gpu']:,.0f} "
                   f"| {1000 * row['model_tflops_per_s_per_gpu']:.1f} | {share(row['mfu'], 1, 'above peak')}{against(row)} "
                   f"| {row['loss'][0]:.3f}, {row['loss'][-1]:.3f} | {row['max_memory_bytes'] / 2**20:,.0f} MiB |")
    for rows in by_row.values():
        profiled = [row for row in rows if "ops" in row]
        if [row["precision"] for row in profiled] == list(PRECISIONS):
            yield from both_lines(*profiled)
        else:
            for row in profiled:
                yield from operation_lines(row)
    yield ""


def against(row):
    """Of which peak the share is, where that is not of the row's own precision."""
    peak = row.get("peak_precision", row["precision"])
    return "" if peak == row["precision"] else f" of the {peak} peak"


def rate_cells(row, op):
    """An operation's milliseconds, GFLOP/s and share of its roofline."""
    seconds = op["seconds"]
    arithmetic = op.get("arithmetic_seconds", op["flops"] / (1e12 * row["peak_tflops"]))
    beyond = "above peak" if arithmetic > seconds else "cache"
    return [f"{1000 * seconds:.1f}", f"{op['flops'] / seconds / 1e9:.1f}", share(op["roofline_seconds"] / seconds, 0, beyond)]


def table_line(cells):
    return "| " + " | ".join(cells) + " |"


def counts(op, step):
    """Whether it takes enough of a step to be shown."""
    return op["seconds"] >= 0.002 * step


def both_lines(fp32, bf16):
    """One row's operations in both precisions side by side."""
    steps = [row["ops"]["step_time_s"] for row in (fp32, bf16)]
    yield ""
    yield (f"One step of {fp32['row']} by operation: {steps[0]:.3f} s in fp32 ({1000 * fp32['ops']['outside_ops_s']:.1f} ms "
           f"outside), {steps[1]:.3f} s in bf16 ({1000 * bf16['ops']['outside_ops_s']:.1f} ms outside):")
    yield ""
    yield ("| operation | calls | fp32 ms | GFLOP/s | of its roofline | bf16 ms | GFLOP/s | of its roofline "
           "| bf16 is faster by |")
    yield "|---|---|---|---|---|---|---|---|---|"
    others = {op["name"]: op for op in bf16["ops"]["ops"]}
    for op in fp32["ops"]["ops"]:
        other = others.pop(op["name"], None)
        if other and (counts(op, steps[0]) or counts(other, steps[1])):
            yield table_line([op["name"], str(op["calls"]), *rate_cells(fp32, op), *rate_cells(bf16, other),
                              f"{op['seconds'] / other['seconds']:.2f} x"])
    for op in others.values():  # what bf16 alone has
        if counts(op, steps[1]):
            yield table_line([op["name"], str(op["calls"]), "", "", "", *rate_cells(bf16, op), ""])


def operation_lines(row):
    profile = row["ops"]
    step = profile["step_time_s"]
    yield ""
    yield (f"One step of {row['row']} in {row['precision']} by operation ({step:.3f} s, {1000 * profile['outside_ops_s']:.1f} "
           "ms of it outside):")
    yield ""
    yield "| operation | calls | share | ms | GFLOP/s | of its roofline | GB/s |"
    yield "|---|---|---|---|---|---|---|"
    for op in profile["ops"]:
        if counts(op, step):
            yield table_line([op["name"], str(op["calls"]), f"{100 * op['seconds'] / step:.1f} %", *rate_cells(row, op),
                              f"{op['bytes'] / op['seconds'] / 1e9:.1f}"])


def same_rows(paths):
    """The files in groups: moe_hidden512.json with moe_hidden512_bf16.json, laptop.json with laptop_fp32.json."""
    groups = {}
    for path in sorted(paths):
        base = path.stem
        for precision in PRECISIONS:
            base = base.removesuffix("_" + precision)
        groups.setdefault(base, []).append(path)
    return groups.values()


def result_lines(folder):
    for paths in same_rows(folder.glob("*.json")):
        results = {path.stem: json.loads(path.read_text()) for path in paths}
        with_rows = {name: result for name, result in results.items() if fitted(result)}
        for name, result in results.items():
            if "precisions" in result:
                yield from peer_lines(name, result)
        if with_rows:
            yield from row_lines(with_rows)


def main():
    text = "\n".join([BEGIN, "", *result_lines(ROOT / "benchmarks" / "results"), END])
    if sys.argv[1:] == ["--write"]:
        document = ROOT / "docs" / "performance.md"
        before, rest = document.read_text().split(BEGIN)
        document.write_text(before + text + rest.split(END)[1])
    else:
        print(text)


if __name__ == "__main__":
    main()
