"""The forward sweep of mass by matrix products: first derivatives with the soft rule.

``_adjoint.py`` says what is computed, ``one_step.py`` where the numbers come from: on its rows i,
which are actions and states, the dynamics at η are W(i,s') w(s') / E(i). So a mass m on the rows
arrives as w ⊙ Wᵀ(m/E), and their gradient over many steps is one product of two matrices,

    Σ_t m_t(i) q_t(s'|i) = W(i,s') Σ_t (m_t/E_t)(i) w_t(s'),

without any array of size (T, S, A, S). At η = 0 it is Σ_t m_t p (x_t - E x_t), with the values
themselves for w. Rows for which a product loses digits are computed in log space.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cai.inference.derivatives._linearised import Recursion, Visits
from cai.inference.derivatives._pullback import Gradients, Needed, Tensors
from cai.numerics import logspace
from cai.numerics.matrices import Array
from cai.sweeps import sweeps
from cai.sweeps.one_step import SoftBackup
from cai.sweeps.push import forward_steps, push, push_alone
from cai.sweeps.sweeps import QUIET, parts, step_of
from cai.tables.table import Table

_NEAR_ZERO = 0.1  # below this |η| (q - p)/η cancels, unless η = 0


def suits(problem: Recursion, dynamics: bool) -> bool:
    """Whether products can be used; near η = 0 not for derivatives in the dynamics."""
    eta = problem.eta
    cancels = dynamics and 0 < abs(eta) < _NEAR_ZERO
    if problem.table.by_step or problem.rule != "soft" or cancels:
        return False
    return sweeps.by_products(problem.table, eta)


def log_policy_at_visits(problem: Recursion, table: Table, v: Tensor) -> Tensor:
    """log π_t(a|s) at the visits, (N,), from values (T+1, S), nats."""
    visits = problem.visits
    assert visits is not None
    rows, found = step_of(table, problem.eta, joint=False), [v.new_zeros(0)]
    with table.threads(), np.errstate(**QUIET):
        for t, after in parts(rows, v.numpy()):
            inside, (i, s, a) = visits.within(slice(t, t + len(after)))
            if inside.start < inside.stop:
                logits = torch.from_numpy(rows.log_rows(after)[0])
                logits = logits.unflatten(1, (table.num_actions, -1))[i, :, s]
                dead_end = logits.amax(-1, keepdim=True) == -torch.inf
                log_pi = torch.where(dead_end, table.log_prior[s], logits).log_softmax(-1)
                found.append(log_pi.gather(-1, a.unsqueeze(-1)).squeeze(-1))
    return torch.cat(found)


def gradients(
    problem: Recursion, table: Table, v: Tensor, on: Tensors, needed: Needed
) -> Gradients:
    """The gradients of reward, arrival and final reward, log prior and log dynamics, all in nats.

    Args:
        problem: the part without derivatives.
        table: the problem in nats, its tensors detached.
        v: (T+1, S), nats.
        on: ∂loss/∂v, (T+1, S), and ∂loss/∂ log π at the visits, (N,).
        needed: which of the gradients are wanted.
    """
    rows = step_of(table, problem.eta, joint=False)
    on_v, on_log_policy = on[0].numpy(), on[1]
    arriving = on_v[0]
    paid = np.zeros((table.num_actions, table.num_states))
    beside = np.zeros_like(paid)  # gradients of log p(a|s) that do not pass through q
    tilt = _Tilt(rows) if needed[1] or needed[-1] else None
    with table.threads(), np.errstate(**QUIET):
        for t, after in parts(rows, v.numpy()):
            part = _Part(rows, t, v.numpy()[t : t + len(after)], after)
            sources, asked = on_v[t + 1 : t + 1 + len(after)], None
            if problem.visits is not None:
                asked, at_dead_ends = part.asked(problem.visits, on_log_policy)
                beside += at_dead_ends
                sources = sources + part.arrivals(asked)
            mass, arriving = part.carried(arriving, sources)
            paid += np.einsum("nas,ns->as", part.policy, mass)
            if asked is not None:
                paid += asked.sum(0)
            if tilt is not None:
                by_action = part.policy * mass[:, None]
                tilt.collect(part, by_action if asked is None else by_action + asked)
    reward, prior = (torch.from_numpy(x.T).contiguous() for x in (paid, paid + beside))
    arrival, dynamics = (None, None) if tilt is None else tilt.gradients(reward)
    return reward, arrival, torch.from_numpy(arriving), prior, dynamics


class _Part:
    """Consecutive steps n, from t on, with actions apart.

    Args:
        rows: the step, actions apart, R = A·S rows.
        t: the first of the steps.
        now: (n, S), nats, their values.
        after: (n, S), nats, those of the next steps.

    Attributes:
        E: (n, R), the sums of the rows; None at η = 0.
        ahead: the factors that propagate a mass forward.
        policy: (n, A, S), π(a|s).
    """

    def __init__(self, rows: SoftBackup, t: int, now: Array, after: Array) -> None:
        self.rows, self.t, self.now = rows, t, now
        self._logits, w, self.E = rows.log_rows(after)
        self.ahead = forward_steps(rows, after, self._logits, w, self.E)
        assert self.ahead.policy is not None
        self.policy: Array = self.ahead.policy

    def asked(self, visits: Visits, on_log_policy: Tensor) -> tuple[Array, Array]:
        """Gradients from the log-policy at the visits: of q, (n, A, S), and of the prior, (A, S).

        An action counts where it was taken, minus its probability for each visit of its state. The
        prior counts at dead ends only.
        """
        inside, index = visits.within(slice(self.t, self.t + len(self.now)))
        i, s, a = (x.numpy() for x in index)
        alive = self.now > -np.inf
        logits = self._logits.reshape(self.policy.shape)[i, a, s]
        prior = self.rows.table.log_prior.numpy()[s, a]
        possible = np.where(alive[i, s], logits, prior) > -np.inf
        taken = np.zeros_like(self.policy)
        np.add.at(taken, (i, a, s), np.where(possible, on_log_policy.numpy()[inside], 0.0))
        asked = taken - taken.sum(1, keepdims=True) * self.policy
        return np.where(alive[:, None], asked, 0.0), np.where(alive[:, None], 0.0, asked).sum(0)

    def carried(self, arriving: Array, sources: Array) -> tuple[Array, Array]:
        """The masses (n, S) of the steps, and the mass that arrives after the last, (S,).

        Args:
            arriving: (S,), the mass that arrives at the first.
            sources: (n, S), the mass that is added on arrival at the next steps.
        """
        step, ahead = step_of(self.rows.table, self.rows.eta), self.ahead
        if step.joint:  # faster, since actions need not be told apart here
            ahead = forward_steps(step, ahead.v, *step.log_rows(ahead.v))
        mass = np.empty_like(self.now)
        for i in range(len(mass)):  # no mass arrives where v = -inf
            mass[i] = arriving
            arriving = sources[i] + push(step, arriving, ahead, i)
        return mass, arriving

    def arrivals(self, mass: Array) -> Array:
        """The mass that arrives alive in each state from the rows, (n, A, S) -> (n, S)."""
        ahead = self.ahead
        arrived = self.rows.W.transposed_times(self.over(mass))
        if ahead.w is not None:
            arrived = arrived * ahead.w
        for i, alone in enumerate(self.alone(mass)):
            arrived[i] += push_alone(self.rows, alone, ahead.v[i])
        return arrived if ahead.survival is None else arrived * ahead.survival

    def over(self, mass: Array) -> Array:
        """mass/E, (n, A, S) -> (n, R), zero for rows computed in log space."""
        mass = mass.reshape(len(mass), -1)
        if (alone := self.ahead.alone) is not None:
            mass = np.where(alone, 0.0, mass)
        return mass if self.E is None else mass / np.where(mass == 0, 1.0, self.E)

    def alone(self, mass: Array) -> Array:
        """The mass on rows computed in log space, (n, A, S) -> (n, R); (0, R) if there are none."""
        if self.ahead.alone is None:
            return np.empty((0, self.rows.num_rows))
        return np.where(self.ahead.alone, mass.reshape(len(mass), -1), 0.0)


class _Tilt:
    """The gradients of arrival rewards and dynamics from masses on the rows, over all steps.

    Args:
        rows: the step, actions apart.
    """

    def __init__(self, rows: SoftBackup) -> None:
        self.rows = rows
        table, R = rows.table, rows.num_rows
        self._heads: Array | None = None
        if table.successors is not None:
            self._heads = table.successors.transpose(0, 1).flatten(0, 1).numpy()
        self._ahead = np.zeros((R, table.log_dynamics.shape[-1]))  # Σ m/E w; at η = 0 Σ m u
        self._alone: Array | None = None  # Σ m q of rows in log space

    def collect(self, part: _Part, mass: Array) -> None:
        """Adds the contribution of masses (n, A, S) in some steps."""
        v_next, x = part.ahead.v, part.ahead.w
        if x is None:
            x = self.rows.table.discount * v_next
            x = np.where(x > -np.inf, x, 0.0)  # a row with mass does not reach such a state
        self._add(part.over(mass), x)
        for i, row in enumerate(part.alone(mass)):
            self._add_alone(v_next[i], row)

    def _add(self, mass: Array, x: Array) -> None:
        """Σ_t mass_t(i) x_t(s'_k), (n, R) and (n, S)."""
        if self._heads is None:
            self._ahead += mass.T @ x
            return
        mass, x = np.ascontiguousarray(mass.T), np.ascontiguousarray(x.T)
        for k, heads in enumerate(self._heads.T):
            self._ahead[:, k] += np.einsum("rn,rn->r", mass, x[heads])

    def _add_alone(self, v_next: Array, mass: Array) -> None:
        for part in self.rows.blocks(np.flatnonzero(mass)):
            if self._alone is None:
                self._alone = np.zeros_like(self._ahead)
            log_p, x, _ = self.rows.alone(part, v_next)
            self._alone[part] += (
                mass[part, None] * logspace.tilt(log_p, x, self.rows.eta).exp().numpy()
            )

    def gradients(self, passed: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of arrival rewards, and of log dynamics along the simplex, (S, A, K).

        Args:
            passed: (S, A), the mass on each row, over all steps.
        """
        table, eta, passed = self.rows.table, self.rows.eta, passed.unsqueeze(-1)
        ahead, p = self._by_state(self._ahead), table.log_dynamics.exp()
        if eta == 0:
            if table.arrival_reward is not None:
                ahead = ahead + passed * torch.where(
                    table.arrival_reward > -torch.inf, table.arrival_reward, 0.0
                )
            return p * passed, p * (ahead - (p * ahead).sum(-1, keepdim=True))
        counts = self._by_state(self.rows.listed_weights().numpy()) * ahead
        if self._alone is not None:
            counts = counts + self._by_state(self._alone)
        return counts, (counts - p * passed) / eta

    def _by_state(self, x: Array) -> Tensor:
        """(R, K) -> (S, A, K)."""
        shape = self.rows.table.num_actions, -1
        return torch.from_numpy(x).unflatten(0, shape).transpose(0, 1).contiguous()
