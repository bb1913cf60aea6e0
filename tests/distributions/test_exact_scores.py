"""Exact scores: log 0 = -inf in float64, whatever torch would clamp."""

import dataclasses
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from pyro import poutine

from cai import inference, models
from cai.distributions.exact_scores import exact, exact_scores

P = torch.tensor([0.0, 0.25, 0.75])


def scores(d, *values):
    return [exact(d).log_prob(torch.as_tensor(v)) for v in values]


def test_a_zero_probability_is_impossible():
    zero, quarter, rest = scores(dist.Categorical(P), 0, 1, 2)
    assert dist.Categorical(P).log_prob(torch.tensor(0)) > -17  # what torch says
    assert zero == -math.inf
    assert quarter.dtype == torch.float64
    assert quarter.item() == pytest.approx(math.log(0.25), abs=1e-15)
    assert rest.item() == pytest.approx(math.log(0.75), abs=1e-15)


@pytest.mark.parametrize("touch", ["probs", "logits"])
@pytest.mark.parametrize("given", ["probs", "logits"])
def test_it_does_not_matter_what_was_looked_at_before(given, touch):
    """torch computes the other parametrisation lazily, and expand keeps both."""
    d = dist.Categorical(**{given: P if given == "probs" else P.log()})
    getattr(d, touch)
    assert exact(d).log_prob(torch.tensor(0)) == -math.inf
    assert (exact(d.expand((2,))).log_prob(torch.tensor([0, 0])) == -math.inf).all()
    b = dist.Bernoulli(**{given: torch.tensor(1.0 if given == "probs" else math.inf)})
    getattr(b, touch)
    assert exact(b.expand((2,))).log_prob(torch.zeros(2)).tolist() == [-math.inf] * 2


def test_small_logits_are_no_zeros():
    """A logit of -800 underflows as a probability; its score must stay finite."""
    d = dist.Categorical(logits=torch.tensor([0.0, -800.0]))
    _ = d.probs
    assert exact(d).log_prob(torch.tensor(1)).item() == -800
    assert exact(d.expand((3,))).log_prob(torch.tensor([1, 1, 1])).tolist() == [-800] * 3


@pytest.mark.parametrize(
    ("d", "one", "zero"),
    [
        (dist.Bernoulli(0.0), -math.inf, 0.0),
        (dist.Bernoulli(1.0), 0.0, -math.inf),
        (dist.Bernoulli(logits=torch.tensor(math.inf)), 0.0, -math.inf),
        (dist.Bernoulli(logits=torch.tensor(-math.inf)), -math.inf, 0.0),
        (dist.Bernoulli(logits=torch.tensor(-200.0)), -200.0, -math.exp(-200)),
        (dist.Bernoulli(torch.tensor(0.2, dtype=torch.float64)), math.log(0.2), math.log(0.8)),
    ],
)
def test_bernoulli(d, one, zero):
    found = [x.item() for x in scores(d, 1.0, 0.0)]
    assert found == pytest.approx([one, zero], abs=1e-15)
    assert not any(map(math.isnan, found))


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_a_binomial_counts_the_ways(p):
    k = np.arange(6.0)
    found = exact(dist.Binomial(5, torch.tensor(p, dtype=torch.float64))).log_prob(torch.tensor(k))
    np.testing.assert_allclose(found, scipy.stats.binom.logpmf(k, 5, p), rtol=1e-13)


def test_everything_built_of_discrete_parts():
    certain = dist.Bernoulli(torch.tensor([1.0, 0.0]))
    assert scores(certain.to_event(1), [1.0, 0.0], [1.0, 1.0]) == [0, -math.inf]
    masked = certain.mask(torch.tensor([True, False]))
    assert scores(masked, [0.0, 1.0])[0].tolist() == [-math.inf, 0]
    mixture = dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([1.0, 0.0])), dist.Categorical(torch.tensor([[0, 1.0]] * 2))
    )
    assert scores(mixture, 0, 1) == [-math.inf, 0]
    assert scores(dist.OneHotCategorical(P), [1.0, 0, 0])[0] == -math.inf
    assert scores(dist.Binomial(2, torch.tensor(1.0)), 2.0, 1.0) == [0, -math.inf]
    assert scores(dist.Delta(torch.tensor(3)), 3, 2) == [0, -math.inf]
    assert scores(dist.Delta(torch.tensor(3)), 3)[0].dtype == torch.float64
    pair = dist.Delta(torch.tensor([1, 2]), event_dim=1)
    assert scores(pair, [1, 2], [1, 3]) == [0, -math.inf]
    chosen = dist.MaskedMixture(
        torch.tensor(True), dist.Categorical(P), dist.Categorical(P.flip(0))
    )
    assert scores(chosen, 2) == [-math.inf]


