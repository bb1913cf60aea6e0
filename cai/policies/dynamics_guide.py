"""A guide that may also change the start and the dynamics, at a price of 1/η nats per nat of KL.

At η = 1 this is variational inference with a guide of actions and dynamics (Levine 2018, eq. 18):
it reaches the log evidence and the optimistic posterior, and fails in the true dynamics. At η = 0
the dynamics are fixed, as in ``model.rollout(policy)``.
"""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from cai import checks, one_line
from cai.distributions.exact_scores import exact, exact_scores
from cai.numerics import memory
from cai.numerics.arrays import of_step
from cai.numerics.exclusive import exclusive
from cai.policies.tabular import TabularPolicy
from cai.program.episode import register, unrolled
from cai.program.interfaces import Belief, Forms
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table
from cai.tables.tabulation import collapse, tabulate


class DynamicsGuide(nn.Module, Belief):
    """q(s_0) ∏ q(a_t|s_t) q_t(s_{t+1}|s_t,a_t), each as a table, and the model with its price.

    ``fit(model, guide)`` trains it by the exact gradient, and so does plain Pyro by
    ``SVI(guide.program, guide.guide, optim, TraceEnum_ELBO())``. The objective is

        E_q[Σ rewards/α - Σ KL(π‖p(a|s)) - (1/η) Σ KL(q(s'|s,a)‖p)] - (1/η) KL(q(s_0)‖p(s_0))

    with termination counted as part of the dynamics; its maximum is the bound of
    ``soft_values(model, optimism=η)``. The price is a scale on the sites of the start and of the
    dynamics, in the program and in the guide. Training starts at the true dynamics and the prior.

    As a policy it is its q(a|s): ``evaluate``, ``compare`` and ``model.rollout`` use that in the
    true dynamics, and ``compare`` shows what it imagined beside what it gets.

    Args:
        model: a model with finitely many states and actions and a finite horizon; its own latents
            are summed out.
        optimism: η ≥ 0. At 0 the dynamics are fixed and have no parameters.

    Attributes:
        program: p(τ, O) with the price, a Pyro program.
        policy: q(a|s), a :class:`cai.TabularPolicy`, which can be evaluated in the true dynamics.
        initial: (S,), log q(s_0)/p(s_0) up to a constant; float64.
        moves: (T, S, A, S), log q_t(s'|s,a)/p(s'|s,a) up to a constant.
        survival: (T, S), the change of the log-odds of surviving step t in state s';
            without effect if there is no discount.

    Raises:
        ValueError: if the model cannot be tabulated, its horizon is infinite, or η is below 0,
            where nature plays against the policy and no maximum gives the bound.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> guide = cai.DynamicsGuide(model, optimism=1.0)
    >>> fitted = inference.fit(model, guide, steps=50, progress=False)
    >>> fitted.policy.bound > guide.bound  # training raised the bound
    True
    """

    __repr__ = one_line.of_module

    def __init__(self, model: TrajectoryModel, optimism: float = 1.0) -> None:
        super().__init__()
        checks.check_model(model)
        if not 0 <= checks.check_optimism(optimism) < math.inf:
            checks.refuse(
                "optimism",
                "a finite number of at least 0",
                repr(optimism),
                "for η < 0 nature minimises: take inference.soft_values(model, optimism=η)",
            )
        T = checks.finite_horizon(model, "a guide")
        table = tabulate(model)
        S, A = table.num_states, table.num_actions
        # The true dynamics and their logarithm, and the parameters of each step.
        advice = "inference.soft_values(model, optimism) finds the optimum on successor lists"
        size = (2 + T * (optimism > 0)) * S * A * S
        memory.check_fits("model", f"moves of {S} states", size, advice)
        self.optimism, self._model = optimism, collapse(model)
        self.policy = TabularPolicy(model)
        self._log_start, self._log_moves = table.log_initial, table.dense(table.log_dynamics).log()
        self._reward, self._final = table.reward, table.final_reward
        self._arrival = _on_arrival(table)
        if optimism > 0:
            self.initial = nn.Parameter(torch.zeros(S, dtype=torch.float64))
            self.moves = nn.Parameter(torch.zeros(T, S, A, S, dtype=torch.float64))
            self.survival = nn.Parameter(torch.zeros(T, S, dtype=torch.float64))

    def forward(self, t: Any, s: Tensor) -> TorchDistribution:
        """q(a_t|s_t), for an int or a tensor t that broadcasts with s."""
        return self.policy(t, s)

    def extra_repr(self) -> str:
        """What its parameters do not say."""
        return f"optimism {self.optimism:g}"

    def is_of(self, problem: Forms) -> bool:
        """Whether it bends the dynamics of a problem, number for number."""
        return problem.table is not None and self._bends(problem.table)

    def _bends(self, table: Table) -> bool:
        moves = table.dense(table.log_dynamics).log()
        pairs = (
            (self.policy.log_prior, table.log_prior),
            (self._log_start, table.log_initial),
            (self._log_moves, moves),
            (self._reward, table.reward),
            (self._final, table.final_reward),
            (self._arrival, _on_arrival(table)),
        )
        model = self._model
        return (model.horizon, model.discount, model.temperature) == (
            table.horizon,
            table.discount,
            table.temperature,
        ) and all(torch.equal(x, y) for x, y in pairs)

    @property
    def bound(self) -> float:
        """The objective, (), nats, exactly: the ELBO that it imagines."""
        with torch.no_grad():
            return self.objective(self._model.temperature).item()

    @property
    def imagined_return(self) -> float:
        """The expected return under its own start and dynamics, reward units."""
        with torch.no_grad():
            return self.objective(1.0, cost=0.0).item()

    def objective(self, unit: float, cost: float = 1.0) -> Tensor:
        """E_q[Σ rewards/unit] minus ``cost`` times the divergences, (), nats, with a graph.

        Args:
            unit: reward units per nat; the model's temperature for the objective.
            cost: weight of the divergences; with 0 only the rewards count.
        """
        gamma, price, tilted = self._model.discount, cost * self._price, self.optimism > 0
        value = self._final / unit
        for t in range(len(self.policy.logits) - 1, -1, -1):
            q, kl = _tilted(of_step(self._log_moves, t, 3), self.moves[t] if tilted else None)
            survival = (
                _survival(gamma, self.survival[t])
                if tilted
                else torch.tensor(gamma, dtype=torch.float64)
            )
            after = survival * value
            if gamma < 1 and tilted:
                after = after - price * _termination_divergence(survival, gamma)
            arrival, reward = of_step(self._arrival, t, 3), of_step(self._reward, t, 2)
            values = reward / unit + _mean(q, after + arrival / unit - price * kl)
            pi, effort = _tilted(of_step(self.policy.log_prior, t, 2), self.policy.logits[t])
            value = _mean(pi, values - cost * effort)
        start, kl = _tilted(self._log_start, self.initial if tilted else None)
        return _mean(start, value - price * kl)

    def program(self) -> None:
        """The collapsed model, with the sites of start and dynamics scaled by their price."""
        with exclusive(), _Charge(self._price):
            self._model()

    def guide(self) -> None:
        """q(τ) with the same scaling, an ordinary guide; its sites are the program's."""
        if self.optimism == 0:
            self._model.rollout(self.policy)()
            return
        register(self)
        with exclusive(), _Charge(self._price), exact_scores():
            self._run()

    @property
    def _price(self) -> float:
        return 1 / self.optimism if self.optimism > 0 else 1.0

    def _run(self) -> None:
        model, gamma = self._model, self._model.discount
        policy, moves = unrolled(self.policy), (self._log_moves + self.moves).log_softmax(-1)
        s = pyro.sample("s_0", dist.Categorical(logits=self._log_start + self.initial))
        alive = torch.ones((), dtype=torch.float64)
        for t in pyro.markov(range(len(moves))):
            # After termination the prior and the true dynamics continue, at no cost.
            a = pyro.sample(f"a_{t}", _while(alive, policy(t, s), exact(model.prior(s, t))))
            tilted = dist.Categorical(logits=moves[t, s, a])
            s = pyro.sample(
                f"s_{t + 1}",
                _while(
                    alive, tilted, dist.Categorical(logits=of_step(self._log_moves, t, 3)[s, a])
                ),
            )
            if gamma < 1:
                survival = _survival(gamma, self.survival[t, s])
                alive = pyro.sample(f"alive_{t + 1}", dist.Bernoulli(survival * alive))


