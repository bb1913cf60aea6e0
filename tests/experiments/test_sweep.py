"""Sweeps: their numbers, their order, and what they refuse."""

import csv
import functools
import io
import json
import math
import os
import random
import runpy
import statistics
import subprocess
import sys

import numpy as np
import pyro
import pytest
import torch
from scipy import stats

import cai
from cai import inference, models
from cai.experiments import cells as cells_module
from cai.experiments.error_words import CellError, in_words

METHODS = {"posterior": inference.posterior, "fixed": inference.soft_values}
RESULT = r"methods\['p'\]: .* of the model, got Solution; pass inference.posterior.* not its result"
A_MODEL = r"factory: .* got a model .*, which has no arguments; pass a function .* models.ledge,"
GRID = {"temperature": [0.5, 1.0], "gives_way": [0.1, 0.5, 0.9]}


def drawn(model, seed):
    """A policy that depends on the seed alone, whichever generator it asks."""
    logits = torch.randn(model.horizon, 5, 2)
    logits = logits * (3 + np.random.randn() + random.random())  # noqa: NPY002
    scale = pyro.param("scale", torch.tensor(1.0))
    with torch.no_grad():
        scale.unconstrained().add_(1.0)  # which the next cell must not see
    return lambda t, s: pyro.distributions.Categorical(logits=scale.detach() * logits[t, s])


def fails(model):
    if model.temperature == 0.5:
        raise ZeroDivisionError("one\nline")
    return inference.posterior(model)


def sweep(*arguments, **options):
    return cai.sweep(*arguments, progress=False, **options)


