"""How probable each step of a trajectory is, if a certain agent makes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from cai import checks
from cai.evaluation.problem import as_problem
from cai.gaussian.gaussian_solution import GaussianSolution
from cai.inference.exact.soft_values import soft_values
from cai.inference.intentions._prefixes import Prefixes
from cai.infinite.endings import endings
from cai.program.episode import begin, has_latents, policy_at
from cai.solutions.chain import Chain
from cai.tables import bellman
from cai.tables.table import Table

Likelihood: TypeAlias = Literal["paths", "actions"]

Score: TypeAlias = Callable[[Prefixes], tuple[Tensor, Tensor]]
"""Prefixes -> (n,), boolean, where it can start; and (n, L), nats, log-probabilities of steps."""

_KINDS = "a model, its table, a solution, or a policy"


def agent(where: str, given: Any, eta: float, rule: bellman.Rule, likelihood: Likelihood) -> Score:
    """What scores the steps of an agent: one that solves a model, has a solution, or a policy.

    Args:
        where: its name, for messages.
        given: a model, its table, a solution, or a policy.
        eta: the optimism η at which a model is solved.
        rule: how actions are chosen in it.
        likelihood: "paths" scores actions and next states, "actions" actions alone.

    Raises:
        ValueError: if it is none of these, or there is no solution.
    """
    solution = given
    if hasattr(given, "log_dynamics") or hasattr(given, "simulate"):
        solution = _solved(where, given, eta, rule)
    if isinstance(solution, Chain):
        return _of_chain(where, solution, likelihood)
    if isinstance(solution, GaussianSolution):
        return _of_gaussian(where, solution, likelihood)
    if isinstance(given, type) or not (callable(given) or hasattr(given, "start")):
        advice = "pass its .policy" if hasattr(given, "policy") else "for instance models.ledge()"
        checks.refuse(where, _KINDS, type(given).__name__, advice)
    if likelihood == "paths":
        came = "a policy, which says nothing of next states"
        advice = 'likelihood="actions" scores actions alone'
        checks.refuse(where, 'a model or a solution for likelihood="paths"', came, advice)
    return _of_policy(where, given)


def _solved(where: str, model: Any, eta: float, rule: bellman.Rule) -> Chain | GaussianSolution:
    """The solution, whatever the start: a prefix has one of its own."""
    try:
        problem = as_problem(model)
        if problem.gaussian is not None:
            return soft_values(problem.gaussian, eta, rule)
        table = problem.table
        if table is None:
            advice = 'pass a policy, as inference.fit returns one, and likelihood="actions"'
            expected = "finitely many states and actions, or a linear-Gaussian model"
            checks.refuse("model", expected, "neither", advice)
        anywhere = torch.full_like(table.log_initial, -math.log(table.num_states))
        return soft_values(table.holding(log_initial=anywhere, program=None), eta, rule)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _of_chain(where: str, chain: Chain, likelihood: Likelihood) -> Score:
    table = chain.table

    def score(seen: Prefixes) -> tuple[Tensor, Tensor]:
        _check_fits(where, table, seen)
        t = seen.at(table.horizon)
        found = torch.zeros(seen.actions.shape, dtype=torch.float64)
        columns = (seen.states[:, :-1], seen.actions, seen.states[:, 1:], seen.survived)
        with table.threads():
            for now in t[seen.taken].unique().tolist():
                inside = (t == now) & seen.taken
                found[inside] = _step(chain, now, likelihood, *(x[inside] for x in columns))
        return _possible(chain)[t[:, 0], seen.states[:, 0]], found

    return score


def _step(
    chain: Chain, t: int, likelihood: Likelihood, s: Tensor, a: Tensor, after: Tensor, alive: Tensor
) -> Tensor:
    """(m,), nats: log π(a|s), and of "paths" log q(s', alive or not|s,a), of m actions at step t.

    Of "actions" a next state that is impossible has -inf, any other zero.
    """
    steps, table = slice(t, t + 1), chain.table
    log_pi = chain.log_policy(steps)[0][s, a]
    true = table.at(t).log_dynamics[s, a]
    log_q = chain.log_transitions(steps)[0][s, a] if likelihood == "paths" else true
    heads = torch.arange(true.shape[-1]) if table.successors is None else table.successors[s, a]
    there = (heads == after.unsqueeze(1)).expand(true.shape)
    log_q = torch.where(there, log_q, -torch.inf).logsumexp(-1)
    if likelihood == "actions":
        return log_pi + torch.where(log_q > -torch.inf, 0.0, -torch.inf)
    if table.discount < 1:
        log_alive = chain.log_survival(steps)[0][after]
        log_q = log_q + torch.where(alive, log_alive, (-log_alive.expm1()).log())
    return log_pi + log_q


def _possible(chain: Chain) -> Tensor:
    """(T+1, S) or (1, S), boolean: from where a trajectory of finite reward exists.

    From any other state there is nothing that an agent could want.
    """
    table, v = chain.table, chain.log_values
    v = v if v.dim() == 2 else v.unsqueeze(0)
    found = v > -torch.inf
    if found.all() or chain.optimism > 0:
        return found
    # At η ≤ 0 a value of -inf may be a risk that cannot be avoided.
    if table.horizon is not None:
        return bellman.backward(table, math.inf) > -torch.inf
    known = endings(table, 1.0)
    return found | (known.live | known.ended).unsqueeze(0)


def _check_fits(where: str, table: Table, seen: Prefixes) -> None:
    if not seen.integers:
        expected = f"integers, of the states and actions of {where}"
        checks.refuse("prefix", expected, "vectors", "number them as its table does")
    S, A, T = table.num_states, table.num_actions, table.horizon
    kept = torch.arange(seen.states.shape[1]) <= seen.lengths.unsqueeze(1)
    for name, x, size, used in (
        ("states", seen.states, S, kept),
        ("actions", seen.actions, A, seen.taken),
    ):
        outside = ((x < 0) | (x >= size)) & used
        if outside.any():
            i, t = outside.nonzero()[0].tolist()
            came = f"{x[i, t].item()} at step {t}"
            expected = f"integers in 0 … {size - 1}, those of {where}"
            checks.refuse(f"prefix {i}, {name}", expected, came, "number them as the model does")
    if T is not None and (seen.lengths > T).any():
        i = int((seen.lengths > T).nonzero()[0])
        expected, came = f"at most {T} actions, the horizon of {where}", f"{int(seen.lengths[i])}"
        checks.refuse(f"prefix {i}", expected, came, "cut it, or give the model a longer horizon")
    if T is not None and table.by_step and seen.own.any():
        expected, came = "steps that are all alike for ends='own'", f"others in {where}"
        checks.refuse("prefix", expected, came, 'demonstrations.with_ends("cut")')


def _of_gaussian(where: str, solution: GaussianSolution, likelihood: Likelihood) -> Score:
    model, of_actions = solution.model, _of_policy(where, solution.policy)

    def score(seen: Prefixes) -> tuple[Tensor, Tensor]:
        sizes = (seen.states.shape[2:], seen.actions.shape[2:])
        if sizes != ((model.state_size,), (model.action_size,)):
            came = f"shapes {list(sizes[0])} and {list(sizes[1])}"
            expected = f"states of {model.state_size} and actions of {model.action_size} numbers"
            checks.refuse("prefix", f"{expected}, as of {where}", came, "model.simulate gives some")
        L, T = seen.actions.shape[1], model.horizon
        if T is not None and T < L:
            advice = "cut it, or give the model a longer horizon"
            checks.refuse("prefix", f"at most {T} actions, the horizon of {where}", str(L), advice)
        can, found = of_actions(seen)
        if likelihood == "actions":
            return can, found
        s, a, after = (x.double() for x in (seen.states[:, :-1], seen.actions, seen.states[:, 1:]))
        moves = [solution.dynamics(t)(s[:, t], a[:, t]).log_prob(after[:, t]) for t in range(L)]
        found = found + torch.stack(moves, 1)
        if model.discount < 1:
            lives = torch.where(seen.survived, model.discount, 1 - model.discount)
            found = found + lives.log()
        return can, torch.where(seen.taken, found, 0.0)

    return score


def _of_policy(where: str, policy: Any) -> Score:
    if has_latents(policy):
        expected = "a policy whose actions can be scored one after the other"
        checks.refuse(where, expected, f"a {type(policy).__name__}, which has latents", "")

    @torch.no_grad()
    def score(seen: Prefixes) -> tuple[Tensor, Tensor]:
        if seen.own.any():
            advice = 'demonstrations.with_ends("cut")'
            checks.refuse("prefix", 'ends other than "own" for a policy', '"own"', advice)
        act, before, found = begin(policy), None, []
        for t in range(seen.actions.shape[1]):
            now = seen.actions[:, t]
            chosen = policy_at(act, t, seen.states[:, t], before, name=where)
            found.append(_scored(where, chosen, now))
            before = now
        anywhere = torch.ones(len(seen.lengths), dtype=torch.bool)
        return anywhere, torch.where(seen.taken, torch.stack(found, 1), 0.0)

    return score


def _scored(where: str, chosen: Any, actions: Tensor) -> Tensor:
    """(n,), nats: the log-probability or log-density of actions."""
    if not callable(getattr(chosen, "log_prob", None)):
        advice = "it is called with the step and the states"
        checks.refuse(where, "a policy that returns a distribution", type(chosen).__name__, advice)
    try:
        return torch.as_tensor(chosen.log_prob(actions).double().expand(len(actions)))
    except Exception as error:  # of any distribution
        came = f"{checks.described(actions)}, which it cannot score: {error}"
        checks.refuse("prefix", f"actions of {where}", came, "see what its policy returns")
