"""Values, bounds and likelihoods under the transforms of torch.func, against torch.autograd."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import cai
from cai import inference, models
from cai.inference.derivatives import _pullback

# torch's own forward mode still compiles a formula or two in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script")
SEEN = torch.tensor([[0, 1, 2], [1, 1, 3]]), torch.tensor([[1, 0, 1], [0, 1, 0]])
ETAS = [-0.5, 0.0, 0.5, 1.0]


def table(kind):
    """Costs in five states, the last of which ends it all; "lists" of two or three successors."""
    rng = np.random.default_rng(3)
    S, A = (9, 2) if kind == "lists" else (5, 2)
    P = np.zeros((S, A, S))
    if kind == "lists":
        for s in range(S - 1):
            for a in range(A):
                np.add.at(P[s, a], [(s + a + 1) % S, (2 * s + a) % S], rng.dirichlet(np.ones(2)))
    else:
        P[:] = rng.dirichlet(np.ones(S), size=(S, A))
    P *= 0.6
    P[..., -1] += 0.4
    P[-1] = np.eye(S)[-1]
    reward = -0.2 - rng.random((S, A))
    reward[-1] = 0.0
    arguments = {
        "finite": {
            "horizon": 4,
            "arrival_reward": rng.random((S, A, S)),
            "final_reward": reward[:, 0],
        },
        "discounted": {"horizon": 4, "discount": 0.8},
        "lists": {"horizon": 5},
        "endless": {"horizon": None},
        "endless, discounted": {"horizon": None, "discount": 0.5},
    }[kind]
    return cai.tabulate(
        models.tabular(P, reward, initial=rng.random(S) + 0.1, temperature=1.3, **arguments)
    )


KINDS = ["finite", "discounted", "lists", "endless", "endless, discounted"]


def functions(problem, eta, rule="soft"):
    """What may be differentiated, as functions of the reward."""

    def replaced(reward):
        return dataclasses.replace(problem, reward=reward)

    return {
        "values": lambda r: inference.differentiable_values(replaced(r), eta, rule),
        "bound": lambda r: inference.differentiable_bound(replaced(r), eta, rule),
        "log_likelihood": lambda r: inference.log_likelihood(replaced(r), SEEN, eta, rule),
    }


def close(found, right, atol=1e-11):
    torch.testing.assert_close(found, right, rtol=1e-11, atol=atol)


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("kind", KINDS)
def test_first_derivatives(kind, eta):
    """Reverse and forward mode and products with vectors, against autograd and differences."""
    problem = table(kind)
    assert (problem.successors is not None) == (kind == "lists")
    r = problem.reward
    rng = np.random.default_rng(0)
    change = torch.from_numpy(rng.normal(size=r.shape))
    change[-1] = 0.0  # what absorbs without an end stays free
    for f in functions(problem, eta).values():
        right = torch.autograd.functional.jacobian(f, r)
        close(jacrev(f)(r), right)
        close(jacfwd(f)(r), right)
        value, along = jvp(f, (r,), (change,))
        close(value, f(r))
        close(along, (right * change).sum((-2, -1)))
        h = 1e-5
        difference = (f(r + h * change) - f(r - h * change)) / (2 * h)
        torch.testing.assert_close(along, difference, rtol=1e-7, atol=1e-8)
        on = torch.from_numpy(rng.normal(size=value.shape))
        _, back = vjp(f, r)
        close(back(on)[0], torch.tensordot(on, right, dims=on.dim()))


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_rewards(kind, eta):
    problem = table(kind)
    r = problem.reward
    some = torch.stack([r, 1.2 * r, 0.9 * r])
    for name, f in functions(problem, eta).items():
        close(vmap(f)(some), torch.stack([f(x) for x in some]))
        close(vmap(f, in_dims=2)(some.movedim(0, 2)), torch.stack([f(x) for x in some]))
        if name == "bound":
            close(vmap(grad(f))(some), torch.stack([grad(f)(x) for x in some]))
        if name == "log_likelihood":
            close(vmap(jacrev(f))(some[:1])[0], jacrev(f)(r))


@pytest.mark.parametrize("rule", ["soft", "hard"])
@pytest.mark.parametrize("kind", [*KINDS, "forbidden"])
def test_batches_of_trajectories(kind, rule):
    """The likelihood of each and its gradient, one trajectory after another by autograd."""
    problem = table("finite" if kind == "forbidden" else kind)
    if kind == "forbidden":  # the first step of the first trajectory
        log_prior = problem.log_prior.clone()
        log_prior[0, 1] = -math.inf
        problem = dataclasses.replace(problem, log_prior=log_prior)
    r, (states, actions) = problem.reward, SEEN

    def each(reward, s, a):
        changed, seen = dataclasses.replace(problem, reward=reward), (s[None], a[None])
        return inference.log_likelihood(changed, seen, 0.5, rule).squeeze(0)

    one_by_one = torch.stack([each(r, *seen) for seen in zip(*SEEN, strict=True)])
    assert one_by_one.isinf()[0] or kind != "forbidden"
    close(vmap(each, in_dims=(None, 0, 0))(r, states, actions), one_by_one)
    close(vmap(each, in_dims=(None, 0, None))(r, states[:1], actions[0]), one_by_one[:1])
    right = torch.autograd.functional.jacobian(
        lambda x: torch.stack([each(x, *seen) for seen in zip(*SEEN, strict=True)]), r
    )
    close(vmap(grad(each), in_dims=(None, 0, 0))(r, states, actions), right)
    for wrong in ((states + 7, actions), (states, actions - 1)):
        with pytest.raises(
            ValueError, match=r"demonstrations, (states|actions): expected integers in 0"
        ):
            vmap(each, in_dims=(None, 0, 0))(r, *wrong)


@pytest.mark.parametrize("eta", [-0.5, 0.0, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives(kind, eta):
    """Forward over reverse, reverse over reverse, and the Hessian-vector product of its own."""
    problem = table(kind)
    r = problem.reward
    u = torch.from_numpy(np.random.default_rng(1).normal(size=r.shape))
    f = functions(problem, eta)["bound"]
    right = torch.autograd.functional.hessian(f, r)
    close(hessian(f)(r), right, atol=1e-9)
    close(jacrev(jacrev(f))(r), right, atol=1e-9)
    _, along = jvp(grad(f), (r,), (u,))
    product = inference.reward_hessian_vector_product(problem, u, eta)
    close(along, product, atol=1e-9)
    close(vmap(lambda x: jvp(grad(f), (x,), (u,))[1])(r.unsqueeze(0))[0], product, atol=1e-9)


def test_the_third_derivative_of_one_reward():
    """r -> bound of a lottery: one step, by hand. With weights w = p e^r, κ_3 of a coin."""
    ticket = cai.tabulate(models.tabular(np.ones((1, 2, 1)), [[0.3, 0.0]], horizon=1))

    def bound(x):
        reward = torch.stack([x, torch.zeros_like(x)]).unsqueeze(0)
        return inference.differentiable_bound(dataclasses.replace(ticket, reward=reward))

    x = torch.tensor(0.3, dtype=torch.float64)
    p = math.exp(0.3) / (math.exp(0.3) + 1)
    assert grad(grad(bound))(x).item() == pytest.approx(p * (1 - p))
    third = p * (1 - p) * (1 - 2 * p)
    assert grad(grad(grad(bound)))(x).item() == pytest.approx(third)
    assert jacfwd(jacfwd(grad(bound)))(x).item() == pytest.approx(third)


@pytest.mark.parametrize("kind", ["finite", "discounted", "endless, discounted"])
@pytest.mark.parametrize(
    "name", ["log_prior", "log_dynamics", "log_initial", "temperature", "arrival_reward"]
)
def test_whatever_a_table_holds(kind, name):
    problem = table(kind)
    held = getattr(problem, name)
    if held is None:
        held = torch.zeros_like(problem.log_dynamics)
    held = torch.as_tensor(held, dtype=torch.float64).clone()

    def everything(x):
        changed = dataclasses.replace(problem, **{name: x})
        likely = inference.log_likelihood(changed, SEEN, 0.5)
        return torch.cat([inference.differentiable_bound(changed, 0.5).reshape(1), likely])

    right = torch.autograd.functional.jacobian(everything, held)
    close(jacrev(everything)(held), right)
    close(jacfwd(everything)(held), right)
    close(vmap(everything)(held.unsqueeze(0))[0], everything(held))


@pytest.mark.parametrize("rule", ["hard", "boltzmann", "planned"])
def test_the_other_rules(rule):
    problem = table("finite")
    for f in functions(problem, 0.5, rule).values():
        right = torch.autograd.functional.jacobian(f, problem.reward)
        close(jacrev(f)(problem.reward), right)
        close(jacfwd(f)(problem.reward), right)


def test_forbidden_actions_and_dead_ends_have_derivative_zero():
    P = np.zeros((3, 2, 3))
    P[0, :, 1] = P[1, 0, 1] = P[1, 1, 2] = P[2, :, 2] = 1
    reward = [[0.5, -math.inf], [0.0, 0.0], [-math.inf, -math.inf]]
    problem = cai.tabulate(models.tabular(P, reward, horizon=3))
    for eta in ETAS:
        f = functions(problem, eta)["bound"]
        x = problem.reward.clone().requires_grad_()
        (right,) = torch.autograd.grad(f(x), x)
        assert right[2].tolist() == [0, 0]
        close(grad(f)(problem.reward), right)
        close(vmap(grad(f))(problem.reward.unsqueeze(0))[0], right)


def test_refusals_are_as_clear_as_without_a_transform():
    problem = table("finite")
    lost = torch.full_like(problem.reward, -math.inf)
    f = functions(problem, 1.0)["bound"]
    with pytest.raises(ValueError, match="bound: expected a finite number to differentiate"):
        vmap(f)(torch.stack([problem.reward, lost]))
    with pytest.raises(ValueError, match="bound: expected a finite number to differentiate"):
        grad(f)(lost)
    f = functions(table("endless"), 1.0)["bound"]
    with pytest.raises(ValueError, match=r"log p\(O\) of this infinite horizon is infinite"):
        grad(f)(-problem.reward.abs() + 3)


def test_optimism_has_no_derivative_here():
    """Not even zero, as a number that is taken out of a tensor would have."""
    problem, eta = table("finite"), torch.tensor(0.5)
    for f in (
        lambda eta: inference.differentiable_bound(problem, eta),
        lambda eta: inference.differentiable_values(problem, eta).sum(),
        lambda eta: inference.log_likelihood(problem, SEEN, eta).sum(),
    ):
        assert f(eta) == f(0.5)
        for call in (
            lambda f=f: grad(f)(eta),
            lambda f=f: jvp(f, (eta,), (eta,)),
            lambda f=f: vmap(f)(eta.reshape(1)),
            lambda f=f: f(eta.clone().requires_grad_()),
        ):
            with pytest.raises(ValueError, match="optimism: expected a plain number"):
                call()


def test_an_operation_is_differentiated_by_its_tape_as_often_as_one_likes():
    """x²y by its own pullback, and every mixed derivative of it."""

    def back(needed):
        def tape(x, y, _, on):
            return _pullback.chosen((2 * x * y * on, x * x * on), needed)

        return _pullback.taped(tape)

    square = _pullback.Operation(lambda x, y: (x * x * y,), back)
    x, y = torch.tensor(3.0), torch.tensor(5.0)

    def f(x, y):
        return square(x, y)[0]

    assert grad(f, argnums=(0, 1))(x, y) == (30, 9)
    assert grad(grad(f), argnums=(0, 1))(x, y) == (10, 6)
    assert grad(grad(grad(f), argnums=1))(x, y) == 2
    assert jacfwd(jacfwd(jacrev(f)), argnums=1)(x, y) == 2
    assert f(x, x) == 27
    assert grad(lambda z: f(z, z))(x) == 27
    assert grad(grad(lambda z: f(z, z)))(x) == 18


def test_the_compiler_is_kept_out(monkeypatch):
    """Each public function hands itself over as one that torch.compile does not look into."""
    problem, kept_out = table("finite"), []

    def disable(function):
        kept_out.append(function.__name__)
        return function

    right = [f(problem.reward) for f in functions(problem, 0.5).values()]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(torch.compiler, "disable", disable)
    found = [f(problem.reward) for f in functions(problem, 0.5).values()]
    assert kept_out == ["differentiable_values", "differentiable_bound", "log_likelihood"]
    assert all(torch.equal(x, y) for x, y in zip(found, right, strict=True))
