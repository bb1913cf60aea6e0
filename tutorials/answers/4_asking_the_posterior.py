"""Answers to the exercises of notebook 4."""

import math

import torch

import cai
from cai import inference, models


def bridge(slip=0.1):
    return models.gridworld(
        "bridge", horizon=24, temperature=0.5, slip=slip, goal_reward=10.0, pit_reward=-20.0
    )


def ever(model, marked):
    """The probability that the best policy ever stands on one of some cells: they hold the walk."""
    table = cai.tabulate(model)
    best = inference.soft_values(table)
    cells = [model.layout.cells.index(cell) for cell in marked]
    P = best.dynamics(0).clone()
    P[cells] = torch.eye(table.num_states).double()[cells].unsqueeze(1)
    here = best.initial
    for t in range(24):
        here = torch.einsum("s,sa,san->n", here, best.policy.log_probs[t].exp(), P)
    return here[cells].sum().item()


def answer_1():
    """From a slip of about 0.1 on a few walks go north; at 0.2 it is one in five.

    Even at 0.3 most still take the bridge: four more steps cost 4 for certain. On ice that is worse
    still, the north is no longer safe to reach within the time, and its share falls again.
    """
    bridge_cells, north = [(3, j) for j in (2, 3, 4)], [(0, 3), (1, 3)]
    shares = []
    print("slip   over the bridge   round by the north")
    for slip in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5):
        over, around = (ever(bridge(slip), cells) for cells in (bridge_cells, north))
        shares.append(around)
        print(f"{slip:4} {over:17.3f} {around:20.3f}")
    assert shares[0] < 1e-3
    assert 0.01 < shares[1] < 0.05
    assert max(shares) == shares[3] > shares[5]


def answer_2():
    """That it hurried into the pit: most likely it fell in step 4, as soon as it could get there.

    In a pit nothing is paid any more, and each step outside costs 1. Whoever is known to end there,
    and to have done well in every step, did not waste any. The evidence at step 12 changes
    everything that came before it.
    """
    model = bridge()
    table = cai.tabulate(model)
    pit = model.layout.cells.index((2, 3))
    nosy = inference.posterior(table, observed={"s_12": pit})
    falls = nosy.states[:, pit]
    print(f"P(in that pit) at steps 1 to 12: {[round(x, 3) for x in falls[1:13].tolist()]}")
    for t, here in enumerate(nosy.states[:5]):
        print(
            f"step {t}: most likely in {model.layout.cells[int(here.argmax())]}, {here.max():.2f}"
        )
    assert falls[3] < 1e-6
    assert falls[4] > 0.8


def answer_3():
    """One in four million: e^-15.1, and none of 20,000 walks was there.

    The evidence may be written p(s_6 = north, O) = p(O) p(s_6 = north | O), so that the difference
    of two log evidences is the log of a marginal. Exact inference has no difficulty with what is
    rare; a sampler needs millions of walks to see it once.
    """
    model = bridge()
    table = cai.tabulate(model)
    north = model.layout.cells.index((1, 3))
    exact = inference.posterior(table)
    seen = inference.posterior(table, observed={"s_6": north})
    by_evidence = math.exp(seen.bound - exact.log_evidence)
    by_marginal = exact.states[6, north].item()
    counted = (exact.sample(20_000, seed=0).states[:, 6] == north).sum().item()
    print(f"by two evidences {by_evidence:.4e}, by the marginal {by_marginal:.4e}")
    print(f"counted: {counted} of 20000")
    assert abs(by_evidence / by_marginal - 1) < 1e-9
    assert counted == 0
