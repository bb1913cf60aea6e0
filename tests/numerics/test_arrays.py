"""What users pass as arrays: copied, read whatever it is made of, or refused in one line."""

import decimal
import fractions

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch

import cai
from cai import inference, models
from cai.numerics import arrays

P = [[[0.5, 0.5], [0.1, 0.9]], [[0.3, 0.7], [1.0, 0.0]]]
LISTED = [[[0, 1], [0, 1]], [[0, 1], [0, 1]]]
PAID = [[[1.0, 2.0], [0.0, 3.0]], [[1.0, 0.0], [4.0, 0.0]]]
TABULAR = {
    "transitions": P,
    "reward": [[0.0, 1.0], [2.0, 0.5]],
    "successors": LISTED,
    "initial": [0.25, 0.75],
    "action_prior": [[0.5, 0.5], [0.25, 0.75]],
    "arrival_reward": PAID,
    "final_reward": [1.0, 2.0],
}
SOLVABLE = {
    "passive": [[0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [0.0, 0.0, 1.0]],
    "cost": [1.0, 2.0, 0.0],
    "exit_cost": [0.0, 0.0, 3.0],
    "final_cost": [1.0, 0.5, 0.25],
    "initial": [0.5, 0.25, 0.25],
}
ROADS = {
    "tails": [0, 0, 1],
    "heads": [1, 2, 2],
    "reward": [-1.0, -2.0, -3.0],
    "goals": [2],
    "initial": [0.5, 0.5, 0.0],
}


def tabular(**given):
    return models.tabular(given.pop("transitions"), given.pop("reward"), horizon=3, **given)


def solvable(**given):
    return models.linearly_solvable(given.pop("passive"), given.pop("cost"), horizon=3, **given)


def roads(**given):
    return models.road_network(**{"horizon": 3, "temperature": 0.5} | given)


def noisy(noise, obstacles):
    return models.double_integrator(horizon=2, noise=noise, obstacles=obstacles)


def value(model):
    """A number that every array of a model has a part in."""
    if not model.initial.event_shape:
        return inference.posterior(model).bound
    if isinstance(model, cai.LinearGaussian):
        return inference.soft_values(model).bound
    s = torch.tensor([[-1.0, 0.5, 0.2, 0.1]], dtype=torch.float64)
    a = torch.ones(1, 2, dtype=torch.float64)
    step = model.transition(s, a).log_prob(s)
    return (step + model.rewards(s, a)).item()


CONTINUOUS = {"noise": [0.1, 0.2, 0.3, 0.4], "obstacles": [[0.0, 0.5, 0.6], [1.0, 1.0, 0.5]]}
MATRICES = {
    **{name: [[0.5, 0.1], [0.1, 0.25]] for name in ("A", "B", "noise", "Q", "R", "N", "Q_final")},
    **{name: [0.5, 0.25] for name in ("drift", "q", "rho", "q_final", "initial_mean")},
    "initial_covariance": [[0.5, 0.1], [0.1, 0.25]],
}


def linear(**given):
    return models.linear_gaussian(given.pop("A"), given.pop("B"), horizon=3, **given)


MAKERS = {
    "tabular": (tabular, TABULAR),
    "linearly solvable": (solvable, SOLVABLE),
    "road network": (roads, ROADS),
    "double integrator": (noisy, CONTINUOUS),
    "linear-Gaussian": (linear, MATRICES),
}


def spoil(array):
    """Overwrites all of an array, with integers that are states and with numbers that fit in."""
    array[...] = 1 if array.dtype in (np.int64, torch.int64) else 0.125


@pytest.mark.parametrize("convert", [np.array, torch.tensor, np.asfortranarray])
@pytest.mark.parametrize("name", MAKERS)
def test_a_model_keeps_its_own_arrays(name, convert):
    """Each argument is written into once the model is there: its value stays, as lists give it."""
    make, arguments = MAKERS[name]
    right = value(make(**arguments))
    wide = np.float64 if convert is not torch.tensor else torch.float64
    for spoiled in arguments:
        kept = {
            key: convert(x, dtype=None if isinstance(np.array(x).flat[0], np.int64) else wide)
            for key, x in arguments.items()
        }
        model = make(**kept)
        spoil(kept[spoiled])
        assert value(model) == right, spoiled


@pytest.mark.parametrize("format", ["csr", "csc", "coo", "lil"])
def test_sparse_matrices_are_copied_and_left_alone(format):
    matrices = [scipy.sparse.csr_array(np.array(P)[:, a]).asformat(format) for a in (0, 1)]
    pays = [scipy.sparse.csr_array(np.array(PAID)[:, a]).asformat(format) for a in (0, 1)]
    passive = scipy.sparse.csr_array(np.array(SOLVABLE["passive"])).asformat(format)
    made = [
        tabular(**TABULAR | {"transitions": matrices, "successors": None, "arrival_reward": pays}),
        solvable(**SOLVABLE | {"passive": passive}),
    ]
    assert value(made[0]) == pytest.approx(value(tabular(**TABULAR)), abs=1e-13)
    right = [value(model) for model in made]
    for matrix in (*matrices, *pays, passive):
        if format == "lil":
            matrix[:, :] = 0.25
        else:
            matrix.data[:] = 0.25
            getattr(matrix, "indices", np.zeros(1))[:] = 0
    assert [value(model) for model in made] == right


def test_a_sparse_matrix_with_zeros_in_it_is_left_as_it_was():
    """What is stored in no order, twice or as a zero is put in order in a copy."""
    parts = [0.5, 0.0, 0.25, 0.25, 1.0], [1, 0, 0, 0, 1], [0, 4, 5]
    matrix = scipy.sparse.csr_matrix(parts, shape=(2, 2))
    before = [matrix.data.copy(), matrix.indices.copy(), matrix.indptr.copy()]
    model = models.linearly_solvable(matrix, [1.0, 0.0], horizon=2)
    assert cai.tabulate(model).log_prior.exp()[0].tolist() == [0.5, 0.5]
    models.tabular([matrix], [[0.0], [0.0]], horizon=2)
    for array, was in zip((matrix.data, matrix.indices, matrix.indptr), before, strict=True):
        np.testing.assert_array_equal(array, was)


def test_a_sweep_that_writes_into_one_array():
    """Over two steps of a chain that stays: V = 2 b."""
    reward, made = np.zeros((1, 1)), []
    for bonus in (0.0, 1.0, 2.0):
        reward[0, 0] = bonus
        made.append(models.tabular([[[1.0]]], reward, horizon=2))
    assert [inference.soft_values(model).bound for model in made] == [0, 2, 4]


@pytest.mark.parametrize("number", [np.array(0.5), torch.tensor(0.5)])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (models.ledge, "temperature"),
        (models.ledge, "discount"),
        (models.ledge, "gives_way"),
        (models.ledge, "fall_reward"),
        (models.lottery, "chance"),
        (models.lottery, "prize"),
        (models.gridworld, "slip"),
        (models.gridworld, "wind"),
        (models.gridworld, "step_reward"),
        (models.gridworld, "goal_reward"),
        (models.gridworld, "pit_reward"),
    ],
)
def test_single_numbers_are_kept_too(make, name, number):
    right = value(make(horizon=3, **{name: 0.5}))
    number = number.copy() if isinstance(number, np.ndarray) else number.clone()
    model = make(horizon=3, **{name: number})
    number[...] = 0.25
    assert value(model) == right


