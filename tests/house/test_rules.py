"""The rules of the house: who imports whom, what has a docstring, and what an import may do."""

import ast
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cai
from cai import inference, models, plot

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"cai": "cai", "models": "cai.models", "inference": "cai.inference"}
SOURCES = sorted(path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py"))


def module_name(path):
    """cai.models.ledge for models/ledge.py, and cai for cai/__init__.py."""
    folder, *inner = path.relative_to(ROOT).with_suffix("").parts
    parts = [PACKAGES[folder], *inner]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(path):
    """The package that relative imports of a file start from."""
    name = module_name(path)
    return name if path.name == "__init__.py" else name.rpartition(".")[0]


def relative(path):
    return path.relative_to(ROOT).as_posix()


def imported(source, package):
    """Every module of cai that a source reaches, wherever in it and in whatever form.

    ``import cai.x``, ``from cai import x``, ``from .x import y``, ``cai.x`` as an attribute, and
    the name of a module as a string, as ``importlib.import_module`` takes it.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, *filter(None, [node.module])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return {name for name in found if re.fullmatch(r"cai(\.\w+)*", name)}


def within(names, package):
    return {name for name in names if name == package or name.startswith(f"{package}.")}


# The tests of imports are only as good as what they see.


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("import cai.models", "cai", "cai.models"),
        ("import cai.models.ledge as l", "cai", "cai.models.ledge"),
        ("from cai import models", "cai.inference", "cai.models"),
        ("from cai import (\n    plot,\n    models as nouns,\n)", "cai", "cai.models"),
        ("from cai.models import ledge", "cai", "cai.models.ledge"),
        ("from . import models", "cai", "cai.models"),
        ("from .models import ledge", "cai", "cai.models"),
        ("from ..models.ledge import ledge", "cai.inference", "cai.models.ledge"),
        ("from .. import models", "cai.inference", "cai.models"),
        ("def f():\n    from cai import models\n    return models", "cai", "cai.models"),
        ("if TYPE_CHECKING:\n    import cai.models", "cai", "cai.models"),
        ("import cai\n\nx = cai.models.ledge()", "cai.inference", "cai.models"),
        ("import importlib\nimportlib.import_module('cai.models')", "cai", "cai.models"),
        ("m = __import__('cai.models.ledge')", "cai", "cai.models.ledge"),
    ],
)
def test_every_form_of_import_is_seen(source, package, expected):
    assert expected in imported(source, package)


def test_what_is_no_import_is_not_taken_for_one():
    source = (
        '"""As cai.models does, in a sentence."""\nfrom cai.tables.table import Table\nmodels = 3\n'
    )
    assert not within(imported(source, "cai"), "cai.models")
    assert not within(imported("from .modelstuff import x", "cai"), "cai.models")
    assert not within(imported("from .posterior import p", "cai.inference"), "cai.models")


def test_there_are_sources_to_look_at():
    names = {module_name(path) for path in SOURCES}
    assert {
        "cai",
        "cai.__main__",
        "cai.tables.table",
        "cai.models.discrete.ledge",
        "cai.inference",
    } <= names
    for path in SOURCES:
        assert importlib.util.find_spec(module_name(path)) is not None


# Who imports whom

ALONE = {
    "inference/derivatives/_pullback.py",
    "inference/optimism/policy_switches.py",
    "inference/particles/draw_summaries.py",
    "inference/scoring/exponentiated_gradient.py",
    "inference/scoring/log_prior.py",
    "inference/scoring/secant_steps.py",
    "inference/searches/rounds.py",
    "inference/scoring/soft_thresholding.py",
    "inference/trips/feasible_start.py",
}  # plain tensors and numbers


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports(path):
    """Models and inference import cai and never each other; inside cai only the command line."""
    folder = path.relative_to(ROOT).parts[0]
    forbidden = {"models": ["cai.inference"], "inference": ["cai.models"]}
    forbidden["cai"] = (
        [] if relative(path).startswith("cai/cli/") else ["cai.models", "cai.inference"]
    )
    names = imported(path.read_text(encoding="utf-8"), package_of(path))
    for package in forbidden[folder]:
        assert not within(names, package)
    if path.name != "__init__.py" and folder != "cai":
        assert bool(names) != (relative(path) in ALONE), "it builds on the vocabulary of cai"


def test_importing_cai_imports_neither_models_nor_inference():
    loaded = python("from cai import TrajectoryModel", "list(sys.modules)")
    assert "cai.program.trajectory" in loaded
    assert not [name for name in loaded if re.match(r"cai\.(models|inference)", name)]


# Names


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_file_is_called_utils(path):
    assert not re.fullmatch(r"_?(utils?|helpers?|misc|common)", path.stem)


# Docstrings


def public_definitions(tree):
    """(qualified name, node) of public functions, classes and their public methods."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name.startswith("_") or "overload" in map(ast.unparse, node.decorator_list):
                continue
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for name, inner in public_definitions(node):
                    yield f"{node.name}.{name}", inner


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_public_name_has_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has none"
    missing = [name for name, node in public_definitions(tree) if not ast.get_docstring(node)]
    assert not missing


def test_public_definitions_are_found():
    tree = ast.parse(
        "@overload\ndef f(x: int): ...\n\n\n"
        "def f():\n    def inner(): ...\n\n\n"
        "def _g(): ...\n\n\n"
        "class A:\n    def m(self): ...\n    def _n(self): ...\n    def __len__(self): ...\n"
        "    @property\n    def p(self): ...\n\n    class B:\n        def q(self): ...\n"
    )
    found = [name for name, _ in public_definitions(tree)]
    assert found == ["f", "A", "A.m", "A.p", "A.B", "A.B.q"]


# Front pages: what they offer is loaded when it is first used, by one mechanism, which reads the
# stub beside them; and they say in one line each what it is.

PAGES = [cai, models, inference, plot]
LATE = {"cai", "cai.models", "cai.inference", "cai.plot", "cai.cli"}
pages = pytest.mark.parametrize("package", PAGES, ids=lambda module: module.__name__)


def stub_of(package):
    """{name: the module that it comes from}, from the stub of a front page."""
    tree = ast.parse(Path(package.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.asname == alias.name  # else a stub keeps it to itself
                parts = (package.__name__, node.module, None if node.module else alias.name)
                found[alias.name] = ".".join(filter(None, parts))
    return found


@pages
def test_what_a_package_offers(package):
    """Each name of the stub is sorted into ``__all__``, has a docstring, and is defined there."""
    assert list(package.__all__) == sorted(stub_of(package)) == dir(package)
    for name, place in stub_of(package).items():
        thing = getattr(package, name)
        assert not name.startswith("_")
        assert (thing.__doc__ or "").strip(), name
        if inspect.ismodule(thing):
            assert thing.__name__ == place
            continue
        assert thing.__module__ == place
        tree = ast.parse(Path(sys.modules[place].__file__).read_text(encoding="utf-8"))
        nodes = dict(public_definitions(tree))
        # A dataclass without a docstring gets one made of its signature, which says nothing.
        assert ast.get_docstring(nodes[name]), name


@pages
def test_a_front_page_says_what_each_name_is(package):
    listed = re.findall(r"^- ``(\w+)``: .*\w.*\.$", package.__doc__, re.MULTILINE)
    assert sorted(listed) == list(package.__all__)
    assert len(listed) == package.__doc__.count("\n- ")


def test_front_pages_are_the_only_ones_that_load_late():
    late = {p for p in SOURCES if "lazy_loader" in p.read_text(encoding="utf-8")}
    assert {module_name(path) for path in late} == LATE
    for path in late:
        assert path.name == "__init__.py"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        kinds = {type(node) for node in tree.body}
        assert kinds <= {ast.Expr, ast.Import, ast.ImportFrom, ast.Assign}
        assert path.with_suffix(".pyi").is_file()


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(AttributeError, match="postrior"):
        inference.postrior  # noqa: B018


# Imports have no side effects


def python(code, value):
    """Runs code in a fresh interpreter, and returns the value of an expression after it."""
    script = f"import json, sys\n{code}\nprint(json.dumps({value}))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


HEAVY = {"torch", "pyro", "numpy", "scipy", "networkx", "matplotlib", "gymnasium"}


@pytest.mark.parametrize("page", ["cai", "cai.models", "cai.inference", "cai.plot", "cai.__main__"])
def test_a_front_page_loads_nothing_heavy(page):
    loaded = python(f"import {page}", "list(sys.modules)")
    assert page in loaded
    assert not HEAVY & set(loaded)


def test_figures_alone_load_matplotlib():
    names = "from cai import compare\nfrom cai.inference import posterior"
    assert "matplotlib" not in python(names, "list(sys.modules)")
    assert "matplotlib" in python("from cai.plot import comparison", "list(sys.modules)")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_command_answers_at_once(option):
    """In processor time, which does not depend on what else the machine does."""
    code = f"""
import contextlib, io, time
from cai.__main__ import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["{option}"])
"""
    assert python(code, "time.process_time()") < 0.3


def test_imports_leave_the_process_as_it_was():
    """After what the library builds on, so that only its own doings are seen."""
    script = """
import logging, random, warnings
import gymnasium, matplotlib.figure, networkx, numpy, pyro, torch, tqdm
import scipy.optimize, scipy.sparse.csgraph, scipy.sparse.linalg

def state():
    return {
        "default type": str(torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch generator": torch.get_rng_state().tolist(),
        "numpy generator": repr(numpy.random.get_state()),
        "random generator": repr(random.getstate()),
        "warning filters": [str(entry) for entry in warnings.filters],
        "how warnings look": repr((warnings.showwarning, warnings.formatwarning)),
        "handlers": [str(handler) for handler in logging.getLogger().handlers],
        "level": logging.getLogger().level,
        "levels": [
            logging.getLogger(name).level
            for name in [*logging.Logger.manager.loggerDict]
            if name.startswith("cai") and logging.getLogger(name).level
        ],
        "parameters": sorted(pyro.get_param_store().keys()),
        "distributions check": torch.distributions.Distribution._validate_args,
        "environments": sorted(gymnasium.envs.registry),
        "style": {k: repr(matplotlib.rcParams[k]) for k in matplotlib.rcParams if k != "backend"},
        "path": list(sys.path),
        "hooks": repr((sys.excepthook, sys.displayhook)),
    }

before = state()
import cai, cai.models, cai.inference, cai.plot, cai.cli, cai.graph, cai.__main__
for page in (cai, cai.models, cai.inference, cai.plot, cai.cli):
    for name in page.__all__:
        getattr(page, name)
after = state()
"""
    changed = python(script, "{name: after[name] for name in after if after[name] != before[name]}")
    assert changed == {}


# What is committed


def tracked_files():
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        [git, "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


# Written in two parts, so that this file does not contain what it forbids.
PLACES = re.compile(rb"(?<![\w.~-])/" + rb"(work|farm|opt)/")


def test_no_tracked_file_names_a_path_of_one_machine():
    files = tracked_files()
    assert ROOT / "setup.cfg" in files
    named = {
        f"{relative(path)}:{number}"
        for path in files
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if PLACES.search(line)
    }
    assert not named


def test_paths_of_a_machine_are_recognised():
    for place in ("work", "farm", "opt"):
        assert PLACES.search(f'open("/{place}/main/x.py")'.encode())
        assert PLACES.search(f"see file:///{place}/x".encode())
        assert not PLACES.search(f"https://example.org/{place}/x, src/{place}/x".encode())
