#!/usr/bin/env python3
"""What tools/gpu_* must get right where no GPU is: a test process that dies, results that make a document, and calls
that fit the time a machine is lent for."""
import json
import os
import pathlib
import re
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


# As ncu --csv prints the details of a launch, among the lines of the program.
NCU = '''==PROF== Connected to process 7
{"gpus": []}
"ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"
"0","adamw","GPU Speed Of Light Throughput","DRAM Throughput","%","91.4"
"0","adamw","Launch Statistics","Registers Per Thread","register/thread","1,032"
"0","adamw","Occupancy","","",""
==PROF== Disconnected
'''


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
        (self.work / "first.json").write_text(json.dumps([
            {"name": "Cuda.Dense/cuda", "binary": "test_device", "file": "tests/device/x.cpp", "status": "passed"},
            {"name": "Ops.dies/cuda", "binary": "test_ops", "file": "tests/ops/gemm_test.cpp", "status": "passed"}]))
        (self.work / "kernel_adamw.csv").write_text(NCU)
        (self.work / "kernel_empty.csv").write_text("==ERROR== ERR_NVGPUCTRPERM\n")
        row = {"balance": "published", "recompute": "none", "optimizer_state_dtype": "bf16",
               "step_time_s": {"median": 15.0}, "tokens_per_s_per_gpu": 17000, "model_tflops_per_s_per_gpu": 401.0}
        (self.work / "bench_local_shard.json").write_text(json.dumps({"rows": [row]}))
        profile = [{"name": "gemm", "calls": 3, "seconds": 0.5, "roofline_seconds": 0.4},
                   {"name": "rope", "calls": 2, "seconds": 0.1, "roofline_seconds": 0.2}]
        (self.work / "bench_qwen3_by_op.json").write_text(
            json.dumps({"rows": [{**row, "ops": {"step_time_s": 2.0, "ops": profile}}]}))
        (self.work / "command_local_shard").write_text("sluice bench x.yaml --model.config.num_hidden_layers 26\n")
        (self.work / "peer_8.json").write_text(json.dumps({**row, "layers": 8, "versions": {"torch": "2.11"}}))
        (self.work / "bench_torn.json").write_text("{")
        (self.work / "memcheck.log").write_text("[  PASSED  ] 12 tests.\n========= ERROR SUMMARY: 0 errors\n")
        (self.work / "racecheck.log").write_text("========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)\n")
        (self.work / "parts.tsv").write_text("tests\tfailed (1)\t9\t\nops\tok\t8\t\n")
        summary = self.collect(code=1)
        self.assertIn("1 crashed, 1 failed, 3 passed, 1 skipped", summary)
        self.assertIn("1 timed, 0 of 1 at their floor", summary)
        text = self.document()
        self.assertIn("| `gemm` | gemm.cu | yes | **no**, 2 of 4 tests | 0.93, 0 of 1 shapes met |", text)
        self.assertIn("| `gemm` | a product | 1000.0 | 700.0 | 100 | 750 TFLOP/s | 0.93 |  |", text)
        self.assertIn("| memcheck | h200 | 12 | 0 errors |", text)
        self.assertIn("**1 hazard displayed", text)
        self.assertIn("| sluice, local shard | h200 | 26 | published | none | bf16 | 15.000 | 17,000 | 401 |", text)
        self.assertIn("| PyTorch 2.11, local shard 1/8 | h200 | 8 |", text)
        self.assertIn("### One step of qwen3 by op by operation, by h200\n\n| operation |", text)
        self.assertIn("| `gemm` | 3 | 25.0 % | 500.0 | 80 % |\n| `rope` | 2 | 5.0 % | 100.0 | served by the cache |",
                      text)
        self.assertIn("| `adamw` | h200 | DRAM Throughput, %: 91.4; Registers Per Thread, register/thread: 1,032 |", text)
        self.assertNotIn("`empty`", text)

    def test_two_calls_make_one_document(self):
        row = {"balance": "published", "recompute": "none", "optimizer_state_dtype": "bf16",
               "step_time_s": {"median": 15.0}, "tokens_per_s_per_gpu": 17000, "model_tflops_per_s_per_gpu": 401.0}
        (self.work / "parts.tsv").write_text("ops\tok\t8\t\n")
        for call, name in (("1", "steps"), ("2", "proxy")):
            (self.work / f"bench_{name}.json").write_text(json.dumps({"rows": [row]}))
            self.collect()
            (self.folder / "gpu" / "h200.json").rename(self.folder / "gpu" / f"h200_{call}.json")
            (self.work / f"bench_{name}.json").unlink()
        text = self.document()
        self.assertIn("| sluice, steps | h200_1 |", text)
        self.assertIn("| sluice, proxy | h200_2 |", text)


