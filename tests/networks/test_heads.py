"""Families of distributions over actions: densities up to the edges, and the best of each."""

import math

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from examples import bandit, scramble
from pyro.distributions.transforms import conditional_affine_autoregressive, conditional_spline
from pyro.infer import SVI, Trace_ELBO
from torch import nn

import cai
from cai import inference, models
from cai.networks.flow import FlowHead
from cai.networks.heads import CategoricalHead, GaussianHead, MixtureHead, head_for

BOX = dist.Uniform(torch.tensor(-1.0).double(), torch.tensor(3.0).double())
LINE = dist.Normal(torch.tensor(1.5).double(), torch.tensor(0.5).double())
HALF = dist.Gamma(torch.tensor(2.0).double(), torch.tensor(1.0).double())


def flow(m, context=3):
    torch.manual_seed(2)
    transforms = [conditional_spline(m, context, count_bins=4)]
    if m > 1:
        transforms.append(conditional_affine_autoregressive(m, context))
    return FlowHead(*transforms, context=context)


def heads(m):
    return {
        "diagonal": GaussianHead(),
        "full": GaussianHead("full"),
        "mixture": MixtureHead(3),
        "flow": flow(m),
    }


def numbers(head, prior, *batch, scale=1.0):
    torch.manual_seed(1)
    return scale * torch.randn(*batch, head.size(prior), dtype=torch.float64)


def points(prior):
    """Actions that fill the prior's support, and da/dx of the even x that they come from."""
    x = torch.linspace(-17, 17, 20_001, dtype=torch.float64)
    if prior is LINE:
        return x, torch.ones_like(x), x[1] - x[0]
    if prior is HALF:
        return x.exp(), x.exp(), x[1] - x[0]
    e = (-2 * x.abs()).exp()
    near = 4 * e / (1 + e)  # the distance to the nearer edge
    return torch.where(x > 0, 3 - near, near - 1), 8 * e / (1 + e) ** 2, x[1] - x[0]


@pytest.mark.parametrize("prior", [LINE, BOX, HALF], ids=["line", "box", "half line"])
@pytest.mark.parametrize("name", heads(1))
def test_densities_integrate_to_one(name, prior):
    head = heads(1)[name]
    x = numbers(head, prior, scale=0.7)
    a, slope, step = points(prior)
    density = head(x, prior).log_prob(a).exp()
    assert (density * slope * step).sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_the_exact_density_next_to_the_edge(scale):
    """1 - a is exact in floats next to one, so logarithms alone give the change of variables."""
    prior = dist.Uniform(torch.tensor(-1.0).double(), torch.tensor(1.0).double())
    head = GaussianHead()
    x = torch.tensor([0.3, math.log(scale)], dtype=torch.float64)
    for distance in (2.0**-53, 2.0**-52, 1e-14, 1e-9, 1e-3, 0.5):
        for sign in (-1, 1):
            a = sign * (1 - distance)
            d = 1 - abs(a)
            before = sign * (math.log1p(abs(a)) - math.log(d)) / 2
            expected = (
                scipy.stats.norm.logpdf(before, 0.3, scale) - math.log(d) - math.log1p(abs(a))
            )
            found = head(x, prior).log_prob(torch.tensor(a, dtype=torch.float64)).item()
            assert found == pytest.approx(expected, rel=1e-13, abs=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["diagonal", "mixture", "full", "flow"])
def test_saturated_actions_stay_inside_and_have_a_score(name, dtype):
    low, high = torch.tensor([-2.0, 0.1], dtype=dtype), torch.tensor([2.0, 0.3], dtype=dtype)
    prior = dist.Uniform(low, high).to_event(1)
    head = heads(2)[name]
    head = head.to(dtype) if name == "flow" else head
    x = torch.zeros(head.size(prior), dtype=dtype)
    x[:2] = torch.tensor([40.0, -40.0])
    x.requires_grad_()
    d = head(x, prior)
    a = d.rsample((500,)) if d.has_rsample else d.sample((500,))
    assert a.dtype == dtype
    assert ((a > low) & (a < high)).all()
    score = d.log_prob(a)
    again = head(x, prior).log_prob(a.detach())  # without what the transform remembers
    for value in (prior.log_prob(a), score, again):
        assert value.isfinite().all()
    (score.sum() + again.sum() + a.sum()).backward()
    assert x.grad.isfinite().all()


def test_a_remembered_score_is_the_inverted_one():
    for name, head in heads(2).items():
        for prior in (BOX, LINE, HALF):
            prior = prior.expand([2]).to_event(1)
            x = numbers(head, prior, 5, scale=0.5)
            a = head(x, prior).sample((7,))
            fresh = a.clone()
            assert a.shape == (7, 5, 2), name
            torch.testing.assert_close(
                head(x, prior).log_prob(fresh), head(x, prior).expand([7, 5]).log_prob(fresh)
            )
            d = head(x, prior)
            a = d.sample()
            torch.testing.assert_close(
                d.log_prob(a), head(x, prior).log_prob(a.clone()), atol=1e-7, rtol=0
            )


