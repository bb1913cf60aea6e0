"""Sweeps at their edges: names that are taken, folders that are files, functions that stay here."""

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import cai
from cai import inference, models

METHODS = {"posterior": inference.posterior}


def sweep(*arguments, **options):
    return cai.sweep(*arguments, progress=False, **options)


def always_fails(model):
    raise ValueError("always")


@pytest.mark.parametrize(
    "name", ["method", "seed", "error", "count", "mean", "half_width", "elbo", "log_evidence"]
)
def test_an_axis_is_not_called_as_a_column(name, tmp_path):
    with pytest.raises(ValueError, match=f"grid: expected .* no columns .* got '{name}'"):
        sweep(lambda **_: models.ledge(), {name: [1, 2]}, METHODS, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid": {"temprature": [1]}}, "grid: .*got 'temprature'; did you mean temperature"),
        ({"grid": {"x": [1]}, "factory": lambda: models.ledge()}, "'x'; the factory has no"),
        ({"engine": 3}, "engine: expected the name"),
        ({"out": 3}, "out: expected the path of a folder, got 3"),
        ({"methods": {"": inference.posterior}}, "methods: expected names"),
        ({"methods": {" \n": inference.posterior}}, "methods: expected names"),
        ({"seeds": 2.0}, "seeds"),
        ({"seeds": np.array([0.5])}, "seeds: expected whole numbers"),
        ({"seeds": np.array([True])}, "seeds: expected whole numbers"),
    ],
)
def test_wrong_arguments_are_refused(changes, words, tmp_path):
    arguments = {"factory": models.ledge, "grid": {}, "methods": METHODS, "out": tmp_path / "out"}
    with pytest.raises(ValueError, match=words) as caught:
        sweep(**arguments | changes)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_folder_that_is_a_file_or_below_one_is_refused(below, tmp_path):
    (tmp_path / "file.py").touch()
    with pytest.raises(ValueError, match="out: expected a folder, or where one can be made"):
        sweep(models.ledge, {}, METHODS, out=tmp_path / "file.py" / below)


def test_a_factory_may_take_any_argument():
    assert sweep(lambda **point: models.ledge(**point), {"temperature": [1]}, METHODS).failed == ()


def test_seeds_are_whole_numbers_of_any_package():
    def first(model, seed):
        assert type(seed) is int
        return inference.posterior(model)

    for seeds in (np.int64(2), np.arange(2), [np.int32(0), 1]):
        found = sweep(models.ledge, {}, {"first": first}, seeds=seeds)
        assert (found.seeds, found.failed) == ((0, 1), ())
        found.to_json()


@pytest.fixture(scope="module")
def lines():
    return sweep(
        lambda map: models.ledge(), {"map": ["a\nb", "c\u2028"]}, {"one\ntwo": inference.posterior}
    )


def test_line_ends_of_names_are_escaped_in_the_table(lines):
    rows = str(lines).splitlines()
    assert len(rows) == 4
    assert rows[2].split()[:2] == ["a\\nb", "one\\ntwo"]
    assert rows[3].split()[0] == "c\\u2028"
    assert len(repr(lines).splitlines()) == 1
    failed = sweep(lambda map: models.ledge(), {"map": ["a\nb"]}, {"one\ntwo": always_fails})
    assert "one\\ntwo, seed 0, map = a\\nb:" in str(failed).splitlines()[-2]


def test_a_figure_of_one_column_or_none(lines):
    labels = lambda figure: [x.get_ylabel() for x in figure.axes]  # noqa: E731
    assert labels(lines.figure("elbo")) == labels(lines.figure(("elbo",)))
    for columns in ((), 3, [3]):
        with pytest.raises(ValueError, match="column"):
            lines.figure(columns)


def test_where_every_cell_failed_there_is_no_figure_and_no_such_column(tmp_path):
    (tmp_path / "sweep.png").touch()
    found = sweep(models.ledge, {}, {"a": always_fails}, out=tmp_path)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["results.csv", "results.jsonl"]
    assert found.summary("elbo")[0]["mean"] is None
    with pytest.raises(ValueError, match="column: expected one of"):
        found.summary("nonsense")


# Other processes

LOCK = threading.Lock()


def holds(lock):
    return lambda model: inference.posterior(model) if lock else None


@pytest.mark.parametrize(
    ("method", "engine"),
    [(holds(LOCK), None), (holds(LOCK), "multiprocessing"), (holds(1), "multiprocessing")],
)
def test_functions_that_cannot_be_sent_are_refused(method, engine, tmp_path):
    pytest.importorskip("joblib")
    words = "factory or methods: expected functions that can be sent .*; jobs=1 sends nothing"
    with pytest.raises(ValueError, match=words):
        sweep(models.ledge, {}, {"a": method}, jobs=2, engine=engine, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_threads_are_sent_nothing():
    pytest.importorskip("joblib")
    assert sweep(models.ledge, {}, {"a": holds(LOCK)}, jobs=2, engine="threading").failed == ()


ELSEWHERE = """
    import pathlib
    import sys

    import cai
    from cai import inference

    HERE = str(pathlib.Path(__file__).parent / "hidden")

    if __name__ == "__main__":
        sys.path.insert(0, HERE)
        import made_here
        sys.path.remove(HERE)
        try:
            cai.sweep(made_here.make, {}, {"a": inference.posterior}, jobs=2, progress=False)
        except ValueError as error:
            print(error)
"""


def test_a_function_that_processes_cannot_load_is_no_lack_of_memory(tmp_path):
    pytest.importorskip("joblib")
    (tmp_path / "hidden").mkdir()
    code = "import cai\n\n\ndef make():\n    return cai.models.ledge()\n"
    (tmp_path / "hidden" / "made_here.py").write_text(code, encoding="utf-8")
    (tmp_path / "script.py").write_text(textwrap.dedent(ELSEWHERE), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=True,
    )
    assert "expected functions that can be sent to other processes" in done.stdout, done.stderr
    assert "un-serialize" in done.stdout
    assert "No module named 'made_here'" in done.stdout
