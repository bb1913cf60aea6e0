"""Rewards with weights: functions and tensors say the same, on a program and on its table."""

import dataclasses

import pytest
import torch
from oracles import random_problem

import cai
from cai import inference, models


def pair():
    """The same features as functions and as tensors, of five states and two actions."""
    s, a, n = torch.arange(5), torch.arange(2), torch.arange(5)
    by_function = cai.LinearReward(
        {"state": lambda s, a: s, "moves": lambda s, a: a > 0},
        arrival={"stays": lambda s, a, n: s == n},
        offset=lambda s, a: 0.5 * a,
    )
    by_tensor = cai.LinearReward(
        {"state": s.double().unsqueeze(1), "moves": (a > 0).double().expand(5, 2)},
        arrival={"stays": (s[:, None, None] == n).expand(5, 2, 5).double()},
        offset=0.5 * a.double().expand(5, 2),
    )
    return by_function, by_tensor


def test_functions_and_tensors_pay_the_same():
    weights = [1.0, -2.0, 3.0]
    s, a, n = torch.tensor([4, 0, 2]), torch.tensor([1, 0, 1]), torch.tensor([4, 1, 2])
    for reward in pair():
        paid = reward.weighted(weights)
        assert paid.names == ("state", "moves", "stays")
        assert paid(s, a).tolist() == [4 - 2 + 0.5, 0.0, 2 - 2 + 0.5]
        assert paid.on_arrival(s, a, n).tolist() == [3.0, 0.0, 3.0]
        assert paid.weights == {"state": 1.0, "moves": -2.0, "stays": 3.0}


@pytest.mark.parametrize("zeros", [0.0, 0.7])
def test_a_program_with_them_and_its_table_have_the_same_values(zeros):
    model = random_problem(3, S=5, zeros=zeros).model()
    table = cai.tabulate(model)
    for reward in pair():
        weights = torch.tensor([0.3, -0.2, 0.4], dtype=torch.float64)
        program = reward.weighted(weights).given_to(model)
        arrays = reward.on(table).rewards(table, weights)
        V = inference.soft_values(program).V
        torch.testing.assert_close(V, inference.soft_values(arrays).V)
        assert not torch.allclose(V, inference.soft_values(model).V)


def test_what_cannot_happen_may_be_anything():
    goes = torch.eye(3, dtype=torch.float64)[torch.tensor([[1], [2], [2]])]
    table = cai.tabulate(models.tabular(goes, torch.zeros(3, 1), horizon=2))
    dense = dataclasses.replace(
        table, successors=None, log_dynamics=table.dense(table.log_dynamics).log()
    )
    reward = cai.LinearReward({}, arrival={"ratio": lambda s, a, n: n / (s * (s < n))})
    with pytest.raises(ValueError, match=r"arrival\['ratio'\]: expected finite numbers"):
        reward.on(dense)  # from 0 to 1
    reward = cai.LinearReward({}, arrival={"far": lambda s, a, n: 1 / (n - s + (s == 2) * 1.0)})
    arrays = reward.on(dense)
    assert arrays.arrival[0, :, 0].tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]


def test_what_does_not_fit_is_refused():
    table = cai.tabulate(random_problem(3, S=5).model())
    with pytest.raises(ValueError, match=r"features\['s'\]: expected a function or a tensor"):
        cai.LinearReward({"s": "state"})
    with pytest.raises(ValueError, match="features: expected features by name"):
        cai.LinearReward([lambda s, a: s])
    with pytest.raises(ValueError, match="features: expected at least one"):
        cai.LinearReward({})
    with pytest.raises(ValueError, match="'s' in both"):
        cai.LinearReward({"s": lambda s, a: s}, arrival={"s": lambda s, a, n: n})
    with pytest.raises(ValueError, match="weights: expected 1, one for each feature"):
        cai.LinearReward({"s": lambda s, a: s}).weighted([1.0, 2.0])
    with pytest.raises(ValueError, match="weights: expected some, to pay rewards, got none"):
        cai.LinearReward({"s": lambda s, a: s})(torch.tensor(0), torch.tensor(0))
    with pytest.raises(ValueError, match=r"features\['s'\]: .*KeyError"):
        cai.LinearReward({"s": lambda s, a: {}["x"]}).on(table)
    with pytest.raises(ValueError, match=r"features\['s'\]: expected one number for each"):
        cai.LinearReward({"s": lambda s, a: torch.ones(3, 4, 5)}).on(table)
    with pytest.raises(ValueError, match=r"features\['s'\]: expected finite numbers, got .*\[0, 0"):
        cai.LinearReward({"s": lambda s, a: (s + a).log()}).on(table)
