#!/usr/bin/env python3
"""The mutants of tests/mutants still fit the sources and name tests that exist; and what run.py calls red is red."""
import contextlib
import importlib.util
import io
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
specification = importlib.util.spec_from_file_location("mutants", ROOT / "tests" / "mutants" / "run.py")
mutants = importlib.util.module_from_spec(specification)
sys.modules["mutants"] = mutants
specification.loader.exec_module(mutants)

# Stands for a build: test_room fails when the source says "wrong", crashes at "crash"; "typo" does not compile.
BINARY = """#!/bin/sh
source=$(dirname "$0")/../../../source.cpp
case $(cat "$source") in
  *wrong*) echo "[  FAILED  ] Sum.IsRight (1 ms)"; echo "[  FAILED  ] Sum.IsRight"; echo " 1 FAILED TEST"; exit 1 ;;
  *crash*) kill -SEGV $$ ;;
esac
"""


class FakeCopy(mutants.Copy):
    def built(self, folders):
        return "source.cpp:1: error: typo" if "typo" in (self.at / "source.cpp").read_text() else None


def mutant(name="name", old="a + b", new="a - b", test="room.Sum.*"):
    return mutants.Mutant("room", name, "source.cpp", old, new, test)


class Mutants(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name)
        subprocess.run(["git", "init", "-q", self.root], check=True)
        (self.root / ".gitignore").write_text("/build/\n")
        (self.root / "source.cpp").write_text("a + b; c; c\n")
        self.copy = FakeCopy(self.root, self.root / "build" / "copy")
        binary = self.copy.build / "bin" / "test_room"
        binary.parent.mkdir(parents=True)
        binary.write_text(BINARY)
        binary.chmod(0o755)

    def test_all_fit_the_sources_and_their_tests_exist(self):
        found = mutants.problems(mutants.load(), ROOT, ROOT / "build" / "release" / "bin")
        self.assertEqual(found, [], "\n".join(found))

    def test_every_room_has_at_least_five(self):
        rooms = {}
        for each in mutants.load():
            rooms.setdefault(each.room, []).append(each)
        self.assertLessEqual({"optimizer", "schedules", "data", "config", "hub"}, set(rooms))
        self.assertGreaterEqual(min(map(len, rooms.values())), 5)

    def test_the_old_text_occurs_once(self):
        self.assertEqual(mutants.apply("a + b; c", mutant()), "a - b; c")
        for wrong in (mutant(old="c"), mutant(old="d"), mutant(new="a + b")):
            with self.assertRaises(ValueError):
                mutants.apply("a + b; c; c", wrong)

    def test_what_no_longer_fits_is_named(self):
        binaries = self.copy.build / "bin"
        binary = binaries / "test_room"
        binary.write_text('#!/bin/sh\ncase $2 in *Sum*) printf "Sum.\\n  IsRight\\n" ;; esac\n')
        self.assertEqual(mutants.problems([mutant()], self.root, binaries), [])
        for wrong, why in ((mutant(old="c"), "occurs 2 times"), (mutant(test="room.Product.*"), "is called Product"),
                           (mutant(test="cellar.Sum"), "./run test cellar")):
            found = mutants.problems([wrong], self.root, binaries)
            self.assertEqual(len(found), 1)
            self.assertIn(why, found[0])

    def test_verdicts(self):
        for new, verdict, text in (("wrong", "red", "Sum.IsRight"), ("crash", "red", "... ended with -11"),
                                   ("fine", "SURVIVED", "room.Sum.* stays green"), ("typo", "does not build", "error")):
            self.copy.put("source.cpp", b"a + b; c; c\n")
            got, said = mutants.judge(mutant(new=new), self.copy)
            self.assertEqual(got, verdict, new)
            self.assertIn(text, said)
        self.copy.put("source.cpp", b"a * b\n")
        self.assertEqual(mutants.judge(mutant(), self.copy)[0], "does not apply")

    def test_each_source_is_put_back(self):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            verdicts = mutants.run_all([mutant("one", new="wrong"), mutant("two", new="fine")], self.copy)
        self.assertEqual([verdicts[each] for each in sorted(verdicts, key=lambda each: each.name)], ["red", "SURVIVED"])
        self.assertEqual((self.copy.at / "source.cpp").read_text(), "a + b; c; c\n")
        self.assertRegex(mutants.summary(verdicts), r"room +2 +1 +1")

    def test_what_fails_without_a_change_ends_the_run(self):
        self.copy.put("source.cpp", b"wrong a + b\n")
        with self.assertRaisesRegex(SystemExit, "fails without any change"):
            mutants.run_all([mutant()], self.copy)

    def test_a_copy_has_what_the_repository_has(self):
        (self.root / "new.cpp").write_text("new")
        at = self.copy.at / "source.cpp"
        before = at.stat().st_mtime_ns
        copy = FakeCopy(self.root, self.copy.at)
        self.assertEqual((copy.at / "new.cpp").read_text(), "new")
        self.assertEqual(at.stat().st_mtime_ns, before, "a file that is as it was keeps its time")
        (self.root / "new.cpp").unlink()
        FakeCopy(self.root, self.copy.at)
        self.assertFalse((copy.at / "new.cpp").exists())


if __name__ == "__main__":
    unittest.main()