def test_continuous_distributions_stay_as_they_are():
    d = dist.Normal(0, 1)
    assert exact(d) is d


@pytest.mark.parametrize("bound", [2.0, 0.3])
def test_a_uniform_has_both_of_its_ends(bound):
    """Where a squashed control arrives by rounding; torch's is open above."""
    high = torch.tensor([bound], dtype=torch.float64)
    box = dist.Uniform(-high, high).to_event(1)
    with pyro.validation_enabled(False):
        assert dist.Uniform(-high, high).to_event(1).log_prob(high) == -math.inf
    for value in (high, -high, high.float(), -high.float(), torch.zeros(1)):
        assert exact(box).log_prob(value).item() == pytest.approx(-math.log(2 * bound), abs=1e-15)
    for value in (1.01 * high, -1.01 * high, torch.tensor([3])):
        assert exact(box).log_prob(value) == -math.inf
    twice = exact(exact(box).expand((2,)))
    assert twice.log_prob(high.expand(2, 1)).tolist() == [-math.log(2 * bound)] * 2
    assert twice.support.base_constraint.upper_bound.max() == bound


def test_float64_logits_are_not_copied():
    d = dist.Categorical(logits=torch.zeros(3).double())
    assert exact(d) is d


def test_samples_keep_their_type():
    def program():
        pyro.sample("c", dist.Categorical(P))
        pyro.sample("b", dist.Bernoulli(0.5))
        pyro.sample("i", dist.Delta(torch.tensor(2)))

    with exact_scores():
        trace = poutine.trace(program).get_trace()
    assert trace.nodes["c"]["value"].dtype == torch.long
    assert trace.nodes["b"]["value"].dtype == torch.float32
    assert trace.nodes["i"]["value"].dtype == torch.long
    trace.compute_log_prob()
    assert all(trace.nodes[name]["log_prob"].dtype == torch.float64 for name in "cbi")


def test_a_gradient_passes_through_a_zero():
    probs = torch.tensor([0.0, 0.5, 0.5], requires_grad=True)
    exact(dist.Categorical(probs)).log_prob(torch.tensor(1)).backward()
    assert probs.grad.isfinite().all()


def test_the_program_scores_the_impossible_as_impossible():
    """FrozenLake at α = 0.1: the clamp, amplified by exp(10), jumps to the goal from anywhere."""
    model = models.gym("FrozenLake-v1", horizon=100, temperature=0.1)
    found = inference.posterior(model)
    assert inference.enumeration(model).log_evidence == pytest.approx(found.bound, abs=1e-11)
    table = found.table
    clamped = dist.Categorical(table.dense(table.log_dynamics).float()).logits.double()
    arrival = torch.zeros(16, 4, 16).double()
    arrival[:, :, 15] = 1
    arrival[[5, 7, 11, 12, 15]] = 0
    jumps = dataclasses.replace(
        table, log_dynamics=clamped, successors=None, arrival_reward=arrival
    )
    assert inference.posterior(jumps).bound - found.bound > 0.2


def test_probabilities_below_the_clamp_stay_what_they_are():
    """Also once torch has computed clamped log-odds, and expand has kept both."""
    d = dist.Categorical(torch.tensor([1.0, 1e-10]))
    assert d.logits[1].item() > -16
    assert exact(d.expand((2,))).log_prob(torch.tensor(1))[0].item() == pytest.approx(
        -23.026, abs=1e-3
    )
