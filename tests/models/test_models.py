"""Every ready-made model through every method, and each one against what it is meant to be."""

import itertools
import math
from collections import Counter

import gymnasium
import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import cai
from cai import inference, models

MODELS = {
    "ledge": lambda **k: models.ledge(**k),
    "lottery": lambda **k: models.lottery(**k),
    "gridworld": lambda **k: models.gridworld("bridge", slip=0.2, wind=0.1, **k),
    "tabular": lambda **k: models.tabular(
        [[[0.5, 0.5], [1.0, 0.0]], [[0.0, 1.0], [0.3, 0.7]]], [[-1.0, 0.0], [0.5, 0.2]], **k
    ),
    "FrozenLake": lambda **k: models.gym("FrozenLake-v1", **k),
    "CliffWalking": lambda **k: models.gym("CliffWalkingSlippery-v1", **k),
    "Taxi": lambda **k: models.gym("Taxi-v4", is_rainy=True, **k),
}


@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize("name", MODELS)
def test_every_method_on_every_model(name, discount):
    model = MODELS[name](horizon=3, temperature=0.8, discount=discount)
    table = cai.tabulate(model)
    exact, fixed = inference.posterior(table), inference.soft_values(table)
    policy = exact.policy
    second = inference.enumeration(model, policy)
    assert second.log_evidence == pytest.approx(exact.log_evidence, abs=1e-9)
    found = cai.evaluate(table, policy)
    assert second.elbo == pytest.approx(found.elbo, abs=1e-9)
    simulated = cai.evaluate(model, policy, samples=1500)
    assert abs(simulated.elbo - found.elbo) < 5 * simulated.elbo_stderr + 1e-9
    report = cai.compare(table, {"exact": exact, "fixed": fixed})
    for row in report.values():
        assert report.log_evidence - row.elbo == pytest.approx(row.kl, abs=1e-9)
    fitted = inference.fit(model, cai.TabularPolicy(model), steps=60)
    assert found.elbo - 0.5 < fitted.elbo <= fixed.elbo + 1e-9
    assert len(poutine.trace(model).get_trace().stochastic_nodes) >= 7


def test_ledge_states_rewards_and_latent():
    table = cai.tabulate(models.ledge())
    P = table.dense(table.log_dynamics)
    assert P[0, 0].tolist() == [0, 0, 0, 0.5, 0.5]
    assert [row.argmax().item() for row in P[:, 1]] == [1, 2, 3, 3, 4]
    assert table.reward.tolist() == [[-1, -1]] * 3 + [[0, 0]] * 2
    safer = cai.tabulate(models.ledge(gives_way=0.1, fall_reward=-1.0))
    assert safer.dense(safer.log_dynamics)[0, 0, 4].item() == pytest.approx(0.1)
    # On average the short cut costs 4 and the path 3.
    Q = inference.soft_values(models.ledge(temperature=1e-6)).Q[0, 0]
    assert Q.tolist() == pytest.approx([-4, -3], abs=1e-4)


def test_lottery_is_sure_to_win_in_the_posterior():
    exact = inference.posterior(models.lottery())
    assert exact.states[-1, 1] > 0.999
    assert exact.imagined_return > 15
    mean = inference.soft_values(models.lottery(horizon=1)).Q[0, 0]
    assert mean.tolist() == pytest.approx([0, -0.98], abs=1e-9)


def test_gridworld_moves_walls_and_ends():
    model = models.gridworld("S.#\nG.P", slip=0.0, horizon=5)
    table = cai.tabulate(model)
    layout = model.layout
    assert layout.cells == ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2))
    to = table.dense(table.log_dynamics).argmax(-1)
    # up, right, down, left
    assert to.tolist() == [[0, 1, 2, 0], [1, 1, 3, 0], [2] * 4, [1, 4, 3, 2], [4] * 4]
    assert table.reward.tolist() == [[-1] * 4] * 2 + [[0] * 4] + [[-1] * 4] + [[0] * 4]
    assert model.arrival_rewards(torch.tensor([3, 3, 4]), torch.tensor([1, 3, 1]),
                                 torch.tensor([4, 2, 4])).tolist() == [-100, 0, 0]  # fmt: skip


def test_gridworld_slip_and_wind():
    """Right on an open field: 80 % right, 10 % to each side; then 30 % are blown down."""
    model = models.gridworld([".....", "..S..", ".....", ".....", "....G"], slip=0.2, wind=0.3)
    table = cai.tabulate(model)
    row = table.dense(table.log_dynamics)[7, 1].view(5, 5)
    expected = torch.zeros(5, 5, dtype=torch.float64)
    for (i, j), p in (((1, 3), 0.8), ((0, 2), 0.1), ((2, 2), 0.1)):
        expected[i, j] += 0.7 * p
        expected[i + 1, j] += 0.3 * p
    torch.testing.assert_close(row, expected)
    names = poutine.trace(model).get_trace().stochastic_nodes
    assert "t0/slip" in names
    assert "t0/gust" in names
    calm = poutine.trace(models.gridworld("cliff", slip=0.0)).get_trace().stochastic_nodes
    assert not any("/" in name for name in calm)


