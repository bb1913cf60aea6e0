"""Stochastic variational inference: the ELBO of a policy in the true dynamics, by its gradient."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cai import bellman, checks
from cai.bellman import product
from cai.evaluate import enumerable, evaluate, policy_log_probs
from cai.gaussian_evaluation import worth
from cai.linear_gaussian import LinearGaussian
from cai.linear_policy import LinearGaussianPolicy
from cai.policy import TabularPolicy
from cai.scores import exact
from cai.table import Table
from cai.trajectory import TrajectoryModel

Estimator: TypeAlias = Callable[[], float]
"""Adds the gradient of -ELBO to the parameters, and returns -ELBO in nats, or an estimate."""

_PULL = 10  # how many particles in the same state weigh as much as all others together
_WINDOW = 50  # steps that the running mean of the losses covers


@dataclass(frozen=True, eq=False)
class Fit:
    """A policy trained by the ELBO.

    Attributes:
        policy: the trained copy of the policy that was passed.
        elbo: (), nats: exact where the model can be enumerated, else from 10 000 trajectories.
        losses: (steps,), nats: -ELBO at each step, estimated where the gradient was sampled.
    """

    policy: nn.Module
    elbo: float
    losses: Tensor

    @property
    def running_mean(self) -> Tensor:
        """(steps,), nats: the mean of the last 50 losses, or of as many as there were."""
        total = torch.cat([self.losses.new_zeros(1), self.losses.cumsum(0)])
        last = torch.arange(1, len(total))
        first = (last - _WINDOW).clamp(min=0)
        return (total[last] - total[first]) / (last - first)


def fit(
    model: TrajectoryModel | Table,
    policy: nn.Module,
    *,
    gradient: Literal["exact", "sampled"] | None = None,
    steps: int = 2000,
    particles: int = 100,
    learning_rate: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Fit:
    """Maximises the ELBO over policies that keep the true dynamics (Levine 2018, eqs. 20-22).

    The guide is ``model.rollout(policy)``. Its ELBO is at most the bound of
    ``soft_values(model, optimism=0)``. Where the model can be tabulated the gradient is exact,
    through the occupancies, and for a linear-Gaussian policy in a linear-Gaussian model, whose
    ELBO has a closed form; else trajectories are simulated and the score function is weighted by
    the reward to go (Williams 1992), less the mean of the other particles, which leaves it
    unbiased. Adam's rate decays by a factor of 100 over the steps, and the loop ends early once
    the losses no longer fall.

    A copy is trained; the policy that was passed, and Pyro's parameter store, stay as they are.
    An interrupt (Ctrl-C) ends the loop and returns what was reached; passing ``fitted.policy``
    goes on from there.

    Args:
        model: the model, or its table.
        policy: a torch module (t, s) -> distribution, the starting point.
        gradient: "exact" or "sampled"; exact, where it can be had, if not given.
        steps: at most so many steps.
        particles: trajectories a step, where sampled; at least two, for the baseline.
        learning_rate: of Adam at the start; 0.2 for a table and 0.01 for a network if not given.
        seed: of the simulation.
        progress: whether to show a progress bar on a terminal.

    Raises:
        ValueError: where the policy has no parameters or does not fit the model, the ELBO is -inf
            because a reward of -inf cannot be avoided by the policy, the exact gradient is asked
            for and the model can neither be tabulated nor is linear-Gaussian, or the horizon is
            infinite.
    """
    _check(policy, gradient, steps, particles)
    checks.finite_horizon(model, "fit")
    policy = copy.deepcopy(policy)
    in_closed_form = None if gradient == "sampled" else _closed_form_gradient(model, policy)
    table = None if in_closed_form else _table(model, gradient)
    if table is not None:
        _forbid_the_fatal(policy, table)
    rate = learning_rate
    if rate is None:
        rate = 0.2 if isinstance(policy, TabularPolicy) else 0.01
    checks.check_positive("learning_rate", rate)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if in_closed_form is not None:
            estimator = in_closed_form
        elif table is None:
            assert isinstance(model, TrajectoryModel)
            estimator = program_gradient(model, policy, particles)
        elif gradient == "sampled":
            estimator = sampled_gradient(table, policy, particles)
        else:
            estimator = exact_gradient(table, policy)
        # Without noise a short memory serves Adam best: gradients shrink as probabilities settle.
        sampled = gradient == "sampled" or (table is None and in_closed_form is None)
        betas = (0.9, 0.999) if sampled else (0.8, 0.95)
        adam = torch.optim.Adam(policy.parameters(), lr=rate, betas=betas)
        with contextlib.nullcontext() if table is None else table.threads():
            losses = _descend(estimator, adam, steps, progress)
    elbo = evaluate(model if table is None else table, policy, seed=seed).elbo
    return Fit(policy, elbo, losses)


def _closed_form_gradient(model: TrajectoryModel | Table, policy: nn.Module) -> Estimator | None:
    """The gradient of a linear-Gaussian ELBO, which has a closed form; None for any other."""
    if not isinstance(model, LinearGaussian) or not isinstance(policy, LinearGaussianPolicy):
        return None

    def estimate() -> float:
        loss = -worth(model, policy).elbo
        loss.backward()
        checked(-loss.item())
        return loss.item()

    return estimate


def exact_gradient(table: Table, policy: nn.Module) -> Estimator:
    """The gradient of the ELBO through the occupancies of the policy, without sampling.

    ∂ELBO/∂log q_t(a|s) = occupancy_t(s) q_t(a|s) (advantage_t(s,a)), the policy gradient theorem
    for the objective of maximum entropy.
    """
    reward = table.reward + _mean_arrival(table)
    gain = table.log_prior + reward / table.temperature
    p = table.log_dynamics.exp() * table.discount
    initial = table.log_initial.exp()

    def estimate() -> float:
        log_q = policy_log_probs(policy, table)
        with torch.no_grad():
            q = log_q.exp()
            flow = table.flow(q.unsqueeze(-1) * p)
            v = policy_values(table, product(q, gain - log_q).sum(-1), flow)
            occupancy = occupancies(table, flow)
            future = (p * table.gather(v[1:])).sum(-1)
            weight = occupancy.unsqueeze(-1) * q
            advantage = gain - log_q + future - v[:-1].unsqueeze(-1)
            elbo = product(initial, v[0]).sum().item()
            checked(elbo)
            slope = product(weight, advantage)
        log_q.backward(-slope)
        return -elbo

    return estimate


def policy_values(table: Table, gain: Tensor, flow: Tensor) -> Tensor:
    """v_t(s) of a policy, (T+1, S), nats: the ELBO from state s at step t on.

    Args:
        table: the problem.
        gain: (T, S), expected reward and entropy of one step, nats.
        flow: (T, S, ...), the flow of q(a|s) p(s'|s,a) γ.
    """
    T, S = gain.shape
    v = torch.empty(T + 1, S, dtype=torch.float64)
    v[T] = table.final_reward / table.temperature
    for t in range(T - 1, -1, -1):
        torch.add(gain[t], table.pull(flow[t], v[t + 1]), out=v[t])
    return v


def occupancies(table: Table, flow: Tensor) -> Tensor:
    """q(s_t=s, alive) for t = 0 … T-1, shape (T, S), from the flow of a policy."""
    states = torch.empty(len(flow), table.num_states, dtype=torch.float64)
    states[0] = table.log_initial.exp()
    for t in range(len(flow) - 1):
        states[t + 1] = table.push(states[t], flow[t])
    return states


def sampled_gradient(table: Table, policy: nn.Module, particles: int) -> Estimator:
    """The score-function gradient from trajectories drawn from the table.

    What a step pays is summed over the actions, weighted by the policy; what comes after it is
    weighted by the score of the action drawn. The baseline of a particle is the mean future of the
    others in the same state at the same step, drawn towards the mean of all others: independent of
    the particle, so unbiased.
    """
    T, S, A = table.steps, table.num_states, table.num_actions
    K = table.log_dynamics.shape[-1]
    p, initial = table.log_dynamics.exp(), _cumulative(table.log_initial.exp())
    successors = table.successor_index.flatten()
    gain = table.log_prior + (table.reward + _mean_arrival(table)) / table.temperature
    final = table.final_reward / table.temperature
    first_row = torch.arange(T).unsqueeze(1) * S

    def estimate() -> float:
        log_q = policy_log_probs(policy, table)
        with torch.no_grad():
            joint = _cumulative((log_q.exp().unsqueeze(-1) * p).reshape(T, S, A * K))
            # Uniform on (0, 1]: never an outcome of probability zero.
            u = 1 - torch.rand(T + 1, particles, 1, dtype=torch.float64)
            s = _draw(initial.expand(particles, -1), u[T])
            states, outcomes = [], []
            for rows, u_t in zip(joint.unbind(), u[:T].unbind(), strict=True):
                outcome = s * (A * K) + _draw(rows.index_select(0, s), u_t)
                states.append(s)
                outcomes.append(outcome)
                s = successors.index_select(0, outcome)
            at, outcome = first_row + torch.stack(states), torch.stack(outcomes)
            chosen = at * A + (outcome // K) % A
            gains = gain - log_q
            paid, ends = gains.flatten()[chosen], final[s]
            alive = _survivors(table.discount, T, particles)
            if alive is not None:
                paid, ends = paid * alive[:-1], ends * alive[-1]
            future = ends + paid.flip(0).cumsum(0).flip(0) - paid
            elbo = (paid[0] + future[0]).mean().item()
            checked(elbo)
            advantage = future - _others(future, at, T * S)
            living = torch.ones_like(advantage) if alive is None else alive[:-1]
            slope = log_q.new_zeros(T * S * A)
            slope.index_add_(0, chosen.flatten(), (advantage * living).flatten())
            visits = log_q.new_zeros(T * S).index_add_(0, at.flatten(), living.flatten())
            slope = slope.view(T, S, A) + product(visits.view(T, S, 1) * log_q.exp(), gains)
        log_q.backward(slope / -particles)
        return -elbo

    return estimate


def program_gradient(model: TrajectoryModel, policy: nn.Module, particles: int) -> Estimator:
    """The score-function gradient from trajectories that the program itself simulates.

    The policy is scored in one call over all steps and particles, so that the backward pass does
    not grow with the number of sites. The baseline is the mean of the other particles.
    """
    T = checks.finite_horizon(model, "fit")
    steps = torch.arange(T).expand(particles, T)

    def estimate() -> float:
        paths = model.simulate(policy, particles)
        s = paths.states[:, :-1]
        log_q = exact(policy(steps, s)).log_prob(paths.actions)
        with torch.no_grad():
            log_p = exact(model.prior(s, steps)).log_prob(paths.actions)
            scores = paths.rewards / model.temperature
            scores = torch.where(paths.alive[:, :-1], scores - log_q + log_p, 0.0).double()
            ends = (paths.final_rewards / model.temperature).unsqueeze(1)
            to_go = ends + scores.flip(1).cumsum(1).flip(1)
            elbo = to_go[:, 0].mean().item()
            checked(elbo)
            others = (to_go.sum(0) - to_go) / (particles - 1)
            weight = torch.where(paths.alive[:, :-1], to_go - others, 0.0) / particles
        (-(weight * log_q).sum()).backward()
        return -elbo

    return estimate


def checked(elbo: float) -> None:
    """Raises ValueError where the ELBO is not finite, since its gradient is not either."""
    if not math.isfinite(elbo):
        raise ValueError(
            f"fit: the ELBO is {elbo:g}: the policy can reach a reward of -inf, where it has no "
            "gradient; forbid the actions that lead there, by probability zero in action_prior, "
            "or make the reward finite"
        )


def _descend(
    estimator: Estimator, optimizer: torch.optim.Optimizer, steps: int, progress: bool
) -> Tensor:
    """Steps of decaying size until the losses no longer fall; the losses of all steps taken."""
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.01 ** (1 / steps))
    losses: list[float] = []
    bar = tqdm(total=steps, desc="fit", unit="step", disable=None if progress else True)
    with bar:
        try:
            while len(losses) < steps and not _plateau(losses, steps):
                optimizer.zero_grad()
                losses.append(estimator())
                optimizer.step()
                decay.step()
                bar.update()
                if len(losses) % _WINDOW == 0:
                    bar.set_postfix(elbo=f"{-sum(losses[-_WINDOW:]) / _WINDOW:.4f} nats")
        except KeyboardInterrupt:
            bar.write("fit: interrupted, returning what was reached")
    return torch.tensor(losses, dtype=torch.float64)


def _plateau(losses: list[float], steps: int) -> bool:
    """Whether the mean loss of the last fifth of the budget is no lower than of the one before."""
    window = max(_WINDOW, steps // 5)
    n = len(losses)
    if n < 2 * window or n % _WINDOW:
        return False
    last = sum(losses[-window:]) / window
    before = sum(losses[-2 * window : -window]) / window
    return before - last < 1e-6 * max(1.0, abs(last))


def _check(policy: object, gradient: object, steps: int, particles: int) -> None:
    if not isinstance(policy, nn.Module) or not any(p.requires_grad for p in policy.parameters()):
        raise ValueError(
            "policy: fit trains the parameters of a torch module, got "
            f"{type(policy).__name__} without any; take cai.TabularPolicy(model) or "
            "cai.NeuralPolicy(model), and for a policy that calls pyro.param use "
            "SVI(model, model.rollout(policy), optim, Trace_ELBO())"
        )
    if gradient not in ("exact", "sampled", None):
        raise ValueError(f'gradient: expected "exact", "sampled" or None, got {gradient!r}')
    checks.check_count("steps", steps)
    checks.check_count("particles", particles)
    if particles < 2:
        raise ValueError("particles: expected at least 2, got 1; the baseline needs another one")


def _table(model: TrajectoryModel | Table, gradient: str | None) -> Table | None:
    """The table to work on, or None where trajectories must come from the program."""
    table = enumerable(model)
    if table is None and gradient == "exact":
        raise ValueError(
            'gradient: "exact" needs a model with finitely many states and actions and discrete '
            'sites, whose step can be tabulated; "sampled" works for any'
        )
    return table


def _forbid_the_fatal(policy: nn.Module, table: Table) -> None:
    """Masks the actions of a table that can lead to -inf where another one avoids it.

    Such an action has no place in a policy of finite ELBO, and no gradient that would say so.
    """
    tensors = (table.reward, table.arrival_reward, table.final_reward)
    if not isinstance(policy, TabularPolicy) or all(
        x is None or x.isfinite().all() for x in tensors
    ):
        return
    v = bellman.backward(table, 0.0)
    q = bellman.action_values(table, v[1:], 0.0)
    fatal = (q == -torch.inf) & (v[:-1] > -torch.inf).unsqueeze(-1)
    if policy.logits.dim() == 2:
        fatal = fatal.any(0)
    policy.log_prior = policy.log_prior.masked_fill(fatal, -torch.inf)


def _mean_arrival(table: Table) -> Tensor:
    """E[r⁺|s,a], which is all that matters in the true dynamics."""
    if table.arrival_reward is None:
        return torch.zeros(())
    return bellman.mean(table.log_dynamics, table.arrival_reward)


def _cumulative(p: Tensor) -> Tensor:
    """Cumulative sums that end at exactly one, over the last axis."""
    total = p.cumsum(-1)
    return total / total[..., -1:]


def _draw(cumulative: Tensor, u: Tensor) -> Tensor:
    """Inverse-CDF draws, u in (0, 1]: the first index whose sum reaches u, so a possible one."""
    return (cumulative < u).sum(-1)


def _survivors(discount: float, T: int, particles: int) -> Tensor | None:
    """Whether each particle is alive at steps 0 … T, (T+1, particles); None without a discount."""
    if discount == 1:
        return None
    coins = torch.rand(T + 1, particles, dtype=torch.float64) < discount
    coins[0] = True
    return coins.double().cumprod(0)


def _others(to_go: Tensor, at: Tensor, groups: int) -> Tensor:
    """The mean reward to go of the others in the same state, where they are few towards all."""
    T, n = to_go.shape
    flat, index = to_go.flatten(), at.flatten()
    total = flat.new_zeros(groups).index_add_(0, index, flat)[index].view(T, n)
    count = flat.new_zeros(groups).index_add_(0, index, torch.ones_like(flat))[index].view(T, n)
    everywhere = (to_go.sum(1, keepdim=True) - to_go) / (n - 1)
    return (total - to_go + _PULL * everywhere) / (count - 1 + _PULL)
