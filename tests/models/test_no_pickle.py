"""No pickle file is ever read, no text is ever run, no remote code is ever trusted."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tuneworth

_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
_SOURCES = sorted(Path(tuneworth.__path__[0]).rglob("*.py"))


def offences(code: str) -> list[str]:
    """What in `code` could read a pickle or run a text."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.split(".")[0] in _MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if (node.module or "").split(".")[0] in _MODULES else []
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("eval", "exec", "compile", "__import__", "torch.load", "np.load", "numpy.load"):
                found.append(called)
            for keyword in node.keywords:
                if keyword.arg in ("allow_pickle", "trust_remote_code") and ast.unparse(keyword.value) != "False":
                    found.append(keyword.arg)
    return found


def test_no_source_file_reads_pickles_or_runs_texts() -> None:
    assert len(_SOURCES) > 20
    assert {path.name: offences(path.read_text()) for path in _SOURCES if offences(path.read_text())} == {}


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from joblib import load", "torch.load(x)", "eval(x)", "exec(x)", "f(trust_remote_code=True)",
     "np.load(x, allow_pickle=flag)", "import pickle.x as y"],
)  # fmt: skip
def test_the_check_itself_sees_each_offence(code: str) -> None:
    assert offences(code)
    assert not offences("model.eval(); re.compile(x); f(trust_remote_code=False)")
