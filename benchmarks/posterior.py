"""The whole posterior of FrozenLake 8x8 over 100 steps from its table, against dense arrays.

The reference is a forward-backward sweep in log space on arrays of shape (S, A, S). Each side
computes, for T steps, S states and A actions:

====================================================  ====  ========
field                                                 ours  theirs
====================================================  ====  ========
log p(O); V (T+1, S); Q and the policy (T, S, A)      yes   yes
p(s_t|O) (T+1, S) and p(s_t,a_t|O) (T, S, A)          yes   yes
p(s_0|O) (S,) and the imagined return                 yes   no
dynamics(t), p(s_{t+1}|s_t,a_t,O) (S, A, S), all t    as the row says
====================================================  ====  ========
"""

from __future__ import annotations

import torch
from torch import Tensor

import cai
from benchmarks.evidence import lake
from benchmarks.timing import Race, check_close
from cai import inference


def with_dynamics() -> Race:
    return _race("posterior, every field", True, "hand-written sweep, dynamics(t) too", True)


def with_dynamics_against_without() -> Race:
    return _race(
        "posterior, every field / fewer", True, "hand-written sweep, no dynamics(t)", False
    )


def without_dynamics() -> Race:
    return _race(
        "posterior, without dynamics(t)", False, "hand-written sweep, no dynamics(t)", False
    )


def _race(name: str, our_dynamics: bool, reference: str, their_dynamics: bool) -> Race:
    table = cai.tabulate(lake())
    arrays = dense_arrays(table)
    log_weights, T = arrays[-1], table.steps

    def ours() -> cai.Solution:
        posterior = inference.posterior(table)
        _ = posterior.log_evidence, posterior.V, posterior.Q, posterior.policy.log_probs
        _ = posterior.states, posterior.state_actions, posterior.initial
        _ = posterior.imagined_return
        for t in range(T if our_dynamics else 0):
            posterior.dynamics(t)
        return posterior

    def theirs() -> tuple[Tensor, ...]:
        found = sweep(*arrays, T)
        for t in range(T if their_dynamics else 0):
            tilted_dynamics(log_weights, found[1][t + 1], found[2][t])
        return found

    posterior = ours()
    log_evidence, v, q, log_pi, states, state_actions = theirs()
    check_close("log evidence", posterior.log_evidence, log_evidence.item(), 1e-9)
    check_close("V", posterior.V / table.temperature, v, 1e-9)
    check_close("Q", posterior.Q / table.temperature, q, 1e-9)
    check_close("policy", posterior.policy.log_probs, log_pi, 1e-9)
    check_close("states", posterior.states, states, 1e-9)
    check_close("state_actions", posterior.state_actions, state_actions, 1e-9)
    for t in range(T):
        check_close(
            "dynamics", posterior.dynamics(t), tilted_dynamics(log_weights, v[t + 1], q[t]), 1e-9
        )
    return Race(
        name=name,
        sizes=f"S={table.num_states} A={table.num_actions} T={T}",
        reference=reference,
        ours=ours,
        theirs=theirs,
        target=1,
    )


def dense_arrays(table: cai.Table) -> tuple[Tensor, Tensor, Tensor]:
    """Log p(s_0) (S,), log p(a|s) (S, A), and log p(s'|s,a) + r⁺(s,a,s')/α (S, A, S).

    The lake has arrival rewards only.
    """
    assert table.arrival_reward is not None
    assert table.successors is not None
    log_p = table.dense(table.log_dynamics).log()
    reward = torch.zeros_like(log_p)
    reward.scatter_add_(-1, table.successors, table.arrival_reward / table.temperature)
    return table.log_initial, table.log_prior, log_p + reward


def sweep(
    log_initial: Tensor, log_prior: Tensor, log_weights: Tensor, T: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Backward messages, then forward ones, in nats; the largest term of each row taken out.

    Returns:
        log p(O) (), V (T+1, S), Q (T, S, A), log p(a_t|s_t,O) (T, S, A), p(s_t|O) (T+1, S) and
        p(s_t,a_t|O) (T, S, A).
    """
    S, A = log_prior.shape
    v = torch.zeros(T + 1, S, dtype=torch.float64)
    q = torch.empty(T, S, A, dtype=torch.float64)
    for t in range(T - 1, -1, -1):
        torch.logsumexp(log_weights + v[t + 1], -1, out=q[t])
        torch.logsumexp(log_prior + q[t], -1, out=v[t])
    log_evidence = (log_initial + v[0]).logsumexp(0)
    log_pi = (log_prior + q).log_softmax(-1)
    # Forward the action only has to be summed out, once: from log_weights to (S', S).
    arrivals = (log_prior.unsqueeze(-1) + log_weights).logsumexp(1).T.contiguous()
    forward = torch.empty(T + 1, S, dtype=torch.float64)
    forward[0] = log_initial
    for t in range(T):
        torch.logsumexp(arrivals + forward[t], -1, out=forward[t + 1])
    states = (forward + v - log_evidence).exp()
    return log_evidence, v, q, log_pi, states, states[:-1].unsqueeze(-1) * log_pi.exp()


def tilted_dynamics(log_weights: Tensor, v_next: Tensor, q: Tensor) -> Tensor:
    """p(s_{t+1}|s_t,a_t,O), (S, A, S), from the messages of steps t+1 and t."""
    return (log_weights + v_next - q.unsqueeze(-1)).exp_()
