"""States and actions that identify a problem, with the program's scores and rewards there.

They lie along trajectories of the prior, of constant actions, and of uniform actions, and in
states far from all of these.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, TypeAlias

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Independent

from cai import checks
from cai.distributions.empirical_states import EmpiricalStates
from cai.distributions.exact_scores import exact, log_probs, support_size
from cai.distributions.flat_prior import FlatPrior
from cai.evaluation.problem import Problem
from cai.program.interfaces import Policy
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table

Numbers: TypeAlias = dict[str, Tensor]

PATHS, _STEPS = 8, 32  # trajectories of each policy that are kept, and their steps
_FAR = 3.0  # by which factor states are stretched to get distant ones
_LARGE = 2**18  # the most numbers of states that are kept


def probes_of(problem: Problem, table: Table | None) -> Numbers:
    """States and actions at which problems and policies are compared."""
    T = min(problem.model.horizon or 1, _STEPS)
    if problem.gaussian is not None:
        sizes = problem.gaussian.state_size, problem.gaussian.action_size
        states, actions = (torch.randn(PATHS, T, size, dtype=torch.float64) for size in sizes)
        return {"states": states, "actions": actions}
    if table is not None:
        S, A = table.num_states, table.num_actions
        states, actions = (torch.randint(size, (PATHS, T)) for size in (S, A))
        return {"states": states, "actions": actions}
    assert problem.program is not None
    if checks.can_only_be_sampled(problem.program):  # an environment, which has its prior alone
        states = problem.program.initial.sample(torch.Size((PATHS, T)))
        return {"states": states, "actions": problem.program.prior(states).sample()}
    return _probes_of_program(problem.program, T)


def _probes_of_program(model: TrajectoryModel, T: int) -> Numbers:
    if model.horizon is None:
        model = dataclasses.replace(model, horizon=T)
    paths = [model.simulate(policy, PATHS) for policy in _sampled(model)]
    with contextlib.suppress(Exception):  # an action may not be possible everywhere
        paths.append(model.simulate(_held(model), PATHS))
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
    with contextlib.suppress(Exception):  # a model may be undefined in states that do not occur
        far = _far(model, s[:few])
        b = _drawn(model.prior(far, t[:few]), few)
        with poutine.block(), pyro.plate("particles", few):
            there = _drawn(model.transition(far, b, t[:few]), few)
        probes = _seen(model, "far ", far, b, t[:few], there)
        numbers_of_program(model, found | probes)
        found |= probes
    return found


def numbers_of_program(model: TrajectoryModel, probes: Numbers) -> Numbers:
    """The scores and rewards of a program at the kept states, actions and latents."""
    last = model.final_rewards(probes["s_T"]).expand(len(probes["s_T"]))
    numbers = {"initial": score(model.initial, probes["s_0"]), "last final_reward": last}
    if isinstance(model.initial, EmpiricalStates):
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
            "action_prior": score(model.prior(s, t), a),
        }
        if model.pays_on_arrival:
            found["arrival_reward"] = model.paid_on_arrival(s, a, after, t).expand(len(s))
        with _Scores(len(s), latents) as scores:
            moves = model.transition(s, a, t)
        found |= {f"dynamics, site {name}": x for name, x in scores.found.items()}
        found["dynamics"] = score(moves, after)
        numbers |= {where + name: x for name, x in found.items()}
    return numbers


class _Scores(Messenger):
    """Scores the sites of dynamics at given values, or at values drawn for n trajectories."""

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
        self.found[name] = score(fn, self.values[name])


def score(distribution: Any, value: Tensor) -> Tensor:
    """log p(value); for a Delta the value itself, which may differ by rounding."""
    inner = distribution
    while isinstance(inner, Independent):
        inner = inner.base_dist
    if isinstance(inner, dist.Delta) or not hasattr(distribution, "log_prob"):
        return inner.v.double()
    scored: Tensor = exact(distribution).log_prob(value)
    return scored.double()


def _seen(
    model: TrajectoryModel, where: str, s: Tensor, a: Tensor, t: Tensor, after: Tensor
) -> Numbers:
    """States and actions by name, with the latents that the dynamics draw there."""
    with _Scores(len(s), {}) as scores:
        model.transition(s, a, t)
    sites = {f"{where}site {name}": x for name, x in scores.values.items()}
    return {f"{where}s": s, f"{where}a": a, f"{where}t": t, f"{where}next": after, **sites}


def _far(model: TrajectoryModel, s: Tensor) -> Tensor:
    """States that trajectories may not reach: all of finitely many, or stretched and rotated."""
    S = support_size(model.initial)
    if S is not None:
        return torch.randint(S, s.shape).to(s.dtype)
    if not s.is_floating_point():
        return s
    factor = _FAR * (2 * torch.rand(len(s)) - 1).view(-1, *(1,) * (s.dim() - 1))
    return s * factor + torch.randn(s.shape) * (s.std() if len(s) > 1 else 1.0)


def _sampled(model: TrajectoryModel) -> list[Policy]:
    """The prior, and a uniform policy for finitely many actions or a wider one for others."""
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
    """One action of the prior for each trajectory, held throughout."""
    start = _drawn(model.initial, PATHS)
    action = _drawn(model.prior(start, 0), PATHS)
    return _constant(dist.Delta(action, event_dim=action.dim() - 1))


def _drawn(distribution: Any, n: int) -> Tensor:
    """One draw for each of n trajectories."""
    shape = torch.Size((n,))
    fits = distribution.batch_shape == shape
    value: Tensor = (distribution if fits else distribution.expand(shape)).sample()
    return value
