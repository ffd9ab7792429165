#!/usr/bin/env python3
"""What benchmarks/table.py makes of recorded results: each figure beside the peak of its own precision, both precisions
of a row side by side."""
import json
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "benchmarks"))
import table  # noqa: E402

MACHINE = {"cpu": "EPYC", "cores": 2, "isa": "AVX-512", "os": "Debian, Linux 6", "compiler": "g++", "peak_dtype": "f32",
           "peak_gflops": 100.0, "bf16_peak_gflops": 200.0, "bandwidth_gbs": 10.0}


def result(precision, gemm_s, peak_precision=None):
    """A run of one row whose gemm has 10 GFLOP."""
    peak = 0.2 if (peak_precision or precision) == "bf16" else 0.1
    row = {"row": "R1", "model": "M", "precision": precision, "threads": 2, "gbs": 8, "seq_len": 512, "layout": "fitted",
           "step_time_s": {"median": 1.0, "min": 0.9, "max": 1.1}, "tokens_per_s_per_gpu": 4096.0,
           "model_tflops_per_s_per_gpu": 0.05, "peak_tflops": peak, "peak_precision": peak_precision or precision,
           "mfu": 0.05 / peak, "loss": [8.0, 7.5], "max_memory_bytes": 2**20,
           "ops": {"step_time_s": 1.0, "outside_ops_s": 0.001, "ops": [
               {"name": "gemm", "calls": 3, "seconds": gemm_s, "flops": 1e10, "bytes": 1e6,
                "roofline_seconds": 0.01 / peak, "arithmetic_seconds": 0.01 / peak},
               {"name": "seldom", "calls": 1, "seconds": 0.001, "flops": 0, "bytes": 1, "roofline_seconds": 0.0,
                "arithmetic_seconds": 0.0}]}}
    return {"machine": MACHINE, "commit": "abc", "rows": [row]}


class Tables(unittest.TestCase):
    def lines(self, **files):
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (pathlib.Path(folder) / f"{name}.json").write_text(json.dumps(content))
            return list(table.result_lines(pathlib.Path(folder)))

    def test_both_precisions_of_a_row_stand_side_by_side(self):
        lines = self.lines(laptop=result("bf16", 0.08), laptop_fp32=result("fp32", 0.2))
        self.assertEqual(sum(line.startswith("| R1 M | ") for line in lines), 2)
        self.assertIn("| R1 M | fp32 | 2 | 8 x 512 | 1.000 (0.900-1.100) | 4,096 | 50.0 | 50.0 % | 8.000, 7.500 | 1 MiB |", lines)
        self.assertIn("| R1 M | bf16 | 2 | 8 x 512 | 1.000 (0.900-1.100) | 4,096 | 50.0 | 25.0 % | 8.000, 7.500 | 1 MiB |", lines)
        self.assertIn("| gemm | 3 | 200.0 | 50.0 | 50 % | 80.0 | 125.0 | 62 % | 2.50 x |", lines)
        self.assertFalse([line for line in lines if "seldom" in line])
        self.assertTrue([line for line in lines if "peak 100 GFLOP/s fp32, 200 bf16, 10.0 GB/s" in line])

    def test_one_precision_alone_has_a_table_of_its_own(self):
        lines = self.lines(moe=result("fp32", 0.2))
        self.assertIn("| gemm | 3 | 20.0 % | 200.0 | 50.0 | 50 % | 0.0 |", lines)

    def test_faster_than_the_peak_of_what_is_multiplied_is_said(self):
        self.assertTrue([line for line in self.lines(moe=result("bf16", 0.04)) if "| above peak |" in line])

    def test_bf16_held_against_the_fp32_peak_is_said(self):
        lines = self.lines(moe=result("bf16", 0.2, "fp32"))
        self.assertTrue([line for line in lines if "| 50.0 % of the fp32 peak |" in line], lines)

    def test_peers_are_compared_within_their_precision(self):
        def run(kind, dtype, seconds, finalist=True):
            return {"kind": kind, "dtype": dtype, "name": kind, "seconds_per_step": seconds, "finalist": finalist}
        peers = {"machine": MACHINE, "commit": "abc", "precisions": {
            dtype: {"peak_gflops": {"median": peak, "precision": dtype}, "share_of_peak": {"sluice": 0.6}}
            for dtype, peak in (("fp32", 100.0), ("bf16", 200.0))},
            "runs": [run("sluice", "fp32", 4.0), run("transformers", "fp32", 6.0), run("sluice", "bf16", 2.0),
                     run("transformers", "bf16", 3.5), run("sorted rows", "bf16", 4.0, False)]}
        lines = self.lines(cpu_peers=peers)
        self.assertIn("In bf16, of the bf16 peak of 200 GFLOP/s:", lines)
        self.assertIn("| transformers | 6.00 | 40.0 % | 1.50 x |", lines)
        self.assertIn("| transformers | 3.50 | 34.3 % | 1.75 x |", lines)
        self.assertIn("| sorted rows, first round only | 4.00 | 30.0 % | 2.00 x |", lines)

    def test_what_is_committed_makes_the_document(self):
        text = "\n".join([table.BEGIN, "", *table.result_lines(ROOT / "benchmarks" / "results"), table.END])
        self.assertIn(text, (ROOT / "docs" / "performance.md").read_text(), "benchmarks/table.py --write")


if __name__ == "__main__":
    unittest.main()
