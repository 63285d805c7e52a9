"""Prose that people read keeps clear of the habits that made it hard to read (STYLE.md, "Prose")."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PER = (
    "batch|bit|block|byte|channel|character|class|column|convolution|core|day|epoch|hour|image|job|layer|line|machine|minute|"
    "month|output|page|photo|pixel|position|process|row|run|second|step|thread|trial|vector|weight|worker"
)
COUNTED = (
    "ms|µs|us|kB|MB|GB|[0-9]|bits?|bytes?|classes|coefficients|dimensions?|floats?|images|instructions?|lines?|"
    "million|multiplications?|nats|numbers?|once|one|photos|pixels|points?|rows?|seconds?|streams?|times|twice|two|values?|"
    "weights|%"
)
THINGS = (
    "array|chunk|code|command|compiler|dictionary|documentation|engine|file|flag|folder|format|function|graph|header|it|"
    "kernel|kernel set|label|layer|library|loss|machine|META|model|name|network|option|page|paper|pool|processor|"
    "recipe|report|rule|scale|set|system|table|tensor|text|weights?"
)
HABITS = {
    "'a' for 'per'": rf"(?:\b|(?<=[0-9 ]))(?:{COUNTED}) an? (?:{PER})\b(?! of| is| has| with| that)",
    "'is no X' for 'is not an X'": (
        r"(?<!there )(?<!There )\b(?:is|are|was|were) (?:no|none)\b"
        r"(?! (?:longer|more|less|fewer|better|worse|larger|smaller|slower|faster|earlier|later)\b)"
    ),
    "things that feel, know, say or want": rf"\b(?:{THINGS}) (?:feels?|knows?|speaks?|says?|wants?)\b",
    "docstring that begins with the wrong verb": r"\A(?:Say|Tell|Refuse)\b",
    "pronouns instead of the noun": r"\b(?:what it says of|what is left\b(?! out)|all there is|the same of)",
    "'Use this when'": r"\bUse this when\b",
    "words that are not idiomatic": (
        r"\b(?:for ever|comes? along|at hand|cut off|by heart|spelt out|have a say|not to be had)\b"
    ),
}
RIGHT = (  # English that only looks like a habit
    "How the network wants its images",
)


def python_prose(text):
    """Docstrings, texts of several words, and comments; a comment of several lines is one."""
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            docstrings.add((node.lineno, node.value))
    yield from sorted(docstrings)
    comment, start, last = [], 0, 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            if line != last + 1 and comment:
                yield start, " ".join(comment)
                comment = []
            start = start if comment else line
            comment.append(token.string.lstrip("# "))
            last = line
    if comment:
        yield start, " ".join(comment)


def markdown_prose(text):
    blanked = re.sub(
        r"^```.*?^```|^    .*?$", lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE
    )
    at = 1
    for paragraph in re.split(r"(?<=\n)\n", blanked):
        yield at, paragraph
        at += paragraph.count("\n") + 1


def comment_prose(text):
    """Comments of C and JavaScript."""
    for match in re.finditer(r"/\*.*?\*/|(?:^[ \t]*//[^\n]*\n)+|//[^\n]*", text, re.DOTALL | re.MULTILINE):
        yield text.count("\n", 0, match.start()) + 1, re.sub(r"\s*\n\s*(?:\*|//)?\s*", " ", match[0].strip("/* \n"))


READERS = {
    ".py": python_prose,
    ".md": markdown_prose,
    ".js": comment_prose,
    ".mjs": comment_prose,
    ".c": comment_prose,
    ".h": comment_prose,
}
PAGES = [
    path
    for folder in ("src", "docs", "csrc", "examples", "tools", "benchmarks", "")
    for path in sorted((ROOT / folder).rglob("*.*") if folder else ROOT.glob("*.md"))
    if path.suffix in READERS
    and path.name not in ("STYLE.md", "CHANGELOG.md")
    and "ko" not in path.name.split(".") + list(path.parts)
]


LONGEST = 36  # words between full stops, colons or semicolons, what stands in brackets left out


def sentences_of(paragraph):
    """Sentences of a paragraph or list of Markdown; code counts as one word."""
    prose = "\n".join(line for line in paragraph.split("\n") if not re.match(r"\s*[|#!<]", line))
    plain = re.sub(r"\([^()]*\)", "", re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "code", prose)))
    for block in re.split(r"\n\s*(?:[*-]|\d+\.) ", plain):
        yield from re.split(r"(?<=[.!?])\s|[:;]\s", " ".join(block.split()))


def docstrings_of(path):
    """Line and text of every docstring, those of attributes too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for statement in getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []:
            if isinstance(statement, ast.Expr) and isinstance(text := getattr(statement.value, "value", None), str):
                yield statement.lineno, text


def habits_in(path):
    for line, text in READERS[path.suffix](path.read_text(encoding="utf-8")):
        plain = re.sub(r"`[^`]*`", "`code`", text)
        for habit, pattern in HABITS.items():
            for match in re.finditer(pattern, " ".join(plain.split())):
                if any(right in match.string for right in RIGHT):
                    continue
                excerpt = match.string[max(0, match.start() - 50) : match.end() + 40]
                yield f"{path.relative_to(ROOT)}:{line}: {habit}: {excerpt}"


@pytest.mark.parametrize("folder", ["src", "docs", "csrc", "examples", "tools", "benchmarks", "."])
def test_no_page_has_the_habits(folder):
    pages = [
        path for path in PAGES if (path.relative_to(ROOT).parts[0] == folder) or (folder == "." and path.parent == ROOT)
    ]
    assert pages
    assert [found for path in pages for found in habits_in(path)] == []


def test_no_sentence_of_a_page_is_too_long():
    long = [
        f"{path.relative_to(ROOT)}:{line}: {words} words: {sentence[:80]}"
        for path in PAGES
        if path.suffix == ".md" and "models" not in path.parts  # whose settings of a recipe are a list
        for line, paragraph in markdown_prose(path.read_text(encoding="utf-8"))
        for sentence in sentences_of(paragraph)
        if (words := len(re.findall(r"[A-Za-z][\w'-]*", sentence))) > LONGEST
    ]
    assert long == []


def test_docstrings_name_their_subject():
    """ "What it does", "Where it is" and "Of the run" leave the noun to the reader."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text[:80]}"
        for path in PAGES
        if path.suffix == ".py" and path.is_relative_to(ROOT / "src")
        for line, text in docstrings_of(path)
        if re.match(r"(?:What|Where|When|Which|Who|Of) ", text)
    ]
    assert found == []
