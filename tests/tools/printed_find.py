"""Finds the commands that are printed for people: in Markdown, in --help, in the heads of scripts and YAML files, and in
the strings of the C++ sources. Each function takes a text and gives Printed, in order; nothing here runs anything.

What looks like a command is taken for one, so that a misspelt one is found too and fails where it is checked. Where
prose goes on behind a command ("sluice plan FILE says ..."), the table's PROSE lists the words that end it."""
import ast
import dataclasses
import re

import printed_table as table

# What a command begins with.
BEGIN = re.compile(r"(\./|\.ci/|sluice(?=[\s,.;:]|$)|build/[\w<>]+/bin/|venv/bin/|tools/|benchmarks/|"
                   r"tests/(parity|tools|hosts)/|("
                   r"python3?(\.\d+)?|cmake|ctest|mpirun|srun|sbatch|pip|apt(-get)?|git|bench_\w+|[\w/]+\.(py|sh))(?=\s|$))")


@dataclasses.dataclass(frozen=True)
class Printed:
    line: int
    text: str
    # "command"; "mention": one in running text, which may leave out what it needs ("sluice train --export"); "option":
    # "--scale tiny" alone; "advice": options that advise() says to add; "named": options in other strings; "path": one
    # word that names a file
    kind: str = "command"


# Entries of the table that something was found with.
MET = set()


def squeezed(text):
    return " ".join(text.split())


def without_note(text):
    """A command without what explains it: behind " # ", or behind two spaces or more, other than its options."""
    text = re.split(r"\s+#(?=\s|$)", text.strip())[0]
    return squeezed(re.split(r"\s{2,}(?!\s|\[?--)", text)[0])


def of_code(line, text):
    """What a span in backticks is, if it is anything of ours."""
    text = squeezed(text)
    if text.startswith("--"):
        return [Printed(line, text, "option")]
    if not BEGIN.match(text) or text in ("sluice", "./run"):
        return []
    one_word = " " not in text and not text.startswith("./")
    return [Printed(line, text, "path" if one_word else "mention")]


def spans(text, first_line=1):
    """Code spans, which may go over the end of a line but not of a paragraph."""
    found = []
    for match in re.finditer(r"(?<!`)`((?:[^`\n]|\n(?!\s*\n))+)`(?!`)", text):
        found += of_code(first_line + text.count("\n", 0, match.start()), re.sub(r"\n[\s#/]*", " ", match[1]))
    return found


# --- Markdown -------------------------------------------------------------------------------------------------------

def markdown(text):
    """Fenced blocks: every line of those that are sh, or say no language and do not begin as a program's output does."""
    found, prose, block = [], [], None
    for number, line in enumerate(text.splitlines(), 1):
        fence = re.match(r"\s*```(\w*)", line)
        prose.append("" if fence or block is not None else line)
        if not fence:
            if block is not None:
                block.append((number, line))
        elif block is None:
            block, language = [], fence[1]
        else:
            first = next((each for _, each in block if each.strip()), "")
            if language in ("sh", "bash", "console") or (not language and not table.OUTPUT.match(first)):
                found += block_lines(block)
            block = None
    return sorted(found + spans("\n".join(prose)), key=lambda printed: printed.line)


def block_lines(block):
    found, begun = [], ""
    for number, line in block:
        begun += line
        if begun.endswith("\\"):
            begun = begun[:-1] + " "
            continue
        command = without_note(re.sub(r"^\s*\$ ", "", begun))
        if command and not command.startswith("#"):
            found.append(Printed(number, command))
        begun = ""
    return found


# --- heads of files -------------------------------------------------------------------------------------------------

def yaml_head(text):
    """Comment lines set in further than the others: all of them are commands."""
    lines = comment_head(text, "#")
    return [Printed(number, without_note(line)) for number, line in lines if re.match(r"\s{2,}\S", line)]


def comment_head(text, mark):
    """The first lines that are comments, without the mark."""
    head = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith(mark):
            break
        if not line.startswith("#!"):
            head.append((number, line[len(mark):]))
    return head


def usage_lines(lines):
    """Lines set in that begin with a program or have options, and spans in backticks."""
    found = []
    for number, line in lines:
        if re.match(r"\s{2,}\S", line) and (BEGIN.match(line.strip()) or re.search(r"\s\[?--[a-z]", line)):
            found += [Printed(number, part.strip()) for part in without_note(line).split(" && ")]
    text = "\n".join(line for _, line in lines)
    return found + (spans(text, lines[0][0]) if lines else [])


def script_head(text):
    return usage_lines(comment_head(text, "#"))


def batch_script(text):
    """Of a script of Slurm: its head, and the steps that it starts."""
    steps, goes_on = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if goes_on or line.startswith("srun "):
            steps.append((number, re.sub(r"\s+\\$", r"\\", line.strip()).replace(' "$@"', "")))
            goes_on = line.endswith("\\")
    return script_head(text) + block_lines(steps)