def test_what_a_program_pays_as_a_number_is_kept():
    pays = {name: np.array(1.0) for name in ("reward", "arrival_reward", "final_reward")}
    one = dist.Categorical(torch.ones(1))
    model = cai.TrajectoryModel(
        initial=one, dynamics=lambda s, a: dist.Delta(s), action_prior=one, horizon=2, **pays
    )
    for number in pays.values():
        number[...] = 7
    assert inference.soft_values(model).bound == 5  # twice 1 + 1, and 1 at the end


def test_distributions_and_policies_keep_their_own_arrays():
    states, logits = torch.tensor([[1.0], [2.0]]), torch.tensor([0.25, 0.75]).log()
    listed, log_probs = torch.tensor([3, 1]), torch.tensor([[0.25, 0.75]] * 5).double().log()
    ways = torch.tensor([[0.25, 0.75]] * 4).double().log()
    model = models.ledge()
    starts, successors = cai.EmpiricalStates(states), cai.SparseCategorical(logits, listed, 5)
    policy, plan = cai.TabularPolicy.from_log_probs(log_probs), cai.Plan.of(model, ways)
    for array in (states, logits, listed, log_probs, ways):
        array[...] = 0
    assert starts.states.tolist() == [[1], [2]]
    assert successors.log_prob(torch.tensor([1, 3])).exp().tolist() == pytest.approx([0.75, 0.25])
    assert policy.log_probs.exp()[0].tolist() == pytest.approx([0.25, 0.75])
    assert plan(0, torch.tensor(0)).probs.tolist() == pytest.approx([0.25, 0.75])