def test_full_covariances_and_mixtures_against_scipy():
    prior = dist.Normal(torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 3.0]).double())
    prior = prior.to_event(1)
    x = numbers(GaussianHead("full"), prior)
    d = GaussianHead("full")(x, prior)
    L = torch.diag(prior.stddev) @ torch.tensor([[x[2].exp(), 0], [x[4], x[3].exp()]]).double()
    a = d.sample((9,))
    expected = scipy.stats.multivariate_normal(prior.mean + prior.stddev * x[:2], L @ L.T)
    assert d.log_prob(a).tolist() == pytest.approx(expected.logpdf(a).tolist(), abs=1e-11)

    head = MixtureHead(2)
    x = numbers(head, prior)
    weights, location = x[:2].softmax(-1), x[2:6].view(2, 2) + torch.tensor([[1.0, 0], [-1.0, 0]])
    scales = x[6:].view(2, 2).exp()
    density = sum(
        w * scipy.stats.norm.pdf(a, prior.mean + prior.stddev * m, prior.stddev * s).prod(-1)
        for w, m, s in zip(weights.numpy(), location, scales, strict=True)
    )
    assert head(x, prior).log_prob(a).exp().tolist() == pytest.approx(density.tolist(), rel=1e-6)


def trained(model, policy, steps=90, rate=0.12):
    svi = SVI(
        model,
        model.rollout(policy),
        pyro.optim.ClippedAdam({"lr": rate, "lrd": 0.01 ** (1 / steps)}),
        Trace_ELBO(num_particles=64, vectorize_particles=True, max_plate_nesting=0),
    )
    for _ in range(steps):
        svi.step()
    return cai.evaluate(model, policy, samples=4000)


def squares(m):
    side = torch.tensor(2.0)
    return dist.Uniform(-side.expand(m), side.expand(m)).to_event(1)


@pytest.mark.parametrize("head", ["diagonal", "full", "flow"])
def test_svi_reaches_a_posterior_on_a_box_that_the_family_holds(head):
    """The ELBO's maximum is log p(O) = 0, and is reached where the family has the posterior."""
    prior = squares(2)
    family = heads(2)[head]
    truth = GaussianHead("full" if head in ("full", "flow") else "diagonal")
    x = torch.tensor([0.6, -0.5, -0.7, 0.1, 0.5])[: truth.size(prior)]
    model = bandit(prior, lambda a: truth(x, prior).log_prob(a))
    policy = cai.NeuralPolicy(model, hidden=(), head=family.float() if head == "flow" else family)
    found = trained(model, policy)
    assert found.elbo == pytest.approx(0, abs=0.03)
    assert found.elbo_stderr < 0.02


def test_a_mixture_finds_both_modes_where_a_gaussian_cannot():
    prior = dist.Normal(torch.zeros(2), 2.0).to_event(1)
    modes = dist.Normal(torch.tensor([[2.0, 1.0], [-2.0, -1.0]]), 0.4).to_event(1)
    both = dist.MixtureSameFamily(dist.Categorical(torch.tensor([0.3, 0.7])), modes)
    model = bandit(prior, both.log_prob)
    one = trained(model, cai.NeuralPolicy(model, hidden=()))
    mixture = cai.NeuralPolicy(model, hidden=(), head=MixtureHead(2))
    policy = inference.fit(model, mixture, steps=400, learning_rate=0.1).policy
    two = cai.evaluate(model, policy, samples=4000)
    assert one.elbo < math.log(0.7) + 0.02
    assert two.elbo == pytest.approx(0, abs=0.03)
    a = policy(0, torch.tensor(0.0)).sample((4000,))
    assert (a[:, 0] > 0).double().mean().item() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("name", ["diagonal", "full", "mixture", "flow"])
def test_every_head_broadcasts_over_steps_and_states(name):
    prior = squares(2)
    model = cai.TrajectoryModel(
        initial=dist.Normal(torch.zeros(3), 1.0).to_event(1),
        dynamics=lambda s, a: dist.Normal(s, 1.0).to_event(1),
        reward=lambda s, a: a.sum(-1),
        action_prior=prior,
        horizon=4,
        discount=0.9,
    )
    head = heads(2)[name]
    head = head.float() if name == "flow" else head
    policy = cai.NeuralPolicy(model, hidden=(5,), head=head)
    if name != "flow":
        scramble(policy)
    t, s = torch.arange(4).unsqueeze(1), torch.randn(6, 3)
    together = policy(t, s)
    assert together.batch_shape == (4, 6)
    a = together.sample()
    for k in range(4):
        alone = policy(k, s[2]).log_prob(a[k, 2])
        torch.testing.assert_close(alone, together.log_prob(a)[k, 2], rtol=1e-2, atol=1e-2)
    found = cai.evaluate(model, policy, samples=300)
    assert math.isfinite(found.elbo)


