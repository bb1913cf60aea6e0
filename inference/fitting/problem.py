"""What a training is kept with, so that another problem is told from its own when it goes on.

Numbers are kept rather than a hash of them, and compared within what another processor may change:
a table's arrays, a linear-Gaussian model's matrices, and of a program what it scores along
trajectories that are kept too: those of the prior, of one action held, of all actions alike, and
states far from all of these.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Independent

from cai.distributions.exact_scores import exact
from cai.distributions.flat_prior import FlatPrior
from cai.distributions.starts import Starts
from cai.distributions.support import log_probs, support_size
from cai.evaluation.evaluate import evaluate
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.numerics.exclusive import seeded
from cai.policies.neural import TabularPolicy
from cai.program.interfaces import Policy
from cai.program.scoring import log_probs_along, without_latents
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table

Numbers: TypeAlias = dict[str, Tensor]

_NUMBERS = 4096  # up to here an array is kept as it is, beyond as so many weighted sums
_EACH, _OF_ALL = 1e-6, 1e-7  # what float32 on another processor may change, of a number and of all
_PATHS, _STEPS = 8, 32  # trajectories of each policy that are kept, and their steps
_FAR = 3.0  # how many times as far off are the states that are tried besides
_PAID = ("reward", "arrival_reward")
_LARGE = 2**18  # numbers that are kept of states at most
_MATRICES = (
    *("A", "B", "drift", "noise", "Q", "R", "N", "q", "rho", "Q_final", "q_final"),
    *("initial_mean", "initial_covariance"),
)


def identity(model: TrajectoryModel | Table, table: Table | None) -> dict[str, Any]:
    """What determines a problem, as tensors and plain values that a file can hold.

    Args:
        model: the model, or its table.
        table: of the model, where it has one.
    """
    with _aside():
        probes = _probes(model, table)
        return {"probes": probes, **_described(model, table, probes)}


def difference(kept: dict[str, Any], model: TrajectoryModel | Table, table: Table | None) -> str:
    """What tells a problem from a kept one: "now | then", or a name; empty where nothing does.

    Args:
        kept: what :func:`identity` gave.
        model: the model, or its table.
        table: of the model, where it has one.
    """
    with _aside():
        try:
            now = _described(model, table, kept["probes"])
        except Exception:  # a problem that the other's states are none of
            return "model"
    one, other = kept["return"], now["return"]
    if one is not None and other is not None and not math.isclose(one, other, rel_tol=1e-5):
        what = "the return under the model's prior"
        return f"{what} = {other:.6g} | {what} = {one:.6g}"
    mine, its = now["numbers"], kept["numbers"]
    return next((x for x in [*mine, *its] if not _alike(mine.get(x), its.get(x))), "")


def answers(policy: Policy, kept: dict[str, Any]) -> Tensor | None:
    """log q(a_t|s_t) of a policy along the kept trajectories, (n, T); None if it cannot be asked.

    Args:
        policy: with any parameters.
        kept: what :func:`identity` gave.
    """
    try:
        policy = without_latents(policy)
    except ValueError:
        return None
    states, actions = kept["probes"]["states"], kept["probes"]["actions"]
    place = next((p.device for p in getattr(policy, "parameters", list)()), states.device)
    with _aside():
        return log_probs_along(policy, states.to(place), actions.to(place)).double().cpu()


def same_answers(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether a policy answers what it did before, but for rounding errors in float32."""
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and torch.allclose(one, other, 1e-4, 1e-4, equal_nan=True)


@contextlib.contextmanager
def _aside() -> Iterator[None]:
    """Draws and scores here are no part of a training."""
    with seeded(0), torch.no_grad(), poutine.block():
        yield


def _described(
    model: TrajectoryModel | Table, table: Table | None, probes: Numbers
) -> dict[str, Any]:
    """The return under the prior, where it is at hand, and sketches of all numbers by name."""
    if isinstance(model, LinearGaussian):
        earned, numbers = None, _of_matrices(model)
    elif table is not None:
        prior = TabularPolicy.from_log_probs(table.log_prior)
        earned, numbers = evaluate(table, prior).expected_return, _of_table(table)
    else:
        assert isinstance(model, TrajectoryModel)
        numbers = _of_program(model, probes)
        steps = probes["states"].shape[1]
        paid = [x[: _PATHS * steps] for name, x in numbers.items() if name in _PAID]
        earned = sum(x.sum().item() for x in (*paid, numbers["last final_reward"][:_PATHS]))
    return {"return": earned, "numbers": {name: _sketch(x) for name, x in numbers.items()}}


