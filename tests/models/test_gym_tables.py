"""Published tables as people write them, against value iteration over P, done by hand."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

import cai
from cai import inference, models

TABLE = {
    0: {0: [(1.0, 1, -1.0, False)], 1: [(0.5, 0, 0.0, False), (0.5, 2, 3.0, True)]},
    1: {0: [(1.0, 2, 5.0, True)], 1: [(1.0, 0, 0.0, False)]},
    2: {0: [(1.0, 2, 0.0, True)], 1: [(1.0, 2, 0.0, True)]},
}
# V_0(0) over 7 steps: to state 1 for -1, and out of it for 5.
BEST = [4.0, 5.0, 0.0]


class Own(gymnasium.Env):
    """An environment that is nothing but its table."""

    def __init__(self, P=TABLE, states=None, actions=None, called="isd", start=(1.0, 0.0, 0.0)):
        self.P = P
        self.observation_space = spaces.Discrete(3) if states is None else states
        self.action_space = spaces.Discrete(2) if actions is None else actions
        if start is not None:
            setattr(self, called, start)


def model_of(*, horizon=7, temperature=1.0, **own):
    return models.gym(Own(**own), horizon=horizon, temperature=temperature)


def best(model):
    return inference.soft_values(model, rule="hard").V[0].tolist()


def by_hand(P, S, T, alpha=None):
    """V_0 by value iteration over P: an outcome that is terminated has no future.

    The best action's where alpha is None, else the soft value under a uniform prior over the
    actions that there are. States without an action are worth nothing.
    """
    V = np.zeros(S)
    for _ in range(T):
        Q = [
            [sum(p * (r + (0.0 if over else V[n])) for p, n, r, over in row) for row in rows]
            for rows in (list(P[s].values()) for s in range(S))
        ]
        if alpha is None:
            V = np.array([max(q, default=0.0) for q in Q])
        else:
            V = np.array([alpha * np.log(np.mean(np.exp(np.array(q) / alpha))) for q in Q])
    return V


def random_table(seed, S=5, A=3, missing=0.0):
    """Every state is entered with and without an end, by outcomes that pay differently."""
    rng = np.random.default_rng(seed)
    table = {}
    for s in range(S):
        kept = [a for a in range(A) if a == 0 or rng.random() >= missing]
        table[s] = {
            a: [
                (p, int(rng.integers(S)), float(rng.integers(-2, 3)), bool(rng.random() < 0.4))
                for p in rng.dirichlet(np.ones(3))
            ]
            for a in kept
        }
    return table


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), missing=st.sampled_from([0.0, 0.5]))
def test_random_tables_against_value_iteration(seed, missing):
    """Ends that go on, rewards that differ by luck, and actions that are not there."""
    P = random_table(seed, missing=missing)
    env = Own(P, spaces.Discrete(5), spaces.Discrete(3), start=np.full(5, 0.2))
    hard = best(models.gym(env, horizon=4))
    np.testing.assert_allclose(hard[:5], by_hand(P, 5, 4), atol=1e-12)
    soft = inference.soft_values(models.gym(env, horizon=4, temperature=0.7)).V[0]
    np.testing.assert_allclose(soft[:5], by_hand(P, 5, 4, 0.7), atol=1e-12)


def test_a_state_that_both_ends_and_goes_on():
    """State 1 is an end after action 0 and a way to 10 after action 1: two states, one over."""
    P = {
        0: {0: [(1.0, 1, 2.0, True)], 1: [(1.0, 1, 0.0, False)]},
        1: {0: [(1.0, 2, 10.0, True)], 1: [(1.0, 2, 10.0, True)]},
        2: {0: [(1.0, 2, 0.0, True)], 1: [(1.0, 2, 0.0, True)]},
    }
    found = inference.soft_values(model_of(P=P), rule="hard")
    assert found.V[0].tolist() == [10, 10, 0, 0]  # the last is state 1, over
    assert found.Q[0, 0].tolist() == [2, 10]


def test_a_start_that_is_an_end_elsewhere_is_no_end():
    P = {
        0: {0: [(1.0, 1, 1.0, True)], 1: [(1.0, 1, 0.0, True)]},
        1: {0: [(1.0, 1, 1.0, True)], 1: [(1.0, 0, 0.5, False)]},
        2: {0: [(1.0, 2, 0.0, True)], 1: [(1.0, 2, 0.0, True)]},
    }
    assert best(model_of(P=P, start=[0.0, 1.0, 0.0]))[:2] == [1.0, 1.5]


def test_an_end_whose_own_row_goes_on_is_an_end():
    """What many write for a terminal state: it stays, and is not terminated again."""
    P = TABLE | {2: {a: [(1.0, 2, 7.0, False)] for a in (0, 1)}}
    model = model_of(P=P)
    assert best(model) == BEST
    forever = models.gym(Own(P), horizon=None)
    assert inference.soft_values(forever, rule="hard").V.tolist() == pytest.approx(BEST)


def test_a_state_that_is_not_in_the_table_and_not_reached():
    model = model_of(states=spaces.Discrete(4), start=[1.0, 0.0, 0.0, 0.0])
    assert best(model) == [*BEST, 0.0]


def without(s, a):
    return {i: {j: x for j, x in row.items() if (i, j) != (s, a)} for i, row in TABLE.items()}


@pytest.mark.parametrize(
    ("P", "forbidden"),
    [
        (without(1, 1), (1, 1)),
        (without(0, 0), (0, 0)),
        (TABLE | {0: {0: TABLE[0][0], 1: []}}, (0, 1)),
        ([[TABLE[0][0], TABLE[0][1]], [TABLE[1][0]], None], (1, 1)),
    ],
)
def test_a_missing_action_is_forbidden(P, forbidden):
    model = model_of(P=P)
    log_prior = cai.tabulate(model).log_prior
    assert [tuple(x) for x in (log_prior == -torch.inf).nonzero().tolist()] == [forbidden]
    table = {s: {a: x for a, x in TABLE[s].items() if (s, a) != forbidden} for s in TABLE}
    assert best(model) == by_hand(table, 3, 7).tolist()


def shifted(by):
    return {
        s + by: {a: [(p, n + by, r, over) for p, n, r, over in x] for a, x in row.items()}
        for s, row in TABLE.items()
    }


@pytest.mark.parametrize("start", [1, 100, -3])
def test_states_that_are_not_counted_from_zero(start):
    model = model_of(P=shifted(start), states=spaces.Discrete(3, start=start))
    assert best(model) == BEST
    assert model.layout.states == tuple(str(start + k) for k in range(3))
    at = models.gym(Own(shifted(start), spaces.Discrete(3, start=start)), horizon=7, initial=start)
    assert cai.tabulate(at).log_initial.exp().tolist() == [1, 0, 0]


def test_actions_that_are_not_counted_from_zero():
    P = {s: {a + 1: x for a, x in row.items()} for s, row in TABLE.items()}
    model = model_of(P=P, actions=spaces.Discrete(2, start=1))
    assert best(model) == BEST
    assert model.layout.actions == ("1", "2")
    assert model.layout.states is None


@pytest.mark.parametrize("numbered", [True, False])
def test_states_and_actions_of_several_parts(numbered):
    """Two rows and three columns; the second part of an action says whether to stay."""
    states, actions = spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([3, 2], start=[0, 1])
    P = {}
    for s in range(6):
        for a in range(6):
            column, move = a // 2, a % 2
            to = (s // 3) * 3 + column if move else s
            outcome = [(1.0, to, float(column * move), False)]
            if numbered:
                P.setdefault(s, {})[a] = outcome
            else:
                row, part = divmod(s, 3)
                outcome = [(1.0, (to // 3, to % 3), float(column * move), False)]
                P.setdefault((row, part), {})[column, move + 1] = outcome
    env = Own(P, states, actions, start=np.eye(6)[4].reshape(2, 3))
    model = models.gym(env, horizon=3)
    assert best(model)[:6] == [6.0] * 6  # column 2 pays 2 in each of three steps
    assert model.layout.states[:6] == ("(0, 0)", "(0, 1)", "(0, 2)", "(1, 0)", "(1, 1)", "(1, 2)")
    assert model.layout.actions[:3] == ("(0, 1)", "(0, 2)", "(1, 1)")
    where = inference.soft_values(model, rule="hard").states[0]
    assert where[:6].tolist() == np.eye(6)[4].tolist()
    named = models.gym(env, horizon=3, initial=(1, 1))
    assert cai.tabulate(named).log_initial.argmax() == 4


def test_states_of_bits():
    P = {s: {0: [(1.0, (s + 1) % 4, float(s == 3), s == 3)]} for s in range(4)}
    env = Own(P, spaces.MultiBinary(2), spaces.Discrete(1), start=np.eye(4)[0])
    model = models.gym(env, horizon=4)
    assert best(model)[:4] == [1.0] * 4
    assert model.layout.states == ("(0, 0)", "(0, 1)", "(1, 0)", "(1, 1)", "(0, 0)")  # the end is 0


FILLED = np.zeros((3, 2, 2, 4))  # as an array, filled up with outcomes of probability zero
for _s, _row in TABLE.items():
    for _a, _listed in _row.items():
        FILLED[_s, _a, : len(_listed)] = _listed
FILLED[0, 0, 1] = [0, -1, np.nan, 3]
OBJECTS = np.empty((3, 2), dtype=object)
for _s, _row in TABLE.items():
    for _a, _listed in _row.items():
        OBJECTS[_s, _a] = _listed


@pytest.mark.parametrize(
    "P",
    [
        [list(row.values()) for row in TABLE.values()],
        tuple(TABLE.values()),
        FILLED,
        OBJECTS,
        {
            np.int64(s): {np.int32(a): np.array(x, dtype=float) for a, x in row.items()}
            for s, row in TABLE.items()
        },
        {
            s: {
                a: [
                    (np.float32(p), np.array(n), torch.tensor(r), np.bool_(over))
                    for p, n, r, over in x
                ]
                for a, x in row.items()
            }
            for s, row in TABLE.items()
        },
        {s: row for s, row in TABLE.items() if s != 2},  # no row for where nobody acts
    ],
)
def test_tables_of_other_types(P):
    assert best(model_of(P=P)) == BEST


@pytest.mark.parametrize("called", ["initial_state_distrib", "isd"])
@pytest.mark.parametrize("start", [[0.0, 0.25, 0.75], np.array([0, 1, 3]), torch.tensor([0, 1, 3])])
def test_where_an_episode_starts(called, start):
    model = model_of(called=called, start=start)
    assert cai.tabulate(model).log_initial.exp()[:3].tolist() == pytest.approx([0, 0.25, 0.75])


def test_a_start_that_is_one_state_or_is_passed():
    for model in (model_of(start=1), models.gym(Own(start=None), initial=1, horizon=7)):
        assert cai.tabulate(model).log_initial.exp()[:3].tolist() == [0, 1, 0]
    passed = models.gym(Own(), initial=[0, 1, 1], horizon=7)
    assert cai.tabulate(passed).log_initial.exp()[:3].tolist() == pytest.approx([0, 0.5, 0.5])


def change(s, a, outcomes):
    return TABLE | {s: TABLE[s] | {a: outcomes}}


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"P": 3}, "P: expected a table of actions by state, got int"),
        ({"P": np.full((3, 2, 3), 0.5)}, r"P\[0\]\[0\]\[0\]: expected a list of outcomes, got"),
        ({"P": {0: 1.0}}, r"P\[0\]: expected a table of outcomes by action, got float"),
        ({"P": {3: TABLE[0]}}, r"a state in P of .*: expected one of 0 … 2, got 3"),
        ({"P": {"0": TABLE[0]}}, r"a state in P of .*: expected one of 0 … 2, got '0'"),
        (
            {"P": TABLE | {0: {2: TABLE[0][0]}}},
            r"an action in P\[0\]: expected one of 0 … 1, got 2",
        ),
        ({"P": change(0, 1, [(1.0, 3, 0.0, False)])}, r"next state: expected one of 0 … 2, got 3"),
        ({"P": change(0, 1, [(1.0, 0.5, 0.0, False)])}, "next state: expected one of"),
        ({"P": change(0, 1, [(1.0, 1, 0.0)])}, r"P\[0\]\[1\]\[0\]: .*terminated\), got 3 fields"),
        ({"P": change(0, 1, [(1.0, 1, 0, 0, 0)])}, "got 5 fields"),
        ({"P": change(0, 1, [(0.9, 1, 0.0, False)])}, r"P\[0\]\[1\]: expected .* one, got 0.9"),
        ({"P": change(0, 1, [(1.5, 1, 0.0, False)])}, "probability: expected a probability"),
        ({"P": change(0, 1, [(np.nan, 1, 0.0, False)])}, "probability: expected a probability"),
        ({"P": change(0, 1, [(1.0, 1, np.inf, False)])}, r"reward: expected a number below \+inf"),
        ({"P": change(0, 1, [(1.0, 1, "much", False)])}, "reward: expected a number below"),
        ({"P": change(0, 1, [(1.0, 1, 0.0, None)])}, "terminated: expected True or False, got Non"),
        ({"P": change(0, 1, [(1.0, 1, 0.0, 0.5)])}, "terminated: expected True or False, got 0.5"),
        ({"P": change(0, 1, "terminal")}, "expected a list of outcomes, got 'terminal'"),
        ({"P": TABLE | {1: {}}}, "expected an action in each state .* got none in state 1"),
        (
            {"P": {2: shifted(1)[2]}, "states": spaces.Discrete(3, start=1)},
            "got none in state 1; let",
        ),
        ({"states": spaces.Box(0, 1)}, "observation_space: expected Discrete or Multi.* got Box"),
        ({"states": spaces.Tuple([spaces.Discrete(3)])}, "observation_space: .* got Tuple"),
        ({"actions": spaces.Dict({"a": spaces.Discrete(2)})}, "action_space: .* got Dict"),
        ({"states": spaces.MultiDiscrete([1000] * 4)}, "expected at most 100000000 pairs"),
        ({"start": None}, "expected where an episode starts, as initial_state_distrib or isd, got"),
        ({"start": [1.0, 0.0]}, r"isd: expected shape \[3\].*, got \[2\]"),
        ({"start": [1.0, -1.0, 1.0]}, "isd: expected finite weights"),
        ({"start": 3}, "isd: expected one of 0 … 2, got 3"),
    ],
)
def test_what_is_not_clear_is_told_in_one_line(own, message):
    with pytest.raises(ValueError, match=message) as caught:
        model_of(**own)
    assert "\n" not in str(caught.value)


def test_one_action_under_two_names():
    P = {
        (0, 0): {0: [(1.0, 0, 0.0, True)], (0,): [(1.0, 0, 0.0, True)]},
        (0, 1): {0: [(1.0, 0, 0.0, True)]},
    }
    env = Own(P, spaces.MultiDiscrete([1, 2]), spaces.Discrete(2), start=np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"P\[\(0, 0\)\]: expected each action once, got \(0,\)"):
        models.gym(env, horizon=1)


def test_environments_as_objects():
    """With the wrappers that gymnasium.make puts around it, without them, and closed by nobody."""
    env = gymnasium.make("FrozenLake-v1", is_slippery=False)
    assert models.gym(env).horizon == 100
    for given_ in (env, env.unwrapped):  # without its wrappers it has no time limit, either
        model = models.gym(given_, temperature=0.1, horizon=100)
        named = models.gym("FrozenLake-v1", is_slippery=False, temperature=0.1)
        assert inference.posterior(model).bound == inference.posterior(named).bound
        assert model.layout == named.layout
    assert models.gym(gymnasium.wrappers.TimeLimit(Own(), 9)).horizon == 9
    assert models.gym(gymnasium.make("FrozenLake-v1", max_episode_steps=12)).horizon == 12
    for limit, first in ((9, 9), (200, 100)):  # whichever ends the episode
        assert models.gym(gymnasium.wrappers.TimeLimit(env, limit)).horizon == first


def test_a_wrapper_that_pays_otherwise_is_not_overlooked():
    env = gymnasium.wrappers.TransformReward(Own(), lambda r: 2 * r)
    with pytest.raises(
        ValueError, match=r"expected no wrapper that changes .* got TransformReward"
    ):
        models.gym(env, horizon=3)
    assert best(models.gym(env.unwrapped, horizon=7)) == BEST


def test_horizons():
    with pytest.raises(ValueError, match=r"has no time limit .* or None for an infinite horizon"):
        models.gym(Own())
    assert models.gym("CliffWalking-v1", horizon=None).horizon is None
    assert models.gym("FrozenLake-v1", horizon=None).horizon is None
    # 13 steps along the cliff, each of which costs 1.
    cliff = models.gym("CliffWalking-v1", horizon=None, discount=0.9)
    found = inference.soft_values(cliff, rule="hard").V[36].item()
    assert found == pytest.approx(-sum(0.9**t for t in range(13)))
    for horizon in ("forever", 0, 2.5, np.int64(3)):
        with pytest.raises(ValueError, match="horizon: expected a whole number of at least 1"):
            models.gym("FrozenLake-v1", horizon=horizon)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("FrozenLake-v1", {"temprature": 0.1}, "options that FrozenLake-v1 has, .* got temprature"),
        ("FrozenLake-v1", {"map_name": "9x9"}, "Gymnasium cannot make it"),
        ("FrozenLake", {}, "Gymnasium cannot make it|expected"),
        (None, {}, "name: expected an environment, or its name, got None"),
        (7, {}, "name: expected an environment, or its name, got 7"),
        (Own(), {"is_slippery": False}, "options: expected none beside an environment, got is_sl"),
    ],
)
def test_names_and_options(name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        models.gym(name, horizon=3, **options)
    assert "\n" not in str(caught.value)
