"""Simulated people: beliefs are calibrated, and what they are like is found in the long run."""

import sys

import numpy as np
import pytest
import torch

import cai
from cai import inference, models

ROOM = ["S...", ".#..", "...S"]
GOALS = (3, 4, 8)


def walkers(goals, alphas, horizon=10, slip=0.2):
    """(goal, temperature) -> the table of a walk to the goal."""
    floors = {
        alpha: cai.tabulate(models.gridworld(ROOM, horizon=horizon, slip=slip, temperature=alpha))
        for alpha in alphas
    }
    return {(g, alpha): cai.with_goal(floor, g) for alpha, floor in floors.items() for g in goals}


def walks(table, n, seed, share=1.0):
    """What n people of one kind do, up to a share of the horizon."""
    seen = inference.soft_values(table).sample(n, seed)
    return cai.Demonstrations.from_trajectories(seen).prefix(share)


@pytest.mark.parametrize("seed", range(3))
def test_beliefs_are_calibrated(seed):
    """Of all that is believed with probability p, the share p is true."""
    people, prior = walkers(GOALS, (0.5,)), np.array([0.6, 0.3, 0.1])
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(600, prior)
    p, true = [], []
    for m, (table, n) in enumerate(zip(people.values(), counts, strict=True)):
        seen = walks(table, int(n), seed=1000 * seed + m, share=0.3)
        belief = inference.intent(people, seen, prior)
        p.append(belief.final)
        true.append(torch.zeros(int(n), 3).index_fill(1, torch.tensor(m), 1.0))
    p, true = torch.cat(p).flatten(), torch.cat(true).flatten()
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        inside = (p >= low) & (p <= high)
        assert inside.sum() > 20
        spread = (p[inside] * (1 - p[inside])).sum().sqrt()
        # Of one walk one name is true, so that this is at least the true spread.
        assert (true[inside].sum() - p[inside].sum()).abs() < 4 * spread


@pytest.mark.parametrize("seed", range(4))
def test_temperatures_and_goals_are_found_in_the_long_run(seed):
    people = walkers(GOALS, (0.2, 0.5, 1.5))
    truth = [(3, 0.2), (4, 0.5), (8, 1.5), (8, 0.5)][seed]
    belief = inference.intent(people, walks(people[truth], 150, seed=seed))
    assert belief.names[belief.pooled.argmax()] == truth
    assert belief.pooled.max() > 0.99
    first = inference.intent(people, walks(people[truth], 3, seed=seed))
    assert first.pooled.max() < belief.pooled.max()
    by_goal, by_alpha = belief.marginal(0), belief.marginal(1)
    assert by_goal.names == GOALS
    assert by_alpha.names == (0.2, 0.5, 1.5)


@pytest.mark.parametrize("seed", range(4))
def test_who_believes_in_luck_is_told_from_who_does_not_by_actions(seed):
    """Whatever luck they had; paths at an optimism take chance for choice."""
    model = models.ledge()
    people = {f"η = {eta}": inference.soft_values(model, eta) for eta in (-1.0, 0.0, 1.0)}
    for name, solution in people.items():
        acted = cai.Demonstrations.from_trajectories(model.simulate(solution.policy, 400, seed))
        belief = inference.intent(people, acted, likelihood="actions")
        assert belief.names[belief.pooled.argmax()] == name
    hopeful = people["η = 1.0"].policy
    acted = cai.Demonstrations.from_trajectories(model.simulate(hopeful, 400, seed))
    taken_for_choice = inference.intent(people, acted, likelihood="paths")
    assert taken_for_choice.names[taken_for_choice.pooled.argmax()] != "η = 1.0"


def test_the_table_of_beliefs(monkeypatch):
    people = walkers(GOALS, (0.5,))
    seen = walks(people[3, 0.5], 5, seed=0)
    seen = cai.Demonstrations.from_paths(
        [x[: L + 1] for x, L in zip(seen.states.tolist(), (2, 4, 1, 3, 10), strict=True)],
        [x[:L] for x, L in zip(seen.actions.tolist(), (2, 4, 1, 3, 10), strict=True)],
        ends="cut",
    )
    belief = inference.intent(people, seen, [0.5, 0.25, 0.25])
    plain = belief.to_dict()
    pytest.importorskip("pandas")
    frame = belief.to_dataframe()
    assert list(frame) == ["trajectory", "step", "(3, 0.5)", "(4, 0.5)", "(8, 0.5)"]
    assert len(frame) == 2 + 4 + 1 + 3 + 10 + 5
    row = list(zip(frame["trajectory"], frame["step"], strict=True)).index((1, 4))
    assert frame["(4, 0.5)"][row] == belief.probability[1, 4, 1]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match="to_dataframe: expected pandas to be installed"):
        belief.to_dataframe()
    assert plain["probability"][1][4] == belief.final[1].tolist()
    assert [len(x) for x in plain["log_evidence"]] == [3, 5, 2, 4, 11]
    assert plain["names"][0] == "(3, 0.5)"
    text = belief.to_text()
    assert "Mean belief after 5 trajectories, each by itself, 20 steps in all" in text
    mean = belief.final.mean(0)
    assert f"{mean[0]:.3f}" in text.splitlines()[3]
    assert f"log evidence {belief.log_evidence[:, -1].sum():.3f} nats, of actions and" in text
    assert f"If they are all of one model it is (3, 0.5): {belief.pooled[0]:.3f}." in text
    many = inference.Intent(
        tuple(range(20)),
        torch.full((20,), 0.05, dtype=torch.float64),
        torch.cat([torch.zeros(1, 1, 20), torch.arange(20.0).expand(1, 1, 20).log()], 1).double(),
        torch.tensor([1]),
    )
    lines = many.to_text().splitlines()
    assert lines[3].split() == ["19", "0.050", "0.100", "2.944"]
    assert lines[-1] == "8 other names have 0.147 together."
    assert len(lines) == 3 + 12 + 2
