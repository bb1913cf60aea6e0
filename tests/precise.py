"""The dial in as many digits as it takes: mpmath, path by path, without any of the library.

mpmath's exponents are unbounded, so that exp(1e8 · 1e6) is a number like any other; nothing is
shifted, guarded or taken in log space. An oracle of its own for huge and for tiny |η|.
"""

from __future__ import annotations

import dataclasses
import math

import mpmath
import numpy as np
import oracles
from mpmath import mp, mpf

INF = mpf("inf")


def _rows(p):
    """Probabilities as exact numbers whose rows sum to exactly one, as a table makes them."""
    p = np.vectorize(mpf, otypes=[object])(np.asarray(p, float))
    return p / p.sum(-1, keepdims=True)


def _nats(x, temperature):
    return np.vectorize(mpf, otypes=[object])(np.asarray(x, float)) / mpf(temperature)


def soft(weighted, eta):
    """(1/η) log Σ p exp(ηx) of pairs (p, x) with p > 0, x ≥ -inf."""
    weighted = [(p, x) for p, x in weighted if p > 0]
    if math.isinf(eta):
        return (max if eta > 0 else min)(x for _, x in weighted)
    if any(x == -INF for _, x in weighted) and eta <= 0:
        return -INF
    weighted = [(p, x) for p, x in weighted if x > -INF]
    if not weighted:
        return -INF
    if eta == 0:
        return mpmath.fsum(p * x for p, x in weighted)
    return mpmath.log(mpmath.fsum(p * mpmath.exp(eta * x) for p, x in weighted)) / eta


def tilt(weighted, eta):
    """q ∝ p exp(ηx) for pairs (p, x); what wins where η or x is infinite, p where nothing is."""
    p, x = [p for p, _ in weighted], [x for _, x in weighted]
    if eta == 0:
        return p
    lost = [u == -INF for u in x]
    value = soft(weighted, eta)
    if math.isinf(eta):  # sums in another order tie, too, though their last digits may differ
        tie = mpf(10) ** (8 - mp.dps) * (1 + abs(value))
        mass = [w if u == value or abs(u - value) < tie else mpf(0) for w, u in weighted]
    elif eta < 0 and any(gone and w > 0 for gone, w in zip(lost, p, strict=True)):
        mass = [w if gone else mpf(0) for gone, w in zip(lost, p, strict=True)]
    elif value == -INF:
        mass = p
    else:
        mass = [
            mpf(0) if gone or w == 0 else w * mpmath.exp(eta * (u - value))
            for gone, (w, u) in zip(lost, weighted, strict=True)
        ]
    total = mpmath.fsum(mass)
    return [m / total for m in mass]


def kl(q, p):
    return mpmath.fsum(a * mpmath.log(a / b) for a, b in zip(q, p, strict=True) if a > 0)


def digits(eta):
    """A context with enough digits for 1 + η² and 50 more."""
    return mp.workdps(50 - 2 * math.floor(math.log10(min(1.0, abs(eta) or 1.0))))


class Dial:
    """V[t][s], Q[t][s][a], policy[t][s][a] and bound in nats, and the tilted chain, at one η."""

    def __init__(self, problem, eta):
        with digits(eta):
            self._solve(problem, mpf(eta) if math.isfinite(eta) else eta)

    def _solve(self, problem, eta):
        self.S, self.A = problem.sizes
        self.T, self.eta = problem.T, eta
        S, A, T = self.S, self.A, self.T
        self.start, alpha = _rows(problem.initial), problem.temperature
        self.gamma, self.final = mpf(problem.discount), _nats(problem.final, alpha)
        steps = [problem.at(t) for t in range(T)]
        self.prior, self.P = ([_rows(getattr(x, name)) for x in steps] for name in ("prior", "P"))
        self.r, self.arrival = (
            [_nats(getattr(x, name), alpha) for x in steps] for name in ("reward", "arrival")
        )
        self.V = [None] * T + [list(self.final)]
        self.Q, self.policy = [None] * T, [None] * T
        for t in range(T - 1, -1, -1):
            self.Q[t] = [
                [
                    self.r[t][s][a] + soft(self.outcomes(t, s, a), eta)
                    if self.prior[t][s][a] > 0 and self.r[t][s][a] > -INF
                    else -INF
                    for a in range(A)
                ]
                for s in range(S)
            ]
            pairs = [list(zip(self.prior[t][s], self.Q[t][s], strict=True)) for s in range(S)]
            self.V[t] = [soft(pair, 1) for pair in pairs]
            self.policy[t] = [tilt(pair, 1) for pair in pairs]
        starts = list(zip(self.start, self.V[0], strict=True))
        self.bound = soft(starts, eta)
        self.initial = tilt(starts, eta)
        self._forward(alpha)

    def outcomes(self, t, s, a):
        """(p, x) of the 2S outcomes: to live in each state, and to die on the way there."""
        lives = [
            (p * self.gamma, self.arrival[t][s][a][n] + self.V[t + 1][n])
            for n, p in self._on(t, s, a)
        ]
        dies = [(p * (1 - self.gamma), self.arrival[t][s][a][n]) for n, p in self._on(t, s, a)]
        return lives + dies

    def _on(self, t, s, a):
        return enumerate(self.P[t][s][a])

    def _forward(self, alpha):
        """Occupancies (T+1, S), the tilted dynamics, the imagined return and the tilt in nats."""
        S, A = self.S, self.A
        self.states, self.dynamics = [list(self.initial)], []
        self.tilt, paid = kl(self.initial, self.start), mpf(0)
        for t in range(self.T):
            now, after = self.states[-1], [mpf(0)] * S
            self.dynamics.append([[None] * A for _ in range(S)])
            for s in range(S):
                for a in range(A):
                    pairs = self.outcomes(t, s, a)
                    q = tilt(pairs, self.eta)
                    self.dynamics[t][s][a] = q[:S]
                    mass = now[s] * self.policy[t][s][a]
                    if mass == 0:
                        continue
                    self.tilt += mass * kl(q, [p for p, _ in pairs])
                    paid += mass * self.r[t][s][a]
                    for n in range(S):
                        after[n] += mass * q[n]
                        if q[n] + q[S + n] > 0:
                            paid += mass * (q[n] + q[S + n]) * self.arrival[t][s][a][n]
            self.states.append(after)
        ends = zip(self.states[-1], self.final, strict=True)
        paid += mpmath.fsum(m * x for m, x in ends if m > 0)
        self.imagined_return = paid * mpf(alpha)


def renyi(problem, policy, eta):
    """(1/η) log E_q[(p(τ,O)/q(τ))^η] of policy[t][s][a], path by path."""
    with digits(eta):
        exact = dataclasses.replace(
            problem,
            initial=_rows(problem.initial),
            prior=_rows(problem.prior),
            P=_rows(problem.P),
            discount=mpf(problem.discount),
            **{name: _nats(getattr(problem, name), 1) for name in ("reward", "arrival", "final")},
        )
        weighted = []
        for path in oracles.paths(exact, policy=policy):
            x = path.reward / mpf(problem.temperature)
            for t, (s, a) in enumerate(zip(path.states, path.actions, strict=False)):
                x -= mpmath.log(policy[t][s][a] / exact.at(t).prior[s][a])
            weighted.append((path.probability, x))
        return soft(weighted, mpf(eta) if math.isfinite(eta) else eta)
