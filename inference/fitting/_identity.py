"""The identity of a problem in a checkpoint, so that another problem is noticed on resumption.

Numbers are kept rather than a hash, and compared up to the rounding errors of another processor: a
table's arrays, a linear-Gaussian model's matrices, and a program's scores and rewards at states and
actions that are kept as well.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from cai import checks
from cai.evaluation.evaluate import evaluate
from cai.evaluation.problem import Problem
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.inference.fitting._probes import PATHS, Numbers, numbers_of_program, probes_of, score
from cai.numerics.exclusive import seeded
from cai.policies.tabular import TabularPolicy
from cai.program.interfaces import Policy
from cai.program.scoring import log_probs_along, without_latents
from cai.tables.table import Table

_NUMBERS = 4096  # numbers up to which an array is kept; larger ones as so many weighted sums
_EACH, _OF_ALL = 1e-6, 1e-7  # tolerances for float32 on another processor: per number, overall
_PAID = ("reward", "arrival_reward")
_MATRICES = (
    *("A", "B", "drift", "noise", "Q", "R", "N", "q", "rho", "Q_final", "q_final"),
    *("initial_mean", "initial_covariance"),
)


def identity(problem: Problem, table: Table | None) -> dict[str, Any]:
    """The identity of a problem, as tensors and plain values that a file can hold.

    Args:
        problem: the problem.
        table: its table, if it has one.
    """
    with _aside():
        probes = probes_of(problem, table)
        return {"probes": probes, **_described(problem, table, probes)}


def difference(kept: dict[str, Any], problem: Problem, table: Table | None) -> str:
    """How a problem differs from a kept one, as "now | then" or a name; empty if it does not.

    Args:
        kept: the result of :func:`identity`.
        problem: the problem.
        table: its table, if it has one.
    """
    with _aside():
        try:
            now = _described(problem, table, kept["probes"])
        except Exception:  # a problem with other states
            return "model"
    one, other = kept["return"], now["return"]
    if one is not None and other is not None and not math.isclose(one, other, rel_tol=1e-5):
        what = "the return under the model's prior"
        return f"{what} = {other:.6g} | {what} = {one:.6g}"
    mine, its = now["numbers"], kept["numbers"]
    return next((x for x in [*mine, *its] if not alike(mine.get(x), its.get(x))), "")


def answers(policy: Policy | None, kept: dict[str, Any]) -> Tensor | None:
    """log q(a_t|s_t) of a policy along the kept trajectories, (n, T); None if it cannot be called.

    Of a policy without a density draws in their states instead, which tell it as well.

    Args:
        policy: the policy, with any parameters.
        kept: the result of :func:`identity`.
    """
    if policy is None:
        return None
    try:
        policy = without_latents(policy)
    except ValueError:
        return None
    states, actions = kept["probes"]["states"], kept["probes"]["actions"]
    place = next((p.device for p in getattr(policy, "parameters", list)()), states.device)
    states, actions = states.to(place), actions.to(place)
    with _aside():
        try:
            found = log_probs_along(policy, states, actions)
        except NotImplementedError:  # it has no density, but its draws are the same
            steps = torch.arange(actions.shape[1]).expand(actions.shape[:2])
            found = policy(steps, states).sample()
    return found.double().cpu()


def same_answers(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two results of :func:`answers` agree, up to rounding errors in float32."""
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and torch.allclose(one, other, 1e-4, 1e-4, equal_nan=True)


@contextlib.contextmanager
def _aside() -> Iterator[None]:
    """A context for draws and scores that leave a training unchanged."""
    with seeded(0), torch.no_grad(), poutine.block():
        yield


def _described(problem: Problem, table: Table | None, probes: Numbers) -> dict[str, Any]:
    """The return under the prior, if known, and sketches of all numbers by name."""
    if problem.gaussian is not None:
        paid, numbers = None, _of_matrices(problem.gaussian)
    elif table is not None:
        prior, numbers = TabularPolicy.from_log_probs(table.log_prior), _of_table(table)
        paid = None if table.horizon is None else evaluate(table, prior).expected_return
    elif checks.can_only_be_sampled(problem.model):  # an environment
        assert problem.program is not None
        s, a = probes["states"], probes["actions"]
        paid, numbers = None, {"action_prior": score(problem.program.prior(s, 0), a)}
    else:
        assert problem.program is not None
        numbers = numbers_of_program(problem.program, probes)
        steps = probes["states"].shape[1]
        rewards = [x[: PATHS * steps] for name, x in numbers.items() if name in _PAID]
        paid = sum(x.sum().item() for x in (*rewards, numbers["last final_reward"][:PATHS]))
    return {"return": paid, "numbers": {name: sketch(x) for name, x in numbers.items()}}


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


def sketch(x: Tensor) -> Numbers:
    """An array, or weighted sums of a large one, and which of its numbers are infinite."""
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
    """The numbers, or sums of every 4096th one with weights of either sign, and of squares."""
    if len(x) <= _NUMBERS:
        return x, x.square()
    i = torch.arange(len(x), dtype=torch.float64)
    # Fractional parts of multiples of irrational numbers: the same on all machines.
    weights = (0.5 + (i * 0.6180339887498949) % 1) * (((i * 0.4142135623730951) % 1) - 0.5).sign()
    bins = torch.arange(len(x)) % _NUMBERS
    empty = x.new_zeros(_NUMBERS)
    return empty.index_add(0, bins, weights * x), empty.index_add(0, bins, x.square())


def alike(one: Numbers | None, other: Numbers | None) -> bool:
    """Whether two sketches are of the same array, up to rounding errors."""
    if one is None or other is None or not torch.equal(one["shape"], other["shape"]):
        return False
    size = one["size"].max().item() if one["size"].numel() else 0.0
    allowed = _EACH * one["size"] + _OF_ALL * size
    return bool(
        ((one["sums"] - other["sums"]).abs() <= allowed).all()
        and torch.allclose(one["infinite"], other["infinite"])
    )
