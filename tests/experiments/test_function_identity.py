"""What a sweep knows functions by: all that tells two apart, and nothing that changes by itself."""

import dataclasses
import functools
import importlib.util
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

import cai
from cai import inference, models
from cai.experiments.cells import Study
from cai.experiments.function_identity import described

CODE = """
from cai import inference, models


def make(temperature=1.0):
    return models.ledge(temperature=temperature, gives_way={})


class Maker:
    def __init__(self, gives_way):
        self.gives_way = gives_way

    def make(self, temperature=1.0):
        return models.ledge(temperature=temperature, gives_way=self.gives_way)

    __call__ = make
"""


def module(folder, name, gives_way):
    path = folder / f"{name}.py"
    path.write_text(CODE.format(gives_way), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def closure(k):
    def method(model):
        return inference.soft_values(model, optimism=k)

    return method


def with_default(k):
    return lambda model, k=k: inference.soft_values(model, optimism=k)


@dataclasses.dataclass
class Data:
    array: object

    def __call__(self, model):
        return inference.posterior(model)


class Adds:
    def __init__(self, k):
        self.k = k

    def __call__(self, model):
        return inference.soft_values(model, optimism=self.k)

    def method(self, model):
        return self(model)


class Slots:
    __slots__ = ("k",)

    def __init__(self, k):
        self.k = k

    def __call__(self, model):
        return inference.soft_values(model, optimism=self.k)


cached = functools.lru_cache(inference.posterior)


def check_refused(first, second, out, part="method"):
    """The same function goes on with its results, and the other one does not."""

    def run(it):
        factory, method = (it, inference.posterior) if part == "factory" else (models.ledge, it)
        cai.sweep(factory, {"temperature": [0.5]}, {"a": method}, out=out, progress=False)

    run(first)
    run(first)
    with pytest.raises(ValueError, match="out: ") as caught:
        run(second)
    assert len(str(caught.value)) < 1200


def test_results_of_a_function_of_the_same_name_in_another_module_are_refused(tmp_path):
    one, two = module(tmp_path, "one", 0.1), module(tmp_path, "two", 0.9)
    check_refused(one.make, two.make, tmp_path / "a", "factory")


def test_results_of_the_same_method_of_another_object_are_refused(tmp_path):
    one = module(tmp_path, "one", 0.1)
    check_refused(one.Maker(0.1).make, one.Maker(0.9).make, tmp_path / "a", "factory")
    check_refused(one.Maker(0.1), one.Maker(0.9), tmp_path / "b", "factory")


PAIRS = {
    "closures": (closure(0.5), closure(-0.5)),
    "lambdas": (lambda model: inference.posterior(model), lambda m: inference.soft_values(m)),
    "constants": (
        lambda model: inference.soft_values(model, optimism=0.5),
        lambda model: inference.soft_values(model, optimism=-0.5),
    ),
    "defaults": (with_default(0.5), with_default(-0.5)),
    "nested": (closure(closure(1)), closure(closure(2))),
    "objects": (Adds(0.5), Adds(-0.5)),
    "methods": (Adds(0.5).method, Adds(-0.5).method),
    "arrays": (Data(np.arange(3)), Data(np.arange(3) + 1)),
    "tensors": (Data(torch.arange(3.0)), Data(torch.arange(3.0) + 1)),
    "sparse": (Data(torch.eye(3).to_sparse()), Data(2 * torch.eye(3).to_sparse())),
    "sets": (Data({1, 2}), Data({1, 3})),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_functions_that_differ_are_told_apart(kind, tmp_path):
    one, two = PAIRS[kind]
    assert described(one) == described(one, "here")
    assert described(one) != described(two)
    if kind in ("closures", "lambdas", "defaults", "objects"):
        check_refused(one, two, tmp_path / "out")


def test_equal_ones_are_one():
    assert described(closure(0.5)) == described(closure(0.5)) == described(closure(np.float64(0.5)))
    assert described(Adds(1)) == described(Adds(1.0))
    assert described(with_default(3)) == described(with_default(3))


@pytest.mark.parametrize("method", [Slots(1), Adds(threading.Lock()), closure(threading.Lock())])
def test_what_has_no_plain_values_is_refused_only_where_there_are_files(method, tmp_path):
    with pytest.raises(ValueError, match=r"methods\['a'\]: expected what plain values describe"):
        cai.sweep(models.ledge, {}, {"a": method}, out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    assert len(cai.sweep(models.ledge, {}, {"a": method}, progress=False)) == 1


def test_a_function_of_the_library_is_known_by_its_name():
    assert described(models.ledge) == f"{models.ledge.__module__}.ledge"
    assert described(cached) != described(functools.lru_cache(inference.soft_values))
    before = described(cached)
    assert Study(models.ledge, {"a": cached}).identity["methods"]["a"] == before


def test_values_that_hold_themselves_are_described():
    def factorial(n):
        return n * factorial(n - 1) if n else 1

    held = []
    held.append(held)
    assert described(factorial) == described(factorial)
    assert described(functools.partial(inference.fit, held))


SCRIPT = """
import functools
from cai import inference, models
from cai.cli import ModelFactory, SweptMethod
from cai.experiments.cells import Study

def closure(k):
    return lambda model: inference.soft_values(model, optimism=k if k in {"a", "b", "c"} else 0)

class Adds:
    def __init__(self, k):
        self.k = k
    def __call__(self, model):
        return [lambda: x for x in model]

factories = [
    models.ledge, functools.partial(models.gridworld, slip=0.1), ModelFactory("ledge"),
    closure({"x", "y", "z"}), Adds({"a": 1, "b": [object, models]}),
    lambda a: [x for x in a if x in {"p", "q", "r"}],
]
for factory in factories:
    print(Study(factory, {"a": SweptMethod("fit", 3)}).cell({"t": 1}, "a", 0).key)
"""


def test_another_process_finds_the_same_keys():
    found = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        found.append(done.stdout.split())
    assert found[0] == found[1]
    assert len(set(found[0])) == 6


def test_functions_of_one_name_in_two_scripts_are_told_apart(tmp_path):
    code = (
        "from cai.experiments.function_identity import described\n\n\ndef make():\n    pass\n\n\n"
    )
    found = {}
    for place in ("one/first.py", "one/second.py", "two/first.py"):
        file = tmp_path / place
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{code}print(described(make))\n", encoding="utf-8")
        found[place] = said_by(file)
    assert found["one/first.py"] == found["two/first.py"] == "first.make"
    assert found["one/second.py"] == "second.make"
    assert said_by("-m", "first", cwd=tmp_path / "two") == "first.make"
    assert said_by("-c", f"{code}print(described(make))") == "make"


def said_by(*arguments, cwd=None):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout.strip()
