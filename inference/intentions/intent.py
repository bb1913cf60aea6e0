"""Which of several models somebody follows, from the beginning of a trajectory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.inference.intentions._agents import Likelihood, agent
from cai.inference.intentions._prefixes import Prefixes, prefixes
from cai.inference.intentions.intent_result import Intent
from cai.inference.route_choice.routes import Routes
from cai.numerics import arrays
from cai.progress.progress_bar import progress_bar
from cai.tables import bellman

T = TypeVar("T")


@torch.no_grad()
def intent(
    models: Mapping[Hashable, Any] | Routes,
    prefix: Any,
    prior: Any = None,
    *,
    optimism: float | Mapping[Hashable, float] = 0.0,
    rule: bellman.Rule | Mapping[Hashable, bellman.Rule] = "soft",
    likelihood: Likelihood = "paths",
    progress: bool = True,
) -> Intent:
    r"""What somebody wants, from half a trajectory: a posterior over named models.

    Planning run backwards (Baker, Saxe and Tenenbaum 2009; Levine 2018, section 5.4): models that
    differ in goals, rewards, temperatures, optimisms or rules explain what is seen, step by step:

        p(m | s_0, a_0, …, s_t) ∝ p(m) Π_{k<t} π_m(a_k|s_k) q_m(s_{k+1}|s_k,a_k)

    with the policy and the dynamics of the solution of each. At η = 0 those are the true dynamics,
    which cancel where all models share them. At η = 1 a model is the exact posterior; for goals
    whose rewards on the way are the same, with the values V of each,

        p(g | …) ∝ p(g) exp((V_g(s_t) - V_g(s_0))/α)

    (Ziebart et al. 2008): who is nearer to a goal than at the start, by more than to others, is
    going there. A goal that absorbs (:func:`cai.with_goal`) is out once it was passed.

    **Whose luck?** At η ≠ 0 q_m is what the agent *believes*, and "paths" explains luck and bad
    luck by it, as if they had been chosen. Where somebody hopes for luck, and the world gives
    everybody the same, take likelihood="actions", Π π_m(a_k|s_k).

    Args:
        models: name -> a model or its table, which is solved at ``optimism`` by ``rule``; or a
            solution, as :func:`soft_values` returns it, which has its own; or, with
            likelihood="actions", a policy (t, s) -> distribution. Names may be tuples, such as
            (goal, temperature), see :meth:`Intent.marginal`. Or a :class:`Routes`: the names are
            then its goals, segments of a road network.
        prefix: one or several trajectories, each judged by itself: :class:`cai.Demonstrations`, or
            ``Trajectories`` of ``model.simulate``, also of a linear-Gaussian model. They are
            beginnings, whatever their ends say, but for "own", a whole trajectory whose length is
            its horizon, and "terminated", which scores the termination, too.
        prior: M weights, or a mapping from names to weights; None for equal ones.
        optimism: η at which models are solved; or name -> η.
        rule: how actions are chosen in models, see :func:`soft_values`; or name -> rule.
        likelihood: "paths", actions and next states; or "actions", where a next state counts only
            if a model says that it is impossible. All is given the first state.
        progress: whether a bar in the terminal counts the models, if they take longer than two
            seconds.

    Returns:
        An :class:`Intent`: beliefs after each step, and the log evidence.

    Raises:
        ValueError: naming trajectory and step, if something is impossible under all models; naming
            the model, if it has no solution or the trajectory does not fit it; or if the prior
            does not fit.

    >>> import cai
    >>> from cai import inference, models
    >>> street = models.gridworld(["S......"], horizon=None, slip=0.0)  # seven cells
    >>> to_home, to_work = cai.with_goal(street, 0), cai.with_goal(street, 6)
    >>> prefix = cai.Demonstrations.from_paths([[3, 4, 5]], [[1, 1]])  # two steps to the right
    >>> belief = inference.intent({"home": to_home, "work": to_work}, prefix, prior=[0.5, 0.5])
    >>> print(belief)
    Belief after 2 steps
          prior  posterior  log-likelihood
    --------------------------------------
    home  0.500  1.744e-06         -13.402
    work  0.500      1.000          -0.143
    log evidence -0.836 nats, of actions and next states, given where each began.
    """
    checks.check_one_of("likelihood", likelihood, ("paths", "actions"), "see there")
    checks.check_flag("progress", progress)
    if isinstance(models, Routes):
        return _on_roads(models, prefix, prior, optimism, rule, likelihood)
    if not isinstance(models, Mapping) or not models:
        expected = "a mapping from names to at least one model"
        came = "an empty one" if isinstance(models, Mapping) else type(models).__name__
        checks.refuse("models", expected, came, 'such as {"home": one, "work": another}')
    names = tuple(models)
    p, seen = _weights(prior, names), prefixes(prefix)
    etas: list[Any] = _each("optimism", optimism, names)
    rules: list[Any] = _each("rule", rule, names)
    log_p = torch.empty(*seen.actions.shape[:2], len(names), dtype=torch.float64)
    start = torch.empty(len(seen.lengths), 1, len(names), dtype=torch.float64)
    bar = progress_bar(names, shown=progress, desc="models", delay=2.0, leave=False)
    for m, (name, eta, rule_) in enumerate(zip(bar, etas, rules, strict=True)):
        where = f"models[{name!r}]"
        eta = checks.check_optimism(eta, f"optimism of {where}")
        rule_ = bellman.check_rule(rule_, f"rule of {where}")
        can, log_p[..., m] = agent(where, models[name], eta, rule_, likelihood)(seen)
        start[:, 0, m] = torch.where(can, 0.0, -torch.inf)
    log_p = torch.cat([start, log_p], 1).cumsum(1)
    _check_possible(p, log_p, seen)
    return Intent(names, p, log_p, seen.lengths, likelihood)


def _on_roads(
    routes: Routes, prefix: Any, prior: Any, optimism: Any, rule: Any, likelihood: str
) -> Intent:
    """Goals on a road network, where all optimisms are one, and so are both likelihoods."""
    if optimism != 0 or rule != "soft":
        came = f"optimism {optimism!r} and rule {rule!r}"
        expected = "neither optimism nor rule on a road network"
        checks.refuse("optimism", expected, came, "nothing is left to chance there")
    checks.check_kind("prefix", prefix, Demonstrations, "trips", "streets.demonstrations has some")
    seen, p, found = prefixes(prefix), routes.goal_prior(prior), routes.log_beginnings(prefix)
    _check_possible(p, found, seen)
    return Intent(tuple(routes.goals.tolist()), p, found, seen.lengths, likelihood)


def _weights(prior: Any, names: tuple[Hashable, ...]) -> Tensor:
    """(M,), probabilities."""
    M = len(names)
    if prior is None:
        return torch.full((M,), 1 / M, dtype=torch.float64)
    if isinstance(prior, Mapping):
        prior = [_of("prior", prior, name, names) for name in names]
    weights = arrays.weights("prior", prior, (M,)).double()
    return weights / weights.sum()


def _each(argument: str, given: T | Mapping[Hashable, T], names: tuple[Hashable, ...]) -> list[T]:
    """One for each name: of a mapping its own, else the same for all."""
    if not isinstance(given, Mapping):
        return [given] * len(names)
    return [_of(argument, given, name, names) for name in names]


def _of(argument: str, given: Mapping[Hashable, T], name: Hashable, names: Any) -> T:
    strange = [other for other in given if other not in names]
    if name not in given or strange:
        came = f"none for {name!r}" if name not in given else f"one for {strange[0]!r}"
        checks.refuse(argument, "one for each name of a model", came, f"names are {list(names)}")
    return given[name]


def _check_possible(prior: Tensor, log_p: Tensor, seen: Prefixes) -> None:
    """Raises ValueError, naming the first step that is impossible under all models."""
    lost = (prior.log() + log_p).amax(-1) == -torch.inf
    if not lost.any():
        return
    i, t = lost.nonzero()[0].tolist()
    advice = "look at what each model allows there, or add another model"
    if t == 0:
        came = f"{seen.states[i, 0].tolist()}, from where none can have what it wants"
        checks.refuse(f"prefix {i}", "a start that suits some model", came, advice)
    s, a, after = seen.states[i, t - 1], seen.actions[i, t - 1], seen.states[i, t]
    came = f"action {a.tolist()} in state {s.tolist()}, then state {after.tolist()}"
    expected = "a step that some model with a prior above zero still allows"
    checks.refuse(f"prefix {i}, step {t - 1}", expected, came, advice)
