"""Which states end, by every plan that there is: one action for each state, kept to for ever."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models
from cai.infinite.endings import endings, endings_at_worst, may_go_on

seeds = st.integers(0, 10**6)
S, A = 4, 2


class Moves:
    """A random problem with few outcomes, much that pays nothing, is ruled out, or costs -inf."""

    def __init__(self, seed, discount=1.0):
        rng = np.random.default_rng(seed)
        P = rng.random((S, A, S)) * (rng.random((S, A, S)) < 0.3)
        P[..., -1] += P.sum(-1) == 0
        prior = rng.random((S, A)) < 0.7
        prior[:, 0] |= ~prior.any(1)
        reward = rng.choice([0.0, -1.0, -np.inf], p=[0.5, 0.4, 0.1], size=(S, A))
        arrival = rng.choice([0.0, -1.0, -np.inf], p=[0.7, 0.2, 0.1], size=(S, A, S))
        if rng.random() < 0.8:  # the last state absorbs
            P[-1], reward[-1], arrival[-1] = np.eye(S)[-1], 0, 0
        self.table = cai.tabulate(
            models.tabular(
                P / P.sum(-1, keepdims=True),
                reward,
                arrival_reward=arrival,
                action_prior=prior / prior.sum(1, keepdims=True),
                horizon=None,
                discount=discount,
            )
        )
        pay = reward[..., None] + arrival
        self.possible = (P > 0) & prior[..., None]  # (S, A, S), as all that follow
        self.fatal = self.possible & np.isneginf(pay)
        everywhere = self.possible.any(1)
        self.ended = ~(reach(everywhere) @ (self.possible & (pay != 0)).any((1, 2)))
        self.plans = list(itertools.product(*(np.flatnonzero(row) for row in prior)))

    def some_plan(self, good):
        """(S,), boolean: where good(moves, fatal), (S, S) each, holds under some plan."""
        s = np.arange(S)
        return np.any([good(self.possible[s, plan], self.fatal[s, plan]) for plan in self.plans], 0)


def reach(moves):
    """(S, S), boolean: which states moves (S, S) lead to, in any number of steps."""
    found = np.eye(S, dtype=bool)
    for _ in range(S):
        found = found | (found @ moves)
    return found


def spared(moves, fatal):
    """(S,), boolean: from where moves never cost -inf."""
    return ~(reach(moves) @ fatal.any(1))


@given(seed=seeds, eta=st.sampled_from([-np.inf, -1.0, 0.0]))
def test_pessimists_end_where_some_plan_surely_does(seed, eta):
    here = Moves(seed)

    def ends(moves, fatal):
        way_out = reach(moves) @ here.ended
        return spared(moves, fatal) & ~(reach(moves) @ ~way_out)

    found = endings(here.table, eta)
    assert found.ended.tolist() == here.ended.tolist()
    assert (found.live | found.ended).tolist() == here.some_plan(ends).tolist()
    assert not (found.live & found.ended).any()


@given(seed=seeds, eta=st.sampled_from([1e-9, 1.0, np.inf]))
def test_optimists_end_where_some_luck_does(seed, eta):
    here = Moves(seed)
    lucky = reach((here.possible & ~here.fatal).any(1)) @ here.ended
    found = endings(here.table, eta)
    assert (found.live | found.ended).tolist() == lucky.tolist()
    assert not (found.live & found.ended).any()


@given(seed=seeds, eta=st.sampled_from([-np.inf, -1.0, 0.0, 0.5, np.inf]))
def test_the_mortal_need_only_avoid_infinite_costs(seed, eta):
    """With a discount: death ends all, if it is met at no infinite cost; by luck, for η > 0."""
    here = Moves(seed, discount=0.9)
    lucky = (here.possible & ~here.fatal).any((1, 2))
    expected = lucky if eta > 0 else here.some_plan(spared)
    found = endings(here.table, eta)
    assert (found.live | found.ended).tolist() == expected.tolist()
    assert not (found.live & found.ended).any()


@given(seed=seeds, discount=st.sampled_from([1.0, 0.9]))
def test_at_worst_the_end_comes_whatever_happens(seed, discount):
    """S steps without an end would meet some state twice, and could go on so."""
    here = Moves(seed, discount)

    def forced(moves, fatal):
        going = moves & ~here.ended[:, None]
        late = np.linalg.matrix_power(going.astype(int), S).any(1)
        return spared(going, fatal) & ~late

    found = endings_at_worst(here.table)
    assert (found.live | found.ended).tolist() == here.some_plan(forced).tolist()
    assert not (found.live & found.ended).any()


@given(seed=seeds)
def test_some_plan_may_go_on(seed):
    here = Moves(seed)

    def goes_on(moves, fatal):
        return reach(moves) @ ~(reach(moves) @ here.ended)

    assert may_go_on(here.table).tolist() == here.some_plan(goes_on).tolist()


@pytest.mark.parametrize("eta", [-np.inf, -1.0, 0.0])
def test_an_end_at_an_infinite_cost_is_none(eta):
    """Waiting costs 1 for ever; giving up costs -inf by bad luck, which optimism leaves out."""
    P = [[[1.0, 0, 0], [0, 0.5, 0.5]], [[0, 1.0, 0]] * 2, [[0, 1.0, 0]] * 2]
    r = [[-1.0, 0.0], [0.0, 0.0], [-np.inf, -np.inf]]
    model = models.tabular(P, r, horizon=None)
    assert inference.soft_values(model, eta).V.tolist() == [-np.inf, 0, -np.inf]
    # z = (1/2) (z/e + 1/2)
    found = inference.soft_values(model, 1.0).V.exp()
    assert found.tolist() == pytest.approx([0.25 / (1 - 0.5 / np.e), 1, 0])
