"""The backward recursion that serves every exact method, and its one dial, the optimism η.

    Q_t(s,a) = r + (α/η) log E_{s'|s,a}[ exp(η r⁺/α) ( γ exp(η V_{t+1}(s')/α) + 1 - γ ) ]
    V_t(s)   = α log Σ_a p(a|s) exp(Q_t(s,a)/α)

η = 1 is exact inference (Levine 2018, eq. 7), η → 0 leaves the dynamics as they are (eq. 15),
η → ∞ chooses the outcome, η < 0 plays against the agent. Everything here is in nats: v = V/α,
q = Q/α, x = (r⁺ + continuation)/α. The second line is the soft rule of action; the hard rule has
V = max_a Q, and the Boltzmann rule V = E_π[Q] with the π of the soft one.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from cai import checks
from cai.numerics import memory
from cai.tables.table import Table

Rule: TypeAlias = Literal["soft", "hard", "boltzmann"]
"""How actions are chosen, and what a state is worth by them."""

_SHORT = 32  # an axis along which it is worth turning the tensor
_NEAR_ZERO = 0.1  # below this |η| a soft mean is taken around the mean
_TIE = 1e-12  # what is this close to the best, relative to its size above one, is as good
_HUGE = 1e290  # beyond this |η| the limits are right to the last digit, and ηx would overflow


def check_rule(rule: Rule) -> Rule:
    """The rule; raises ValueError where it is none."""
    if not isinstance(rule, str) or rule not in get_args(Rule):
        checks.refuse("rule", '"soft", "hard" or "boltzmann"', repr(rule), 'try "soft"')
    return rule


def backward(table: Table, eta: float, rule: Rule = "soft") -> Tensor:
    """v_t(s) = V_t(s)/α for t = 0 … T, shape (T+1, S), nats.

    By matrix products, which sums allow, or in log space; the two agree to rounding errors.
    """
    if rule == "soft" and by_products(eta):
        from cai.tables import sweeps

        return sweeps.backward(table, eta, table.final_reward / table.temperature, table.steps)
    return in_log_space(table, eta, rule)


def by_products(eta: float) -> bool:
    """Whether sweeps sum by matrix products: not where numbers like ηx would over- or underflow."""
    return eta == 0 or 1e-200 < abs(eta) < 1e6


def in_log_space(table: Table, eta: float, rule: Rule = "soft") -> Tensor:
    """As :func:`backward`, the recursion as it is written above, for every η and rule."""
    memory.check_values(table.steps, table.num_states)
    v = torch.empty(table.steps + 1, table.num_states, dtype=torch.float64)
    v[-1] = table.final_reward / table.temperature
    with table.threads():
        for t in range(table.steps - 1, -1, -1):
            v[t] = backup(table, v[t + 1], eta, rule)
    return v


def backup(table: Table, v_next: Tensor, eta: float, rule: Rule = "soft") -> Tensor:
    """One step of the recursion, the operator T: (..., S) -> (..., S), nats."""
    return state_values(table, action_values(table, v_next, eta), rule)


def action_values(table: Table, v_next: Tensor, eta: float) -> Tensor:
    """q(s,a) from the values of the step after, (..., S) -> (..., S, A), nats."""
    x = outcome_values(table, v_next, eta)
    return table.reward / table.temperature + soft_mean(table.log_dynamics, x, eta)


def outcome_values(table: Table, v_next: Tensor, eta: float) -> Tensor:
    """X = (r⁺ + continuation)/α of each outcome, (..., S) -> (..., S, A, K), nats."""
    x = table.gather(continuation(v_next, eta, table.discount))
    if table.arrival_reward is not None:
        x = x + table.arrival_reward / table.temperature
    return x


def state_values(table: Table, q: Tensor, rule: Rule = "soft") -> Tensor:
    """v(s) from action values, (..., S, A) -> (..., S), nats."""
    if rule == "hard":
        return torch.where(table.log_prior > -torch.inf, q, -torch.inf).amax(-1)
    if rule == "boltzmann":
        return mean(log_policy(table, q, rule), q)
    return logsumexp(table.log_prior + q)


def log_policy(table: Table, q: Tensor, rule: Rule = "soft") -> Tensor:
    """log π(a|s) with π ∝ p(a|s) exp(q), (..., S, A); at a dead end (v = -inf) the prior.

    The hard rule has the prior, restricted to the best actions. They tie where rounding errors
    alone tell them apart.
    """
    if rule == "hard":
        best = state_values(table, q, rule).unsqueeze(-1)
        wins = (q >= best - _TIE * best.abs().clamp(min=1)) | (best == -torch.inf)
        return log_softmax(torch.where(wins, table.log_prior, -torch.inf))
    log_pi = table.log_prior + q
    dead_end = log_pi.amax(-1, keepdim=True) == -torch.inf
    return log_softmax(torch.where(dead_end, table.log_prior, log_pi))


def continuation(v: Tensor, eta: float, discount: float, dead: Tensor | float = 0.0) -> Tensor:
    """(1/η) log(γ exp(ηv) + 1 - γ): what a successor is worth before the coin of death falls."""
    if discount == 1:
        return v
    log_coin, x = coin(v, discount, dead)
    return soft_mean(log_coin, x, eta)


def survival(v: Tensor, eta: float, discount: float) -> Tensor:
    """log q(alive|s'), the bent coin of death: γ exp(ηv) / (γ exp(ηv) + 1 - γ)."""
    if discount == 1:
        return torch.zeros_like(v)
    log_coin, x = coin(v, discount)
    return tilt(log_coin, x, eta)[..., 0]


def coin_kl(v: Tensor, eta: float, discount: float) -> Tensor:
    """KL(true coin of death ‖ bent coin) of each successor, nats."""
    log_coin, x = coin(v, discount)
    return kl(log_coin, tilt(log_coin, x, eta))


def coin(v: Tensor, discount: float, dead: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """The coin of death as a distribution: log (γ, 1-γ), and x = (v, dead), shape (..., S, 2)."""
    log_coin = torch.tensor([discount, 1 - discount], dtype=torch.float64).log()
    return log_coin, torch.stack([v, torch.as_tensor(dead, dtype=v.dtype).expand_as(v)], -1)


def mean(log_p: Tensor, x: Tensor) -> Tensor:
    """E_p[x] over the last axis, with 0 · inf = 0 and x = -inf where it is possible."""
    worst = torch.where(log_p > -torch.inf, x, 0.0)
    return torch.where(x == -torch.inf, worst, log_p.exp() * x).sum(-1)


def product(p: Tensor, x: Tensor) -> Tensor:
    """P · x with 0 · inf = 0: what never happens costs nothing."""
    return torch.where(p > 0, p * x, 0.0)


def soft_mean(log_p: Tensor, x: Tensor, eta: float) -> Tensor:
    """(1/η) log E_p[exp(ηx)] over the last axis, for every real η and ±inf.

    η = 0 is the mean, ±inf the best and the worst of what is possible. Near η = 0 the logarithm of
    a number close to one loses what matters; there it is taken around the mean m,
    m + log1p(Σ p expm1(η(x - m)))/η, and apart from outcomes of -inf.
    """
    if abs(eta) > _HUGE:
        possible = log_p > -torch.inf
        extreme = x.masked_fill(~possible, -math.copysign(torch.inf, eta))
        return extreme.amax(-1) if eta > 0 else extreme.amin(-1)
    if eta == 0:
        return mean(log_p, x)
    soft = logsumexp(scaled(log_p, x, eta)) / eta
    if abs(eta) >= _NEAR_ZERO:
        return soft
    lost = (x == -torch.inf) & (log_p > -torch.inf)
    if eta > 0 and lost.any():
        return _without_the_lost(log_p, x, eta, lost)
    m = mean(log_p, x)
    d = torch.where(log_p > -torch.inf, eta * (x - m.unsqueeze(-1)), 0.0)
    near = d.abs().amax(-1) <= 1  # false for NaN, where m is infinite
    d = torch.where(near.unsqueeze(-1), d, 0.0)
    return torch.where(near, m + torch.log1p((log_p.exp() * d.expm1()).sum(-1)) / eta, soft)


def _without_the_lost(log_p: Tensor, x: Tensor, eta: float, lost: Tensor) -> Tensor:
    """soft_mean at a small η > 0: log P(x > -inf)/η, and the soft mean of what is left."""
    p = log_p.exp()
    kept, gone = torch.where(lost, 0.0, p).sum(-1), torch.where(lost, p, 0.0).sum(-1)
    log_kept = torch.where(gone < 0.5, torch.log1p(-gone), kept.log())
    left = torch.where(lost, -torch.inf, log_p)
    # Where all is lost, log_kept = -inf says so.
    left = left - torch.where(kept > 0, log_kept, 0.0).unsqueeze(-1)
    return log_kept / eta + soft_mean(left, torch.where(lost, 0.0, x), eta)


def scaled(log_p: Tensor, x: Tensor, eta: float) -> Tensor:
    """log p + ηx, -inf where p = 0 even if ηx = +inf."""
    if eta > 0:
        return torch.add(log_p, x, alpha=eta)  # x is nowhere +inf
    return torch.where(log_p > -torch.inf, log_p + eta * x, -torch.inf)


def tilt(log_p: Tensor, x: Tensor, eta: float) -> Tensor:
    """log q for q ∝ p exp(ηx) over the last axis; p itself where no outcome is left.

    Where ηx is infinite, and for η = ±inf, q is p restricted to the outcomes that win.
    """
    if eta == 0:
        return log_p.expand(torch.broadcast_shapes(log_p.shape, x.shape))
    if abs(eta) > _HUGE:
        best = soft_mean(log_p, x, eta).unsqueeze(-1)
        wins = (x == best) | ((x - best).abs() <= _TIE * best.abs().clamp(min=1))
        wins &= log_p > -torch.inf
        log_q = torch.where(wins, log_p, -torch.inf)
    else:
        log_q = scaled(log_p, x, eta)
        if eta < 0 and (certain := log_q == torch.inf).any():
            only = torch.where(certain, log_p, -torch.inf)
            log_q = torch.where(certain.any(-1, keepdim=True), only, log_q)
    nothing = log_q.amax(-1, keepdim=True) == -torch.inf
    return log_softmax(torch.where(nothing, log_p, log_q))


def logsumexp(x: Tensor) -> Tensor:
    """Over the last axis; torch is slow along a short one and quick along the first."""
    if x.shape[-1] > _SHORT:
        return x.logsumexp(-1)
    return x.movedim(-1, 0).contiguous().logsumexp(0)


def log_softmax(x: Tensor) -> Tensor:
    """Over the last axis, as :func:`logsumexp`."""
    if x.shape[-1] > _SHORT:
        return x.log_softmax(-1)
    return x.movedim(-1, 0).log_softmax(0).movedim(0, -1)


def entropy(log_p: Tensor) -> Tensor:
    """-Σ p log p over the last axis, nats, with 0 log 0 = 0."""
    return -torch.where(log_p > -torch.inf, log_p.exp() * log_p, 0.0).sum(-1)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p‖q) over the last axis in nats, with 0 log 0 = 0; +inf where q excludes what p allows.

    As Σ p d + (q - p) with d = log p - log q, whose terms are ≥ 0 and of second order: Σ p d alone
    loses a divergence of order d² in rounding errors of order d.
    """
    d = log_p - log_q
    p, q = log_p.exp(), log_q.exp()
    rest = torch.where(d.abs() < 1, p * torch.expm1(-d), q - p)
    return torch.where(p > 0, p * d + rest, q).sum(-1).clamp(min=0)
