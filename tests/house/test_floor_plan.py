"""The floor plan: which folder may import which, and what lies where.

Read from the bottom up: arrays, distributions, the program, then the two kinds of program that have
exact answers, what is trained, what exact methods return, what is measured and drawn; the verbs of
``inference/`` stand on all of this, the nouns of ``models/`` on the program alone.
"""

import ast
import collections
import configparser
import functools
from pathlib import Path

import networkx as nx
import pytest

import cai
from cai import inference, models

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"cai": "cai", "models": "cai.models", "inference": "cai.inference"}
FILES = sorted(path.relative_to(ROOT) for top in PACKAGES for path in (ROOT / top).rglob("*.py"))
FOLDERS = sorted({path.parent for path in FILES})

OPEN = {"cai/checks.py", "cai/one_line.py", "cai/notebook.py"}  # to all
MAY_IMPORT = {  # besides its own folder, and what is open to all
    "cai/numerics": "",
    "cai/distributions": "numerics",
    "cai/program": "numerics distributions frames",
    "cai/tables": "numerics distributions program",
    "cai/demonstrations": "numerics program",
    "cai/rewards": "numerics program tables",
    "cai/sweeps": "numerics tables",
    "cai/networks": "numerics distributions",
    "cai/policies": "numerics distributions program tables networks",
    "cai/infinite": "numerics tables",
    "cai/gaussian": "numerics distributions program",
    "cai/solutions": "numerics distributions program tables sweeps policies infinite frames",
    "cai/evaluation": "numerics distributions program tables sweeps policies infinite gaussian "
    "solutions frames",
    "cai/files": "numerics distributions program tables sweeps policies infinite gaussian "
    "solutions evaluation installation.py",
    "cai/frames": "numerics",
    "cai/progress": "numerics",
    "cai/parallel.py": "numerics",
    "cai/graph.py": "numerics distributions program tables",
    "cai/roads": "numerics program demonstrations",
    "cai/stepping": "numerics distributions program tables infinite",
    "cai/drawing": "program tables evaluation",
    "cai/explorer": "tables",
    "cai/plot": "numerics program tables policies solutions evaluation roads graph.py drawing "
    "explorer",
    "cai/experiments": "numerics evaluation drawing files frames progress parallel.py "
    "installation.py",
    "models": "numerics distributions program gaussian stepping roads",
}
# A family of verbs imports those before it, and any folder of cai but the figures and the command.
FAMILIES = [
    "gradients",
    "infinite",
    "exact",
    "particles",
    "derivatives",
    "optimism",
    "planning",
    "fitting",
    "learning",
    "off_policy",
    "scoring",
    "searches",
    "trips",
    "inverse",
    "apprenticeship",
    "margins",
    "local_models",
    "route_choice",
    "adversarial",
    "populations",
    "bayesian",
    "intentions",
    "information",
]
NOT_FOR_VERBS = {
    "cai/graph.py",
    "cai/drawing",
    "cai/plot",
    "cai/explorer",
    "cai/experiments",
    "cai/cli",
    "cai/cli/roads",
    "cai/cli/verbs",
}
MOST_FILES = 12
MOST_LINES = 300


def module_name(path):
    """cai.inference.exact.posterior for inference/exact/posterior.py; an __init__ is its folder."""
    top, *inner = path.with_suffix("").parts
    return ".".join([PACKAGES[top], *(part for part in inner if part != "__init__")])


FILE_OF = {module_name(path): path for path in FILES}


@functools.cache
def parsed(path):
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def front_page(path):
    """Whether a file is that of a package that users import, or starts the command."""
    name = module_name(path)
    return name in {
        *("cai", "cai.models", "cai.inference", "cai.plot", "cai.cli", "cai.__main__"),
    }