# A machine is lent for 10 minutes a command, and for 15 in all with what its starts take.
SECONDS_A_COMMAND, SECONDS_IN_ALL, SECONDS_OF_STARTS = 600, 900, 120


class GpuCheck(unittest.TestCase):
    """tools/gpu_check.sh with programs that do nothing, where there is no GPU."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)
        for name in ("programs/sluice", "programs/bench_ops", "programs/test_device", "path/nvidia-smi"):
            program = self.folder / name
            program.parent.mkdir(exist_ok=True)
            program.write_text("#!/bin/sh\nexit 0\n")
            program.chmod(0o755)

    def check(self, *arguments, code=0):
        made = subprocess.run([ROOT / "tools" / "gpu_check.sh", *arguments], capture_output=True, text=True, check=False,
                              env={**os.environ, "PATH": f"{self.folder}/path:{os.environ['PATH']}",
                                   "OUT": f"{self.folder}/out"})
        self.assertEqual(made.returncode, code, made.stdout + made.stderr)
        return made

    def limits(self, *arguments):
        text = self.check("--dry-run", "--programs", self.folder / "programs", *arguments).stdout
        parts = {name: int(limit) for name, limit in re.findall(r"^=== (\w+): at most (\d+) s$", text, re.M)}
        return parts, int(re.search(r"^at most (\d+) s$", text, re.M)[1])

    def test_the_limits_of_a_call_sum_to_less_than_its_time(self):
        in_all = 0
        calls = [self.limits(), self.limits("--call", "2")]
        for parts, most in calls:
            self.assertGreater(len(parts), 3)
            self.assertLess(sum(parts.values()), most, parts)
            self.assertLess(most, SECONDS_A_COMMAND)
            in_all += most
        self.assertLessEqual(in_all + SECONDS_OF_STARTS, SECONDS_IN_ALL)
        for part in ("first", "steps", "ops", "memcheck", "kernels", "tests"):
            self.assertIn(part, calls[0][0])
        for part in ("proxies", "compare", "racecheck"):
            self.assertIn(part, calls[1][0])
            self.assertNotIn(part, calls[0][0])
        parts, most = self.limits("--only", ",".join({**calls[0][0], **calls[1][0]}))
        self.assertLess(sum(parts.values()), most)

    def test_what_tells_most_comes_first(self):
        parts = list(self.limits()[0])
        self.assertEqual(parts[:4], ["versions", "smoke", "first", "steps"])
        self.assertEqual(parts[-1], "tests", "they have what is left")
        self.assertEqual(list(self.limits("--call", "2")[0])[1], "proxies")

    def test_without_a_gpu_nothing_is_built_or_run(self):
        made = self.check(code=2)
        self.assertEqual(made.stderr, "error: no GPU: nvidia-smi lists none. --dry-run shows what would run; "
                                      "--only versions,smoke runs what needs none\n")
        self.assertEqual(made.stdout, "")

    def test_a_part_there_is_not_is_refused(self):
        self.assertIn("no part proxy; there are: versions smoke first", self.check("--only", "proxy", code=2).stderr)
        self.assertIn("there are 1 and 2", self.check("--call", "3", code=2).stderr)
        self.assertIn("does not know --what", self.check("--what", code=2).stderr)

    def test_one_that_needs_no_gpu_runs(self):
        text = self.check("--only", "smoke", "--programs", self.folder / "programs").stdout
        self.assertRegex(text, r"smoke +ok")
        self.assertNotIn("=== first", text)


if __name__ == "__main__":
    unittest.main()
