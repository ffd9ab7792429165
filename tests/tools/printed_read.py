"""What is to be done about a printed command: what stands in for its words, how it is made small, or of what class it is
and what can be read of it without running it. printed_table.py says what; nothing here runs a printed command."""
import collections
import dataclasses
import json
import pathlib
import re
import shlex
import subprocess

import printed_find as find
import printed_table as table

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINARIES = "build/release/bin"


class Wrong(Exception):
    """What is wrong with a printed command, and what may be done."""


def output(command, cwd=ROOT):
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd, stdin=subprocess.DEVNULL).stdout


@dataclasses.dataclass(frozen=True)
class Place:
    file: str  # or the command that prints it
    printed: find.Printed

    def __str__(self):
        return f"{self.file}:{self.printed.line}: {self.printed.text}"


class Program:
    """What sluice takes, by its own help: of each subcommand its options with their values, and how many arguments it
    must have."""

    def __init__(self):
        self.help = {"": output([f"{BINARIES}/sluice", "--help"])}
        for name in re.findall(r"^  sluice (\w+) ", self.help[""].split("To begin with")[0], re.M):
            self.help[name] = output([f"{BINARIES}/sluice", name, "--help"])
        self.subcommands = [name for name in self.help if name]
        self.options = {name: {flag: value or "" for flag, value in
                               re.findall(r"^  (?:-\w,)?(--[a-z][\w-]*)(?: (\S+))?  ", text, re.M)}
                        for name, text in self.help.items() if name}
        self.needs = {name: len(re.findall(r"^  \w+ REQUIRED", text, re.M)) for name, text in self.help.items()}
        self.needs["config"] = self.needs["launch"] = 1
        listing = output([f"{BINARIES}/sluice", "config", "--keys"])
        self.keys = set(re.findall(r"^(?:  )?([a-z_][\w.]*?)(?:\.\*)?: ", listing, re.M))
        self.sections = sorted({key.rsplit(".", 1)[0] for key in self.keys if "." in key} - {"model.config"})


@dataclasses.dataclass
class Job:
    """What is done about a printed command: `words` are run, unless there are none."""
    place: Place
    kind: str  # "run", a class of the table, or "named": a name, an option, a path
    words: list = dataclasses.field(default_factory=list)
    may_refuse: bool = False  # only what it is given must be understood


