"""A reward from continuous actions, by local models of the return around them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cai import checks
from cai.evaluation.problem import as_problem
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.inference.apprenticeship.learned_reward import LearnedReward
from cai.inference.fitting import checkpoint_file
from cai.inference.fitting.loop import train
from cai.inference.local_models._concave_search import LocalSearch
from cai.inference.local_models._expansion import Unrolled, expansion
from cai.inference.local_models._paying import paying
from cai.numerics import arrays
from cai.numerics.exclusive import exclusive
from cai.program.trajectories import Trajectories
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward

_HINDSIGHT = (
    "The dynamics are noisy and the noise was taken as known: that is hindsight, not the "
    "likelihood of somebody who could not know it."
)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LaplaceReward(LearnedReward):
    """A reward under which observed actions are most probable, by Laplace's approximation.

    It prints as a table of ``weights``, with ``observed`` features, and exports to a dict, JSON and
    Markdown.
    ``history`` holds the log-density before each step, nats. ``policy`` there is only where the
    model is linear-Gaussian and the features are quadratic.

    Attributes:
        over: "actions", or "actions and noise".
        log_likelihoods: (n,), nats: the approximate log-density of each demonstration.
        information: (k, k), minus the second derivatives of their sum in the weights.

    >>> import torch, cai
    >>> from cai import inference, models
    >>> model = models.linear_gaussian([[1.0]], [[1.0]], horizon=4, Q=[[1.0]], R=[[1.0]])
    >>> paths = model.simulate(inference.soft_values(model).policy, 5, seed=0)
    >>> costs = {"state": lambda s, a: -s.square().sum(-1) / 2}
    >>> reward = cai.LinearReward(costs, offset=lambda s, a: -a.square().sum(-1) / 2)
    >>> found = inference.laplace_reward(model, paths, reward, progress=False)
    >>> found.log_likelihoods.shape, found.converged
    (torch.Size([5]), True)
    """

    over: str
    log_likelihoods: Tensor
    information: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Weights, densities and the state of the search, as plain values."""
        found = super().to_dict()
        own = {"over": self.over, "log_likelihoods": self.log_likelihoods.tolist()}
        return found | own | {"information": self.information.tolist()}

    def _notes(self) -> list[str]:
        total = float(self.log_likelihoods.sum())
        said = f"log-density of {self.over} {total:.2f} nats, by Laplace's approximation."
        return [said, *super()._notes()]