def _of_matrices(model: LinearGaussian) -> Numbers:
    numbers = {name: getattr(model, name) for name in _MATRICES}
    prior = model.action_prior
    if isinstance(prior, dist.MultivariateNormal):
        numbers |= {"action_prior mean": prior.loc, "action_prior scale": prior.scale_tril}
    return numbers


def _of_table(table: Table) -> Numbers:
    names = ("reward", "arrival_reward", "final_reward", "log_initial", "log_prior")
    held = {name: getattr(table, name) for name in (*names, "log_dynamics", "successors")}
    return {name: x for name, x in held.items() if x is not None}


def _of_program(model: TrajectoryModel, probes: Numbers) -> Numbers:
    """What a program scores and pays at the kept states, actions and latents."""
    last = model.final_rewards(probes["s_T"]).expand(len(probes["s_T"]))
    numbers = {"initial": _score(model.initial, probes["s_0"]), "last final_reward": last}
    if isinstance(model.initial, Starts):
        numbers["starts"] = model.initial.states
    for where in ("", "far "):
        if f"{where}s" not in probes:
            continue
        s, a, t, after = (probes[where + name] for name in ("s", "a", "t", "next"))
        latents = {
            name.removeprefix(f"{where}site "): x
            for name, x in probes.items()
            if name.startswith(f"{where}site ")
        }
        found = {
            "reward": model.rewards(s, a, t).expand(len(s)),
            "final_reward": model.final_rewards(s).expand(len(s)),
            "action_prior": _score(model.prior(s, t), a),
        }
        if model.pays_on_arrival:
            found["arrival_reward"] = model.arrival_rewards(s, a, after).expand(len(s))
        with _Scores(len(s), latents) as scores:
            moves = model.transition(s, a, t)
        found |= {f"dynamics, site {name}": x for name, x in scores.found.items()}
        found["dynamics"] = _score(moves, after)
        numbers |= {where + name: x for name, x in found.items()}
    return numbers


class _Scores(Messenger):
    """Scores the sites of dynamics: at given values, or at values drawn for each of n particles."""

    def __init__(self, n: int, values: Numbers) -> None:
        super().__init__()
        self.shape = torch.Size((n,))
        self.values = dict(values)
        self.found: Numbers = {}

    def _pyro_sample(self, msg: Any) -> None:
        msg["stop"] = True
        if msg["is_observed"]:
            return
        name, fn = msg["name"], exact(msg["fn"])
        fn = fn.expand(self.shape) if fn.batch_shape != self.shape else fn
        if name not in self.values:
            self.values[name] = fn.sample()
        msg["value"], msg["done"] = self.values[name], True
        self.found[name] = _score(fn, self.values[name])


def _score(distribution: Any, value: Tensor) -> Tensor:
    """log p(value); of what is certain the value itself, which rounding may change."""
    inner = distribution
    while isinstance(inner, Independent):
        inner = inner.base_dist
    if isinstance(inner, dist.Delta) or not hasattr(distribution, "log_prob"):
        return inner.v.double()
    scored: Tensor = exact(distribution).log_prob(value)
    return scored.double()


def _probes(model: TrajectoryModel | Table, table: Table | None) -> Numbers:
    """States and actions to look at a problem, and at its policies, by."""
    T = min(model.horizon or 1, _STEPS)
    if isinstance(model, LinearGaussian):
        sizes = model.state_size, model.action_size
        states, actions = (torch.randn(_PATHS, T, size, dtype=torch.float64) for size in sizes)
        return {"states": states, "actions": actions}
    if table is not None:
        S, A = table.num_states, table.num_actions
        states, actions = (torch.randint(size, (_PATHS, T)) for size in (S, A))
        return {"states": states, "actions": actions}
    assert isinstance(model, TrajectoryModel)
    return _probes_of_program(model, T)