def cpp_head(text):
    return usage_lines(comment_head(text, "//"))


def docstring(text):
    module = ast.parse(text)
    if not ast.get_docstring(module):
        return []
    return usage_lines(list(enumerate(module.body[0].value.value.splitlines(), module.body[0].lineno)))


# --- prose of the program ---------------------------------------------------------------------------------------------

def words_of(text):
    """Words as a shell would cut them, quotes kept."""
    return re.findall(r"(?:\"[^\"]*\"|\S)+", text)


def is_prose(word):
    if word in table.PROSE:
        MET.add(word)
    return word in table.PROSE


def command_in_prose(text, begin):
    """The command that begins at `text[begin:]`: up to a word of prose, two spaces, or punctuation."""
    rest = re.split(r"\s{2,}|\n", text[begin:])[0]
    taken = []
    for word in words_of(rest):
        bare = re.sub(r"[,;:.?!)]+$", "", word)
        if taken and (is_prose(bare) or word.startswith("(")):
            break
        taken.append(bare.rstrip("`"))
        if bare != word:
            break
    return squeezed(" ".join(taken))


def prose(text, first_line=1):
    """Commands of sluice in running text. "sluice" before a word of prose is its name."""
    found = []
    for match in re.finditer(r"(?<![\w/`\"-])(?:sluice|\./run)(?= )", text):
        following = text[match.end():].split()
        if not following or is_prose(following[0].rstrip(",;:.")) or not re.match(r"[a-z{A-Z-]", following[0]):
            continue
        line = first_line + text.count("\n", 0, match.start())
        command = command_in_prose(text, match.start())
        if command in table.NO_COMMANDS:
            MET.add(command)
        else:
            found.append(Printed(line, command, "mention"))
    return found + spans(text, first_line)


def usage(text):
    """Of ./run: lines set in that begin with a command, and prose."""
    lines, found = text.splitlines(), []
    for at, line in enumerate(lines):
        if re.match(r"  \S", line) and BEGIN.match(line.strip()):
            found.append(Printed(at + 1, without_note(line)))
            lines[at] = ""
    return found + help_text("\n".join(lines))


def help_text(text):
    """Of --help: what stands in its prose; the options are declared there and known."""
    lines = ["" if re.match(r"Usage:|\s+-", line) else line for line in text.splitlines()]
    found = prose("\n".join(lines))
    found += [Printed(number, option, "option") for number, line in enumerate(lines, 1)
              for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*", line)
              if not any(option in each.text for each in found if each.line == number)]
    return sorted(found, key=lambda printed: printed.line)


# --- strings of C++ ---------------------------------------------------------------------------------------------------

TOKEN = re.compile(r"""//[^\n]*|/\*.*?\*/|R"(?P<raw>\w*)\((?P<body>.*?)\)(?P=raw)"|"(?P<plain>(?:\\.|[^"\\\n])*)"|"""
                   r"""'(?:\\.|[^'\\\n])*'|(?P<call>\badvise\s*\()|(?P<open>\()|(?P<close>\))|\w+|\s+|.""", re.S)
ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}


def literals(text):
    """(line, value, in the arguments of advise()) of each string, adjacent ones as one."""
    found, depth, advice, joined = [], 0, [], False
    line = 1
    for token in TOKEN.finditer(text):
        word, start = token[0], line
        line += word.count("\n")
        value = token["body"]
        if token["plain"] is not None:
            value = re.sub(r"\\(.)", lambda m: ESCAPES.get(m[1], m[0]), token["plain"])
        if value is not None:
            if joined:
                found[-1] = (found[-1][0], found[-1][1] + value, found[-1][2])
            else:
                found.append((start, value, bool(advice)))
            joined = True
        elif not word.isspace() and not word.startswith(("//", "/*")):
            joined = False
            if token["call"]:
                advice.append(depth)
            if token["call"] or token["open"]:
                depth += 1
            elif token["close"]:
                depth -= 1
                if advice and advice[-1] == depth:
                    advice.pop()
    return found


def source(text):
    """Commands in the strings of a source, options in them, and those that it advises to add."""
    found = []
    for line, value, advised in literals(text):
        commands = prose(value, line)
        found += [dataclasses.replace(each, line=line) for each in commands]
        if re.fullmatch(r"--?[\w.-]+ ?", value):
            continue  # the declaration of an option, or a piece of a name
        end = 0
        for match in re.finditer(r"(?<![\w-])--[a-z][\w.{}-]*", value):
            if match.start() >= end and not any(match[0] in each.text for each in commands):
                fragment = command_in_prose(value, match.start())
                fragment = fragment if advised else " ".join(fragment.split()[:2])
                end = match.start() + len(fragment)
                found.append(Printed(line, fragment, "advice" if advised else "named"))
    return found
