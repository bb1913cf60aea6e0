"""Tables of numbers and modules as rewards: the same in a program, in its table, and by hand."""

import pytest
import torch
from oracles import random_problem
from torch import nn

import cai
from cai import inference, models


def filled(of, table, seed=0):
    """A reward with random numbers."""
    arrays = cai.TabularReward(of, offset=0.25).on(table)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        arrays.values.normal_(generator=generator)
    return arrays


@pytest.mark.parametrize("zeros", [0.0, 0.7])
@pytest.mark.parametrize("of", ["action", "state", "arrival"])
def test_a_program_and_its_table_are_paid_the_same(of, zeros):
    model = random_problem(3, S=6, zeros=zeros).model()
    table = cai.tabulate(model)
    arrays = filled(of, table)
    reward = arrays.trained()
    again = cai.tabulate(reward.given_to(model))
    mine = arrays.rewards(table).detached()
    torch.testing.assert_close(again.reward, mine.reward)
    torch.testing.assert_close(again.outcome_rewards, mine.outcome_rewards)
    s, a = torch.tensor([5, 0]), torch.tensor([[1], [0]])
    assert reward(s, a).shape == (2, 2)
    assert reward.on_arrival(s, a, s).shape == ((2, 2) if of == "arrival" else ())
    if of == "action":
        assert reward(s, a)[1, 0].item() == pytest.approx(0.25 + arrays.values[5, 0].item())
    if of == "state":
        assert (reward(s, a) - 0.25 == arrays.values[s]).all()
    once_more = reward.on(table).rewards(table)
    torch.testing.assert_close(once_more.outcome_rewards.detach(), mine.outcome_rewards)


def test_successors_that_are_listed():
    after = torch.tensor([[[1, 2]], [[2, 2]], [[0, 1]]])
    model = models.tabular(
        torch.tensor([[[0.5, 0.5]], [[1.0, 0.0]], [[0.3, 0.7]]]),
        torch.zeros(3, 1),
        horizon=2,
        successors=after,
    )
    table = cai.tabulate(model)
    reward = filled("arrival", table).trained()
    s, a, n = torch.tensor([0, 0, 0, 1, 2]), torch.tensor(0), torch.tensor([1, 2, 0, 2, 1])
    paid = reward.on_arrival(s, a, n)
    assert paid[2] == 0  # it cannot follow
    dense = table.dense(table.log_dynamics)
    total = (dense[s, a, n] * paid)[:2].sum()
    expected = (table.log_dynamics.exp() * reward.values)[0, 0].sum()
    torch.testing.assert_close(total, expected)


class Scores(nn.Module):
    """A number for each state, action and, on arrival, successor."""

    def __init__(self, *sizes):
        super().__init__()
        self.numbers = nn.Parameter(torch.linspace(-1, 1, torch.Size(sizes).numel()).view(sizes))

    def forward(self, *at):
        return self.numbers[tuple(torch.broadcast_tensors(*at))]


def test_modules_pay_the_same_in_a_program_and_in_its_table():
    model = random_problem(3, S=5).model()
    table = cai.tabulate(model)
    reward = cai.NeuralReward(Scores(5, 2), Scores(5, 2, 5), offset=lambda s, a: 0.5 * a)
    arrays = reward.on(table)
    V = inference.soft_values(reward.given_to(model), 0.5).V
    torch.testing.assert_close(V, inference.soft_values(arrays.rewards(table).detached(), 0.5).V)
    with torch.no_grad():
        arrays.module.numbers.zero_()
    assert reward.module.numbers.abs().max() == 1  # a copy
    assert arrays.trained().module.numbers.abs().max() == 0
    only = cai.NeuralReward(None, Scores(5, 2, 5))
    assert only(torch.arange(5), torch.tensor(1)).tolist() == [0.0] * 5
    assert cai.NeuralReward(Scores(5, 2)).on_arrival(*[torch.arange(2)] * 3) == 0


def test_nothing_is_paid_where_an_endless_trajectory_stays():
    goes = torch.eye(3, dtype=torch.float64)[torch.tensor([[1, 0], [2, 0], [2, 2]])]
    model = models.tabular(goes, torch.zeros(3, 2), horizon=None)
    table = cai.tabulate(model)
    reward = cai.NeuralReward(Scores(3, 2)).on(table).trained()
    assert reward.unpaid.tolist() == [False, False, True]
    assert reward(torch.tensor(2), torch.tensor(0)) == 0
    program = reward.given_to(model)
    paid = cai.tabulate(program).reward
    torch.testing.assert_close(paid, reward.on(table).rewards(table).detached().reward)
    discounted = cai.tabulate(models.tabular(goes, torch.zeros(3, 2), horizon=None, discount=0.9))
    assert cai.NeuralReward(Scores(3, 2)).on(discounted).trained().unpaid is None


def test_what_does_not_fit_is_said():
    table = cai.tabulate(random_problem(3, S=5).model())
    four = cai.TabularReward(values=torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"values: expected shape \[5, 2\], .* got \[4, 2\]"):
        four.on(table)
    with pytest.raises(ValueError, match=r"values: expected shape \(S,\) for of='state'"):
        cai.TabularReward("state", values=torch.zeros(4, 2))
    with pytest.raises(ValueError, match="values: expected a tensor, got list"):
        cai.TabularReward(values=[[0.0]])
    with pytest.raises(ValueError, match="values: expected finite numbers"):
        cai.TabularReward("state", values=torch.full((5,), -torch.inf)).on(table)
    with pytest.raises(ValueError, match="of: expected"):
        cai.TabularReward("actions")
    with pytest.raises(ValueError, match="values: expected some, to pay rewards"):
        cai.TabularReward()(torch.tensor(0), torch.tensor(0))
    with pytest.raises(ValueError, match=r"module: expected a torch\.nn\.Module"):
        cai.NeuralReward(lambda s, a: s)
    with pytest.raises(ValueError, match=r"module: expected parameters .* got no module"):
        cai.NeuralReward(None)

    class Wide(Scores):
        def forward(self, s, a):
            return super().forward(s, a).unsqueeze(-1)

    with pytest.raises(ValueError, match=r"module: expected one real number .* squeeze\(-1\)"):
        cai.NeuralReward(Wide(5, 2)).on(table)
    endless = Scores(5, 2)
    with torch.no_grad():
        endless.numbers[3, 1] = torch.inf
    with pytest.raises(ValueError, match="module: expected finite numbers"):
        cai.NeuralReward(endless).on(table)
