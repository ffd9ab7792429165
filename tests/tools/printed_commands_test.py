#!/usr/bin/env python3
"""What printed_commands.py must find in texts of each kind, what it must refuse, and what stands in for what."""
import pathlib
import tempfile
import textwrap
import unittest

import printed_commands
import printed_find as find
import printed_read as read
import printed_table as table


def texts(found, kind=None):
    return [printed.text for printed in found if kind in (None, printed.kind)]


class Found(unittest.TestCase):
    def test_fenced_blocks_are_commands_and_what_programs_wrote_is_not(self):
        found = find.markdown(textwrap.dedent("""\
            Text.
            ```
            ./run bench R4 --scale tiny      # quick
            ./rum bench

            # a comment
            sluice train a.yaml \\
              --ranks 2
            ```
            ```sh
            $ pip install x
            ```
            ```
            sluice 0.1.0 (abc)  |  2 cores
            sluice bench
            ```
            ```cpp
            ./run nothing
            ```
            """))
        self.assertEqual([(each.line, each.text, each.kind) for each in found],
                         [(3, "./run bench R4 --scale tiny", "command"), (4, "./rum bench", "command"),
                          (8, "sluice train a.yaml --ranks 2", "command"), (11, "pip install x", "command")])

    def test_code_spans_of_markdown(self):
        found = find.markdown("Run `./run plan FILE --profile\nh200`, `tools/x.sh`, `sluice`, `seq_len`, `--ranks N`.\n\n"
                              "A `backtick\n\nthat is none, and `cmake --preset debug`; ``./run literally``.\n")
        self.assertEqual([(each.line, each.kind, each.text) for each in found],
                         [(1, "mention", "./run plan FILE --profile h200"), (2, "path", "tools/x.sh"),
                          (2, "option", "--ranks N"), (6, "mention", "cmake --preset debug")])

    def test_heads_of_files(self):
        yaml = "# A row.\n#   sluice bench a.yaml --ranks 2   [without]\n#   sluiec bench b.yaml\nseed: 1\n#   sluice c\n"
        self.assertEqual(texts(find.yaml_head(yaml)), ["sluice bench a.yaml --ranks 2", "sluiec bench b.yaml"])
        shell = "#!/bin/sh\n# What it does, with `sluice plan FILE`.\n#   tools/x.sh [--call 1|2] [FOLDER]    notes\n" \
                "#   bin/   things\nset -e\n#   tools/y.sh\n"
        self.assertEqual(texts(find.script_head(shell)), ["tools/x.sh [--call 1|2] [FOLDER]", "sluice plan FILE"])
        batch = "#!/bin/bash\n# What.\n#   sbatch a.sbatch my.yaml\n#SBATCH --nodes=2\n\nsrun --mpi=pmix sluice train \\\n" \
                '  a.yaml "$@"\necho srun\n'
        self.assertEqual([(each.line, each.text) for each in find.batch_script(batch)],
                         [(3, "sbatch a.sbatch my.yaml"), (7, "srun --mpi=pmix sluice train a.yaml")])
        python = '"""What it does.\n\n  peer.py --layers 8            small\n  python3 -m venv v && v/bin/pip install -r x' \
                 '.txt\n    config.json   as it is saved\n"""\nimport os\n'
        self.assertEqual(texts(find.docstring(python)),
                         ["peer.py --layers 8", "python3 -m venv v", "v/bin/pip install -r x.txt"])
        cpp = "// Times.\n//   bench_ops --device cuda [--seconds S]\n//     in bf16\n#if 0\n"
        self.assertEqual(texts(find.cpp_head(cpp)), ["bench_ops --device cuda [--seconds S]"])

    def test_usage_and_help(self):
        usage = "sluice trains:\n\n  ./run bench            the rows\n  ./run train a.yaml\n             a small model\n"
        self.assertEqual([(each.text, each.kind) for each in find.usage(usage)],
                         [("./run bench", "command"), ("./run train a.yaml", "command")])
        text = "what it is\nUsage: sluice bench [OPTIONS]\n\nOptions:\n  --ranks N     ranks, as --scale\n\n" \
               "Scales shrink it; sluice config ROW.yaml --scale laptop shows the result.\n" \
               "With --ranks N more; --seed N too.\n(sluice config --keys lists them)\n"
        self.assertEqual([(each.text, each.kind) for each in find.help_text(text)],
                         [("sluice config ROW.yaml --scale laptop", "mention"), ("--ranks", "option"),
                          ("--seed", "option"), ("sluice config --keys", "mention")])

    def test_strings_of_a_source(self):
        found = find.source(textwrap.dedent("""\
            // "sluice comment FILE"
            throw user_error("sluice config needs a file", 'x').advise("run it at --scale " "tiny; sluice plan FILE says");
            const char* raw = R"(sluice train "my file" --ranks 2)";  /* "sluice block" */
            f("sluice has its own", "sluice was built", "--device", "sluice bensh FILE", "--steps {}: at least one");
            fmt::format("did you mean sluice {}?", x).advise(near(")") ? "give --tokens 1,2 (or --prompt TEXT)" : "");
            """))
        self.assertEqual([(each.line, each.text, each.kind) for each in found], [
            (2, "sluice config", "mention"), (2, "sluice plan FILE", "mention"), (2, "--scale tiny", "advice"),
            (3, 'sluice train "my file" --ranks 2', "mention"), (4, "sluice bensh FILE", "mention"),
            (4, "--steps {}", "named"), (5, "sluice {}", "mention"), (5, "--tokens 1,2", "advice"),
            (5, "--prompt TEXT", "advice")])


