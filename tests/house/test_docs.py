"""The sources of the site: the lists of public names, the examples, how docstrings are read."""

import ast
import collections
import doctest
import importlib.util
import inspect
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import cai
from cai import inference, models, plot

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
PUBLIC = [
    f"{package.__name__}.{name}"
    for package in (cai, models, inference, plot)
    for name in package.__all__
    if not inspect.ismodule(getattr(package, name))
]


def listed():
    """The names under ``autosummary`` in the lists of the reference, as often as they occur."""
    for path in sorted((DOCS / "reference").glob("*.rst")):
        text = path.read_text(encoding="utf-8")
        assert ".. currentmodule:: cai\n" in text
        for block in re.findall(r"\.\. autosummary::\n((?:   .*\n|\n)+)", text):
            yield from (f"cai.{name}" for name in re.findall(r"^   (\w[\w.]*)$", block, re.M))


def test_every_public_name_is_on_one_list():
    counts = collections.Counter(listed())
    assert sorted(counts) == sorted(PUBLIC)
    assert [name for name, count in counts.items() if count > 1] == []


def test_every_page_and_tutorial_is_in_the_contents():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    entries = re.findall(r"^[\w/]+$", index, re.MULTILINE)
    pages = {path.stem for path in PAGES} - {"index"}
    pages |= {
        f"tutorials/{path.stem}"
        for path in (ROOT / "tutorials").iterdir()
        if path.suffix in {".ipynb", ".md"}
    }
    pages |= {f"reference/{path.stem}" for path in (DOCS / "reference").glob("*.rst")}
    pages |= {path.stem for path in ROOT.glob("*.md")} - {"README"}
    assert sorted(entries) == sorted(pages)


def examples(path):
    return "\n".join(re.findall(r"```pycon\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL))


def test_there_are_examples():
    assert {"which_method", "coming_from"} <= {path.stem for path in PAGES if examples(path)}


@pytest.mark.parametrize(
    "path", [page for page in PAGES if examples(page)], ids=lambda path: path.stem
)
def test_the_examples_of_a_page_run(path):
    parsed = doctest.DocTestParser().get_doctest(examples(path), {}, path.name, str(path), 0)
    said = []
    outcome = doctest.DocTestRunner(verbose=False).run(parsed, out=said.append)
    assert outcome.attempted > 0
    assert outcome.failed == 0, "".join(said)


# Blocks to copy


def scripts(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


ALONE = [
    (name, code)
    for name in ("installation", "logging", "sweeps", "which_method")
    for code in scripts(DOCS / f"{name}.md")
]


@pytest.mark.parametrize(("name", "code"), ALONE, ids=[name for name, _ in ALONE])
def test_a_block_to_copy_imports_and_defines_what_it_uses(name, code):
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "-"]
    done = subprocess.run(ruff, input=code, capture_output=True, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stdout
    assert {name for name, _ in ALONE} == {"installation", "logging", "sweeps", "which_method"}


def test_a_continuous_model_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = scripts(DOCS / "which_method.md")
    scope = {}
    exec(compile(code, "which_method.md", "exec"), scope)
    model, fitted = scope["model"], scope["fitted"]
    assert fitted.estimator == "pathwise"
    assert fitted.elbo > cai.evaluate(model, scope["prior"], samples=1000).elbo + 50
    shapes = [tuple(getattr(scope["trajectories"], x).shape) for x in ("states", "rewards")]
    assert f"{shapes[0]}, {shapes[1]}" in code
    assert (tmp_path / "trajectories.png").stat().st_size > 10_000


def test_the_version_to_cite():
    assert f"version = {{{cai.__version__}}}" in (DOCS / "citing.md").read_text(encoding="utf-8")


# How docstrings are read


def extension(name):
    """An extension of Sphinx that lies beside the pages."""
    pytest.importorskip("sphinx", reason="comes with the extra docs: make docs")
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def docstrings():
    return extension("docstrings")


def prepared(docstrings, text, what="function"):
    lines = text.splitlines()
    docstrings.prepare(None, what, "name", None, None, lines)
    return "\n".join(lines)


def test_an_indented_paragraph_is_an_equation(docstrings):
    text = "Values.\n\n    V = |Q|\n\n    Q = r + |V|\n\nwhere |V| is finite."
    assert prepared(docstrings, text) == (
        "Values.\n\n.. code-block:: none\n   :class: equation\n\n"
        "    V = |Q|\n\n    Q = r + |V|\n\nwhere \\|V| is finite.\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p(s'|s,a) and π(·|s)", "p(s'\\|s,a) and π(·\\|s)"),
        ("p(a|s), which is no substitution", "p(a|s), which is no substitution"),
        ("``|x|`` and `|y|` are code", "``|x|`` and `|y|` are code"),
        (">>> abs(x) | y\n'|z|'", ">>> abs(x) | y\n'|z|'"),
        ("As follows::\n\n    |x|", "As follows::\n\n    |x|"),
        ("Args:\n    eta: η.", "Args:\n    eta: \\η."),
        ("Returns:\n    The model: one\n    of ours.", ":returns: The model: one\n    of ours."),
    ],
)
def test_text_is_what_it_says(docstrings, text, expected):
    assert prepared(docstrings, text).strip() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(T+1, S), nats: log β.", "*(T+1, S), nats*\n\nlog β."),
        ("(T, S, A) or (S, A), reward units: Q.", "*(T, S, A) or (S, A), reward units*\n\nQ."),
        ("The policy: a table.", "..\n\nThe policy: a table."),
    ],
)
def test_a_property_begins_with_shape_and_unit(docstrings, text, expected):
    assert prepared(docstrings, text, "property").strip() == expected