def test_the_wind_carries_nobody_out_of_a_goal():
    table = cai.tabulate(models.gridworld("S\nG\n.", slip=0.0, wind=1.0, wind_direction="down"))
    P = table.dense(table.log_dynamics)
    assert P[0, 2].tolist() == [0, 1, 0]  # down into the goal, and not beyond
    assert P[0, 0].tolist() == [0, 1, 0]  # blown into it


def test_several_starts_are_equally_likely():
    initial = cai.tabulate(models.gridworld("SS\nSG")).log_initial.exp()
    assert initial.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"map": "S.\nG"}, "rows of one length"),
        ({"map": "SX\n.G"}, r"the letters \['X'\]"),
        ({"map": "..\n.G"}, "no start S"),
        ({"slip": 1.5}, r"slip: expected a probability in \[0, 1\]"),
        ({"wind_direction": "north"}, 'wind_direction: expected "up", "right", "down" or "left"'),
    ],
)
def test_bad_maps(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.gridworld(**arguments)


def test_a_taxi_lies_on_its_map():
    """Its 500 states are more than the map has cells: passenger and destination count, too."""
    layout = models.gym("Taxi-v4", horizon=2).layout
    assert layout.map == ("R...G", ".....", ".....", ".....", "Y..B.")
    env = gymnasium.make("Taxi-v4").unwrapped
    assert layout.cells[:500] == tuple(tuple(env.decode(s))[:2] for s in range(500))
    assert layout.actions == ("down", "up", "right", "left", "pick up", "drop off")


def test_a_class_is_no_environment():
    kind = type(gymnasium.make("FrozenLake-v1").unwrapped)
    with pytest.raises(ValueError, match=r"name: .* got the class FrozenLakeEnv; make one"):
        models.gym(kind)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("FrozenLake-v1", {}),
        ("FrozenLake-v1", {"map_name": "8x8", "success_rate": 0.7}),
        ("FrozenLake-v1", {"is_slippery": False, "reward_schedule": (1, -1, 0)}),
        ("CliffWalking-v1", {}),
        ("CliffWalkingSlippery-v1", {}),
        ("Taxi-v4", {}),
        ("Taxi-v4", {"is_rainy": True}),
    ],
)
def test_a_gym_model_is_the_environment(name, options):
    """Every state and action of the model moves, pays and ends as the environment's table says."""
    model = models.gym(name, horizon=3, **options)
    env = gymnasium.make(name, **options).unwrapped
    table = cai.tabulate(model)
    P = table.dense(table.log_dynamics)
    n, A = env.observation_space.n, env.action_space.n
    origin = list(range(n)) + [None] * (len(P) - n)  # copies come after the original states
    over = {k for k in range(len(P)) if (P[k, :, k] == 1).all() and not pays(model, k, A)}
    for s, a in itertools.product(range(len(P)), range(A)):
        if s in over:
            continue
        expected = Counter()
        for p, target, r, done in env.P[origin[s]][a]:
            expected[int(target), float(r), bool(done)] += p
        for k in P[s, a].nonzero().flatten().tolist():
            r = model.arrival_rewards(*map(torch.tensor, (s, a, k))).item()
            if origin[k] is None:  # which state a copy is a copy of shows where it is first met
                origin[k] = next(t for t, *rest in expected if rest == [r, k in over])
            key = (origin[k], r, k in over)
            assert expected.pop(key) == pytest.approx(P[s, a, k].item()), (s, a, k)
        assert not any(expected.values()), (s, a)
    start = np.zeros(len(P))
    start[:n] = env.initial_state_distrib
    np.testing.assert_allclose(table.log_initial.exp(), start, atol=1e-12)


def pays(model, k, A):
    s = torch.full((A,), k)
    return model.arrival_rewards(s, torch.arange(A), s).any()


def test_the_same_state_with_two_rewards_is_two_states():
    """Slippery cliff: back at the start by a step, or by a fall that cost 100."""
    model = models.gym("CliffWalkingSlippery-v1", horizon=5)
    table = cai.tabulate(model)
    assert table.num_states == 49
    P = table.dense(table.log_dynamics)
    assert P[36, 0, [36, 48]].sum() == pytest.approx(2 / 3)
    paid = model.arrival_rewards(
        torch.tensor([36, 36]), torch.tensor([0, 0]), torch.tensor([36, 48])
    )
    assert sorted(paid.tolist()) == [-100, -1]
    torch.testing.assert_close(P[48], P[36])
    assert model.layout.cells[48] == model.layout.cells[36] == (3, 0)