def lines_in(folder):
    text = (folder / "results.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_rows_are_those_of_compare():
    found = sweep(models.ledge, GRID, METHODS)
    assert len(found) == 2 * 3 * 2
    for cell in found:
        model = models.ledge(**cell.point)
        report = cai.compare(model, {"it": METHODS[cell.method](model)}).to_dict()
        assert cell.row == {"log_evidence": report["log_evidence"], **report["rows"]["it"]}
        assert cell.seconds > 0
        assert (cell.error, cell.version) == (None, cai.__version__)


def test_the_order_is_that_of_the_grid_the_methods_and_the_seeds():
    found = sweep(models.ledge, GRID, METHODS, seeds=[7, 3])
    expected = [
        ({"temperature": t, "gives_way": g}, method, seed)
        for t in GRID["temperature"]
        for g in GRID["gives_way"]
        for method in METHODS
        for seed in (7, 3)
    ]
    assert [(x.point, x.method, x.seed) for x in found] == expected


@pytest.mark.parametrize("backwards", [False, True])
def test_a_cell_depends_on_its_seed_alone(backwards):
    """Not on the cells before it, which leave generators and parameters behind."""
    whole = sweep(models.ledge, GRID, {"drawn": drawn}, seeds=2)
    pyro.set_rng_seed(99)
    order = slice(None, None, -1 if backwards else 1)
    grid = {name: values[order] for name, values in GRID.items()}
    other = sweep(models.ledge, grid, {"drawn": drawn}, seeds=[1, 0][order])
    rows = {json.dumps([x.point, x.seed]): x.row for x in other}
    assert all(rows[json.dumps([x.point, x.seed])] == x.row for x in whole)
    assert len({x.row["elbo"] for x in whole}) == len(whole)


def test_the_caller_keeps_generators_threads_and_parameters():
    pyro.param("mine", torch.tensor(3.0))
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    threads = torch.get_num_threads()
    sweep(models.ledge, {}, {"drawn": drawn})
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert list(pyro.get_param_store().keys()) == ["mine"]
    assert torch.get_num_threads() == threads


def test_the_same_numbers_from_processes_whatever_the_engine(tmp_path):
    pytest.importorskip("joblib")
    texts = {
        (jobs, engine): sweep(
            models.ledge,
            GRID,
            {**METHODS, "drawn": drawn, "fails": fails},
            seeds=2,
            jobs=jobs,
            engine=engine,
            out=tmp_path / f"{jobs}{engine}",
        ).to_csv()
        for jobs, engine in [(1, None), (2, None), (2, "threading"), (2, "multiprocessing")]
    }
    assert len(set(texts.values())) == 1
    written = {(folder / "results.csv").read_bytes() for folder in tmp_path.iterdir()}
    assert written == {texts[1, None].encode()}


def test_each_worker_has_one_thread_of_torch():
    pytest.importorskip("joblib")

    def threads(model):
        if torch.get_num_threads() != 1:
            raise ValueError(str(torch.get_num_threads()))
        return inference.posterior(model)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for jobs in (1, 2):
            assert sweep(models.ledge, {}, {"threads": threads}, seeds=3, jobs=jobs).failed == ()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_functions_of_a_script_are_sent_to_processes(tmp_path):
    """By cloudpickle: lambdas and what a notebook defines."""
    pytest.importorskip("joblib")
    found = sweep(
        lambda a: models.ledge(temperature=a),
        {"a": [0.5, 1.0]},
        {"fixed": lambda model: inference.soft_values(model)},
        jobs=2,
    )
    assert [x.row["elbo"] for x in found] == [
        x.row["elbo"] for x in sweep(models.ledge, {"temperature": [0.5, 1.0]}, METHODS).cells[1::2]
    ]


# Errors


def test_what_fails_is_recorded_and_stops_no_other(tmp_path):
    found = sweep(models.ledge, GRID, {"fails": fails, **METHODS}, seeds=2, out=tmp_path)
    assert len(found.failed) == 3 * 2
    for cell in found.failed:
        assert cell.point["temperature"] == 0.5
        line = fails.__code__.co_firstlineno + 2
        assert cell.error == f"ZeroDivisionError: one line (test_sweep.py, line {line})"
        assert cell.row == {}
    assert sum(line["outcome"] == "done" for line in lines_in(tmp_path)[1:]) == len(found) - 6
    assert "6 cells of 36 failed; the first, fails, seed 0, temperature = 0.5" in str(found)


@pytest.mark.parametrize("error", [SystemExit(3), ValueError("x"), MemoryError()])
def test_a_factory_may_fail_in_any_way(error):
    def factory(k):
        if k:
            raise error
        return models.ledge()

    found = sweep(factory, {"k": [0, 1]}, METHODS)
    assert [x.error is None for x in found] == [True, True, False, False]
    assert found.failed[0].error.startswith(type(error).__name__)


def test_an_error_is_told_with_the_line_of_the_users_code(tmp_path):
    code = "import torch\n\n\ndef multiply(model):\n    return torch.ones(2) @ torch.ones(3)\n"
    (tmp_path / "study_of_errors.py").write_text(code, encoding="utf-8")
    names = runpy.run_path(str(tmp_path / "study_of_errors.py"))
    found = sweep(models.ledge, {}, {"a": names["multiply"]}, out=tmp_path)
    (cell,) = found.failed
    assert cell.error.startswith("RuntimeError: ")
    assert cell.error.endswith(" (study_of_errors.py, line 5)")
    assert lines_in(tmp_path)[1]["error"] == cell.error
    assert cell.error in (tmp_path / "results.csv").read_text("utf-8")
    assert str(found).endswith(cell.error)


def test_an_error_of_the_library_alone_has_no_line():
    (cell,) = sweep(models.gridworld, {"slip": [2]}, {"a": inference.posterior}).failed
    assert cell.error.startswith("ValueError: slip: expected a probability")
    assert "line" not in cell.error


def test_a_long_error_keeps_its_line():
    def wordy(model):
        raise ValueError("x" * 5000)

    (cell,) = sweep(models.ledge, {}, {"a": wordy}).failed
    line = wordy.__code__.co_firstlineno + 1
    assert cell.error.endswith(f"x (test_sweep.py, line {line})")
    assert len(cell.error) == 1000


def test_where_an_error_is_from_is_told_of_its_cause():
    """What the library raises in place of an error of the user's code is from there as well."""

    def broken():
        raise KeyError("x")

    with pytest.raises(KeyError) as caught:
        broken()
    error = CellError("cannot be made")
    error.__context__ = caught.value
    line = broken.__code__.co_firstlineno + 1
    assert in_words(error) == f"cannot be made (test_sweep.py, line {line})"
    assert in_words(CellError("all is said")) == "all is said"


def test_ctrl_c_of_a_cell_is_no_failure(tmp_path):
    def interrupted(model):
        if model.temperature == 1.0:
            raise KeyboardInterrupt
        return inference.posterior(model)

    grid = {"temperature": [0.5, 1.0, 2.0]}
    with pytest.raises(KeyboardInterrupt, match=r"after 1 of 3 cells; .*results\.jsonl holds"):
        sweep(models.ledge, grid, {"a": interrupted}, out=tmp_path)
    assert [line["point"]["temperature"] for line in lines_in(tmp_path)[1:]] == [0.5]
    with pytest.raises(KeyboardInterrupt, match="nothing was kept"):
        sweep(models.ledge, grid, {"a": interrupted})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid": [1]}, "grid: expected {argument: values}"),
        ({"grid": {"temperature": []}}, "at least one value"),
        ({"grid": {"temperature": 0.5}}, "several values"),
        ({"grid": {"temperature": [[0.5]]}}, "numbers, texts"),
        ({"grid": {"temperature": [math.nan]}}, "NaN"),
        ({"grid": {"temperature": [1, 1.0]}}, "values that differ"),
        ({"grid": {"two words": [1]}}, "names of arguments"),
        ({"grid": {"a": range(1001), "b": range(1001)}}, "combinations"),
        ({"methods": {}}, "methods: expected at least one"),
        ({"methods": [1]}, "methods: expected at least one"),
        ({"methods": {"a": 3}}, "a function"),
        ({"methods": {3: fails}}, "names as texts"),
        ({"methods": {"p": inference.posterior(models.ledge())}}, RESULT),
        ({"factory": 3}, "factory: expected a function"),
        ({"factory": models.ledge()}, A_MODEL),
        ({"factory": models.ledge(), "grid": {"temperature": [1]}}, A_MODEL),
        ({"factory": cai.tabulate(models.ledge())}, A_MODEL),
        ({"seeds": 0}, "seeds"),
        ({"seeds": True}, "seeds"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "each once"),
        ({"seeds": [-1]}, "whole numbers"),
        ({"jobs": 0}, "jobs"),
        ({"jobs": 1.5}, "jobs"),
        ({"jobs": 2, "engine": "hamsters"}, "engine"),
        ({"retry": 1}, "retry"),
        ({"progress": "loud"}, "progress"),
    ],
)
def test_wrong_arguments_are_refused_before_the_work(changes, words, tmp_path):
    arguments = {"factory": models.ledge, "grid": {}, "methods": METHODS}
    with pytest.raises(ValueError, match=words) as caught:
        cai.sweep(**arguments | changes, out=tmp_path / "out")
    assert len(str(caught.value)) < 1000
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_without_joblib_one_job_works_and_two_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    assert len(sweep(models.ledge, {}, METHODS)) == 2
    with pytest.raises(ValueError, match=r"control-as-inference\[sweep\]"):
        sweep(models.ledge, {}, METHODS, jobs=2)