class Reader:
    """Turns what is printed into jobs, and notes which entries of the table it used."""

    def __init__(self, program):
        self.program = program
        self.used = set()
        self.fresh = 0
        presets = json.loads((ROOT / "CMakePresets.json").read_text())["configurePresets"]
        self.presets = {preset["name"] for preset in presets}

    def jobs(self, place):
        kind, text = place.printed.kind, place.printed.text
        if kind == "path":
            return [self.path(place)]
        if kind == "named":
            if (place.file, text) not in table.ADVICE:
                self.known(text.split()[0].rstrip("."), self.every_option())
                return [Job(place, "named")]
            self.used.add(("ADVICE", (place.file, text)))
            kind = "advice"
        if kind == "advice":
            base = self.entry("BASES", place.file)
            if base is None:
                raise Wrong("advises an option: which command it is for is to be said in BASES")
            kind, text = "mention", f"{base} {self.entry('EXACT', text) or text}"
        else:
            text = self.entry("EXACT", text) or text
        if kind == "option":
            return [self.option(place, text.split())]
        fills = self.entry("FILLS", text)
        if fills is not None:
            of_all = {"subcommands": self.program.subcommands, "sections": self.program.sections}
            return [job for value in (fills if isinstance(fills, list) else of_all[fills])
                    for job in self.command(place, text.replace("{}", value), False)]
        return [job for part in re.split(r" && ", text) for job in self.command(place, part, kind == "mention")]

    def entry(self, name, key):
        value = getattr(table, name).get(key)
        if value is not None:
            self.used.add((name, key))
        return value

    def begun(self, name, words):
        """The entry with the most words that the command begins with."""
        for count in range(len(words), 0, -1):
            value = self.entry(name, " ".join(words[:count]))
            if value is not None:
                return value
        return None

    def replaced(self, words, replacements, name):
        """Sequences of words by what stands in for them."""
        result, at = [], 0
        ordered = sorted(replacements, key=lambda key: -len(key.split()))
        while at < len(words):
            key = next((key for key in ordered if words[at:at + len(key.split())] == key.split()), None)
            if key is None:
                result.append(words[at])
                at += 1
            else:
                self.used.add((name, key))
                result += replacements[key].split()
                at += len(key.split())
        return result

    def command(self, place, text, loose):
        words = self.replaced(shlex.split(text), table.STAND_INS, "STAND_INS")
        for at, word in enumerate(words):
            if word in table.FILES:
                self.used.add(("FILES", word))
            if word == "out/NEW":
                self.fresh += 1
                words[at] = f"out/new{self.fresh}"
        is_sluice = words[0] in ("sluice", "./run", f"{BINARIES}/sluice") and words[1:2] != ["test"]
        if is_sluice:
            return self.sluice(place, words[1:], loose)
        kind = self.entry("NOT_RUN", " ".join(words)) or self.begun("READ", words)
        if kind is not None:
            self.read(place, words)
            return [Job(place, kind), *self.plan_of(place, words)]
        return [self.script(place, words)]

    def plan_of(self, place, words):
        """What several processes train of a row, planned for as many ranks."""
        row = next((word for word in words if word.startswith("examples/benchmark/configs/")), None)
        if words[0] != "srun" or row is None:
            return []
        return [Job(place, "run", [f"{BINARIES}/sluice", "plan", row, *words[words.index("--ranks"):][:2]])]

    # sluice COMMAND ...; [--key value] may be left out.
    def sluice(self, place, words, loose):
        program = self.program
        if words[:1] in (["--help"], ["--version"]):
            return [Job(place, "run", [f"{BINARIES}/sluice", *words])]
        name = words[0] if words else ""
        if name not in program.subcommands:
            raise Wrong(f"sluice has no command {name}; if this is prose, a word of it belongs into PROSE")
        if "--" in words:  # behind it stands a command of its own
            at = words.index("--")
            own = [Job(place, "named")] if at == 1 else self.sluice(place, words[:at], True)
            return own + (self.sluice(place, words[at + 1:], loose) if words[at + 1:] else [])
        takes_value = program.options[name].get(words[-1], "")
        if loose and (takes_value or self.arguments(name, words[1:]) < program.needs[name]):
            for at, word in enumerate(words[1:], 1):
                if word.startswith("--"):
                    self.known(word, program.options[name])
                    self.value(word, words[at + 1:], [program.options[name].get(word, "")])
            return [Job(place, "named")]
        with_all = [word.strip("[]") for word in words]
        kind = "gpu" if ["--device", "cuda"] in [words[at:at + 2] for at in range(len(words))] else "run"
        variants = [words] if with_all == words else [self.without_optional(words), with_all]
        return [Job(place, kind, [f"{BINARIES}/sluice", *self.smaller(name, variant)]) for variant in variants]

    def without_optional(self, words):
        """Without what stands between "[" and "]"."""
        left, depth = [], 0
        for word in words:
            depth += word.count("[")
            if depth == 0:
                left.append(word)
            depth -= word.count("]")
        return left

    def arguments(self, name, words):
        """How many there are by place, or in their stead."""
        count, at = 0, 0
        while at < len(words):
            if words[at].startswith("--"):
                takes = self.program.options[name].get(words[at], "value")
                count += words[at] == "--keys" or words[at] == "--help"
                at += 1 if not takes or at + 1 == len(words) or words[at + 1].startswith("--") else 2
            else:
                count, at = count + 1, at + 1
        return count

    def smaller(self, name, words):
        if name not in table.SMALLER or "--help" in words:
            return words
        replacements, added = table.SMALLER[name]
        self.used.add(("SMALLER", name))
        words = self.replaced(words, replacements, f"SMALLER {name}")
        for each in added:
            flag = each.split()[0]
            if not any(word in words for word in [flag, *table.IN_PLACE.get(flag, [])]):
                words = words + each.split()
        return words

    # --- what is read only

    def known(self, word, options):
        name = word.split("=")[0]
        key = name[2:]
        if name in options or key in self.program.keys or key in self.program.sections:
            return
        if key.startswith("model.config."):
            return  # whatever the model's own configuration has
        raise Wrong(f"{name} is no option and no key")

    def every_option(self):
        every = collections.ChainMap(*self.program.options.values())
        names = ["run", *(key.split()[0] for key in table.SCRIPTS if "/" in key)]
        scripts = " ".join((ROOT / name).read_text() for name in names)
        return {**every, **{flag: "" for flag in re.findall(r"--[a-z][\w-]+", scripts)}}

    def option(self, place, words):
        options = self.every_option()
        self.known(words[0], options)
        if "." in words[0] and len(words) > 1:
            return Job(place, "named", [f"{BINARIES}/sluice", "config", "my.yaml", *words], may_refuse=True)
        self.value(words[0], words[1:], [each[words[0]] for each in self.program.options.values() if words[0] in each])
        return Job(place, "named")

    def value(self, flag, following, takes):
        """Is what follows one of what it takes somewhere: "cpu|cuda", "N", "FILE"?"""
        given = following[0] if following and not following[0].startswith("--") else ""
        if not given or not any(takes):
            return
        for each in takes:
            words = each.split("|")
            number = each == "N" and given.isdigit()
            if given in words or number or (each not in ("", "N") and len(words) == 1 and not given[0].isupper()):
                return
        raise Wrong(f"{flag} takes {' or '.join(sorted(set(takes) - {''}))}, not {given}")

    def path(self, place):
        name = place.printed.text
        if name in table.MADE_LATER:
            self.used.add(("MADE_LATER", name))
            return Job(place, "named")
        if name.startswith("build/"):
            there = name.endswith("/sluice") or (ROOT / "benchmarks" / f"{name.rsplit('/')[-1]}.cpp").exists()
        else:
            there = any((ROOT / folder / name).exists() for folder in ("", "tools", "benchmarks"))
        if not there:
            raise Wrong("there is no such file")
        return Job(place, "named")

    def near(self, place, name):
        """A file as the reader of `place` would find it: beside it, or from the root."""
        for folder in (ROOT / pathlib.Path(place.file).parent, ROOT):
            if (folder / name).exists():
                return folder / name
        raise Wrong(f"there is no {name}")

    def read(self, place, words):
        """What is wrong with a command that is not run, as far as that can be seen."""
        for at, word in enumerate(words[:-1]):
            if word.strip("[") == "--preset" and words[at + 1] != "NAME]" and words[at + 1] not in self.presets:
                raise Wrong(f"there is no preset {words[at + 1]}")
            if word == "-r":
                self.near(place, words[at + 1])
        if words[0] == "cmake" and not set(words) <= {"cmake", "--preset", "--build", *self.presets}:
            raise Wrong("of cmake only --preset and --build are used here")
        if words[:2] == ["./run", "test"]:
            self.read_test(words[2:])
        elif words[0].startswith("build/fuzz"):
            target = words[0].split("fuzz_")[1]
            if f'"{target}"' not in (ROOT / "tests/fuzz/targets.h").read_text() or not (ROOT / words[1]).is_dir():
                raise Wrong("no such fuzz target, or no corpus")
        elif words[0].endswith("/python"):
            self.flags(self.near(place, words[1]), words[2:])
        elif words[0] in ("mpirun", "srun"):
            for word in words[1:]:
                if word.startswith("build/"):
                    self.path(dataclasses.replace(place, printed=dataclasses.replace(place.printed, text=word)))
            if "sluice" in words:
                self.read_sluice(words[words.index("sluice") + 1:])
        elif words[0] == "sbatch":
            self.near(place, words[1])
        elif not words[0].startswith(("venv/", "cmake", "pip", "apt", "python", "nsys")):
            self.near(place, words[0])

    def read_sluice(self, words):
        """Its name and its options are known; their values are not looked at."""
        if words[0] not in self.program.subcommands:
            raise Wrong(f"sluice has no command {words[0]}")
        for word in words[1:]:
            if word.startswith("--"):
                self.known(word, self.program.options[words[0]])

    def read_test(self, words):
        source = (ROOT / "run").read_text()
        for at, word in enumerate(words):
            if word.strip("[]") == "--":
                break
            flag = word.strip("[]")
            if flag.startswith("--") and f" {flag}) " not in source:
                raise Wrong(f"./run test does not know {flag}")
            is_folder = not word.startswith(("--", "[", "...")) and (at == 0 or not words[at - 1].endswith("--preset"))
            if is_folder and not (ROOT / "tests" / word).is_dir():
                raise Wrong(f"there is no folder tests/{word}")

    def flags(self, script, words):
        """Every option is written out in the script's own code, not only in what it says about itself."""
        code = re.sub(r'\A(#![^\n]*\n)?("""(.*?)"""|((#|//)[^\n]*\n)+)', "", script.read_text(), flags=re.S)
        for flag in re.findall(r"--[a-z][\w-]*", " ".join(words)):
            if not re.search(rf'{flag}\b(?!-)|"{flag[2:]}"', code):
                raise Wrong(f"{script.name} does not know {flag}")

    def script(self, place, words):
        name = words[0].removeprefix(f"{BINARIES}/")
        name = next((key for key in table.SCRIPTS if key.endswith(f"/{name}")), name)
        words = [name, *words[1:]]
        kind, added = self.begun("SCRIPTS", words) or (None, None)
        if kind is None:
            raise Wrong("is of no class: give it one in NOT_RUN, or in SCRIPTS if it is a program of ours; a block that "
                        "a program wrote begins with ```text")
        is_binary = "/" not in name
        self.flags(self.near(place, f"benchmarks/{name}.cpp" if is_binary else name), words[1:])
        if added is None:
            return Job(place, kind)
        words[0] = f"{BINARIES}/{name}" if is_binary else name
        return Job(place, kind, self.without_optional(words) + added.split())