class FakeProgram:
    subcommands = ["bench", "train", "plan", "config"]
    options = {"bench": {"--scale": "laptop|tiny|full", "--steps": "N", "--ops": ""},
               "train": {"--export": "DIRECTORY", "--ranks": "N"},
               "plan": {"--profile": "NAME"}, "config": {"--keys": ""}}
    needs = {"bench": 0, "train": 1, "plan": 1, "config": 1}
    keys = {"seed", "distributed.ep_size"}
    sections = ["distributed"]


class Checked(unittest.TestCase):
    def setUp(self):
        self.reader = read.Reader(FakeProgram())

    def jobs(self, text, kind="command", file="README.md"):
        return self.reader.jobs(read.Place(file, find.Printed(1, text, kind)))

    def words(self, text, kind="command", file="README.md"):
        return [" ".join(job.words).removeprefix(read.BINARIES + "/") for job in self.jobs(text, kind, file)]

    def test_what_runs_and_how_small(self):
        self.assertEqual(self.words("./run bench"), ["sluice bench --scale tiny --steps 1"])
        self.assertEqual(self.words("./run bench FILE --scale laptop --steps 9"),
                         ["sluice bench my.yaml --scale tiny --steps 9"])
        self.assertEqual(self.words("./run plan FILE && sluice config FILE"),
                         ["sluice plan my.yaml", "sluice config my.yaml"])
        self.assertEqual(self.words("sluice plan FILE [--profile h200]"),
                         ["sluice plan my.yaml", "sluice plan my.yaml --profile h200"])
        self.assertEqual(self.words("sluice COMMAND --help"),
                         [f"sluice {name} --help" for name in FakeProgram.subcommands])
        self.assertEqual(self.words("--scale laptop", "named", "src/training/benchmark.cpp"),
                         ["sluice bench my.yaml --scale tiny --steps 1"])
        self.assertEqual(self.words("--export DIRECTORY", "advice", "src/cli/trained_export.cpp")[0][:38],
                         "sluice train my.yaml --export model --")
        job = self.jobs("./run bench FILE --device cuda")[0]
        self.assertEqual((job.kind, job.words[3:5]), ("gpu", ["--device", "cpu"]))

    def test_a_row_under_srun_is_planned(self):
        row = "examples/benchmark/configs/qwen3_moe_30b_8.yaml"
        jobs = self.jobs(f"srun --mpi=none sluice train {row} --ranks 8 --export x")
        self.assertEqual([(job.kind, job.words[1:]) for job in jobs],
                         [("launcher", []), ("run", ["plan", row, "--ranks", "8"])])

    def test_a_misspelt_word_is_run_as_it_is(self):
        self.assertEqual(self.words("./run bench FIEL --scale laptpo"), ["sluice bench FIEL --scale laptpo --steps 1"])
        self.assertEqual(self.words("./run bench --sclae tiny"), ["sluice bench --sclae tiny --scale tiny --steps 1"])

    def test_what_only_names_a_command_is_not_run(self):
        for text in ("sluice train", "sluice train --export", "sluice plan"):
            self.assertEqual([(job.kind, job.words) for job in self.jobs(text, "mention")], [("named", [])])
        self.assertEqual(self.words("sluice plan"), ["sluice plan"], "in a block it must run, and fails")

    def test_what_is_wrong_is_said(self):
        for text, kind, message in [
                ("./run bensh", "command", "has no command bensh"),
                ("sluice trian FILE", "mention", "has no command trian"),
                ("frobnicate all", "command", "is of no class: give it one in NOT_RUN, or in SCRIPTS"),
                ("sluice train --exprot", "mention", "--exprot is no option and no key"),
                ("--distributed.ep_sise 2", "option", "is no option and no key"), ("--rankz", "option", "is no option"),
                ("--scale large", "option", r"takes laptop\|tiny\|full, not large"),
                ("--steps M", "option", "takes N, not M"), ("tools/nowhere.sh", "path", "no such file"),
                ("tools/gpu_check.sh --cal 2", "command", "does not know --cal"),
                ("tools/gpu_chekc.sh", "command", "is of no class"),
                ("benchmarks/peers/torch_moe.py --layer 8", "command", "does not know --layer"),
                ("tools/gpu_tests.py --jsonl FILE", "command", "does not know --jsonl"),
                ("srun --mpi=pmix sluice trian FILE", "command", "sluice has no command trian"),
                ("mpirun -n 2 sluice train FILE --rnaks 2", "command", "--rnaks is no option and no key"),
                ("sbatch examples/slurm/nowhere.sbatch", "command", "there is no examples/slurm/nowhere.sbatch"),
                ("cmake --preset debgu", "command", "there is no preset debgu"),
                ("./run test nowhere", "command", "there is no folder tests/nowhere"),
                ("./run test --every", "command", "does not know --every"),
                ("./run test [--every]", "command", "does not know --every"),
                ("cmake --preste debug", "command", "only --preset and --build"),
                ("build/release/bin/bench_ops --device mata", "command", "is of no class"),
                ("pip install -r requirements.txt", "command", "is of no class"),
                ("venv/bin/python make_golden.py", "command", "there is no make_golden.py"),
                ("--nothing 1", "advice", "is to be said in BASES")]:
            with self.subTest(text), self.assertRaisesRegex(read.Wrong, message):
                self.jobs(text, kind)

    def test_a_flag_that_only_its_description_has_is_not_known(self):
        for name, text in (("a.py", '#!/usr/bin/env python3\n"""What.\n\n  a.py --gone --there\n"""\nadd("--there")\n'),
                           ("a.sh", "#!/bin/sh\n# What.\n#   a.sh --gone --there\ncase $1 in --there) ;; esac\n")):
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                script = pathlib.Path(folder) / name
                script.write_text(text)
                self.reader.flags(script, ["--there"])
                with self.assertRaisesRegex(read.Wrong, "does not know --gone"):
                    self.reader.flags(script, ["--there", "--gone"])

    def test_an_entry_that_nothing_needs_is_stale(self):
        left = printed_commands.stale(self.reader.used)
        self.assertIn(("STAND_INS", "ROW"), left)
        self.jobs("sluice config ROW --scale laptop")
        self.assertNotIn(("STAND_INS", "ROW"), printed_commands.stale(self.reader.used))

    def test_every_class_is_explained(self):
        used = {*table.NOT_RUN.values(), *table.READ.values()} | {kind for kind, _ in table.SCRIPTS.values()} - {"run"}
        self.assertEqual(used - set(table.CLASSES), set())


if __name__ == "__main__":
    unittest.main()
