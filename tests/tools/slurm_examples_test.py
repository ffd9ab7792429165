#!/usr/bin/env python3
"""What examples/slurm asks Slurm for, against the rows: as many nodes and GPUs as the published table says, a signal
that saves, and a requeue that goes on. The commands in them are checked by printed_commands.py."""
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = {path.stem: path.read_text() for path in (ROOT / "examples/slurm").glob("*.sbatch")}
ROWS = {path.stem: path.read_text() for path in (ROOT / "examples/benchmark/configs").glob("*.yaml")
        if not re.search(r"_1gpu", path.stem)}
GPUS_OF_A_NODE = 8


def directives(text):
    """What stands in #SBATCH lines, which Slurm reads up to the first command."""
    head = text.split("\n\n")[0]
    assert text.count("\n#SBATCH") == head.count("\n#SBATCH"), "behind the first command Slurm reads no #SBATCH"
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", head, re.M))


def number(pattern, text):
    return int(re.search(pattern, text, re.M)[1])


class Examples(unittest.TestCase):
    def test_there_is_one_for_each_row_and_one_for_cpus(self):
        self.assertEqual(len(ROWS), 6)
        self.assertEqual(set(EXAMPLES), {*ROWS, "cpu"})

    def test_rows_ask_for_the_gpus_of_the_published_table(self):
        for name, row in ROWS.items():
            with self.subTest(name):
                text, asked = EXAMPLES[name], directives(EXAMPLES[name])
                gpus = number(r"^    gpus: (\d+)$", row)
                self.assertEqual(int(asked["nodes"]) * GPUS_OF_A_NODE, gpus)
                self.assertEqual(int(asked["gpus-per-node"]), GPUS_OF_A_NODE)
                self.assertEqual(GPUS_OF_A_NODE % int(asked["ntasks-per-node"]), 0)
                self.assertEqual(number(r"--ranks (\d+)", text), gpus)
                self.assertEqual(asked["job-name"], re.search(r"^  row: (R\d)$", row, re.M)[1])
                self.assertIn(f"sluice train examples/benchmark/configs/{name}.yaml ", text)
                self.assertIn(f"#   sbatch examples/slurm/{name}.sbatch\n", text)
                self.assertRegex(text, r"--device cuda[^#]*--checkpoint.enabled true")

    def test_each_saves_at_the_signal_and_goes_on_when_it_is_requeued(self):
        for name, text in EXAMPLES.items():
            with self.subTest(name):
                asked = directives(text)
                known = {"job-name", "nodes", "ntasks-per-node", "gpus-per-node", "exclusive", "mem", "time", "signal",
                         "requeue", "open-mode"}
                self.assertLessEqual(set(asked), known)
                self.assertIn("requeue", asked)
                self.assertEqual(asked["open-mode"], "append", "or a requeue writes over what was said")
                # To the steps, not to the script; more than a minute before the end, which Slurm rounds.
                self.assertRegex(asked["signal"], r"^USR1@\d+$")
                self.assertGreater(number(r"--signal=USR1@(\d+)", text), 60)
                self.assertRegex(text, r'(?s)\nsrun [^#]* --resume "\$@"\ncode=|\nsrun [^#]*"\$@" --resume\ncode=')
                self.assertRegex(text, r'\[\[ \$code == 138 \]\]; then scontrol requeue "\$SLURM_JOB_ID"')
                self.assertTrue(text.endswith('exit "$code"\n'), "a failure of the run is one of the job")

    def test_each_finds_process_0(self):
        for name, text in EXAMPLES.items():
            with self.subTest(name):
                by_mpi = "\nsrun --mpi=pmix " in text
                by_address = re.search(r"\nMASTER_ADDR=.*\nexport MASTER_ADDR\nsrun --mpi=none ", text) is not None
                self.assertTrue(by_mpi or by_address)


if __name__ == "__main__":
    unittest.main()
