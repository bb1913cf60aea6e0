"""One step of a program as a table: latents summed out, lists where they are smaller."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceGraph_ELBO

import cai
from cai import inference, models

S, A = 6, 2


def model_of(dynamics, **changes):
    arguments = {
        "initial": dist.Categorical(torch.ones(S)),
        "dynamics": dynamics,
        "reward": 0.0,
        "action_prior": dist.Categorical(torch.ones(A)),
        "horizon": 3,
    }
    return cai.TrajectoryModel(**(arguments | changes))


def probabilities(model):
    table = cai.tabulate(model)
    return table.dense(table.log_dynamics).numpy()


def check(dynamics, transition, tolerance=1e-15):
    """The table against p(s'|s,a) summed by hand over the latents: transition(s, a) -> [(p, s')]"""
    expected = np.zeros((S, A, S))
    for s in range(S):
        for a in range(A):
            for p, n in transition(s, a):
                expected[s, a, n] += p
    found = probabilities(model_of(dynamics))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_latents_that_depend_on_each_other_and_on_the_state():
    weights = torch.rand(S, 3, dtype=torch.float64) + 0.1

    def dynamics(s, a):
        slip = pyro.sample("slip", dist.Bernoulli(0.2 + 0.1 * a))
        kind = pyro.sample("kind", dist.Categorical(weights[s]))
        push = pyro.sample("push", dist.Bernoulli(torch.where(kind == 2, 0.9, 0.1)))
        return dist.Delta((s + torch.where(slip.bool(), 0, a + 1) + push.long()) % S)

    def transition(s, a):
        for slip, p_slip in ((1, 0.2 + 0.1 * a), (0, 0.8 - 0.1 * a)):
            for kind in range(3):
                p_kind = (weights[s, kind] / weights[s].sum()).item()
                p_push = 0.9 if kind == 2 else 0.1
                for push, p in ((1, p_push), (0, 1 - p_push)):
                    yield p_slip * p_kind * p, (s + (0 if slip else a + 1) + push) % S

    check(dynamics, transition)


def test_a_categorical_of_latents():
    rows = torch.rand(2, S, A, S, dtype=torch.float64)
    rows = rows / rows.sum(-1, keepdim=True)

    def dynamics(s, a):
        z = pyro.sample("z", dist.Bernoulli(0.3)).long()
        return dist.Categorical(rows[z, s, a])

    check(
        dynamics,
        lambda s, a: (
            (p * rows[z, s, a, n].item(), n) for z, p in ((1, 0.3), (0, 0.7)) for n in range(S)
        ),
    )


@pytest.mark.parametrize(
    "dynamics",
    [
        lambda s, a: dist.Delta((s + a) % S),
        lambda s, a: dist.Categorical(logits=torch.eye(S).log()[(s + a) % S]),
        lambda s, a: cai.SparseCategorical(
            torch.zeros(*s.shape, 1), ((s + a) % S).unsqueeze(-1), S
        ),
        lambda s, a: dist.Delta((s + a) % S).mask(s > 2),
        lambda s, a: dist.MixtureSameFamily(
            dist.Categorical(torch.ones(*s.shape, 2)),
            dist.Categorical(logits=torch.eye(S).log()[(s + a) % S].unsqueeze(-2).expand(
                *s.shape, 2, S)),
        ),
    ],
    ids=["delta", "categorical", "successors", "masked", "mixture"],
)  # fmt: skip
def test_every_way_to_say_the_same(dynamics):
    check(dynamics, lambda s, a: [(1, (s + a) % S)])


def test_scalars_and_constants():
    """A latent without a batch shape, and a next state that depends on nothing."""

    def dynamics(s, a):
        return dist.Delta(pyro.sample("anywhere", dist.Categorical(torch.ones(S))))

    check(dynamics, lambda s, a: [(1 / S, n) for n in range(S)])


def test_a_masked_latent_is_drawn_all_the_same():
    def dynamics(s, a):
        slip = pyro.sample("slip", dist.Bernoulli(0.25).mask(s > 2)).bool()
        return dist.Delta(torch.where(slip, s, a))

    check(dynamics, lambda s, a: [(0.25, s), (0.75, a)])


def test_params_and_deterministic_sites_are_left_alone():
    def dynamics(s, a):
        rate = pyro.param("rate", torch.tensor(0.25, dtype=torch.float64))
        doubled = pyro.deterministic("doubled", 2 * rate)
        slip = pyro.sample("slip", dist.Bernoulli(doubled)).bool()
        return dist.Delta(torch.where(slip, s, a))

    check(dynamics, lambda s, a: [(0.5, s), (0.5, a)])
    model = model_of(dynamics)
    trace = poutine.trace(model).get_trace()
    assert [name for name in trace.nodes if "rate" in name] == ["rate"]
    assert {"t0/doubled", "t2/doubled", "t0/slip"} <= set(trace.nodes)


def test_numbers_in_the_program_are_float64():
    table = cai.tabulate(models.ledge(gives_way=0.2))
    p = table.dense(table.log_dynamics)[0, 0]
    assert p[4].item() == pytest.approx(0.2, abs=1e-16)
    assert torch.get_default_dtype() == torch.float32


def test_lists_where_they_are_smaller():
    few = cai.tabulate(model_of(lambda s, a: dist.Delta((s + a) % S)))
    assert few.successors is not None
    assert few.log_dynamics.shape == (S, A, 1)
    many = cai.tabulate(model_of(lambda s, a: dist.Categorical(torch.ones(S).expand(*s.shape, S))))
    assert many.successors is None
    assert many.log_dynamics.shape == (S, A, S)


def test_lists_and_dense_rows_give_the_same_answers():
    """Successor lists with repeats and short rows, against the same numbers densely."""
    torch.manual_seed(1)
    n, K = 12, 3
    listed = torch.randint(n, (n, A, K))
    p = torch.rand(n, A, K, dtype=torch.float64)
    p[..., 2] *= torch.rand(n, A) > 0.5
    p = p / p.sum(-1, keepdim=True)
    dense = torch.zeros(n, A, n, dtype=torch.float64).scatter_add_(-1, listed, p)
    r, final = torch.randn(n, A), torch.randn(n)
    arguments = {"horizon": 5, "final_reward": final, "discount": 0.9}
    lists = models.tabular(p, r, successors=listed, **arguments)
    rows = models.tabular(dense, r, **arguments)
    tables = cai.tabulate(lists), cai.tabulate(rows)
    assert tables[0].successors is not None
    torch.testing.assert_close(tables[0].dense(tables[0].log_dynamics), dense)
    for eta in (-math.inf, -1.0, 0.0, 0.01, 1.0, math.inf):
        one, other = (inference.soft_values(model, eta) for model in (lists, rows))
        torch.testing.assert_close(one.V, other.V)
        torch.testing.assert_close(one.states, other.states)
        torch.testing.assert_close(one.dynamics(2), other.dynamics(2))
        assert one.imagined_return == pytest.approx(other.imagined_return)


def test_push_and_pull_are_adjoint_in_every_form():
    """<pull(flow, v), m> = <v, push(m, flow)>: as a matrix, and as lists of many states."""
    for n in (20, 200):
        listed = torch.randint(n, (n, A, 3))
        p = torch.rand(n, A, 3, dtype=torch.float64)
        model = models.tabular(
            p / p.sum(-1, keepdim=True), torch.zeros(n, A), successors=listed, horizon=1
        )
        table = cai.tabulate(model)
        flow = table.flow(torch.rand(table.log_dynamics.shape).double() * table.log_dynamics.exp())
        assert flow.shape[-1] == (n if n <= 128 else table.successor_index.shape[-1])
        m, v = torch.rand(2, n, dtype=torch.float64)
        torch.testing.assert_close(table.pull(flow, v) @ m, table.push(m, flow) @ v)
        unreachable = v.index_fill(0, (flow.sum(0) == 0).nonzero().flatten()[:1], -math.inf)
        assert not table.pull(flow, unreachable).isnan().any()


def test_tabulating_inside_a_running_program_leaves_no_sites():
    model = models.ledge()

    def program():
        pyro.sample("outer", dist.Bernoulli(0.5))
        cai.tabulate(model)

    assert list(poutine.trace(program).get_trace().stochastic_nodes) == ["outer"]
    with pyro.plate("outside", 7):
        cai.tabulate(model)


def test_tabulating_draws_nothing():
    state = torch.random.get_rng_state()
    cai.tabulate(models.gridworld(wind=0.2))
    assert torch.equal(state, torch.random.get_rng_state())


def test_collapsed_model_has_the_same_posterior_and_no_latents():
    model = models.gridworld("bridge", wind=0.2, horizon=6)
    collapsed = cai.collapse(model)
    one, other = inference.posterior(model), inference.posterior(collapsed)
    assert one.bound == pytest.approx(other.bound, abs=1e-12)
    sites = poutine.trace(collapsed).get_trace().stochastic_nodes
    assert not any("/" in site for site in sites)


def refused(dynamics, *parts, error=ValueError, **changes):
    with pytest.raises(error) as caught:
        cai.tabulate(model_of(dynamics, **changes))
    for part in parts:
        assert part in str(caught.value)


def test_a_continuous_site_is_named():
    def dynamics(s, a):
        gust = pyro.sample("gust", dist.Normal(0.0, 1.0))
        return dist.Delta(torch.where(gust > 0, s, a))

    refused(dynamics, "'gust'", "Normal", "inference.fit")


def test_continuous_states_and_actions_are_refused_by_their_argument():
    refused(
        lambda s, a: dist.Normal(s, 1.0),
        "initial: enumeration needs finitely many states",
        "got Normal; exact inference is unavailable for continuous ones, use inference.fit",
        initial=dist.Normal(0.0, 1.0),
    )
    refused(
        lambda s, a: dist.Delta(s),
        "action_prior: enumeration needs finitely many actions",
        action_prior=dist.Normal(0.0, 1.0),
    )
    refused(lambda s, a: dist.Delta(s), "one-hot Categorical", initial=dist.Delta(torch.tensor(0)))


def test_states_outside_the_support_are_named():
    refused(
        lambda s, a: dist.Delta(s + a),
        "from state 5 with action 1 the next state is 6, outside the states 0 … 5",
        "`initial`",
    )
    refused(lambda s, a: dist.Categorical(torch.ones(S + 1).expand(*s.shape, S + 1)), "outside the")


def test_a_wider_categorical_with_nothing_outside_is_fine():
    row = torch.tensor([1.0] + [0.0] * S)
    check(lambda s, a: dist.Categorical(row.expand(*s.shape, S + 1)), lambda s, a: [(1, 0)])


def test_rows_must_sum_to_one():
    def dynamics(s, a):
        return dist.Delta(s, log_density=torch.full(s.shape, -0.1))

    refused(dynamics, "dynamics at state 0, action 0", "sum to one", "0.904837")


def test_rewards_are_checked_everywhere():
    arrival = torch.zeros(S, A, S)
    arrival[2, 1, 3] = math.nan

    def refused_reward(**changes):
        refused(lambda s, a: dist.Delta((s + a) % S), *changes.pop("parts"), **changes)

    refused_reward(
        arrival_reward=lambda s, a, n: arrival[s, a, n],
        parts=["arrival_reward: expected numbers below +inf", "nan"],
    )
    arrival[2, 1, 3], arrival[2, 1, 0] = 0.0, math.nan  # cannot be arrived at: never looked at
    cai.tabulate(
        model_of(
            lambda s, a: dist.Delta((s + a) % S), arrival_reward=lambda s, a, n: arrival[s, a, n]
        )
    )
    arrival[2, 1, 3] = 2.0
    refused_reward(
        arrival_reward=lambda s, a, n: arrival[s, a, n].nan_to_num(),
        reward=-1.0,
        optimality="bernoulli",
        parts=['optimality="bernoulli"', "largest is 1", "Subtract at least 1"],
    )


def test_dynamics_that_look_at_the_whole_batch_are_caught():
    """A Python `if` on a reduction passes every check of shapes and tabulates wrongly."""

    def dynamics(s, a):
        if (s > 2).all():
            return dist.Delta(torch.zeros_like(s))
        return dist.Delta(s)

    with pytest.raises(ValueError, match=r"a scalar call gives another .* torch.where"):
        model_of(dynamics)


def test_dynamics_that_stumble_over_a_rare_state_are_caught():
    """State 7 is not among the few that are tried when the model is built."""

    def dynamics(s, a):
        return dist.Delta(torch.zeros_like(s) if (s == 7).any() else s)

    refused(
        dynamics,
        "a scalar call gives another distribution than the batch of all states",
        initial=dist.Categorical(torch.ones(100)),
    )


def test_every_action_forbidden_is_an_error():
    def prior(s):
        return cai.SparseCategorical(torch.where(s.unsqueeze(-1) == 4, -math.inf, torch.zeros(A)))

    refused(lambda s, a: dist.Delta(s), "action_prior", "logits", action_prior=prior)
    with pyro.validation_enabled(False):
        refused(lambda s, a: dist.Delta(s), "in state 4 every action", action_prior=prior)


def test_float_states_after_integer_ones_are_refused():
    refused(lambda s, a: dist.Delta(((s + a) % S).float()), "integer type", "s_next.long()")


def test_successors_are_a_distribution():
    d = cai.SparseCategorical(torch.tensor([0.5, 0.25, 0.25]).log(), torch.tensor([3, 1, 3]), 5)
    assert d.enumerate_support().tolist() == [0, 1, 2, 3, 4]
    found = d.log_prob(d.enumerate_support()).exp().tolist()
    assert found == pytest.approx([0, 0.25, 0, 0.75, 0])
    draws = d.sample((4000,))
    assert set(draws.tolist()) == {1, 3}
    assert (draws == 3).double().mean().item() == pytest.approx(0.75, abs=0.03)
    wide = d.expand((2, 3))
    assert wide.sample((4,)).shape == (4, 2, 3)
    assert wide.enumerate_support(expand=False).shape == (5, 1, 1)


def test_pyros_estimator_that_tracks_where_numbers_come_from_runs_the_program_of_a_table():
    """TraceGraph_ELBO hands distributions tensors of its own, whose shapes are plain tuples."""
    P, successors = [[[0.3, 0.7]], [[0.0, 1.0]]], [[[0, 1]], [[0, 1]]]
    model = models.tabular(P, [[-1.0], [0.0]], successors=successors, horizon=3)
    guide = model.rollout(lambda t, s: model.prior(s, t))
    loss = TraceGraph_ELBO(num_particles=400, vectorize_particles=True, max_plate_nesting=0)
    pyro.set_rng_seed(0)
    # Alive for 1 + .3 + .09 steps at a cost of one each, with a variance below one.
    assert loss.loss_and_grads(model, guide) == pytest.approx(1.39, abs=0.25)
