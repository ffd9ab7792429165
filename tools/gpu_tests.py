#!/usr/bin/env python3
"""Runs the GPU's tests of test binaries and keeps what each of them did, whatever happens to the process they ran in.

  tools/gpu_tests.py --json FILE [--filter */cuda:*_on_cuda-*Sweep*] [--seconds N] BINARY...

A process that dies, hangs, or loses its GPU (an error that CUDA never gets over) takes only the test with it: the rest
goes on in a new one. FILE is written after every binary. The status is 0 if every test passed or
was skipped, and some passed."""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

LOST_GPU = re.compile(r"cudaError(IllegalAddress|IllegalInstruction|MisalignedAddress|LaunchFailure|LaunchTimeout|Assert|"
                      r"HardwareStackError|InvalidPc|InvalidAddressSpace|EccUncorrectable|Unknown)\b")
LINE = re.compile(r"\[ +(RUN|OK|FAILED|SKIPPED) +\] (\S+?)(?:,.*)?(?: \((\d+) ms\))?$")
STATUS = {"OK": "passed", "FAILED": "failed", "SKIPPED": "skipped"}
KEPT_TEXT = 1500


def listed(binary, pattern):
    """The binary's tests as (name, source file)."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "list.json"
        made = subprocess.run([binary, "--gtest_list_tests", f"--gtest_filter={pattern}", f"--gtest_output=json:{path}"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        if made.returncode != 0:
            raise RuntimeError(f"{binary} does not start: {made.stderr.strip()[-KEPT_TEXT:]}")
        suites = json.loads(path.read_text(encoding="utf-8"))["testsuites"]
    return [(f"{suite['name']}.{test['name']}", test.get("file", "")) for suite in suites for test in suite["testsuite"]]


def run_once(binary, names, each_seconds, deadline, results):
    """Runs tests in one process and notes them in `results`; returns at its end, or when it is of no more use."""
    process = subprocess.Popen([binary, "--gtest_color=no", "--gtest_filter=" + ":".join(names)],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    reason = ""
    last_line = time.monotonic()

    def watch():
        nonlocal reason
        while process.poll() is None:
            now = time.monotonic()
            if now - last_line > each_seconds or now > deadline:
                reason = "out of time" if now > deadline else f"nothing happened for {each_seconds} s"
                process.kill()
                return
            time.sleep(0.2)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    running, text = None, []
    for line in process.stdout:
        last_line = time.monotonic()
        line = line.rstrip("\n")
        found = LINE.match(line)
        if not found:
            text.append(line)
        elif found[1] == "RUN":
            running, text = found[2], []
        elif found[2] == running:
            whole = "\n".join(text).strip()
            results[running].update(status=STATUS[found[1]], seconds=int(found[3] or 0) / 1000)
            if found[1] != "OK":
                results[running]["message"] = whole[:KEPT_TEXT]
            print(f"  {STATUS[found[1]]:<8}{running}", flush=True)
            if found[1] == "FAILED":
                print("    " + whole[:KEPT_TEXT].replace("\n", "\n    "), flush=True)
            running = None
            if found[1] == "FAILED" and LOST_GPU.search(whole):
                process.kill()
                break
    process.wait()
    watcher.join()
    if running is not None:
        status = "out of time" if reason == "out of time" else "hung" if reason else "crashed"
        message = reason or f"the process ended with {process.returncode}"
        results[running].update(status=status, message="\n".join([message, *text])[:KEPT_TEXT])
        print(f"  {status:<8}{running}: {message}", flush=True)
    return process.returncode


def run_binary(binary, pattern, each_seconds, deadline):
    name = pathlib.Path(binary).name
    results = {test: {"name": test, "binary": name, "file": file, "status": "not run"}
               for test, file in listed(binary, pattern)}
    while time.monotonic() < deadline:
        left = [test for test, result in results.items() if result["status"] == "not run"]
        if not left:
            break
        code = run_once(binary, left, each_seconds, deadline, results)
        if [test for test, result in results.items() if result["status"] == "not run"] == left:
            raise RuntimeError(f"{binary} runs none of its tests and ends with {code}")
    return list(results.values())


def write(path, results):
    partial = path + ".part"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    os.replace(partial, path)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--json", required=True)
    p.add_argument("--filter", default="*/cuda:*_on_cuda-*Sweep*")
    p.add_argument("--seconds", type=float, default=300, help="for all of them")
    p.add_argument("--each-seconds", type=float, default=60, help="without a word from a test")
    p.add_argument("binaries", nargs="+")
    c = p.parse_args()
    deadline = time.monotonic() + c.seconds
    results, failures = [], 0
    for binary in c.binaries:
        print(pathlib.Path(binary).name, flush=True)
        try:
            results += run_binary(binary, c.filter, c.each_seconds, deadline)
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            failures += 1
            results.append({"name": pathlib.Path(binary).name, "binary": pathlib.Path(binary).name, "file": "",
                            "status": "crashed", "message": str(error)[:KEPT_TEXT]})
            print(f"  {error}", flush=True)
        write(c.json, results)
    counts = {}
    for result in results:
        counts[result["status"]] = counts.get(result["status"], 0) + 1
    print(", ".join(f"{number} {status}" for status, number in sorted(counts.items())) or "no tests")
    sys.exit(0 if "passed" in counts and not failures and set(counts) <= {"passed", "skipped"} else 1)


if __name__ == "__main__":
    main()
