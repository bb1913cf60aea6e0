"""One step of a table at one η as a matrix product, exact where a plain product is not.

    E(i) = Σ_s' W(i,s') w(s'),      w(s') = exp(η u(s') - m),      m = max_s' η u(s')

u is the continuation of the step after. At η = 1 actions and successors are summed alike: i is a
state, W = Σ_a p(a|s) p(s'|s,a) exp((r + r⁺)/α), and v = m + log E. At any other η, i is an action
and a state, W = p(s'|s,a) exp(η r⁺/α), and the actions are summed afterwards, in log space. At
η = 0 the product W u is the expectation itself.

A plain product underflows where the successors of a row are worth far less than m. Each row is
scaled by its largest weight, and a row whose sum is still smaller than what a product keeps all
digits of is done again in log space, as bellman.py does it. What is left out of a row that stands
is below 1e-58 of it (1e-18 in float32).
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from cai.numerics import logspace
from cai.numerics.logspace import product
from cai.numerics.matrices import Array, Matrix
from cai.tables import bellman
from cai.tables.table import Table

_NEAR_ZERO = 0.1  # below this |η| the logarithm is taken around one
_SMALLEST = {torch.float64: 1e-250, torch.float32: 1e-20}  # smaller sums are done in log space
_BLOCK = 2**20  # numbers at a time where rows are done in log space


class Step:
    """One step at one η; its rows i are states where joint, else actions and states.

    Args:
        table: the problem.
        eta: η, finite.
        joint: whether actions are summed together with the successors, which η = 1 allows.

    Attributes:
        W: (R, S), the weights, each row scaled by its largest.
        possible: (R,), which rows have a weight at all.
        smallest: the sums below which a row is done in log space.
    """

    def __init__(self, table: Table, eta: float, joint: bool) -> None:
        self.table, self.eta, self.joint = table, eta, joint
        self.smallest = _SMALLEST[table.precision]
        log_w = self._joint_log_weights() if joint else self._log_weights()
        scale = torch.zeros(len(log_w), dtype=torch.float64) if eta == 0 else log_w.amax(-1)
        self._around_one = None if joint or eta == 0 or abs(eta) >= _NEAR_ZERO else self._close()
        if self._around_one is not None:
            scale = torch.where(torch.from_numpy(self._around_one), 0.0, scale)
        self._scale = scale.numpy()
        self.possible: Array = scale.isfinite().numpy()
        self._all_possible = bool(self.possible.all())
        w = _scaled_down(log_w, scale.unsqueeze(-1))
        self.W = self._matrix(w)
        if joint:
            self._base = self._logits = scale.numpy()
        else:
            reward = table.expected_reward if eta == 0 else table.reward
            q = self._rows(reward / table.temperature)
            q = q if eta == 0 else q + scale / eta
            self._base, self._logits = q.numpy(), (q + self._rows(table.log_prior)).numpy()
        best = self._logits.reshape(-1, table.num_states).max(0)
        self._may_die = bool(np.isneginf(best).any() or table.final_reward.isneginf().any())
        if table.arrival_reward is not None:
            self._may_die |= bool(table.arrival_reward.isneginf().any())

    def back(self, v_next: Array, keep: Array | None = None) -> Array:
        """v(s) from the values of the step after, (S,) -> (S,), nats.

        Args:
            v_next: (S,), nats.
            keep: (R,), is filled with π(a|s)/E, what a forward sweep multiplies masses with (1/E
                where joint, π at η = 0); with NaN where rows had to be done in log space.
        """
        q, _, E = self.log_rows(v_next)
        if keep is not None:
            fine = E is None or E.min() >= self.smallest
            np.divide(1.0, np.nan if not fine else 1.0 if E is None else E, out=keep)
        if self.joint:
            return q
        q = q.reshape(self.table.num_actions, -1)
        top = np.maximum.reduce(q)
        if self._may_die:
            top = np.where(top == -np.inf, 0.0, top)
        p = np.exp(q - top)
        total = np.add.reduce(p)
        if keep is not None:
            p /= total
            keep *= p.ravel()
        return top + np.log(total)

    @property
    def plain(self) -> bool:
        """Whether every row of every step can be a plain product, as far as one can know before."""
        return self._all_possible and not self._may_die

    @cached_property
    def growth(self) -> float:
        """Nats: the most that a step without successors' values is worth, where joint."""
        return float((self._scale + np.log(self.W.times(np.ones(self.table.num_states)))).max())

    @cached_property
    def contraction(self) -> Array:
        """(R,): what rows are scaled by, over exp(growth), so that a step makes nothing larger."""
        return np.exp(self._scale - self.growth).astype(self.W.dtype)

    def log_rows(
        self, v_next: Array, prior: bool = True
    ) -> tuple[Array, Array | None, Array | None]:
        """The logarithm of each row, nats, with the w and E that it comes from.

        Where joint that is v(s), else log p(a|s) + q(s,a).

        Args:
            v_next: (S,) or several steps at once, (n, S).
            prior: False leaves log p(a|s) out.

        Returns:
            (R,) or (n, R), then w (S,) or (n, S), and E as the first; None for both at η = 0.
        """
        base = self._logits if prior else self._base
        u = self._continuation(v_next)
        if self.eta == 0:
            return base + self._mean(u), None, None
        soft, w, E = self._soft(u)
        q = base + soft
        if E.min() < self.smallest:
            for one, sums, values in zip(
                np.atleast_2d(q), np.atleast_2d(E), np.atleast_2d(v_next), strict=True
            ):
                self._mend(one, np.flatnonzero(self.underflowed(sums)), values, prior)
        return q, w, E

    def underflowed(self, E: Array) -> Array:
        """Which rows have to be done in log space."""
        return (self.smallest > E) & self.possible

    def policy(self, logits: Array) -> Array:
        """π(a|s) from log p(a|s) + q(s,a), (n, R) -> (n, A, S); at a dead end the prior."""
        q = logits.reshape(len(logits), self.table.num_actions, -1)
        top = q.max(1, keepdims=True)
        if self._may_die:
            q = np.where(top == -np.inf, self.table.log_prior.T.numpy(), q)
            top = np.where(top == -np.inf, 0.0, top)
        p = np.exp(q - top)
        return p / p.sum(1, keepdims=True)

    def w(self, v_next: Array) -> Array | None:
        """exp(η u - m) of the successors in some steps, (n, S) -> (n, S); None at η = 0."""
        if self.eta == 0:
            return None
        y = self.eta * self._continuation(v_next)
        return np.exp(y - y.max(-1, keepdims=True))

    def survival(self, v: Array) -> Array:
        """The bent probability to survive of each successor, in the shape of its values."""
        gamma = self.table.discount
        if self.eta == 0:
            return np.full((len(v), 1), gamma)
        return bellman.survival(torch.from_numpy(v), self.eta, gamma).exp().numpy()

    def alone(self, rows: Array, v_next: Array) -> tuple[Tensor, Tensor, Tensor]:
        """Some rows in log space, one by one, actions and successors apart where joint.

        Args:
            rows: (n,), which.
            v_next: (S,), nats.

        Returns:
            The logarithm of their weights (n, K), what each outcome is worth (n, K), both nats,
            and which state it is, (n, K) or (K,).
        """
        table, u = self.table, torch.from_numpy(self._continuation(v_next))
        i = torch.from_numpy(rows)
        a, s = i // table.num_states, i % table.num_states
        at = (i,) if self.joint else (s, a)
        if table.successors is None:
            index = torch.arange(table.num_states).repeat(table.num_actions if self.joint else 1)
        else:
            index = table.successors[at].flatten(1)
        x = u[index].expand(len(rows), -1)
        if self.joint:
            return table.log_weights[at].flatten(1), x, index
        if table.arrival_reward is not None:
            x = x + table.arrival_reward[at] / table.temperature
        return table.log_dynamics[at], x, index

    def paid(self, rows: Array) -> Tensor:
        """(n, K), reward units: what the outcomes of :meth:`alone` pay, r + r⁺ or r⁺ alone."""
        table, i = self.table, torch.from_numpy(rows)
        if self.joint:
            return _both(table)[i].flatten(1)
        assert table.arrival_reward is not None
        return table.arrival_reward[i % table.num_states, i // table.num_states]

    def listed_weights(self) -> Tensor:
        """(R, K), the weights as the table lists successors; actions must not be summed."""
        return _scaled_down(self._log_weights(), torch.from_numpy(self._scale).unsqueeze(-1))

    @cached_property
    def earnings(self) -> Matrix | None:
        """(R, S), reward units: W times what is paid, r + r⁺ where joint, else r⁺; None at η = 0.

        With the weights of a flow it sums what the bent chain is paid in a step.
        """
        table = self.table
        if self.eta == 0 or (table.arrival_reward is None and not self.joint):
            return None
        if self.joint:
            paid, log_w = _both(table), table.log_weights
            scale = torch.from_numpy(self._base)[:, None, None]
        else:
            assert table.arrival_reward is not None
            paid, log_w = self._rows(table.arrival_reward), self._log_weights()
            scale = torch.from_numpy(self._scale).unsqueeze(-1)
        w = _scaled_down(log_w, scale)
        w = torch.where(w > 0, w * paid, 0.0)
        if self.joint:
            w = w.sum(1) if table.successors is None else w.flatten(1)
        return self._matrix(w)

    def blocks(self, rows: Array) -> list[Array]:
        """Rows in parts that are small enough for :meth:`alone`."""
        K = self.table.log_dynamics.shape[-1] * (self.table.num_actions if self.joint else 1)
        n = max(1, _BLOCK // K)
        return [rows[start : start + n] for start in range(0, len(rows), n)]

    def _mend(self, q: Array, rows: Array, v_next: Array, prior: bool) -> None:
        """The rows that underflowed, in log space; changes q."""
        table = self.table
        for part in self.blocks(rows):
            log_p, x, _ = self.alone(part, v_next)
            soft = logspace.soft_mean(log_p, x, self.eta).numpy()
            if not self.joint:
                a, s = part // table.num_states, part % table.num_states
                soft = soft + table.reward.numpy()[s, a] / table.temperature
                if prior:
                    soft = soft + table.log_prior.numpy()[s, a]
            q[part] = soft

    def _soft(self, u: Array) -> tuple[Array, Array, Array]:
        """(m + log E)/η, w and E."""
        y = self.eta * u
        m = y.max(-1, keepdims=True)
        if not math.isfinite(m.sum()):  # nothing that a product could sum
            y = np.where(np.isfinite(m), y, -np.inf)
            m = np.where(np.isfinite(m), m, 0.0)
        y = y - m
        w = np.exp(y)
        if self._around_one is None:
            E = self.W.times(w)
            log_E = np.log(E)
        else:
            above = self._excess + self.W.times(np.expm1(y))
            near = self._around_one & (above > -0.5)
            E = above + 1 if near.all() else self.W.times(w)
            log_E = np.where(near, np.log1p(above), np.log(E))
        if not self._all_possible:
            E[..., ~self.possible], log_E[..., ~self.possible] = 1.0, 0.0
        return (m + log_E) / self.eta, w, E

    def _mean(self, u: Array) -> Array:
        """E[u] of each row; -inf where that can happen."""
        if self._may_die and (certain := np.isneginf(u)).any():
            mean = self._mean(np.where(certain, 0.0, u))
            return np.where(self._pattern.times(certain.astype(float)) > 0, -np.inf, mean)
        if self.table.precision == torch.float64:
            return self.W.times(u)
        centre = u.mean(-1, keepdims=True)  # a product in float32 errs by 1e-7 of what it sums
        return centre + self.W.times(u - centre)

    def _continuation(self, v: Array) -> Array:
        if self.table.discount == 1:
            return v
        if self.eta == 0:
            return self.table.discount * v
        return bellman.continuation(torch.from_numpy(v), self.eta, self.table.discount).numpy()

    def _log_weights(self) -> Tensor:
        """log p(s'|s,a) + η r⁺/α, (A·S, K)."""
        log_w = self.table.log_dynamics
        if self.table.arrival_reward is not None and self.eta != 0:
            change = self.table.arrival_reward / self.table.temperature
            log_w = logspace.scaled(log_w, change, self.eta)
        return self._rows(log_w)

    def _joint_log_weights(self) -> Tensor:
        """log p(a|s) + log p(s'|s,a) + (r + r⁺)/α, (S, A·K); dense, actions summed, (S, S)."""
        log_w = self.table.log_weights
        return log_w.logsumexp(1) if self.table.successors is None else log_w.flatten(1)

    @cached_property
    def _pattern(self) -> Matrix:
        """One where an outcome is possible, however improbable."""
        return self._matrix((self._rows(self.table.log_dynamics) > -torch.inf).double())

    @cached_property
    def _excess(self) -> Array:
        """(R,): Σ_s' p(s'|s,a) (exp(η r⁺/α) - 1)."""
        table = self.table
        if table.arrival_reward is None:
            return np.zeros(len(self.possible))
        change = torch.expm1(self.eta * table.arrival_reward / table.temperature)
        return self._rows(product(table.log_dynamics.exp(), change).sum(-1)).numpy()

    def _close(self) -> Array:
        """(R,): whether exp(η r⁺/α) is near one, or zero; such rows are not scaled."""
        table = self.table
        if table.arrival_reward is None:
            return np.ones(table.num_states * table.num_actions, dtype=bool)
        change = self.eta * table.arrival_reward / table.temperature
        return self._rows(((change.abs() <= 1) | change.isneginf()).all(-1)).numpy()

    def _matrix(self, w: Tensor) -> Matrix:
        index = None
        if self.table.successors is not None:
            index = self.table.successor_index if self.joint else self._rows(self.table.successors)
        precision = {torch.float64: np.float64, torch.float32: np.float32}[self.table.precision]
        return Matrix(w.numpy().astype(precision, copy=False), index, self.table.num_states)

    @staticmethod
    def _rows(x: Tensor) -> Tensor:
        """(S, A, ...) -> (A·S, ...)."""
        return x.transpose(0, 1).flatten(0, 1)


def _scaled_down(log_w: Tensor, scale: Tensor) -> Tensor:
    """exp(log_w - scale); zero in rows of nothing, or of a certain loss below η = 0."""
    finite = scale.isfinite()
    return torch.where(finite, (log_w - torch.where(finite, scale, 0.0)).exp(), 0.0)


def _both(table: Table) -> Tensor:
    """(S, A, K), reward units: r + r⁺."""
    reward = table.reward.unsqueeze(-1).expand(table.log_dynamics.shape)
    return reward if table.arrival_reward is None else reward + table.arrival_reward