def test_untrained_gaussians_are_the_prior():
    for prior in (
        dist.Normal(torch.tensor([1.0, -3.0]), torch.tensor([0.2, 4.0])).to_event(1),
        dist.Normal(-2.0, 0.3),
        dist.Laplace(1.0, 2.0),
    ):
        for covariance in ("diagonal", "full"):
            head = GaussianHead(covariance)
            d = head(torch.zeros(3, head.size(prior)), prior)
            assert d.event_shape == prior.event_shape
            torch.testing.assert_close(d.mean, prior.mean.expand_as(d.mean))
            torch.testing.assert_close(d.variance, prior.variance.expand_as(d.mean))


@pytest.mark.parametrize(
    ("head", "prior", "message"),
    [
        (CategoricalHead(), LINE, r"action_prior: expected a Categorical, .* got Normal"),
        (GaussianHead(), dist.Categorical(torch.ones(3)), "expected a density on all .* Categor"),
        (MixtureHead(2), dist.Poisson(3.0), "expected a density on all numbers, a half line or a"),
        (GaussianHead(), dist.Dirichlet(torch.ones(3)), "got Dirichlet .* write the policy as a"),
    ],
)
def test_heads_that_do_not_suit_the_prior(head, prior, message):
    with pytest.raises(ValueError, match=message):
        head.size(prior)


def test_bad_heads():
    with pytest.raises(ValueError, match='covariance: expected "diagonal" or "full", got True'):
        GaussianHead(True)
    with pytest.raises(ValueError, match="components: expected a whole number"):
        MixtureHead(0)
    with pytest.raises(ValueError, match=r"transforms: expected conditional .*, got Linear; for"):
        FlowHead(nn.Linear(1, 1), context=2)
    assert isinstance(head_for(dist.Bernoulli(0.5)), CategoricalHead)


@pytest.mark.parametrize(
    ("prior", "policy", "came"),
    [
        (dist.Uniform(-1.0, 1.0), dist.Normal(0.0, 1.0), "Normal of event shape .* on Real"),
        (dist.Uniform(-1.0, 1.0), dist.Uniform(-1.0, 1.5), "Uniform of event shape"),
        (dist.Uniform(-1.0, 1.0), dist.Categorical(torch.ones(2)), "Categorical over 0 … 1"),
        (dist.Categorical(torch.ones(3)), dist.Categorical(torch.ones(4)), ".* over 0 … 3; take"),
        (squares(2), squares(3), r"Independent of event shape \[3\]"),
        (HALF, LINE, "Normal of event shape"),
    ],
)
def test_a_policy_that_leaves_the_support_of_the_prior(prior, policy, came):
    model = cai.TrajectoryModel(
        initial=dist.Normal(0.0, 1.0),
        dynamics=lambda s, a: dist.Normal(s, 1.0),
        reward=0.0,
        action_prior=prior,
        horizon=2,
    )
    for run in (model.rollout, lambda p: lambda: cai.evaluate(model, p, samples=5)):
        with pytest.raises(ValueError, match=f"policy: expected actions like .*, got {came}"):
            run(lambda t, s: policy)()


@pytest.mark.parametrize(
    ("prior", "policy"),
    [
        (dist.Uniform(-1.0, 1.0), dist.Uniform(-0.5, 0.5)),
        (LINE, dist.Gamma(1.0, 1.0)),
        (dist.Uniform(-1.0, 1.0), dist.Delta(torch.tensor(0.3))),
        (dist.Categorical(torch.ones(2)), dist.Bernoulli(torch.tensor(0.3))),
    ],
)
def test_a_policy_may_keep_to_less(prior, policy):
    model = cai.TrajectoryModel(
        initial=dist.Normal(0.0, 1.0),
        dynamics=lambda s, a: dist.Normal(s, 1.0),
        reward=0.0,
        action_prior=prior,
        horizon=2,
    )
    assert model.simulate(lambda t, s: policy, 5, seed=0).actions.shape == (5, 2)


def test_a_flow_of_transforms_in_float32_as_pyro_makes_them():
    """Values in float64 go through networks in float32 that Pyro made: both are put right."""
    model = models.multigoal(horizon=2, goal_reward=None)
    for make in (conditional_affine_autoregressive, conditional_spline):
        policy = cai.NeuralPolicy(model, hidden=(4,), head=FlowHead(make(2, 3), context=3))
        fitted = inference.fit(model, policy, estimator="pathwise", steps=2, samples=5)
        assert math.isfinite(fitted.elbo)


@pytest.mark.parametrize(
    "transform",
    [
        conditional_affine_autoregressive(3, 4),
        conditional_spline(2, 3, count_bins=4),
        conditional_spline(3, 4, count_bins=4),
    ],
)
def test_a_flow_of_another_size_is_refused(transform):
    """Three numbers for the two of an action, or three of a context of four."""
    model = models.multigoal(horizon=2)
    with pytest.raises(ValueError, match=r"FlowHead, .*: expected a transform of 2 numbers.*of 4"):
        cai.NeuralPolicy(model, head=FlowHead(transform, context=4))
