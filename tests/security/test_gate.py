"""What could run code, open pickles, listen to strangers or trust a page is on a list that somebody has read."""

from __future__ import annotations

import io
import re
import tokenize
from collections import Counter
from pathlib import Path

import pytest

import tutelage

ROOT = Path(tutelage.__file__).parent

LOOKED_FOR = {
    "torch.load": r"torch\s*\.\s*load\s*\(",
    "pickle": r"\b(?:pickle|dill|cloudpickle|joblib|marshal|shelve)\s*(?:\.|import)|import\s+(?:pickle|dill|marshal)",
    "shell": r"shell\s*=\s*True|os\.system|os\.popen|getoutput",
    "yaml.load": r"yaml\.(?:unsafe_|full_)?load|typ\s*=\s*[\"']unsafe",
    "eval": r"(?<![.\w])eval\s*\(",
    "exec": r"(?<![.\w])exec\s*\(|\bexecfile\b|runpy",
    "trust": r"(?<!model\.)trust_remote_code\s*=\s*(?!False)",
    "allow_pickle": r"allow_pickle\s*=\s*True",
    "archives": r"extractall|unpack_archive",
    "innerHTML": r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|mark_safe",
    # A text of the program's own that is filled in by `format`, which escapes, is the way to write one.
    "markup": r"Markup\s*\(\s*(?:(?![\"'\s])|[\"'][^\"']*[\"']\s*\.join)",
    "all addresses": r"0\.0\.0\.0|INADDR_ANY",
    "imports by name": r"import_module\s*\(|__import__\s*\(",
    "weights_only": r"weights_only\s*=\s*(?!True)",
    "verify": r"verify\s*=\s*False|CERT_NONE",
    "ctypes": r"ctypes\.\s*CDLL|dlopen",
}

REVIEWED: dict[tuple[str, str], int] = {
    # In a process of its own, without network; weights_only, and never a second try.
    ("torch.load", "models/unpickling.py"): 1,
    # Of a model that the recipe trusts by name; the door of models/foreign.py is shut otherwise.
    ("trust", "export/parity.py"): 1,
    ("trust", "models/load.py"): 1,
    ("trust", "train/probe.py"): 1,
    ("trust", "evaluation/harness.py"): 1,
    # The C library, to give up the network; to hold and give back memory; and the kernels that come with the program.
    ("ctypes", "models/unpickling.py"): 1,
    ("ctypes", "train/memory.py"): 2,
    ("ctypes", "models/kernels.py"): 2,
    # Texts of the program's own, and pieces that were escaped one by one.
    ("markup", "report/chart.py"): 2,
    ("markup", "report/axis.py"): 1,
    ("markup", "report/scatter.py"): 2,
    ("markup", "report/text.py"): 1,
    # The page's own script, and JSON in which nothing can begin a tag; the dashboard's own script.
    ("markup", "report/page.py"): 2,
    ("markup", "dashboard/views.py"): 1,
    # A page that was parsed inert, compared with the one that is shown and put in its place.
    ("innerHTML", "report/page.js"): 2,
    # Modules of the program by names that it lists itself.
    ("imports by name", "__init__.py"): 1,
    ("imports by name", "track/backends/__init__.py"): 1,
    # The checkers of IFEval, from one of two packages that are named there.
    ("imports by name", "scoring/instructions.py"): 2,
    # What a model wrote, and its tests, inside of the sandbox, which is made through the C library.
    ("exec", "scoring/sandbox/worker.py"): 1,
    ("exec", "scoring/sandbox/checker.py"): 1,
    ("imports by name", "scoring/sandbox/checker.py"): 1,
    ("ctypes", "scoring/sandbox/jail.py"): 1,
    ("ctypes", "scoring/sandbox/seccomp.py"): 1,
}
"""How often each stands where; whoever changes a number has read the place."""


def code_of(path: Path) -> str:
    """A file without its comments, and of Python without the texts that stand alone as documentation."""
    text = path.read_text("utf-8")
    if path.suffix != ".py":
        return text
    kept, fresh = [], True
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and fresh):
            continue
        if token.type not in (tokenize.NL, tokenize.INDENT, tokenize.DEDENT):
            fresh = token.type == tokenize.NEWLINE
        kept.append(token)
    lines: dict[int, str] = {}
    for token in kept:
        lines[token.start[0]] = lines.get(token.start[0], "") + " " * (token.start[1] > 0) + token.string
    return re.sub(r" ?([().,=\[\]]) ?", r"\1", "\n".join(lines[n] for n in sorted(lines)))


def found_in(root: Path) -> dict[tuple[str, str], int]:
    counts: Counter[tuple[str, str]] = Counter()
    for path in sorted(root.rglob("*")):
        if path.suffix in {".py", ".js", ".html", ".css", ".c"}:
            text = code_of(path)
            for name, form in LOOKED_FOR.items():
                if hits := len(re.findall(form, text, re.MULTILINE)):
                    counts[name, path.relative_to(root).as_posix()] += hits
    return dict(counts)


def test_only_what_was_reviewed_is_there():
    assert found_in(ROOT) == REVIEWED


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("torch.load", "x = torch.load(path)"),
        ("pickle", "import pickle"),
        ("shell", "run(text, shell=True)"),
        ("yaml.load", "yaml.load(text)"),
        ("eval", "y = eval(text)"),
        ("exec", "exec(text)"),
        ("trust", "load(path, trust_remote_code=True)"),
        ("trust", "load(path, trust_remote_code = trusted)"),
        ("allow_pickle", "np.load(path, allow_pickle=True)"),
        ("archives", "tar.extractall(path)"),
        ("all addresses", "serve('0.0.0.0')"),
        ("imports by name", "importlib.import_module(name)"),
        ("weights_only", "load(path, weights_only=False)"),
    ],
)
def test_the_gate_closes(tmp_path, name, line):
    (tmp_path / "new.py").write_text(f'"""What it is."""\n\n{line}\n')
    assert found_in(tmp_path)[name, "new.py"] == 1


def test_pages_are_searched_too(tmp_path):
    (tmp_path / "page.js").write_text("node.innerHTML = text\n")
    assert found_in(tmp_path) == {("innerHTML", "page.js"): 1}


def test_what_documentation_says_is_not_code(tmp_path):
    (tmp_path / "new.py").write_text('"""It never does torch.load(x)."""\nx = 1  # nor pickle.loads(y)\n')
    assert found_in(tmp_path) == {}
