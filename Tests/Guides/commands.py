"""Which commands a guide has: `commands.py GUIDE.md` prints `section<TAB>command` for each, in the order of the page.

A command is an indented line, and a span between backticks that begins with a program and goes on. Indented settings, JSON
and (where a block has prompts) what programs answer are none; blocks fenced as `sh` are run by scripts/test-readme. A row
of a table names commands and tells nobody to type them: of those only what is ours counts, as `help`.
"""
import re
import shutil
import sys


def spans(text):
    for span in re.findall(r"`([^`]+)`", text):
        words = span.split()
        if len(words) > 1 and re.fullmatch(r"[a-z][a-z0-9.-]*", words[0]):
            if words[0].startswith("ploop") or shutil.which(words[0]):
                yield " ".join(words)


def block(lines):
    """The commands of an indented block, each in one line."""
    prompts = any(line.startswith("$ ") for line in lines)
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).split("\n")
    for line in joined:
        if prompts:
            if line.startswith("$ "):
                yield line[2:]
        elif line[0] not in "{[\"" and not re.match(r"[a-z.-]+:( |$)", line):
            yield re.sub(r"\s+# .*", "", line)


def commands(text):
    section, paragraph, indented, fence = "", [], [], None
    def told():
        found = [*block(indented)] if indented else []
        found += spans("\n".join(paragraph))
        paragraph.clear()
        indented.clear()
        return [(section, command) for command in found]
    for line in text.split("\n") + ["# end"]:
        if line.startswith("```"):
            yield from told()
            fence = None if fence is not None else line[3:]
        elif fence is not None:
            if fence == "console" and line.startswith("$ "):
                yield section, line[2:]
        elif line.startswith("#"):
            yield from told()
            section = re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        elif line.startswith("|"):
            yield from told()
            for span in spans(line):
                if span.startswith(("ploopctl ", "ploopd ")):
                    program, *words = span.split()
                    yield section, " ".join([program, "help", *words])
        elif re.match(r"    (  )?[^ ]", line) or line.startswith("    ") and indented:
            if paragraph:
                yield from told()
            indented.append(line.strip())
        elif not line and indented:
            yield from told()
        else:
            if indented:
                yield from told()
            paragraph.append(line)


with open(sys.argv[1], encoding="utf-8") as guide:
    for section, command in commands(guide.read()):
        print(section, command, sep="\t")