def test_a_layout_keeps_its_own_names():
    states, cells = ["a", "b"], [[0, 0], np.array([0, 1])]
    layout = cai.Layout(states=states, cells=cells, map=["S."])
    states[0], cells[0] = "x", (9, 9)
    assert layout == cai.Layout(states=("a", "b"), cells=((0, 0), (0, 1)), map=("S.",))
    for field, wrong in (("states", "ab"), ("actions", [1]), ("cells", [(0.5, 1)]), ("moves", 3)):
        with pytest.raises(ValueError, match=rf"layout.{field}: expected a sequence of .*, got"):
            cai.Layout(**{field: wrong})


def held(x, seen):
    """Every array that an object holds, closures and attributes of functions among them."""
    if id(x) in seen or isinstance(x, str | bytes | type):
        return
    seen[id(x)] = x
    if isinstance(x, torch.Tensor | np.ndarray):
        yield x
        return
    inside = list(x.values()) if isinstance(x, dict) else list(x) if isinstance(x, list) else []
    inside += list(getattr(x, "__dict__", {}).values())
    inside += [cell.cell_contents for cell in getattr(x, "__closure__", None) or ()]
    for part in inside:
        yield from held(part, seen)


@pytest.mark.parametrize(
    "make",
    [
        lambda: tabular(**TABULAR),
        lambda: solvable(**SOLVABLE),
        lambda: roads(**ROADS),
        lambda: noisy(**CONTINUOUS),
        models.ledge,
        models.lottery,
        models.gridworld,
        models.cartpole,
        models.multigoal,
        models.pendulum,
        lambda: models.gym("FrozenLake-v1"),
    ],
)
def test_two_models_share_no_array(make):
    """Nor two tables of one model, so that what is written into one is not in the other."""
    pairs = [(make(), make())]
    if not pairs[0][0].initial.event_shape:
        pairs.append((cai.tabulate(pairs[0][0]), cai.tabulate(pairs[0][0])))
    for first, second in pairs:
        arrays_ = [
            [torch.as_tensor(x) for name, x in vars(part).items() if name != "program"
             for x in held(x, {})]
            for part in (first, second)
        ]  # fmt: skip
        assert arrays_[0]
        places = [{x.untyped_storage().data_ptr() for x in part if x.numel()} for part in arrays_]
        assert not places[0] & places[1]


class Frame:
    """As data frames are: pandas and polars have this method."""

    def __init__(self, array):
        self.array = array

    def to_numpy(self):
        return np.asarray(self.array)