# Going on


def counted(model):
    counted.calls += 1
    return fails(model)


@pytest.fixture(autouse=True)
def _counted():
    counted.calls = 0


def test_the_same_call_does_nothing_twice_and_more_of_it_does_the_rest(tmp_path):
    first = sweep(models.ledge, GRID, {"a": counted}, out=tmp_path)
    assert counted.calls == 6
    again = sweep(models.ledge, GRID, {"a": counted}, out=tmp_path)
    assert counted.calls == 6
    assert again.to_json() == first.to_json()
    more = {"gives_way": [0.9, 0.3, 0.1, 0.5], "temperature": [1, 0.5]}  # 1 is 1.0
    found = sweep(models.ledge, more, {"b": counted, "a": counted}, seeds=2, out=tmp_path)
    assert counted.calls == 4 * 2 * 2 * 2
    rows = {json.dumps([x.point, x.method, x.seed], sort_keys=True): x.row for x in found}
    for x in first:
        point = {name: int(y) if y == 1 else y for name, y in x.point.items()}
        assert rows[json.dumps([point, x.method, x.seed], sort_keys=True)] == x.row


def test_retry_does_what_failed_again(tmp_path, monkeypatch):
    sweep(models.ledge, GRID, {"a": counted}, out=tmp_path)
    found = sweep(models.ledge, GRID, {"a": counted}, out=tmp_path, retry=True)
    assert counted.calls == 6 + 3
    assert len(found.failed) == 3
    monkeypatch.setattr(sys.modules[__name__], "fails", inference.posterior)  # mended
    assert len(sweep(models.ledge, GRID, {"a": counted}, out=tmp_path).failed) == 3
    found = sweep(models.ledge, GRID, {"a": counted}, out=tmp_path, retry=True)
    assert found.failed == ()
    assert counted.calls == 6 + 3 + 3