def test_members_of_others_are_left_out(docstrings):
    policy = cai.NeuralPolicy
    members = {name: getattr(policy, name) for name in ("forward", "zero_grad")}
    skipped = {
        name: docstrings.ours(None, "class", name, member, False, None)
        for name, member in members.items()
    }
    assert skipped == {"forward": False, "zero_grad": True}
    assert not docstrings.ours(None, "class", "V", vars(cai.Solution.__mro__[1])["V"], False, None)


# Links in code


@pytest.mark.parametrize(
    ("code", "target"),
    [
        ("inference.posterior(model)", "cai.inference.posterior"),
        ("cai.inference.posterior", "cai.inference.posterior"),
        ("cai.Table", "cai.Table"),
        ("cai.Table.float32", "cai.Table.float32"),
        ("models.gym", "cai.models.gym"),
        ("cai.models", None),
        ("cai compare ledge", None),
        ("inference/exact", None),
        ("self.models.gym", None),
        ("Table", None),
    ],
)
def test_a_public_name_in_code_is_a_link(code, target):
    links = extension("code_links")
    nodes, utils = links.nodes, importlib.import_module("docutils.utils")
    page = utils.new_document("page")
    page += nodes.paragraph("", "", nodes.literal(code, code))
    page += nodes.title("", "", nodes.literal("", "cai.Table"))
    links.link(types.SimpleNamespace(env=types.SimpleNamespace(docname="page")), page)
    targets = [x["reftarget"] for x in page.findall(links.addnodes.pending_xref)]
    assert targets == ([target] if target else [])
    assert page.astext() == f"{code}\n\ncai.Table"


# Links to other documentation


def settings_of_intersphinx():
    """What docs/conf.py sets for it; read from the source, as Sphinx is an extra."""
    source = (DOCS / "conf.py").read_text(encoding="utf-8")
    mentions = [x for x in ast.parse(source).body if "intersphinx" in ast.unparse(x)]
    found = {"os": os, "extensions": []}
    for statement in mentions:
        exec(ast.unparse(statement), found)
    return found


@pytest.mark.parametrize("online", [False, True])
def test_other_documentation_is_linked_to_on_request_alone(online, monkeypatch):
    monkeypatch.delenv("CAI_DOCS_ONLINE", raising=False)
    if online:
        monkeypatch.setenv("CAI_DOCS_ONLINE", "1")
    found = settings_of_intersphinx()
    assert found["extensions"] == (["sphinx.ext.intersphinx"] if online else [])
    mapping = found.get("intersphinx_mapping", {})
    assert set(mapping) == ({"python", "torch", "pyro", "numpy", "matplotlib"} if online else set())
    for address, inventory in mapping.values():
        assert re.fullmatch(r"https://[\w.]+(/\w+)+", address)
        assert inventory is None, "that of the site itself"