def test_the_limit_of_the_environment_is_the_horizon():
    assert models.gym("FrozenLake-v1").horizon == 100
    assert models.gym("FrozenLake-v1", horizon=7).horizon == 7
    with pytest.raises(ValueError, match="horizon: environment 'CliffWalking-v1' has no time"):
        models.gym("CliffWalking-v1")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Nowhere-v0", {}, "Gymnasium cannot make it"),
        ("FrozenLake-v1", {"slippery": True}, "options: expected options that FrozenLake-v1 has"),
        ("Blackjack-v1", {}, "expected a published transition table"),
        ("Taxi-v4", {"fickle_passenger": True}, "outside the published table"),
    ],
)
def test_bad_environments(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.gym(name, **options)


def test_arrival_rewards_are_not_averaged():
    """With the mean of r⁺ the posterior would collect a third of the goal for ever."""
    model = models.gym("FrozenLake-v1", horizon=60, temperature=0.01)
    assert inference.posterior(model).imagined_return <= 1 + 1e-9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transitions": [[[0.5, 0.4]], [[0, 1]]]}, "transitions at state 0, action 0.*0.9"),
        ({"transitions": [[[1.5, -0.5]], [[0, 1]]]}, "probabilities ≥ 0, got -0.5"),
        ({"transitions": [[[1.0]], [[1.0]]]}, "for lists of successors pass successors="),
        ({"reward": [[0.0, 0.0]]}, "expected shapes"),
        ({"reward": [[math.nan], [0]]}, "reward: expected numbers below"),
        ({"reward": [[math.inf], [0]]}, r"reward: .*got inf"),
        ({"initial": [0.0, 0.0]}, "initial: expected finite weights"),
        ({"initial": [1.0]}, r"initial: expected shape \[2\]"),
        ({"action_prior": [[1.0], [-1.0]]}, "action_prior: expected finite weights"),
        ({"final_reward": [1.0]}, r"final_reward: expected shape \[2\]"),
        ({"successors": [[[0, 2]], [[0, 1]]]}, "successors: expected states 0 … 1"),
        ({"successors": [[[0, 1]], [[0]]]}, "successors: expected an array of integers"),
        ({"successors": [[[0.0, 1.0]], [[0, 1]]]}, "successors: expected integers"),
        ({"horizon": 0}, "horizon: expected a whole number"),
        ({"temperature": 0.0}, "temperature: expected a finite number above 0"),
        ({"discount": 1.2}, r"discount: expected a number in \(0, 1\]"),
        ({"optimality": "sure"}, "optimality: expected"),
        ({"reward": [[1.0], [0.0]], "optimality": "bernoulli"}, "Subtract at least 1 from every"),
        (
            {"reward": [[1.0], [0.0]], "optimality": "bernoulli", "discount": 0.9},
            "changes the problem",
        ),
    ],
)
def test_bad_arrays(change, message):
    arguments = {"transitions": [[[0.5, 0.5]], [[0, 1]]], "reward": [[0.0], [0.0]], "horizon": 2}
    with pytest.raises(ValueError, match=message):
        models.tabular(**(arguments | change))


def test_one_successor_with_two_rewards_is_refused():
    with pytest.raises(ValueError, match="listed twice, with different rewards"):
        models.tabular(
            [[[0.5, 0.5]], [[1.0, 0.0]]],
            [[0.0], [0.0]],
            successors=[[[1, 1]], [[1, 1]]],
            arrival_reward=[[[0.0, 1.0]], [[0.0, 0.0]]],
            horizon=2,
        )


def test_arrays_as_lists_numpy_or_tensors():
    P, r = [[[0.25, 0.75]], [[1.0, 0.0]]], [[1.0], [2.0]]
    bounds = {
        inference.posterior(models.tabular(convert(P), convert(r), horizon=3)).bound
        for convert in (list, np.array, torch.tensor)
    }
    assert len(bounds) == 1


def test_a_uniform_prior_and_state_zero_unless_told():
    table = cai.tabulate(models.tabular(torch.eye(3).repeat(3, 1, 1), torch.zeros(3, 3), horizon=1))
    assert table.log_initial.exp().tolist() == [1, 0, 0]
    assert table.log_prior.exp()[0].tolist() == pytest.approx([1 / 3] * 3, abs=1e-15)
    assert isinstance(models.ledge().action_prior, dist.Categorical)