def _probes_of_program(model: TrajectoryModel, T: int) -> Numbers:
    paths = [model.simulate(policy, _PATHS) for policy in _sampled(model)]
    with contextlib.suppress(Exception):  # an action may be one that cannot be taken everywhere
        paths.append(model.simulate(_held(model), _PATHS))
    steps = torch.linspace(0, (model.horizon or 1) - 1, T).round().long()
    s, a, after = (
        torch.cat([x[:, steps + later].flatten(0, 1) for x in kind])
        for kind, later in (
            ([p.states for p in paths], 0),
            ([p.actions for p in paths], 0),
            ([p.states for p in paths], 1),
        )
    )
    few = max(1, min(len(s), _LARGE // max(1, s[0].numel())))
    t = steps.repeat(len(s) // T)
    found = {
        "states": paths[0].states[:, :T],
        "actions": paths[0].actions[:, :T],
        "s_0": torch.cat([p.states[:, 0] for p in paths]),
        "s_T": torch.cat([p.states[:, -1] for p in paths]),
        **_seen(model, "", s[:few], a[:few], t[:few], after[:few]),
    }
    with contextlib.suppress(Exception):  # where it never is, a model may not be defined
        far = _far(model, s[:few])
        b = _drawn(model.prior(far, t[:few]), few)
        with poutine.block(), pyro.plate("particles", few):
            there = _drawn(model.transition(far, b, t[:few]), few)
        probes = _seen(model, "far ", far, b, t[:few], there)
        _of_program(model, found | probes)
        found |= probes
    return found


def _seen(
    model: TrajectoryModel, where: str, s: Tensor, a: Tensor, t: Tensor, after: Tensor
) -> Numbers:
    """Places by name, with the latents that the dynamics draw there."""
    with _Scores(len(s), {}) as scores:
        model.transition(s, a, t)
    sites = {f"{where}site {name}": x for name, x in scores.values.items()}
    return {f"{where}s": s, f"{where}a": a, f"{where}t": t, f"{where}next": after, **sites}


def _far(model: TrajectoryModel, s: Tensor) -> Tensor:
    """States that a trajectory need not reach: any of finitely many, or stretched and turned."""
    S = support_size(model.initial)
    if S is not None:
        return torch.randint(S, s.shape).to(s.dtype)
    if not s.is_floating_point():
        return s
    factor = _FAR * (2 * torch.rand(len(s)) - 1).view(-1, *(1,) * (s.dim() - 1))
    return s * factor + torch.randn(s.shape) * (s.std() if len(s) > 1 else 1.0)


def _sampled(model: TrajectoryModel) -> list[Policy]:
    """The prior, and all actions alike where they are finitely many, or further out."""
    prior = model.prior(model.initial.sample(), 0)
    if isinstance(prior, FlatPrior):
        m = prior.event_shape[0]
        normals = [dist.Normal(0.0, size).expand([m]).to_event(1) for size in (1.0, _FAR)]
        return [_constant(normal) for normal in normals]
    A = support_size(prior)
    if A is None:
        return [lambda t, s: model.prior(s, t)]

    def uniform(t: Any, s: Tensor) -> Any:
        log_p = log_probs(model.prior(s, t), A)
        return dist.Categorical(logits=torch.where(log_p > -torch.inf, 0.0, log_p))

    return [lambda t, s: model.prior(s, t), uniform]


def _constant(distribution: Any) -> Policy:
    return lambda t, s: distribution


def _held(model: TrajectoryModel) -> Policy:
    """One action of the prior for each trajectory, held from the start to the end."""
    start = _drawn(model.initial, _PATHS)
    action = _drawn(model.prior(start, 0), _PATHS)
    return _constant(dist.Delta(action, event_dim=action.dim() - 1))


def _drawn(distribution: Any, n: int) -> Tensor:
    """One draw for each of n particles."""
    shape = torch.Size((n,))
    fits = distribution.batch_shape == shape
    value: Tensor = (distribution if fits else distribution.expand(shape)).sample()
    return value


def _sketch(x: Tensor) -> Numbers:
    """An array, or weighted sums of it where it is large, and which of its numbers are infinite."""
    flat = x.detach().cpu().double().flatten()
    finite = flat.isfinite()
    sums, squares = _sums(torch.where(finite, flat, 0.0))
    signs = torch.where(finite, 0.0, torch.nan_to_num(flat, nan=2.0, posinf=1.0, neginf=-1.0))
    return {
        "shape": torch.tensor(x.shape),
        "sums": sums,
        "size": squares.sqrt(),
        "infinite": _sums(signs)[0],
    }


def _sums(x: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers, or their sums over every 4096th with weights of either sign, and the squares."""
    if len(x) <= _NUMBERS:
        return x, x.square()
    i = torch.arange(len(x), dtype=torch.float64)
    # Fractional parts of multiples of irrational numbers: the same on all machines.
    weights = (0.5 + (i * 0.6180339887498949) % 1) * (((i * 0.4142135623730951) % 1) - 0.5).sign()
    bins = torch.arange(len(x)) % _NUMBERS
    empty = x.new_zeros(_NUMBERS)
    return empty.index_add(0, bins, weights * x), empty.index_add(0, bins, x.square())


def _alike(one: Numbers | None, other: Numbers | None) -> bool:
    """Whether two sketches are of the same array, but for rounding errors."""
    if one is None or other is None or not torch.equal(one["shape"], other["shape"]):
        return False
    size = one["size"].max().item() if one["size"].numel() else 0.0
    allowed = _EACH * one["size"] + _OF_ALL * size
    return bool(
        ((one["sums"] - other["sums"]).abs() <= allowed).all()
        and torch.allclose(one["infinite"], other["infinite"])
    )
