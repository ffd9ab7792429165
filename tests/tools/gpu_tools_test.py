#!/usr/bin/env python3
"""What tools/gpu_*.py must get right where no GPU is: a test process that dies, and results that make a document."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# A test program of five tests in GoogleTest's words: the second kills its process, the third loses the GPU, the fourth
# would fail after that, the fifth is skipped.
PROGRAM = r"""#!/usr/bin/env python3
import json, os, sys
flags = dict(a[2:].split("=", 1) for a in sys.argv[1:] if "=" in a)
names = ["good", "dies", "loses", "after", "skips"]
if "--gtest_list_tests" in sys.argv:
    tests = [{"name": n + "/cuda", "file": "/somewhere/tests/ops/gemm_test.cpp"} for n in names]
    json.dump({"testsuites": [{"name": "Ops", "testsuite": tests}]}, open(flags["gtest_output"].split(":", 1)[1], "w"))
    sys.exit()
lost = False
for n in names:
    name = f"Ops.{n}/cuda"
    if name not in flags["gtest_filter"].split(":"):
        continue
    print(f"[ RUN      ] {name}", flush=True)
    if n == "dies":
        os.abort()
    if n == "loses" or lost:
        lost = True
        print("gemm: cudaErrorIllegalAddress: an illegal memory access was encountered")
        print(f"[  FAILED  ] {name}, where GetParam() = cuda (7 ms)", flush=True)
    else:
        print(f"[  SKIPPED ] {name} (0 ms)" if n == "skips" else f"[       OK ] {name} (3 ms)", flush=True)
"""


def tool(name, *arguments, code=0):
    made = subprocess.run([sys.executable, ROOT / "tools" / name, *map(str, arguments)], capture_output=True, text=True,
                          check=False)
    assert made.returncode == code, made.stdout + made.stderr
    return made.stdout


class GpuTools(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)
        self.work = self.folder / "work"
        self.work.mkdir()

    def run_tests(self):
        program = self.folder / "test_ops"
        program.write_text(PROGRAM)
        os.chmod(program, 0o755)
        tool("gpu_tests.py", "--json", self.work / "tests.json", program, code=1)
        return {test["name"]: test for test in json.loads((self.work / "tests.json").read_text())}

    def test_a_lost_process_takes_only_its_test_along(self):
        tests = self.run_tests()
        self.assertEqual({name: test["status"] for name, test in tests.items()},
                         {"Ops.good/cuda": "passed", "Ops.dies/cuda": "crashed", "Ops.loses/cuda": "failed",
                          "Ops.after/cuda": "passed", "Ops.skips/cuda": "skipped"})
        self.assertIn("cudaErrorIllegalAddress", tests["Ops.loses/cuda"]["message"])

    def test_a_program_that_does_not_start_is_told(self):
        tool("gpu_tests.py", "--json", self.work / "tests.json", "/bin/false", code=1)
        self.assertEqual(json.loads((self.work / "tests.json").read_text())[0]["status"], "crashed")

    def collect(self, code=0):
        (self.work / "date").write_text("2030-01-02T03:04Z\n")
        (self.folder / "gpu").mkdir(exist_ok=True)
        return tool("gpu_collect.py", self.work, self.folder / "gpu" / "h200.json", "--summary", code=code)

    def document(self):
        return tool("gpu_status.py", "--results", self.folder / "gpu")

    def test_nothing_has_run(self):
        (self.folder / "gpu").mkdir()
        self.assertIn("Nothing has run on a GPU yet", self.document())

    def test_skipped_parts_make_a_document_that_says_never_run(self):
        (self.work / "parts.tsv").write_text("tests\tskipped\t0\tno GPU: there is no nvidia-smi\n")
        self.assertIn("no GPU: there is no nvidia-smi", self.collect())
        self.assertIn("| `gemm` | gemm.cu | no | never run | never run |", self.document())

    def test_results_make_the_document(self):
        self.run_tests()
        times = {"median": 1e-3, "min": 1e-3, "max": 2e-3, "batches": 5, "per_batch": 4}
        gemm = {"op": "gemm", "what": "a product", "floor": "750 TFLOP/s", "seconds": times, "flop_per_s": 7e14,
                "byte_per_s": 1e11, "fraction_of_floor": 0.93}
        ops = {"gpus": [{"name": "H200"}], "commit": "abc", "versions": "CUDA 13.0", "ops": [gemm],
               "ceilings": {"gemm_8192_flop_per_s": 7.7e14, "copy_byte_per_s": 4.3e12}}
        (self.work / "ops.json").write_text(json.dumps(ops))
        row = {"balance": "published", "recompute": "none", "optimizer_state_dtype": "bf16",
               "step_time_s": {"median": 15.0}, "tokens_per_s_per_gpu": 17000, "model_tflops_per_s_per_gpu": 401.0}
        (self.work / "bench_local_shard.json").write_text(json.dumps({"rows": [row]}))
        (self.work / "command_local_shard").write_text("sluice bench x.yaml --model.config.num_hidden_layers 26\n")
        (self.work / "peer_8.json").write_text(json.dumps({**row, "layers": 8, "versions": {"torch": "2.11"}}))
        (self.work / "bench_torn.json").write_text("{")
        (self.work / "memcheck.log").write_text("[  PASSED  ] 12 tests.\n========= ERROR SUMMARY: 0 errors\n")
        (self.work / "racecheck.log").write_text("========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)\n")
        (self.work / "parts.tsv").write_text("tests\tfailed (1)\t9\t\nops\tok\t8\t\n")
        summary = self.collect(code=1)
        self.assertIn("1 crashed, 1 failed, 2 passed, 1 skipped", summary)
        self.assertIn("1 timed, 0 of 1 at their floor", summary)
        text = self.document()
        self.assertIn("| `gemm` | gemm.cu | yes | **no**, 2 of 4 tests | 0.93, 0 of 1 shapes met |", text)
        self.assertIn("| `gemm` | a product | 1000.0 | 700.0 | 100 | 750 TFLOP/s | 0.93 |  |", text)
        self.assertIn("| memcheck | h200 | 12 | 0 errors |", text)
        self.assertIn("**1 hazard displayed", text)
        self.assertIn("| sluice, local shard | h200 | 26 | published | none | bf16 | 15.000 | 17,000 | 401 |", text)
        self.assertIn("| PyTorch 2.11, local shard 1/8 | h200 | 8 |", text)


if __name__ == "__main__":
    unittest.main()