def imports(path):
    """(file, name or None) of all that a file imports of the library, wherever in it."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in FILE_OF:
                    yield FILE_OF[alias.name], None
        elif isinstance(node, ast.ImportFrom):
            assert not node.level or path.suffix == ".pyi", f"{path}: a relative import"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                if module in FILE_OF:
                    yield FILE_OF[module], None
                elif node.module in FILE_OF:
                    yield FILE_OF[node.module], alias.name


def room(path):
    """The folder of a file as the floor plan names it; a file beside the folders is its own."""
    if path.parts[0] == "models":
        return "models"
    return path.parent.as_posix() if len(path.parts) > 2 else path.as_posix()


def allowed(room_, other):
    """Whether a file of one room may import a file of another."""
    if other in (room_, *OPEN) or room_ in ("cai/cli", "cai/cli/roads", "cai/cli/verbs"):
        return True
    if room_ in MAY_IMPORT:
        return other in {f"cai/{name}" for name in MAY_IMPORT[room_].split()}
    top, _, family = room_.partition("/")
    if top != "inference":
        return False
    if other.startswith("inference/"):
        return FAMILIES.index(other.partition("/")[2]) < FAMILIES.index(family)
    return other.startswith("cai/") and other not in NOT_FOR_VERBS


@pytest.mark.parametrize("path", FILES, ids=Path.as_posix)
def test_imports_go_one_way(path):
    if front_page(path):
        pytest.skip("a front page offers what lies behind it")
    upward = [other for other, _ in imports(path) if not allowed(room(path), room(other))]
    assert [other.as_posix() for other in upward] == []


def test_the_plan_forbids_what_it_should():
    assert allowed("cai/tables", "cai/program")
    assert not allowed("cai/program", "cai/tables")
    assert allowed("inference/exact", "inference/infinite")
    assert not allowed("inference/infinite", "inference/exact")
    assert not allowed("inference/exact", "cai/plot")
    assert allowed("cai/cli", "cai/plot")
    assert allowed("cai/cli/roads", "cai/cli")
    assert not allowed("inference/exact", "cai/cli/roads")
    assert not allowed("models", "cai/tables")
    assert not allowed("cai/solutions", "models")
    assert not allowed("cai/checks.py", "cai/numerics")
    assert not allowed("cai/plot", "cai/__init__.py")


def test_files_import_each_other_in_no_circle():
    graph = nx.DiGraph()
    graph.add_edges_from((path, other) for path in FILES for other, _ in imports(path))
    circles = [
        sorted(map(str, ring)) for ring in nx.strongly_connected_components(graph) if len(ring) > 1
    ]
    assert circles == []


@pytest.mark.parametrize("path", FILES, ids=Path.as_posix)
def test_imports_stand_at_the_top(path):
    """None in a function, none for type checkers alone; the command loads heavy packages late."""
    tree = parsed(path)
    late = [
        node.lineno
        for scope in ast.walk(tree)
        if isinstance(scope, ast.FunctionDef | ast.Lambda)
        for node in ast.walk(scope)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert late == []
    assert "TYPE_CHECKING" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@pytest.mark.parametrize("path", FILES, ids=Path.as_posix)
def test_what_is_private_stays_at_home(path):
    """``_x.py`` is imported from its own folder alone, and ``_name`` never leaves its file."""
    for other, name in imports(path):
        assert (
            not other.stem.startswith("_")
            or other.stem == "__init__"
            or other.parent == path.parent
        )
        assert name is None or not name.startswith("_") or name == "__version__"


@pytest.mark.parametrize("folder", FOLDERS, ids=Path.as_posix)
def test_a_folder_is_small(folder):
    files = [path for path in FILES if path.parent == folder and path.stem != "__init__"]
    assert len(files) <= MOST_FILES
    init = folder / "__init__.py"
    assert init in FILES
    if not front_page(init):
        assert len(parsed(init).body) == 1
        assert ast.get_docstring(parsed(init))


@pytest.mark.parametrize("path", FILES, ids=Path.as_posix)
def test_a_file_is_short(path):
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def repeated(names):
    return sorted(name for name, n in collections.Counter(names).items() if n > 1)


def test_names_occur_once():
    """A file name within cai and inference, and the name of a public class anywhere."""
    stems = [path.stem.removeprefix("_") for path in FILES if path.parts[0] != "models"]
    assert repeated(stem for stem in stems if stem.strip("_") not in ("init", "main")) == []
    classes = [
        node.name
        for path in FILES
        for node in parsed(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert repeated(classes) == []


def test_no_folder_is_called_like_a_function():
    """``inference.posterior`` is the function, whatever is imported first."""
    public = {name for page in (cai, models, inference) for name in page.__all__}
    public -= {"inference", "models", "plot"}
    assert public & {folder.name for folder in FOLDERS} == set()


def test_every_folder_is_installed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = config["options"]["packages"].split()
    assert sorted(listed) == sorted(module_name(folder / "__init__.py") for folder in FOLDERS)
