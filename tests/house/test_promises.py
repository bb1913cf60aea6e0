"""The table of promises (tests/README.md) is complete, and its tests exist."""

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import pytest

import cai
from cai import inference
from cai.numerics.exclusive import cached_property

FOLDER = Path(__file__).parents[1]
FILES = {path.stem: path for path in FOLDER.rglob("test_*.py")}
ROW = re.compile(r"^\| (?P<names>`.+`) \| (?P<promise>.+) \| (?P<tests>`.+`) \|$")
ROWS = [ROW.match(line) for line in (FOLDER / "README.md").read_text("utf-8").splitlines()]
ROWS = [row.groupdict() for row in ROWS if row]
# What these hold is asked for, not answered: their promise is one, whatever field it is read from.
ASKED = {"Gaussian", "Layout", "LinearGaussian", "LinearMap", "Quadratic", "Table"}
ASKED |= {"Trajectories", "TrajectoryModel", "EvidenceBracket", "Comparison"}


def quoted(cell):
    return re.findall(r"`([^`]+)`", cell)


def numbers(kind):
    """The fields of a result and what it computes when asked, by name."""
    fields = {field.name for field in dataclasses.fields(kind)}
    computed = property, cached_property
    found = {name for base in kind.__mro__ for name, x in vars(base).items() if type(x) in computed}
    return sorted(name for name in fields | found if not name.startswith("_"))


def public():
    """Every public name, and every number of every public result."""
    for package in (cai, inference):
        for name in package.__all__:
            x = getattr(package, name)
            if not inspect.ismodule(x):
                yield name
            if isinstance(x, type) and dataclasses.is_dataclass(x) and name not in ASKED:
                yield from (f"{name}.{number}" for number in numbers(x))


PROMISED = {name for row in ROWS for name in quoted(row["names"])}


def test_every_public_number_has_a_promise():
    of_types = {name.partition(".")[0] for name in PROMISED}
    assert [x for x in public() if x not in PROMISED and ("." in x or x not in of_types)] == []


def test_what_is_promised_exists():
    for name in sorted(PROMISED):
        kind, _, number = name.partition(".")
        owner = getattr(cai, kind, None) or getattr(inference, kind)
        assert not number or number in numbers(owner), name


@pytest.mark.parametrize("row", ROWS, ids=[quoted(row["names"])[0] for row in ROWS])
def test_the_tests_that_are_named_exist(row):
    for name in quoted(row["tests"]):
        file, _, function = name.partition("::")
        tree = ast.parse(FILES[file].read_text("utf-8"))
        assert function in {x.name for x in tree.body if isinstance(x, ast.FunctionDef)}, name


def test_the_table_is_there():
    assert len(ROWS) > 100
