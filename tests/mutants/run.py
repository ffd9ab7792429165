#!/usr/bin/env python3
"""Changes one line of the sources at a time and demands that the tests named for it fail.

    tests/mutants/run.py                      # all, in a copy under build/mutants: ten minutes on two cores once it is built
    tests/mutants/run.py optimizer 'hub/*'    # of one room; by name, with * and ?
    tests/mutants/run.py --list
    tests/mutants/run.py --check              # only whether each still applies and its tests exist; seconds

A room's mutants are in ROOM.toml, each of them
    name      what it does wrong
    file      the source
    old, new  the text, which occurs there once, and what stands in its place
    test      FOLDER.FILTER: tests/FOLDER's binary and a GoogleTest filter
A mutant is red when a test of the filter fails, crashes or does not end in time. One that leaves all of them green has
survived: a test is missing. Exit status 1 if one survives, does not build or does not apply.
"""

import argparse
import dataclasses
import fnmatch
import os
import pathlib
import shutil
import subprocess
import sys
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Of the tests of one mutant: in green they take a second or two.
TEST_SECONDS = 120


@dataclasses.dataclass(frozen=True)
class Mutant:
    room: str
    name: str
    file: str
    old: str
    new: str
    test: str

    @property
    def id(self):
        return f"{self.room}/{self.name}"

    @property
    def folder(self):
        return self.test.partition(".")[0]

    @property
    def filter(self):
        return self.test.partition(".")[2]