class Exports:
    """As arrays of other libraries are: jax and many more have this method."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)


def frames():
    found = [Frame, Exports]
    for library in ("pandas", "polars"):
        try:
            found.append(__import__(library).DataFrame)
        except ImportError:
            continue
    return found


@pytest.mark.parametrize("frame", frames())
def test_frames_and_what_exports_an_array(frame):
    right = value(tabular(**TABULAR)), value(solvable(**SOLVABLE)), value(roads(**ROADS))
    wrapped = {"reward": frame(TABULAR["reward"]), "action_prior": frame(TABULAR["action_prior"])}
    assert value(tabular(**TABULAR | wrapped)) == right[0]
    assert value(solvable(**SOLVABLE | {"passive": frame(SOLVABLE["passive"])})) == right[1]
    if frame in (Frame, Exports):  # of a single column, that is
        columns = {name: frame(x) for name, x in ROADS.items()}
        assert value(roads(**columns)) == right[2]
    rows = frame([["S", "."], ["#", "G"]])
    assert models.gridworld(rows).layout.map == ("S.", "#G")


@pytest.mark.parametrize(
    "array",
    [
        [[0, 1], [2, 0]],
        ((0, 1), (2, 0)),
        [[fractions.Fraction(0), decimal.Decimal(1)], [2, 0.0]],
        np.array([[0, 1], [2, 0]], dtype=">i2"),
        np.array([[0, 1], [2, 0]], dtype=object),
        np.array([[0, 2], [1, 0]], dtype=np.float16).T,
        np.array([[2, 0], [0, 1]])[::-1],
        [torch.tensor([0.0, 1.0]), torch.tensor([2.0, 0.0])],
        torch.tensor([[0, 1], [2, 0]], dtype=torch.bfloat16),
        scipy.sparse.csr_matrix([[0, 1], [2, 0]]),
        scipy.sparse.coo_array([[0.0, 1.0], [2.0, 0.0]]),
        np.ma.array([[0, 1], [2, 0]]),
    ],
)
def test_numbers_of_any_kind(array):
    found = arrays.numbers("reward", array)
    assert found.dtype == torch.float64
    assert found.tolist() == [[0, 1], [2, 0]]
    assert value(tabular(**TABULAR | {"reward": array})) == value(
        tabular(**TABULAR | {"reward": [[0.0, 1.0], [2.0, 0.0]]})
    )


def test_numbers_keep_their_graph_and_read_only_memory_is_no_hindrance():
    r = torch.ones(2, requires_grad=True)
    arrays.numbers("reward", r).sum().backward()
    assert r.grad.tolist() == [1, 1]
    assert arrays.numbers("x", np.broadcast_to(np.array(2.0), 3)).tolist() == [2, 2, 2]


EYE = torch.eye(2)


def test_matrices_of_any_kind():
    right = value(linear(**MATRICES))
    for convert in (scipy.sparse.csr_array, Frame, Exports, lambda x: np.array(x, dtype=object)):
        matrices = {k: convert(x) if np.ndim(x) == 2 else x for k, x in MATRICES.items()}
        assert value(linear(**matrices)) == right
    for wrong in (None, "a", [[1, 2], [3]], 1j * np.eye(2)):
        for name in ("A", "B", "Q"):
            with pytest.raises(ValueError, match=rf"^{name}: expected ") as caught:
                linear(**MATRICES | {name: wrong if wrong is not None or name != "Q" else {}})
            assert "\n" not in str(caught.value)


SPARSE = [EYE.to_sparse(), torch.full((2, 2, 2), 0.5).to_sparse(), EYE.to(torch.complex64)]


@pytest.mark.parametrize("array", [*SPARSE, torch.ones(2, 2, device="meta")])
@pytest.mark.parametrize(
    ("make", "arguments", "name"),
    [(make, arguments, name) for make, arguments in MAKERS.values() for name in arguments]
    + [
        (inference.pareto_k, {}, "log_weights"),
        (cai.EmpiricalStates, {}, "states"),
        (cai.SparseCategorical, {"successors": torch.tensor([0, 1])}, "logits"),
        (cai.SparseCategorical, {"logits": torch.zeros(2)}, "successors"),
        (cai.TabularPolicy.from_log_probs, {}, "log_probs"),
        (lambda log_probs: cai.Plan.of(models.ledge(), log_probs), {}, "log_probs"),
        (
            lambda goals: inference.goal_values(roads(**ROADS | {"horizon": None}), goals),
            {},
            "goals",
        ),
        (
            lambda states: inference.log_likelihood(cai.tabulate(models.ledge()), (states, EYE)),
            {},
            "states",
        ),
        (
            lambda d: inference.reward_hessian_vector_product(cai.tabulate(models.ledge()), d),
            {},
            "d",
        ),
        (lambda optimal: inference.posterior(models.ledge(), optimal=optimal), {}, "optimal"),
        (lambda path: inference.count_transitions(models.ledge(), [(path, path)]), {}, "path"),
        (lambda w: inference.compose([inference.posterior(models.ledge())], w), {}, "w"),
    ],
)  # fmt: skip
def test_torch_tensors_that_are_not_plain_numbers(make, arguments, name, array):
    with pytest.raises(ValueError, match=r": expected .*, got .*; ") as caught:
        make(**arguments | {name: array})
    assert "\n" not in str(caught.value)


def test_dense_rewards_may_come_sparse_and_large_transitions_do():
    """S = 20 000 as matrices and a sparse reward: a step to the right, paid on the last."""
    S = 20_000
    to = scipy.sparse.csr_array((np.ones(S), (np.arange(S), np.arange(1, S + 1) % S)), (S, S))
    reward = scipy.sparse.csr_array(([1.0], ([S - 1], [0])), (S, 1))
    model = models.tabular([to], reward, horizon=1)
    assert inference.soft_values(model).V[0, [0, S - 1]].tolist() == [0, 1]
