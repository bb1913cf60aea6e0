"""The log says what was chosen and how much was done, and is silent unless it is asked for."""

import logging
import re
import subprocess
import sys

import pytest
import torch

import cai
from cai import inference, models
from cai.sweeps import sweeps


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, logger="cai")
    return caplog


def lines(log, name):
    return [record.getMessage() for record in log.records if record.name == name]


def test_nobody_who_does_not_ask_is_told_anything():
    code = (
        "import logging\nfrom cai import inference, models\n"
        "inference.posterior(models.ledge())\n"
        "print([type(x).__name__ for x in logging.getLogger('cai').handlers])\n"
        "print(logging.getLogger('cai').level, logging.getLogger().handlers)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stderr == ""
    assert done.stdout == "['NullHandler']\n0 []\n"


def test_a_table_says_its_size(log):
    table = cai.tabulate(models.gridworld("bridge"))
    (line,) = lines(log, "cai.tables")
    S, A, K = table.log_dynamics.shape
    said = re.match(
        r"table of (\d+) states, (\d+) actions and (\d+) (listed successors|states) each, "
        r"(\d+) bytes, in ([\d.]+) s",
        line,
    )
    assert [int(x) for x in said.groups()[:3]] == [S, A, K]
    assert said[4] == ("states" if table.successors is None else "listed successors")
    arrays = [x for x in vars(table).values() if isinstance(x, torch.Tensor)]
    assert int(said[5]) == sum(x.nbytes for x in arrays)


@pytest.mark.parametrize(
    ("policy", "model", "chosen", "why"),
    [
        (cai.TabularPolicy, models.ledge(), "exact", "known without sampling"),
        (cai.RecurrentPolicy, models.ledge(), "enumerated", "actions are finitely many"),
        (cai.NeuralPolicy, models.pendulum(horizon=2), "score", "actions are not finitely many"),
    ],
)
def test_what_auto_chose_and_why(policy, model, chosen, why, log):
    fitted = inference.fit(model, policy(model), steps=2, samples=4, progress=False)
    assert fitted.estimator == chosen
    line = lines(log, "cai.fit")[0]
    assert f'by the estimator {chosen}, taken by "auto" as' in line
    assert why in line


def test_what_was_asked_for_has_no_reason(log):
    model = models.ledge()
    inference.fit(model, cai.TabularPolicy(model), estimator="mirror", progress=False)
    said = lines(log, "cai.fit")
    assert said[0] == "fit: TabularPolicy by the estimator mirror"
    assert re.fullmatch(r"fit: ended after \d+ of 2000, as nothing more was to be gained", said[1])


def test_where_a_fit_goes_on_and_why_it_ends(log, tmp_path):
    model = models.ledge()
    how = {"steps": 10, "checkpoint": tmp_path / "fit.pt", "progress": False}

    def stop(record):
        return record["step"] == 4

    inference.fit(model, cai.TabularPolicy(model), callback=stop, **how)
    inference.fit(model, cai.TabularPolicy(model), **how)
    said = [x for x in lines(log, "cai.fit") if "estimator" not in x]
    assert said == [
        "fit: ended after 4 of 10, by its callback",
        "fit: resumed from its checkpoint after 4 of 10",
        "fit: ended after 10 of 10, all of them",
    ]


def test_products_that_underflow_are_counted(log):
    """A rare outcome that alone leads on: its product is zero, and no logarithm has that."""
    p = torch.tensor([[[1 - 1e-300, 1e-300]], [[0.0, 1.0]]], dtype=torch.float64)
    final = torch.tensor([-800.0, 0.0], dtype=torch.float64)
    model = models.tabular(p, torch.zeros(2, 1), horizon=3, final_reward=final)
    table = cai.tabulate(model)
    log.clear()
    v = sweeps.backward(table, 1.0)
    (line,) = lines(log, "cai.sweeps")
    redone, of = map(int, re.search(r"(\d+) of (\d+) products redone", line).groups())
    assert 0 < redone <= of
    log.clear()
    inference.posterior(models.ledge())
    assert lines(log, "cai.sweeps") == []
    assert v.isfinite().all()
    inference.soft_values(models.ledge(), float("inf"))
    assert lines(log, "cai.sweeps") == [
        "values at optimism inf in log space, not by products, by the rule soft"
    ]