def load(directory=HERE):
    mutants = []
    for path in sorted(directory.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["mutant"]:
            mutants.append(Mutant(path.stem, **{key: value.strip("\n") for key, value in entry.items()}))
    assert len({mutant.id for mutant in mutants}) == len(mutants), "two mutants have one name"
    return mutants


def apply(text, mutant):
    """The source changed; an error says why the mutant does not fit it."""
    if mutant.old == mutant.new:
        raise ValueError("changes nothing")
    if (count := text.count(mutant.old)) != 1:
        raise ValueError(f"`old` occurs {count} times in {mutant.file}")
    return text.replace(mutant.old, mutant.new)


def listed_tests(binary, filter_):
    made = subprocess.run([binary, "--gtest_list_tests", f"--gtest_filter={filter_}"], capture_output=True, text=True,
                          check=True)
    return sum(line.startswith("  ") for line in made.stdout.splitlines())


def problems(mutants, root, binaries):
    """What no longer fits, as lines of text."""
    found, counts = [], {}
    missing = [folder for folder in sorted({mutant.folder for mutant in mutants})
               if not (binaries / f"test_{folder}").exists()]
    if missing:
        found.append(f"the tests of {', '.join(missing)} are not built: ./run test {' '.join(missing)}")
    for mutant in mutants:
        try:
            apply((root / mutant.file).read_text(), mutant)
        except (OSError, ValueError) as error:
            found.append(f"{mutant.id}: {error}")
        if mutant.folder in missing:
            continue
        if mutant.test not in counts:
            counts[mutant.test] = listed_tests(binaries / f"test_{mutant.folder}", mutant.filter)
        if counts[mutant.test] == 0:
            found.append(f"{mutant.id}: no test of {mutant.folder} is called {mutant.filter}")
    return found


class Copy:
    """The repository once more, where sources are changed and built."""

    def __init__(self, root, at):
        self.at = at
        self.build = at / "build" / "release"
        names = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=root, capture_output=True,
                               check=True).stdout.decode().split("\0")
        wanted = {name for name in names if name and (root / name).is_file()}
        for name in wanted:
            self.put(name, (root / name).read_bytes())
        for path in [*at.rglob("*")]:
            name = path.relative_to(at)
            if name.parts[0] != "build" and path.is_file() and str(name) not in wanted:
                path.unlink()

    def put(self, name, content):
        """Files that are as they were keep their time, so nothing is built for them."""
        path = self.at / name
        if path.exists() and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def call(self, *command):
        environment = os.environ | {"CCACHE_BASEDIR": str(self.at), "CCACHE_NOHASHDIR": "1"}
        return subprocess.run(command, cwd=self.at, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, errors="replace", check=False)

    def configure(self):
        if (self.build / "build.ninja").exists():
            return
        made = self.call("cmake", "--preset", "release", "-DSLUICE_CUDA=OFF")
        if made.returncode != 0:
            sys.exit(made.stdout + made.stderr)

    def built(self, folders):
        """Nothing, or what the compiler said."""
        made = self.call("ninja", "-C", str(self.build), *[f"test_{folder}" for folder in sorted(folders)])
        return None if made.returncode == 0 else made.stdout + made.stderr

    def failing(self, mutant):
        """Of the mutant's tests: the names that fail, "..." for a crash or one that does not end."""
        command = [self.build / "bin" / f"test_{mutant.folder}", f"--gtest_filter={mutant.filter}", "--gtest_brief=1"]
        try:
            made = subprocess.run(command, cwd=self.at, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  errors="replace", timeout=TEST_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return ["... does not end"]
        names = [line.split("] ", 1)[1].partition(",")[0].partition(" (")[0]
                 for line in made.stdout.splitlines() if line.startswith("[  FAILED  ] ") and "." in line]
        names = list(dict.fromkeys(names))
        if made.returncode == 0:
            return []
        return names or [f"... ended with {made.returncode}"]


def judge(mutant, copy):
    """The verdict, and what there is to say of it. The source is left changed."""
    try:
        copy.put(mutant.file, apply((copy.at / mutant.file).read_text(), mutant).encode())
    except (OSError, ValueError) as error:
        return "does not apply", str(error)
    if (said := copy.built([mutant.folder])) is not None:
        errors = [line for line in said.splitlines() if "error" in line]
        return "does not build", errors[-1] if errors else said[-500:]
    failing = copy.failing(mutant)
    if not failing:
        return "SURVIVED", f"{mutant.test} stays green"
    return "red", failing[0] + (f" and {len(failing) - 1} more" if len(failing) > 1 else "")


def run_all(mutants, copy):
    verdicts = {}
    if (said := copy.built({mutant.folder for mutant in mutants})) is not None:
        sys.exit(f"the tests do not build without any change:\n{said[-3000:]}")
    failures = []
    for test in sorted({mutant.test for mutant in mutants}):
        sample = next(mutant for mutant in mutants if mutant.test == test)
        if failing := copy.failing(sample):
            failures.append(f"{test} fails without any change: {', '.join(failing)}")
    if failures:
        sys.exit("\n".join(failures))
    # Neighbours have one binary and one file, so that little is built for each.
    for mutant in sorted(mutants, key=lambda mutant: (mutant.folder, mutant.file)):
        start = time.monotonic()
        original = (copy.at / mutant.file).read_bytes()
        try:
            verdict, text = judge(mutant, copy)
        finally:
            copy.put(mutant.file, original)
        verdicts[mutant] = verdict
        print(f"{verdict:<14} {time.monotonic() - start:5.0f} s  {mutant.id:<45} {text}", flush=True)
    return verdicts


def summary(verdicts):
    lines = [f"{'room':<12} {'mutants':>7} {'red':>5} {'other':>5}"]
    for room in sorted({mutant.room for mutant in verdicts}):
        of_room = [verdict for mutant, verdict in verdicts.items() if mutant.room == room]
        red = of_room.count("red")
        lines.append(f"{room:<12} {len(of_room):7} {red:5} {len(of_room) - red:5}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="names, files and tests; nothing is run")
    parser.add_argument("--check", action="store_true", help="only whether all apply and their tests exist")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a room, or ROOM/MUTANT; * and ? stand for others")
    options = parser.parse_args()
    mutants = load()
    for name in options.names:
        if not any(fnmatch.fnmatchcase(mutant.id, name) or mutant.room == name for mutant in mutants):
            parser.error(f"no mutant is called {name}; --list shows them")
    if options.names:
        mutants = [mutant for mutant in mutants
                   if any(fnmatch.fnmatchcase(mutant.id, name) or mutant.room == name for name in options.names)]
    if options.list:
        for mutant in mutants:
            print(f"{mutant.id:<45} {mutant.file:<36} {mutant.test}")
        return 0
    if options.check:
        found = problems(mutants, ROOT, ROOT / "build" / "release" / "bin")
        print("\n".join(found) or f"{len(mutants)} mutants apply, and the tests named for them exist")
        return 1 if found else 0
    at = ROOT / "build" / "mutants"
    if shutil.which("ninja") is None:
        sys.exit("ninja is missing: ./run test installs what a build needs")
    copy = Copy(ROOT, at)
    copy.configure()
    verdicts = run_all(mutants, copy)
    print("\n" + summary(verdicts))
    return 0 if all(verdict == "red" for verdict in verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
