"""Lower and upper bounds of the log evidence, where it cannot be computed.

With the weights w = p(τ,O)/q(τ) of trajectories of any guide q, E[log (1/K) Σ_k w_k] is at most
log p(O) and grows with K (Burda et al. 2016): a lower bound in expectation, unconditionally. No
average of weights is an upper bound. That takes a value function that is nowhere too low; without
one there is an estimate, Σ w log w / Σ w ≈ E_{p(τ|O)}[log w] = log p(O) + KL(p(τ|O) ‖ q), which
comes out too low where the guide misses a part of the posterior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cai import checks, one_line
from cai.distributions.exact_scores import log_probs, support_size
from cai.evaluation.importance_weights import mean
from cai.program.calling import numbers_at
from cai.program.interfaces import ValueFunction
from cai.program.trajectories import Trajectories
from cai.program.trajectory import TrajectoryModel

_WALKS, _DRAWS, _FRESH = 32, 64, 100_000  # trajectories to check a value along, draws per state
_SURE, _SLACK = 5.0, 1e-3  # standard errors, and nats, by which a value must be too low
_FAR = 100.0  # nats too low; larger shortfalls are not told apart, to avoid overflow


@dataclass(frozen=True, eq=False, kw_only=True)
class EvidenceBracket:
    """log p(O) from below and from above, nats.

    Attributes:
        elbo: E_q[log w], the lower bound from single trajectories.
        elbo_stderr: its standard error.
        lower: E[log (1/K) Σ w] of K trajectories at a time: a lower bound in expectation.
        lower_stderr: its standard error.
        upper: a bound from a value function, or an estimate that may be too low.
        upper_stderr: its standard error; zero where the start is summed over.
        kind: what ``upper`` is, "bound" or "estimate".
        group_size: K.
        effective: (Σ w)²/Σ w², the effective sample size. If it is small, neither an estimate above
            nor its standard error can be trusted, and the bound below is far from log p(O).
        samples: how many trajectories there were.

    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> found = inference.evidence_bracket(model, inference.soft_values(model).policy)
    >>> found.kind, found.elbo < found.upper
    ('estimate', True)
    """

    elbo: float
    elbo_stderr: float
    lower: float
    lower_stderr: float
    upper: float
    upper_stderr: float
    kind: Literal["bound", "estimate"]
    group_size: int
    effective: float
    samples: int

    __repr__ = one_line.of_fields

    def __str__(self) -> str:
        above = "at most" if self.kind == "bound" else "estimated upper value (not a bound):"
        return (
            f"log p(O): at least {self.lower:.3f} ± {self.lower_stderr:.2g} nats "
            f"({self.group_size} trajectories at a time), {above} {self.upper:.3f} ± "
            f"{self.upper_stderr:.2g}; effective sample size {self.effective:.1f} of {self.samples}"
        )


def bracket(
    log_weights: Tensor, group_size: int, above: tuple[float, float] | None = None
) -> EvidenceBracket:
    """The bracket that independent weights give.

    Args:
        log_weights: (n,), log p(τ,O)/q(τ), nats.
        group_size: K; n must be at least 2 K. The remainder of n/K is not used for the lower bound.
        above: an upper bound and its standard error, from :func:`from_above`; an estimate from
            the weights if not given.
    """
    groups = log_weights[: len(log_weights) // group_size * group_size].view(-1, group_size)
    lower = mean(groups.logsumexp(-1) - math.log(group_size))
    elbo, upper = mean(log_weights), above or _estimate(log_weights)
    return EvidenceBracket(
        elbo=elbo[0],
        elbo_stderr=elbo[1],
        lower=lower[0],
        lower_stderr=lower[1],
        upper=upper[0],
        upper_stderr=upper[1],
        kind="estimate" if above is None else "bound",
        group_size=group_size,
        effective=_effective(log_weights),
        samples=len(log_weights),
    )


def _effective(log_w: Tensor) -> float:
    """(Σ w)²/Σ w²; zero if all weights are zero."""
    if not (log_w > -torch.inf).any():
        return 0.0
    return math.exp(2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0))


def _estimate(log_w: Tensor) -> tuple[float, float]:
    """Σ w log w / Σ w and its standard error."""
    if not (log_w > -torch.inf).any():
        return -torch.inf, math.inf
    share = log_w.softmax(0)
    finite = torch.where(share > 0, log_w, 0.0)
    upper = (share * finite).sum()
    return upper.item(), (share * (finite - upper)).square().sum().sqrt().item()


def from_above(
    model: TrajectoryModel, value: ValueFunction, paths: Trajectories
) -> tuple[float, float]:
    """log E exp(V_0(s_0)/α) of a value function that is nowhere too low, with a standard error.

    It is at least log p(O) where V_T ≥ r_T and, at every step and state,

        V_t(s) ≥ α log E[exp((r + r⁺)/α) (γ exp(V_{t+1}(s')/α) + 1 - γ) | s],  a ~ p(a|s).

    The caller has to know that. Here it is only tested, by sampling, at visited states.

    Args:
        model: a model with a finite horizon.
        value: (t, s) -> V_t(s), reward units.
        paths: trajectories along which the inequality is tested.

    Raises:
        ValueError: if the inequality fails, or the value does not broadcast.
    """
    _try_out(model, value, paths)
    S = support_size(model.initial)
    if S is not None:
        nats = _nats(model, value, 0, torch.arange(S))
        return (log_probs(model.initial, S) + nats).logsumexp(-1).item(), 0.0
    nats = _nats(model, value, 0, model.initial.sample((_FRESH,)))
    whole = nats.logsumexp(0) - math.log(len(nats))
    if not whole.isfinite():
        return whole.item(), 0.0
    return whole.item(), ((nats - whole).exp().std() / len(nats) ** 0.5).item()


def _try_out(model: TrajectoryModel, value: ValueFunction, paths: Trajectories) -> None:
    """Raises ValueError where the inequality fails at a visited state."""
    T = checks.finite_horizon(model, "a bracket")
    walks = paths.states[:_WALKS]
    _check_end(model, value, T, walks[:, -1])
    s = walks[:, :-1].flatten(0, 1)
    t = torch.arange(T).expand(len(walks), T).flatten()
    excess, error = _excess(model, value, t, s, _DRAWS)
    worst = int((excess / (error + _SLACK)).argmax())
    # The worst of many estimates is bad partly by chance: it is tested again with fresh draws.
    one = slice(worst, worst + 1)
    again, error = _excess(model, value, t[one], s[one], _FRESH)
    surplus = again.item()
    if surplus > _SURE * error.item() + _SLACK:
        short = math.log1p(surplus)
        far = " or more" if short > _FAR - 1 else ""
        checks.refuse(
            "value",
            "at every step at least the soft expectation of reward plus next value",
            f"{short:.3g} nats{far} too little at step {int(t[worst])} in state "
            f"{s[worst].tolist()}",
            "take the exact value of a model that is easier everywhere, or leave it out: "
            "the upper end is an estimate then",
        )


def _check_end(model: TrajectoryModel, value: ValueFunction, T: int, s: Tensor) -> None:
    short = model.final_rewards(s) / model.temperature - _nats(model, value, T, s)
    if (short > _SLACK).any():
        checks.refuse(
            "value",
            f"at the last step, {T}, at least the final reward",
            f"{short.max().item():.3g} nats less",
            "it is called as value(t, s) with t = 0 … T",
        )


def _excess(
    model: TrajectoryModel, value: ValueFunction, t: Tensor, s: Tensor, draws: int
) -> tuple[Tensor, Tensor]:
    """E[exp((r + r⁺)/α) (γ exp(V_{t+1}/α) + 1 - γ) - V_t/α)] - 1 at (t, s), (n,), and its error."""
    s, t = s.repeat_interleave(draws, 0), t.repeat_interleave(draws)
    a, s_next = model.draw_step(t, s)
    with torch.no_grad():
        after, gamma = _nats(model, value, t + 1, s_next), model.discount
        if gamma < 1:
            dead = torch.full_like(after, math.log1p(-gamma))
            after = torch.logaddexp(math.log(gamma) + after, dead)
        x = model.log_factor(s, a, s_next, t) + after - _nats(model, value, t, s)
    # Where both are -inf, the inequality holds.
    w = torch.where(x.isnan(), 0.0, x.clamp(max=_FAR).exp()).view(-1, draws)
    return w.mean(1) - 1, w.std(1) / draws**0.5


def _nats(model: TrajectoryModel, value: ValueFunction, t: Any, s: Tensor) -> Tensor:
    """V_t(s)/α, one number for each state."""
    advice = "value(t, s) says V_t(s) in reward units, and broadcasts over steps and states"
    found = numbers_at("value", value, t, s, len(model.initial.event_shape), advice)
    return found / model.temperature
