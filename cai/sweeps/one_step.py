"""One step of a table at one η as a matrix product, with a fallback where it loses digits.

    E(i) = Σ_s' W(i,s') w(s'),      w(s') = exp(η u(s') - m),      m = max_s' η u(s')

u is the continuation of the next step. At η = 1 actions and successors are summed alike: i is a
state, W = Σ_a p(a|s) p(s'|s,a) exp((r + r⁺)/α), and v = m + log E. At any other η, i is an action
and a state, W = p(s'|s,a) exp(η r⁺/α), and the actions are summed afterwards, in log space. At
η = 0 the product W u is the expectation itself.

A row whose sum is too small for a product to keep all digits (``matrices.py``) is computed again
in log space, as in bellman.py.

Rewards and action priors may depend on the step, since W does not contain them at any η unless
joint; then methods are told the step t.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cai.numerics import logspace
from cai.numerics.exclusive import cached_property
from cai.numerics.logspace import product
from cai.numerics.matrices import Array, LogMatrix, Matrix
from cai.sweeps.rows import by_action, log_weights, rows_by_action
from cai.tables import bellman
from cai.tables.table import Table

_BLOCK = 2**20  # numbers at a time where rows are done in log space


class SoftBackup:
    """One step at one η; its rows i are states if joint, else actions and states.

    Args:
        table: the problem.
        eta: η, finite.
        joint: whether actions are summed together with the successors, which η = 1 allows if
            every step is alike.

    Attributes:
        rows: the weights, (R, S).
        W: the same, each row scaled by its largest.
        num_rows: R.
        plain: whether a plain product may do for every row of every step, as far as one knows.
        redone: how many rows underflowed so far, and were computed again in log space.
        linear: whether that is so of many steps at once, see linear_steps.py.
        growth: if linear, nats, the largest value of a step without the values of successors.
        contraction: if linear, (R,), the scales of the rows over exp(growth), so that a step
            enlarges nothing.
    """

    def __init__(self, table: Table, eta: float, joint: bool) -> None:
        self.table, self.eta, self.joint, self.redone = table, eta, joint, 0
        self.rows = rows = _joint_rows(table) if joint else rows_by_action(table, eta)
        self.W, self.num_rows = rows.W, len(rows.possible)
        if joint:
            self._base = self._logits = rows.scale
        else:
            reward = table.expected_reward if eta == 0 else table.reward
            self._base = _of_rows(reward / table.temperature)
            if eta != 0:
                self._base = self._base + rows.scale / eta
            self._logits = self._base + _of_rows(table.log_prior)
        best = self._logits.reshape(*self._logits.shape[:-1], -1, table.num_states).max(-2)
        self._may_be_lost = bool(np.isneginf(best).any() or table.final_reward.isneginf().any())
        if table.arrival_reward is not None:
            self._may_be_lost |= bool(table.arrival_reward.isneginf().any())
        self.plain = rows.all_possible and not self._may_be_lost
        self.linear = joint and self.plain and table.discount == 1
        if self.linear:
            log_totals = self._base + np.log(self.W.times(np.ones(table.num_states)))
            self.growth = float(log_totals.max())
            self.contraction = np.exp(self._base - self.growth).astype(self.W.dtype)

    def back(self, v_next: Array, t: int = 0, keep: Array | None = None) -> Array:
        """v(s) from the values of the next step, (S,) -> (S,), nats.

        Args:
            v_next: (S,), nats.
            t: the step, if steps differ.
            keep: (R,), is filled with π(a|s)/E, by which a forward sweep multiplies masses (1/E if
                joint, π at η = 0); with NaN for rows computed in log space.
        """
        q, _, E = self.log_rows(v_next, t)
        if keep is not None:
            fine = E is None or E.min() >= self.rows.smallest
            np.divide(1.0, np.nan if not fine else 1.0 if E is None else E, out=keep)
        if self.joint:
            return q
        q = q.reshape(self.table.num_actions, -1)
        top = np.maximum.reduce(q)
        if self._may_be_lost:
            top = np.where(top == -np.inf, 0.0, top)
        p = np.exp(q - top)
        total = np.add.reduce(p)
        if keep is not None:
            p /= total
            keep *= p.ravel()
        return top + np.log(total)

    def log_rows(
        self, v_next: Array, t: int = 0, prior: bool = True
    ) -> tuple[Array, Array | None, Array | None]:
        """The logarithm of each row, nats, with its w and E.

        If joint, it is v(s), else log p(a|s) + q(s,a).

        Args:
            v_next: (S,) or several steps at once, (n, S).
            t: the first of these steps, if steps differ.
            prior: False leaves log p(a|s) out.

        Returns:
            (R,) or (n, R), then w (S,) or (n, S), and E as the first; None for both at η = 0.
        """
        base = _steps(self._logits if prior else self._base, t, v_next)
        u = self._continuation(v_next)
        if self.eta == 0:
            return base + self._mean(u), None, None
        log_sums, w, E = self.rows.log_sums(self.eta * u)
        q = base + log_sums / self.eta
        if E.min() < self.rows.smallest:
            for one, sums, values in zip(
                np.atleast_2d(q), np.atleast_2d(E), np.atleast_2d(v_next), strict=True
            ):
                self._mend(one, np.flatnonzero(self.rows.underflowed(sums)), values, t, prior)
                t += 1
        return q, w, E

    def policy(self, logits: Array, t: int = 0) -> Array:
        """π(a|s) from log p(a|s) + q(s,a), (n, R) -> (n, A, S); at a dead end the prior.

        Args:
            logits: (n, R), nats.
            t: the first of these steps, if steps differ.
        """
        q = logits.reshape(len(logits), self.table.num_actions, -1)
        top = q.max(1, keepdims=True)
        if self._may_be_lost:
            prior = self.table.log_prior.mT.numpy()
            q = np.where(top == -np.inf, prior if prior.ndim == 2 else prior[t : t + len(q)], q)
            top = np.where(top == -np.inf, 0.0, top)
        p = np.exp(q - top)
        return p / p.sum(1, keepdims=True)

    def w(self, v_next: Array) -> Array | None:
        """exp(η u - m) of the successors in some steps, (n, S) -> (n, S); None at η = 0."""
        if self.eta == 0:
            return None
        y = self.eta * self._continuation(v_next)
        return np.exp(y - y.max(-1, keepdims=True))

    def survival(self, v: Array) -> Array | None:
        """The survival probability at η of each successor, (n, S) or (n, 1); None if certain."""
        gamma = self.table.discount
        if gamma == 1:
            return None
        if self.eta == 0:
            return np.full((len(v), 1), gamma)
        return bellman.survival(torch.from_numpy(v), self.eta, gamma).exp().numpy()

    def alone(self, rows: Array, v_next: Array) -> tuple[Tensor, Tensor, Tensor]:
        """Some rows in log space, one by one; if joint, with actions and successors apart.

        Args:
            rows: (n,), which.
            v_next: (S,), nats.

        Returns:
            Their log-weights (n, K), the value of each outcome (n, K), both in nats, and the
            successor states, (n, K) or (K,).
        """
        table, u = self.table, torch.from_numpy(self._continuation(v_next))
        at = self._places(rows)
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
        """(n, K), reward units: the rewards of the outcomes of :meth:`alone`, r + r⁺ or r⁺."""
        return self._paid[self._places(rows)].flatten(1)

    def listed_weights(self) -> Tensor:
        """(R, K), the weights in the table's order of successors; actions must not be summed."""
        return self.rows.scaled(log_weights(self.table, self.eta))

    @cached_property
    def earnings(self) -> Matrix | None:
        """(R, S), reward units: W times rewards, r + r⁺ if joint, else r⁺; None at η = 0.

        With the weights of a flow it sums the rewards of a step under the chain at η.
        """
        table = self.table
        if self.eta == 0 or (table.arrival_reward is None and not self.joint):
            return None
        if not self.joint:
            return self.rows.matrix(product(self.listed_weights(), by_action(self._paid)))
        w = product(self.rows.scaled(table.log_weights), self._paid)
        return self.rows.matrix(w.sum(1) if table.successors is None else w.flatten(1))

    @property
    def _paid(self) -> Tensor:
        """(S, A, K), reward units: r + r⁺ if joint, else r⁺."""
        if self.joint:
            return self.table.outcome_rewards.expand(self.table.log_dynamics.shape)
        assert self.table.arrival_reward is not None
        return self.table.arrival_reward

    def _places(self, rows: Array) -> tuple[Tensor, ...]:
        """The indices of some rows in arrays (S, …) if joint, else (S, A, …)."""
        i, S = torch.from_numpy(rows), self.table.num_states
        return (i,) if self.joint else (i % S, i // S)

    def blocks(self, rows: Array) -> list[Array]:
        """Rows in blocks that are small enough for :meth:`alone`."""
        K = self.table.log_dynamics.shape[-1] * (self.table.num_actions if self.joint else 1)
        n = max(1, _BLOCK // K)
        return [rows[start : start + n] for start in range(0, len(rows), n)]

    def _mend(self, q: Array, rows: Array, v_next: Array, t: int, prior: bool) -> None:
        """Replaces the rows of q that underflowed by those computed in log space."""
        if not len(rows):
            return
        self.redone += len(rows)
        table = self.table.at(t)
        for part in self.blocks(rows):
            log_p, x, _ = self.alone(part, v_next)
            soft = logspace.soft_mean(log_p, x, self.eta)
            if not self.joint:
                at = self._places(part)
                soft = soft + table.reward[at] / table.temperature
                if prior:
                    soft = soft + table.log_prior[at]
            q[part] = soft.numpy()

    def _mean(self, u: Array) -> Array:
        """E[u] of each row; -inf if -inf is possible."""
        if self._may_be_lost and (certain := np.isneginf(u)).any():
            mean = self._mean(np.where(certain, 0.0, u))
            return np.where(self._pattern.times(certain.astype(float)) > 0, -np.inf, mean)
        if self.table.precision == torch.float64:
            return self.W.times(u)
        centre = u.mean(-1, keepdims=True)  # a float32 product errs by 1e-7 of its summands
        return centre + self.W.times(u - centre)

    def _continuation(self, v: Array) -> Array:
        if self.table.discount == 1:
            return v
        if self.eta == 0:
            return self.table.discount * v
        return bellman.continuation(torch.from_numpy(v), self.eta, self.table.discount).numpy()

    @cached_property
    def _pattern(self) -> Matrix:
        """One where an outcome is possible, however improbable."""
        return self.rows.matrix((by_action(self.table.log_dynamics) > -torch.inf).double())


def _joint_rows(table: Table) -> LogMatrix:
    """log p(a|s) + log p(s'|s,a) + (r + r⁺)/α, (S, A·K); dense, actions summed, (S, S)."""
    log_w = table.log_weights
    if table.successors is None:
        log_w, index = log_w.logsumexp(1), None
    else:
        log_w, index = log_w.flatten(1), table.successors.flatten(1)
    return LogMatrix(log_w, index, table.num_states, table.precision)


def _steps(x: Array, t: int, v_next: Array) -> Array:
    """What belongs to the rows of step t, or of the steps from t on that have next values (n, S).

    Args:
        x: (R,), or (T, R) if steps differ.
        t: the first step.
        v_next: (S,) or (n, S).
    """
    if x.ndim == 1:
        return x
    return x[t] if v_next.ndim == 1 else x[t : t + len(v_next)]


def _of_rows(x: Tensor) -> Array:
    """(…, S, A) -> (…, A·S)."""
    return x.transpose(-1, -2).flatten(-2).numpy()