@pytest.mark.parametrize(
    "changes",
    [
        {"factory": models.lottery, "grid": {"temperature": [0.5, 1.0]}},
        {"grid": {"gives_way": [0.1]}},
        {"grid": {"temperature": [0.5]}},
        {"methods": {"b": inference.posterior}},
        {"methods": {"a": inference.soft_values}},
        {"methods": {"a": functools.partial(inference.posterior, optimal=None)}},
        {"seeds": [1]},
        {"factory": functools.partial(models.ledge, gives_way=0.3)},
    ],
)
def test_another_sweep_is_refused(changes, tmp_path):
    arguments = {
        "factory": models.ledge,
        "grid": {"temperature": [0.5, 1.0]},
        "methods": {"a": inference.posterior},
    }
    sweep(**arguments, out=tmp_path)
    before = (tmp_path / "results.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"out: .*(another|which is not in it)"):
        sweep(**arguments | changes, out=tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_values_that_failed_can_be_left_out(tmp_path):
    """A cell that failed has no result that another grid would lose."""
    grid = {"gives_way": [0.1, 10]}
    found = sweep(models.ledge, grid, {"a": counted}, out=tmp_path)
    assert [x.point["gives_way"] for x in found.failed] == [10]
    found = sweep(models.ledge, {"gives_way": [0.1, 0.5]}, {"a": counted}, out=tmp_path)
    assert found.failed == ()
    assert counted.calls == 1 + 1  # the factory refused 10
    assert ",10," not in (tmp_path / "results.csv").read_text("utf-8")
    words = r"gives_way = 0\.1, which is not in it; .* take a part of the result"
    with pytest.raises(ValueError, match=words):
        sweep(models.ledge, {"gives_way": [0.5]}, {"a": counted}, out=tmp_path)


# Keys


def keys(hash_seed):
    code = (
        "import functools\nfrom cai import models, inference\n"
        "from cai.experiments.cells import Study\n"
        "make = functools.partial(models.gridworld, slip=0.1, wind=0.0)\n"
        "study = Study(make, {'fit': functools.partial(inference.fit, steps=3)})\n"
        "print(study.cell({'b': 'x', 'a': 0.1}, 'fit', 3).key)\n"
        "print(study.cell({'a': 0.1, 'b': 'x'}, 'fit', 3).key)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout.split()


def test_a_key_depends_neither_on_order_nor_on_the_seed_of_hashes():
    assert len({*keys(1), *keys(2)}) == 1


def test_every_part_of_a_configuration_is_in_its_key():
    def key(point, method="a", seed=0, factory=models.ledge, function=inference.posterior):
        return cells_module.Study(factory, {method: function}).cell(point, method, seed).key

    point = {"temperature": 0.5}
    different = [
        key(point),
        key({"temperature": 0.25}),
        key({"discount": 0.5}),
        key({"temperature": "0.5"}),
        key({"temperature": None}),
        key({"temperature": 1}),
        key({"temperature": True}),
        key({"temperature": math.inf}),
        key({"temperature": "inf"}),
        key(point, "b"),
        key(point, seed=1),
        key(point, factory=models.lottery),
        key(point, function=inference.soft_values),
        key(point, function=functools.partial(inference.posterior, optimal=1)),
        key(point, function=functools.partial(inference.posterior, optimal=2)),
    ]
    assert len(set(different)) == len(different)
    assert key({"temperature": 1}) == key({"temperature": 1.0})
    assert key({"temperature": np.float64(0.5).item()}) == key(point)


# What comes of it


@pytest.fixture(scope="module")
def seeds():
    return sweep(models.ledge, GRID, {"drawn": drawn, **METHODS}, seeds=4)


def test_csv_is_read_back_to_the_last_bit(seeds):
    rows = list(csv.DictReader(io.StringIO(seeds.to_csv())))
    assert len(rows) == len(seeds)
    for row, cell in zip(rows, seeds, strict=True):
        assert (row["method"], int(row["seed"])) == (cell.method, cell.seed)
        assert {name: float(row[name]) for name in GRID} == cell.point
        for name, x in cell.row.items():
            assert row[name] == "" if x is None else float(row[name]) == x


def test_csv_is_written_whole(seeds, tmp_path):
    path = tmp_path / "table.csv"
    assert seeds.to_csv(path) is None
    assert path.read_bytes() == seeds.to_csv().encode()
    assert [x.name for x in tmp_path.iterdir()] == ["table.csv"]
    for wrong in (3, tmp_path, tmp_path / "none" / "table.csv"):
        with pytest.raises(ValueError, match="path: expected the path of a file"):
            seeds.to_csv(wrong)


def test_json_has_no_infinities_and_lines_read_back_what_they_were(tmp_path):
    # A policy that takes a forbidden action has an ELBO of -inf.
    def walks(c):
        return models.tabular([[[1.0], [1.0]]], [[0.0, c]], horizon=2, action_prior=[[0.5, 0.5]])

    methods = {"prior": lambda model: lambda t, s: model.prior(s, t)}
    grid = {"c": [-math.inf, -1.0]}
    first = sweep(walks, grid, methods, out=tmp_path)
    assert first.cells[0].row["elbo"] == -math.inf
    text = (tmp_path / "results.jsonl").read_text(encoding="utf-8")
    assert "Infinity" not in text
    assert "NaN" not in text
    again = sweep(walks, grid, methods, out=tmp_path)
    assert [x.row for x in again] == [x.row for x in first]
    cells = json.loads(first.to_json(), parse_constant=pytest.fail)["cells"]
    assert cells[0]["row"]["elbo"] == "-inf"
    assert cells[0]["point"]["c"] == "-inf"
    assert first.to_csv().splitlines()[1].startswith("-inf,prior,0,")


def test_a_summary_is_the_mean_with_an_interval_by_students_t(seeds):
    for row in seeds.summary("elbo"):
        point = {name: row[name] for name in GRID}
        same = [x for x in seeds if x.point == point and x.method == row["method"]]
        elbos = [x.row["elbo"] for x in same]
        assert row["count"] == len(elbos) == 4
        assert row["mean"] == pytest.approx(statistics.fmean(elbos), rel=1e-12)
        half = stats.t.ppf(0.975, 3) * statistics.stdev(elbos) / 2
        assert row["half_width"] == pytest.approx(half, rel=1e-12, abs=1e-12)
    with pytest.raises(ValueError, match=r"column: expected one of .*elbo"):
        seeds.summary("elbow")


def test_a_part_of_a_sweep(seeds):
    part = seeds.where(gives_way=0.5)
    assert list(part.axes) == ["temperature"]
    assert part.cells == tuple(x for x in seeds if x.point["gives_way"] == 0.5)
    for chosen in ({"gives_way": 0.6}, {"slip": 0.5}):
        with pytest.raises(ValueError, match="where"):
            seeds.where(**chosen)


def test_text_fits_a_width(seeds):
    lines = str(seeds).splitlines()
    assert any(line.split()[:3] == ["0.5", "0.1", "drawn"] for line in lines)
    assert max(map(len, seeds.to_text(width=60).splitlines())) <= 60
    assert "KL" in lines[0]
    assert "KL" not in seeds.to_text(width=60).splitlines()[0]
    assert seeds.to_text("ascii").isascii()