def laplace_reward(
    model: TrajectoryModel,
    demonstrations: Trajectories,
    reward: LinearReward,
    *,
    over: Literal["actions", "actions and noise"] = "actions",
    start: Any = None,
    steps: int = 100,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> LaplaceReward:
    r"""The reward under which continuous actions are most probable, by local models of the return.

    Continuous inverse optimal control (Levine and Koltun 2012). A demonstrator of maximum entropy
    takes the whole plan a = (a_0, …, a_{T-1}) with a density ∝ exp(R(a)), R the return over α plus
    the log action prior, a function of all actions through the dynamics. Around the observed plan
    R is taken as quadratic, with gradient g and Hessian H in its d numbers,

        log p(a) ≈ ½ g'H⁻¹g + ½ log |-H| - (d/2) log 2π,

    so that no planning is needed. For rewards that are linear in their weights g and H are, too;
    the sum over demonstrations is then concave in the weights wherever all H are negative definite,
    and Newton's method finds its maximum, which is unique unless some weights change nothing.

    =====================  =========================================================================
    ``over``               what it is
    =====================  =========================================================================
    "actions"              the noise of the dynamics is held at what it turned out to be. Exact
                           for linear-Gaussian models without noise: the density of the actions of
                           the soft LQR policy. With noise it is hindsight: the density of somebody
                           who knew the noise in advance, not the likelihood of causal entropy
    "actions and noise"    of both together, each in standard normal numbers: maximum-entropy
                           inverse reinforcement learning (optimism 1), which takes luck for choice.
                           Exact for linear-Gaussian models
    =====================  =========================================================================

    For other models it is as good as the quadratic; it takes an optimum nearby for the only one,
    and bounds of actions for absent.

    Args:
        model: a program with continuous states and actions, dynamics that are Gaussian or certain
            and differentiable, a finite horizon, and no discount. Its rewards are replaced, but for
            the final one; its action prior is part of R.
        demonstrations: trajectories of the model's horizon, as ``model.simulate`` returns them, or
            ``model.paid(states, actions, alive)`` of observed ones.
        reward: a :class:`cai.LinearReward`, whose features are differentiable functions of (s, a).
        over: see above.
        start: k weights to start from, where all Hessians are negative definite; None looks for
            some.
        steps: of Newton's method, at most.
        checkpoint: path of a file that keeps the derivatives of the demonstrations, which take
            nearly all the time; if it exists they go on from there. Newton's method starts anew.
        progress: whether to show a bar on a terminal.

    Returns:
        A :class:`LaplaceReward`; after Ctrl-C the best there was, once there are derivatives.

    Raises:
        ValueError: if an argument is not one of those, demonstrations do not fit the model, or
            no weights are found at which all Hessians are negative definite.

    >>> import dataclasses, torch, cai
    >>> from cai import inference, models
    >>> model = models.double_integrator(horizon=6, noise=0, obstacles=())
    >>> model = dataclasses.replace(model, final_reward=None)
    >>> def near(s, a):
    ...     return -(s[..., :2] - torch.tensor([3.0, 0.0])).square().sum(-1)
    >>> paths = model.simulate(lambda t, s: model.prior(s), 20, seed=0)
    >>> found = inference.laplace_reward(
    ...     model, paths, cai.LinearReward({"near": near}), progress=False
    ... )
    >>> abs(found.weights["near"]) < 1.0  # the action prior has no goal
    True
    """
    problem = as_problem(model)
    if problem.program is None:
        advice = "for finitely many states take inference.fit_reward"
        checks.refuse("model", "a program with continuous states and actions", "a table", advice)
    checks.check_one_of("over", over, ("actions", "actions and noise"), 'take "actions"')
    checks.check_kind("reward", reward, LinearReward, "a LinearReward", "cai.LinearReward({…})")
    checks.check_count("steps", steps)
    checks.check_flag("progress", progress)
    k, noisy = len(reward.names), over == "actions and noise"
    _check_seen(model, demonstrations)
    file = None if checkpoint is None else checkpoint_file.check(checkpoint)
    with exclusive():
        unrolled = Unrolled(model, demonstrations, reward, noisy)
        local = expansion(unrolled, file, progress)
    begun = None if start is None else arrays.numbers("start", start, f"{k} weights")
    if begun is not None and (begun.shape != (k,) or not begun.isfinite().all()):
        advice = "finite numbers, one for each feature"
        checks.refuse("start", f"{k} weights", str(begun.tolist()), advice)
    search = LocalSearch(local, begun, steps)
    train(search, None, 1, progress)
    paid = reward.weighted(search.weights)
    remarks = [_HINDSIGHT] if unrolled.z.any() and not noisy else []
    unknown = [x for x, is_so in zip(reward.names, search.unidentified(), strict=True) if is_so]
    if unknown:
        remarks.append(f"Not identified, alone or together: {', '.join(unknown)}.")
    return LaplaceReward(
        reward=paid,
        model=paying(model, paid),
        method=f"Laplace's approximation over {over}",
        converges_to=_exact(model, over, bool(unrolled.z.any())),
        observed=local.taken.mean(0),
        expected=torch.full((k,), torch.nan, dtype=torch.float64),
        history=search.weights.new_tensor(search.history),
        history_name="log_likelihood",
        demonstrations=unrolled.n,
        actions=unrolled.n * unrolled.T,
        steps=search.done,
        converged=search.converged,
        reason=search.why,
        remarks=tuple(remarks),
        over=over,
        log_likelihoods=search.at.values,
        information=search.at.information,
    )


def _exact(model: TrajectoryModel, over: str, noisy: bool) -> str:
    """Which exact answer it has."""
    whose = "MaxEnt (optimism 1)" if over == "actions and noise" else "maximum causal entropy"
    if over == "actions" and noisy:
        whose = "somebody who knew the noise in advance"
    exact = "" if isinstance(model, LinearGaussian) else ", as far as returns are quadratic"
    return f"the maximum of the likelihood of {whose}{exact}"


def _check_seen(model: Any, seen: Any) -> None:
    """Raises ValueError unless they are whole trajectories of real numbers, without a discount."""
    advice = "model.simulate(policy, n), or model.paid(states, actions, alive)"
    checks.check_kind("demonstrations", seen, Trajectories, "Trajectories", advice)
    T = checks.finite_horizon(model, "a local model of the return")
    if model.discount != 1:
        advice = "dataclasses.replace(model, discount=1.0)"
        checks.refuse("discount", "1 for a local model", f"{model.discount:g}", advice)
    for name, x, steps in (("states", seen.states, T + 1), ("actions", seen.actions, T)):
        if not x.is_floating_point():
            advice = "for integers take inference.fit_reward"
            checks.refuse(f"demonstrations, {name}", "real numbers", str(x.dtype), advice)
        if x.shape[1] != steps:
            came = f"{x.shape[1]} in trajectories of shape {list(x.shape)}"
            checks.refuse(f"demonstrations, {name}", f"{steps} of each", came, "see horizon")
    if not seen.alive.all():
        i = int((~seen.alive.all(1)).nonzero()[0])
        advice = "leave those out that ended before the horizon"
        checks.refuse(f"demonstration {i}", "one that lasts to the horizon", "another", advice)