class _Charge(Messenger):
    """Scales the log-probabilities of the start and of the dynamics, termination included."""

    def __init__(self, price: float) -> None:
        super().__init__()
        self._price = price

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"].startswith(("s_", "alive_")):
            msg["scale"] = msg["scale"] * self._price


def _while(alive: Tensor, living: Any, dead: Any) -> TorchDistribution:
    return dist.Categorical(logits=torch.where(alive.unsqueeze(-1) > 0, living.logits, dead.logits))


def _tilted(log_p: Tensor, tilt: Tensor | None) -> tuple[Tensor, Tensor]:
    """q ∝ p exp(tilt), and log q/p, which is finite also where p is zero."""
    if tilt is None:
        return log_p.exp(), torch.zeros((), dtype=torch.float64)
    ratio = tilt - (log_p + tilt).logsumexp(-1, keepdim=True)
    return log_p.exp() * ratio.exp(), ratio


def _mean(p: Tensor, x: Tensor) -> Tensor:
    """E_p[x] with 0 · inf = 0, in the gradient too."""
    return (p * torch.where(p > 0, x, 0.0)).sum(-1)


def _survival(gamma: float, tilt: Tensor) -> Tensor:
    """γ with its log-odds changed by ``tilt``; one stays one."""
    odds = gamma * tilt.exp()
    return odds / (odds + 1 - gamma)


def _termination_divergence(survival: Tensor, gamma: float) -> Tensor:
    """KL(Bernoulli(survival) ‖ Bernoulli(γ)), nats."""
    lives = torch.xlogy(survival, survival / gamma)
    return lives + torch.xlogy(1 - survival, (1 - survival) / (1 - gamma))


def _on_arrival(table: Table) -> Tensor:
    """r⁺(s,a,s') over all successors, (S, A, S) or (); zero for impossible ones."""
    paid = table.arrival_reward
    if paid is None or table.successors is None:
        return torch.zeros((), dtype=torch.float64) if paid is None else paid
    dense = paid.new_zeros(*paid.shape[:-1], table.num_states)
    return dense.scatter_(-1, table.successors.expand(paid.shape), paid)
