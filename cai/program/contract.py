"""The contract of a user's functions, checked by calling them when a model is built.

Prior, dynamics and rewards are called with scalars and with two batch shapes, and the result for a
batch is compared with those for its elements: ``if (s > 2).all()`` passes any check of shapes.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution

from cai.checks import check_bernoulli, check_reward, refuse
from cai.distributions.exact_scores import exact, log_probs, support_size
from cai.numerics.exclusive import seeded
from cai.program.arguments import check_layout, check_overrides
from cai.program.calling import REWARDS, call, check_shape
from cai.program.interfaces import Program
from cai.program.trajectories import check_terminal

_PROBES = 6


def check_program(model: Program) -> None:
    """Calls prior, dynamics and rewards with scalars and two batch shapes and compares them.

    Raises:
        ValueError: if a shape does not broadcast, a site is not allowed, an element of a batch
            is treated differently from a scalar, or a reward is NaN, +inf, or positive under
            ``optimality="bernoulli"``.
    """
    with seeded(0), torch.no_grad(), poutine.block():
        check_overrides(model)
        check_terminal(model.terminal, model.initial)
        s = probe_states(model)
        a = check_prior(model, s)
        prior = model.prior(s, 0)
        if model.layout is not None:
            sizes = support_size(model.initial), support_size(prior)
            check_layout(model.layout, *sizes)
        if (A := support_size(prior)) is not None:
            a = (a + torch.arange(len(s)) * (A // 2 + 1)) % A  # so that neighbours differ
        check_dynamics(model, s, a, model.initial.event_shape)
        with _NoSites():
            for name in REWARDS:
                check_reward_of(model, name, s, a)
            _check_all_rewards(model, s, a)


def _each(distribution: Any, n: int) -> Tensor:
    """A draw for each of n states, which may all have the same distribution."""
    draw: Tensor = distribution.sample()
    return draw.expand(n, *draw.shape[draw.dim() - len(distribution.event_shape) :])


def check_allowed(model: Program, s: Tensor) -> None:
    """Raises ValueError if the prior leaves a state without any action."""
    prior = call("action_prior", model.prior, s, 0)
    if (A := support_size(prior)) is not None:
        check_some_allowed(log_probs(prior, A), s)


def check_some_allowed(log_prior: Tensor, s: Tensor) -> None:
    """Raises ValueError if log p(a|s) of states s leaves one of them without any action."""
    none = log_prior.isnan().any(-1)
    if none.any():
        state = s[none][0].item() if none.dim() else "any"
        raise ValueError(
            f"action_prior: in state {state} every action has probability zero; allow at least "
            "one, for instance staying in place"
        )


def check_prior(model: Program, s: Tensor) -> Tensor:
    """Actions of the prior, one for each state, after comparing a batch call with scalar calls."""
    prior = call("action_prior", model.prior, s, 0)
    _check_distribution("action_prior", prior, s.shape[:1], None)
    check_allowed(model, s)
    a, batch = _each(prior, len(s)), exact(prior)
    for i in range(len(s)):
        single = exact(call("action_prior", model.prior, s[i], 0))
        _check_distribution("action_prior", single, (), None)
        if not _same_distribution(batch, single, a, i, len(s)):
            raise ValueError(
                f"action_prior: for the state {s[i].tolist()} a scalar call gives another "
                f"distribution than a batch of {len(s)} that holds it; treat each element on its "
                "own: torch.where instead of Python `if`, no reductions over the batch"
            )
    return a


def probe_states(model: Program) -> Tensor:
    """A handful of states: spread over a finite support, drawn from p(s_0) otherwise."""
    S = support_size(model.initial)
    draws: Tensor = model.initial.sample((_PROBES,))
    if S is None:
        return draws.reshape(_PROBES, *model.initial.event_shape)
    return torch.linspace(0, S - 1, _PROBES).round().to(draws.dtype)


def check_dynamics(model: Program, s: Tensor, a: Tensor, event: torch.Size) -> None:
    """Calls the dynamics with scalars and two batch shapes; event is the shape of a next state.

    Raises:
        ValueError: if a shape does not fit, or elements of a batch are treated differently from
            scalars.
    """
    n, event_dims = len(s), len(event)
    together = Latents({}, (n,))
    batch = next_state(model, s, a, together)
    _check_distribution("dynamics", batch, (n,), event)
    value = call("dynamics, sampling what it returns", batch.sample)
    if value.dtype.is_floating_point and not s.dtype.is_floating_point:
        refuse(
            "dynamics",
            f"next states of an integer type, as the states of `initial` ({s.dtype})",
            f"{value.dtype}",
            "return a Categorical, or a Delta of integers: dist.Delta(s_next.long())",
        )
    value = value.expand(n, *value.shape[value.dim() - event_dims :])
    grid = torch.stack([s, s.roll(1, 0)], 1), torch.stack([a, a], 1)
    _check_distribution("dynamics", next_state(model, *grid, Latents({}, (n, 2))), (n, 2), event)
    for i in range(n):
        alone = Latents({name: v[i] for name, v in together.values.items()}, ())
        single = next_state(model, s[i], a[i], alone)
        _check_distribution("dynamics", single, (), event)
        same = alone.values.keys() == together.values.keys() and all(
            _close(alone.scores[name], together.scores[name][i]) for name in alone.values
        )
        if not (same and _same_distribution(batch, single, value, i, n)):
            raise ValueError(
                f"dynamics: for the state {s[i].tolist()} and the action {a[i].tolist()} a scalar "
                f"call gives another distribution than a batch of {n} that holds them; each "
                "element must be treated on its own: replace Python `if` and reductions such as "
                ".all(), .any() or .sum() over s and a by torch.where(condition, x, y)"
            )


def check_reward_of(model: Program, name: str, s: Tensor, a: Tensor) -> None:
    """Calls one of the rewards with a batch and with each of its elements.

    Raises:
        ValueError: if they differ, or a shape or a number is not allowed.
    """
    n = len(s)
    function, arguments = _reward_and_arguments(model, name, s, a)
    if not callable(getattr(model, name)) and f"{name}s" not in model.overridden:
        check_reward(name, function(*arguments))
        return
    batch = call(name, function, *arguments)
    check_shape(name, batch.shape, (n,))
    check_reward(name, batch.expand(n), lambda index: f"in the state {s[index].tolist()}")
    for i in range(n):
        alone = call(name, function, *(x[i] for x in arguments))
        check_shape(name, alone.shape, ())
        if not _close(alone, batch.expand(n)[i]):
            raise ValueError(
                f"{name}: for the state {s[i].tolist()} a scalar call gives {alone.item():g} "
                f"and a batch of {n} gives {batch.expand(n)[i].item():g}; treat each element "
                "on its own: torch.where instead of Python `if`, no reductions over the batch"
            )


def _reward_and_arguments(
    model: Program, name: str, s: Tensor, a: Tensor
) -> tuple[Any, tuple[Tensor, ...]]:
    if name == "reward":
        return lambda s, a: model.rewards(s, a, 0), (s, a)
    if name == "arrival_reward":
        return lambda s, a, s_next: model.paid_on_arrival(s, a, s_next, 0), (s, a, s.roll(1, 0))
    return model.final_rewards, (s,)


def _check_all_rewards(model: Program, s: Tensor, a: Tensor) -> None:
    """Checks the rewards of all states and actions, unless there are too many."""
    S, A = support_size(model.initial), support_size(model.prior(s, 0))
    if S is None or A is None or S * A > 2**20:
        if model.optimality == "bernoulli":  # other rewards are checked when they occur
            check_bernoulli("final_reward", model.final_rewards(s), model.discount)
            if not model.pays_on_arrival:
                check_bernoulli("reward", model.rewards(s, a, 0), model.discount)
        return
    all_s = torch.arange(S, dtype=s.dtype).unsqueeze(1).expand(S, A)
    all_a = torch.arange(A, dtype=a.dtype).expand(S, A)
    rewards = call("reward", model.rewards, all_s, all_a, 0).expand(S, A)
    final = call("final_reward", model.final_rewards, all_s[:, 0])
    check_reward("reward", rewards, lambda i: f"in the state {i[0]} for the action {i[1]}")
    check_reward("final_reward", final, lambda i: f"in the state {i[0]}")
    if model.optimality == "bernoulli":
        check_bernoulli("final_reward", final, model.discount)
        if not model.pays_on_arrival:
            check_bernoulli("reward", rewards, model.discount)


def next_state(model: Program, s: Tensor, a: Tensor, latents: Latents, t: int = 0) -> Any:
    """p(s'|s,a) of step t for given latents of the dynamics' own, in exact scores."""
    with latents:
        return exact(call("dynamics", model.transition, s, a, t))


def _check_distribution(name: str, d: Any, batch: Any, event: Any) -> None:
    if not isinstance(d, Distribution):
        came = f"a tensor of shape {list(d.shape)}" if isinstance(d, Tensor) else repr(d)
        advice = "for instance dist.Categorical(probabilities) or dist.Delta(value)"
        refuse(name, "a distribution to be returned", came, advice)
    exact(d)
    check_shape(name, d.batch_shape, batch)
    if event is not None and d.event_shape != event:
        refuse(
            name,
            f"a next state of event shape {list(event)}, as in `initial`",
            f"one of event shape {list(d.event_shape)}",
            "use .to_event(1) for a vector of states, a plain distribution for a single number",
        )


def _same_distribution(batch: Any, single: Any, value: Tensor, i: int, n: int) -> bool:
    if type(batch) is not type(single):
        return False
    if hasattr(batch, "v"):  # a Delta: compare the points, since a rounding error scores -inf
        return _close(single.v.double(), batch.v.expand(n, *batch.event_shape)[i].double())
    return _close(single.log_prob(value[i]), batch.log_prob(value).expand(n)[i])


def _close(x: Tensor, y: Tensor) -> bool:
    return torch.allclose(x.double(), y.double(), rtol=1e-4, atol=1e-5, equal_nan=True)


class _NoSites(Messenger):
    """Refuses any site in a reward, which is a function and not a program."""

    def _pyro_sample(self, msg: Any) -> None:
        raise ValueError(
            f"reward: site {msg['name']!r} is sampled in a reward; randomness belongs in the "
            "dynamics: let them reach a state that holds the outcome, and reward that state"
        )


class Latents(Messenger):
    """Draws the dynamics' own latents in full batch shape, or takes given ones; keeps scores."""

    def __init__(self, given: dict[str, Tensor], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.given, self.shape = given, shape
        self.values: dict[str, Tensor] = {}
        self.scores: dict[str, Tensor] = {}
        self.distributions: dict[str, Any] = {}

    def _pyro_sample(self, msg: Any) -> None:
        check_site(msg)
        if msg["is_observed"]:  # a deterministic site
            return
        name, fn = msg["name"], exact(msg["fn"])
        if name in self.values:
            raise ValueError(
                f"dynamics: two sites are called {name!r}; a step is one run of a Pyro program, in "
                "which every sample has a name of its own: rename one of them"
            )
        check_shape(f"dynamics, site {name!r}", fn.batch_shape, self.shape)
        self.distributions[name] = fn = fn.expand(torch.Size(self.shape))
        msg["value"] = self.values[name] = self.given[name] if name in self.given else fn.sample()
        self.scores[name] = fn.log_prob(msg["value"])
        msg["done"] = True


def check_site(msg: Any) -> None:
    """Raises ValueError for what dynamics may not contain: observations, factors and plates."""
    name = msg["name"]
    is_plate = "_Subsample" in type(msg["fn"]).__name__
    if msg["cond_indep_stack"] or is_plate:
        what = f"there is a plate {name!r}" if is_plate else f"site {name!r} stands in a plate"
        raise ValueError(
            f"dynamics: {what}; the dynamics must broadcast over s and a without plates of their "
            "own: remove the plate; the library adds batch dimensions itself"
        )
    if msg["is_observed"] and not msg["infer"].get("_deterministic"):
        raise ValueError(
            f"dynamics: site {name!r} is observed or a factor; dynamics are a normalised "
            "p(s'|s,a), and what is to be rewarded belongs in reward or arrival_reward"
        )
