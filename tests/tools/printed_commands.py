#!/usr/bin/env python3
"""Runs every command that is printed for people: in README.md, docs, CONTRIBUTING.md, --help, advice, the heads of
scripts and of YAML files. Each runs small, in a copy of the repository, after the substitutions of printed_table.py;
those that need a GPU, the network or the like are read as far as that goes. One that fails, one that nothing is known
of, and an entry of the table that matches nothing are errors.

  tests/tools/printed_commands.py [--list]"""
import collections
import concurrent.futures
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

import printed_find as find
import printed_table as table
from printed_read import BINARIES, ROOT, Place, Program, Reader, Wrong, output

SECONDS_EACH = 100


def files():
    """Of the repository as it stands, new ones too."""
    names = output(["git", "ls-files", "-co", "--exclude-standard"]).splitlines()
    return [name for name in names if (ROOT / name).is_file()]


def places(program):
    """Everything that is printed, in order, by where it stands."""
    tracked = files()
    readers = [(r"(README|CONTRIBUTING|docs/.*)\.md", find.markdown),
               (r"(examples|benchmarks/configs)/.*\.yaml", find.yaml_head),
               (r"(tools/.*\.sh|tests/hosts/.*\.sh|tests/parity/.*\.txt|\.ci/run|run)", find.script_head),
               (r"examples/slurm/.*\.sbatch", find.batch_script),
               (r"(tools|benchmarks|tests)/.*\.py", find.docstring),
               (r"benchmarks/.*\.(cpp|h)", find.cpp_head),
               (r"src/.*\.(cpp|h|cu)", find.source)]
    found = {}
    for pattern, read in readers:
        names = [name for name in tracked if re.fullmatch(pattern, name)]
        several = [Place(name, each) for name in names for each in read((ROOT / name).read_text(encoding="utf-8"))]
        if not several:
            raise SystemExit(f"error: nothing is printed in {pattern}: the collector misses it")
        for place in several:
            found.setdefault(place.file, []).append(place)
    found["./run help"] = [Place("./run help", each) for each in find.usage(output(["./run", "help"]))]
    for name, text in program.help.items():
        title = f"sluice {name} --help".replace("  ", " ")
        found[title] = [Place(title, each) for each in find.help_text(text)]
    return found


# --- running ----------------------------------------------------------------------------------------------------------

class Copy:
    """A copy of the repository with what its reader is said to have: a home with notes, a model, files of his own."""

    def __init__(self, folder):
        self.at = pathlib.Path(folder) / "repository"
        for name in files():
            (self.at / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, self.at / name)
        (self.at / "build").mkdir()
        (self.at / "build" / "release").symlink_to(ROOT / "build" / "release")
        (self.at / "out").mkdir()
        self.home = pathlib.Path(folder) / "home"
        (self.home / "notes").mkdir(parents=True)
        for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
            shutil.copy(document, self.home / "notes")
        (self.at / "notes.txt").write_text("The ")
        for name, text in table.FILES.items():
            (self.at / name).write_text(text)
        for name in ("sluice", "bench_ops", "test_device"):  # for what runs no program of these
            program = self.at / "programs" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text("#!/bin/sh\n")
            program.chmod(0o755)
        output([f"{BINARIES}/sluice", "train", "my.yaml", "--export", "model"], self.at)

    def run(self, job):
        """What went wrong, or nothing."""
        words = [str(self.home) + word[1:] if word.startswith("~/") else word for word in job.words]
        environment = {**os.environ, "HOME": str(self.home), "NO_COLOR": "1", "OUT": str(self.at / "out" / "gpu")}
        try:
            made = subprocess.run(words, cwd=self.at, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                                  text=True, errors="replace", check=False, timeout=SECONDS_EACH)
        except FileNotFoundError:
            return f"there is no {words[0]} (./run test builds everything)"
        except subprocess.TimeoutExpired:
            return f"ran for more than {SECONDS_EACH} s: make it smaller in SMALLER, or give it a class"
        said = "\n".join((made.stdout + made.stderr).strip().splitlines()[-12:])
        if job.may_refuse and made.returncode == 2:
            return said if re.search(r"is not a key|expected|takes|is not one of", said) else None
        return said or f"ends with {made.returncode}" if made.returncode != 0 else None


def run_all(copy, jobs):
    """The same words once, those of one place in their order; (job, what went wrong) of those that failed."""
    groups, seen = collections.defaultdict(list), set()
    for job in jobs:
        key = tuple(job.words)
        if job.words and key not in seen:
            seen.add(key)
            groups[job.place.file].append(job)

    def run_group(group):
        return [(job, wrong) for job in group if (wrong := copy.run(job)) is not None]

    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return [failed for results in pool.map(run_group, groups.values()) for failed in results], len(seen)


# --- the whole --------------------------------------------------------------------------------------------------------

def stale(used):
    """Entries of the table that nothing printed needs."""
    names = ("STAND_INS", "EXACT", "FILLS", "FILES", "BASES", "READ", "NOT_RUN", "SCRIPTS", "ADVICE", "MADE_LATER")
    keys = {(name, key) for name in names for key in getattr(table, name)}
    keys |= {(f"SMALLER {name}", key) for name, (replacements, _) in table.SMALLER.items() for key in replacements}
    left = keys - used
    left |= {(name, key) for name in ("PROSE", "NO_COMMANDS") for key in getattr(table, name) if key not in find.MET}
    return sorted(left)


def main():
    started = time.monotonic()
    program = Program()
    reader = Reader(program)
    found = [place for each in places(program).values() for place in each]
    jobs, failures = [], []
    for place in found:
        try:
            jobs += reader.jobs(place)
        except (Wrong, ValueError) as wrong:
            failures.append(f"{place}\n    {wrong}")
    if sys.argv[1:] == ["--list"]:
        for job in jobs:
            print(f"{job.kind:<9}{job.place}" + (f"\n         $ {shlex.join(job.words)}" if job.words else ""))
    for name, key in stale(reader.used):
        failures.append(f"printed_table.py, {name}: nothing that is printed has {key!r} any more: take it out")
    with tempfile.TemporaryDirectory() as folder:
        wrong_ones, ran = run_all(Copy(folder), jobs)
    for job, wrong in wrong_ones:
        failures.append(f"{job.place}\n  $ {shlex.join(job.words)}\n    " + wrong.replace("\n", "\n    "))
    for failure in failures:
        print(f"error: {failure}\n")
    kinds = collections.Counter({job.place: job.kind for job in reversed(jobs)}.values())
    print(f"printed commands: {len(found)} found; {ran} different ones run in {time.monotonic() - started:.0f} s")
    print(f"  {kinds.pop('run'):>3} run as printed, but small")
    print(f"  {kinds.pop('named'):>3} names of commands, options and files: they exist")
    for kind, reason in table.CLASSES.items():
        print(f"  {kinds.pop(kind, 0):>3} {kind}: {reason}")
    if failures:
        sys.exit(f"{len(failures)} wrong: mend what is printed, or say in tests/tools/printed_table.py how it is checked")


if __name__ == "__main__":
    main()
