"""Threads: the numbers of the sequential loop, and nothing left behind in the process."""

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.poutine.runtime import _PYRO_STACK
from torch.distributions import constraints

import cai
from cai import inference, models
from cai.evaluation.problem import as_problem
from cai.graph import graphical_model
from cai.numerics.default_type import float64
from cai.numerics.exclusive import exclusive, seeded
from cai.numerics.threads import suited_to

TEMPERATURES = (0.5, 1.0, 2.0)


@pytest.fixture(autouse=True)
def switching_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(autouse=True)
def leaves_nothing_behind():
    before = torch.get_default_dtype(), torch.get_num_threads()
    yield
    assert _PYRO_STACK == []
    assert (torch.get_default_dtype(), torch.get_num_threads()) == before


def evidence(temperature):
    return inference.posterior(models.ledge(temperature=temperature)).log_evidence


def hopeful_value(temperature):
    model = models.gridworld("bridge", horizon=6, temperature=temperature)
    return inference.soft_values(model, optimism=0.5).bound


def simulated(temperature):
    model = models.gridworld("bridge", horizon=6, temperature=temperature, wind=0.2)
    return model.simulate(lambda t, s: model.prior(s, t), 50, seed=3).returns.sum().item()


def evaluated(temperature):
    model = models.ledge(temperature=temperature, discount=0.9)
    return cai.evaluate(model, cai.TabularPolicy(model), samples=50).elbo


def evaluated_exactly(temperature):
    model = models.lottery(temperature=temperature)
    return cai.evaluate(model, lambda t, s: model.prior(s, t)).elbo


def fitted(temperature):
    model = models.ledge(temperature=temperature)
    policy = cai.TabularPolicy(model)
    return inference.fit(model, policy, estimator="score", steps=3, progress=False).elbo


def fitted_along_paths(temperature):
    model = _smooth(temperature)
    run = inference.fit(model, Steady(), estimator="pathwise", steps=2, samples=4, progress=False)
    return run.losses.sum().item()


def weighed(temperature):
    model = models.ledge(temperature=temperature)
    return inference.importance(model, lambda t, s: model.prior(s, t), 50, seed=1).log_evidence


def filtered(temperature):
    return inference.smc(models.ledge(temperature=temperature), particles=50, seed=1).log_evidence


def planned(temperature):
    model = _smooth(temperature)
    found = inference.sample_plans(model, samples=4, warmup=2, chains=1, progress=False)
    return found.trajectories.actions.sum().item()


def bracketed(temperature):
    model = models.ledge(temperature=temperature)
    prior = cai.TabularPolicy(model)
    return inference.evidence_bracket(model, prior, samples=50, group_size=5).lower


def enumerated(temperature):
    found = inference.enumeration(models.ledge(temperature=temperature, horizon=3))
    return found.log_evidence, found.marginals["s_2"].tolist()


def planned_blindly(temperature):
    return inference.factorised_plan(models.ledge(temperature=temperature)).elbo


def compared(temperature):
    model = models.pendulum(horizon=3, temperature=temperature)
    return cai.compare(model, {"prior": lambda t, s: model.prior(s, t)}).to_json()


def unwound(temperature):
    """p(t0/gives_way|O), for which the program is enumerated anew."""
    solution = inference.posterior(models.ledge(temperature=temperature))
    return solution.marginal("t0/gives_way").tolist()


def tilted(temperature):
    model = models.ledge(temperature=temperature)
    return inference.fit(model, cai.DynamicsGuide(model, 0.5), steps=2, progress=False).elbo


def drawn(temperature):
    return len(graphical_model(models.ledge(temperature=temperature)).edges)


class Steady(torch.nn.Module):
    """One Gaussian of actions, whatever the state."""

    def __init__(self):
        super().__init__()
        self.where = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, t, s):
        return dist.Normal(self.where.expand(*s.shape[:-1], 1), 1.0).to_event(1)


def _smooth(temperature):
    return cai.TrajectoryModel(
        initial=dist.Normal(torch.zeros(1).double(), 1.0).to_event(1),
        dynamics=lambda s, a: dist.Normal(s + a, 0.1).to_event(1),
        reward=lambda s, a: -s.square().sum(-1),
        action_prior=dist.Normal(torch.zeros(1).double(), 1.0).to_event(1),
        horizon=2,
        temperature=temperature,
    )


@pytest.mark.parametrize(
    "job",
    [
        evidence,
        hopeful_value,
        simulated,
        evaluated,
        evaluated_exactly,
        fitted,
        fitted_along_paths,
        weighed,
        filtered,
        planned,
        bracketed,
        drawn,
        enumerated,
        planned_blindly,
        compared,
        unwound,
        tilted,
    ],
)
def test_a_pool_of_threads_has_the_numbers_of_the_loop(job):
    generator = torch.get_rng_state()
    right = [job(x) for x in TEMPERATURES]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(job, TEMPERATURES * 2))
    assert found == right * 2
    assert torch.equal(torch.get_rng_state(), generator)


def test_methods_of_all_kinds_at_once():
    jobs = [evidence, simulated, fitted, filtered, evaluated_exactly, planned, weighed, enumerated]
    right = [job(1.0) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: job(1.0), jobs * 2))
    assert found == right * 2


def test_plain_pyro_in_a_pool_has_to_be_the_only_one():
    """As the docstring of TrajectoryModel says."""

    def log_joint(seed):
        with seeded(seed):
            return pyro.poutine.trace(models.ledge()).get_trace().log_prob_sum().item()

    right = [log_joint(seed) for seed in range(5)]
    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(evidence, 1.0) for _ in range(4)]
        assert list(pool.map(log_joint, range(5))) == right
        assert len({other.result() for other in others}) == 1


def test_threads_share_a_table():
    table = cai.tabulate(models.gridworld("rooms", horizon=20))
    etas = [-0.5, 0.0, 0.25, 0.5, 1.0, 2.0]

    def solve(eta):
        solution = inference.soft_values(table, optimism=eta)
        return solution.bound, solution.imagined_return, solution.states.sum().item()

    right = [solve(eta) for eta in etas]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(solve, etas * 5))
    # Which sums are kept from one sweep for the next may differ, and with them the last digit.
    assert found == [pytest.approx(numbers, rel=1e-12) for numbers in right * 5]


def test_tabulation_leaves_the_default_type_of_other_threads_alone():
    seen, done = set(), threading.Event()

    def look():
        while not done.is_set():
            seen.add((torch.get_default_dtype(), torch.ones(1).dtype, (torch.arange(2) / 3).dtype))

    other = threading.Thread(target=look)
    other.start()
    try:
        for _ in range(20):
            cai.tabulate(models.lottery())
    finally:
        done.set()
        other.join()
    assert seen == {(torch.float32,) * 3}


def _chance(make):
    """p(s'=1|s=1,a) that a table has of dynamics whose probability of 1 is given."""

    def dynamics(s, a):
        return dist.Delta(pyro.sample("x", dist.Bernoulli(make(s))).long())

    model = cai.TrajectoryModel(
        initial=dist.Categorical(torch.ones(2)),
        dynamics=dynamics,
        reward=lambda s, a: torch.where(s == 1, 0.1, -0.3),
        action_prior=dist.Categorical(torch.ones(1)),
        horizon=1,
    )
    table = cai.tabulate(model)
    assert table.reward.flatten().tolist() == [-0.3, 0.1]
    return table.dense(table.log_dynamics)[1, 0, 1].item()


@pytest.mark.parametrize(
    ("make", "right"),
    [
        (lambda s: 0.2, 0.2),
        (lambda s: 1 / 3, 1 / 3),
        (lambda s: torch.where(s == 1, 0.7, 0.1), 0.7),
        (lambda s: 0.3 * s, 0.3),
        (lambda s: s / 7, 1 / 7),
        (lambda s: 0.9 ** (s + 1), 0.81),
        (lambda s: torch.tensor([0.4, 0.6])[s], 0.6),
        (lambda s: torch.full((2,), 0.15)[s], 0.15),
        (lambda s: torch.sigmoid(s), 1 / (1 + 2.718281828459045**-1)),
        (lambda s: (s == 1) * 0.35, 0.35),
        (lambda s: s.clamp(max=0.45), 0.45),
    ],
)
def test_numbers_written_in_a_program_are_float64_in_its_table(make, right):
    assert _chance(make) == pytest.approx(right, rel=1e-15)


class Lopsided(TorchDistribution):
    """Zero or one, with chances that are written where it scores."""

    arg_constraints = {}  # noqa: RUF012 - as torch declares it
    support = constraints.boolean

    def log_prob(self, value):
        return torch.where(value == 1, 0.7, 0.3).log().expand(value.shape)

    def expand(self, batch_shape, _instance=None):
        return Lopsided(batch_shape)

    def sample(self, sample_shape=()):
        return torch.ones((*sample_shape, *self.batch_shape), dtype=torch.long)


def test_numbers_written_in_a_distribution_are_float64_in_the_table():
    model = cai.TrajectoryModel(
        initial=dist.Categorical(torch.ones(2)),
        dynamics=lambda s, a: Lopsided(torch.broadcast_shapes(s.shape, a.shape)),
        reward=0.0,
        action_prior=lambda s: Lopsided(s.shape),
        horizon=1,
    )
    table = cai.tabulate(model)
    right = torch.tensor([0.3, 0.7], dtype=torch.float64)
    torch.testing.assert_close(table.log_prior.exp(), right.expand(2, 2), rtol=1e-15, atol=0)
    dynamics = table.dense(table.log_dynamics)
    torch.testing.assert_close(dynamics, right.expand(2, 2, 2), rtol=1e-15, atol=0)


def test_what_is_kept_in_float32_stays_so():
    kept = torch.tensor([0.2])
    with float64():
        assert (kept * 2).dtype == torch.float32
        assert torch.arange(2).float().dtype == torch.float32
        assert torch.zeros(2, dtype=torch.float32).dtype == torch.float32
        assert torch.arange(2).to(torch.float32).dtype == torch.float32
        assert torch.cat([kept, torch.tensor([1.0], dtype=torch.float32)]).dtype == torch.float32
        assert torch.tensor([1, 2]).dtype == torch.int64
    assert torch.tensor(0.2).dtype == torch.float32


class Boom(Exception):
    """What a user's function raises."""


def _failing(error, late):
    """A model whose dynamics raise once ``late`` is set."""

    def dynamics(s, a):
        flip = pyro.sample("flip", dist.Bernoulli(0.5))
        if late.is_set():
            raise error
        return dist.Delta(torch.where(flip.bool(), s, 1 - s))

    return cai.TrajectoryModel(
        initial=dist.Categorical(torch.ones(2)),
        dynamics=dynamics,
        reward=lambda s, a: -s.double(),
        action_prior=dist.Categorical(torch.ones(2)),
        horizon=3,
    )


def _failing_smoothly(error, late):
    def dynamics(s, a):
        if late.is_set():
            raise error
        return dist.Normal(s + a, 0.1).to_event(1)

    return cai.TrajectoryModel(
        initial=dist.Normal(torch.zeros(1), 1.0).to_event(1),
        dynamics=dynamics,
        reward=lambda s, a: -s.square().sum(-1),
        action_prior=dist.Normal(torch.zeros(1), 1.0).to_event(1),
        horizon=2,
    )


def _prior(model):
    return lambda t, s: model.prior(s, t)


CALLS = {
    "program": lambda model: model(),
    "trace": lambda model: pyro.poutine.trace(model).get_trace(),
    "guide": lambda model: model.rollout(_prior(model))(),
    "tabulate": cai.tabulate,
    "simulate": lambda model: model.simulate(_prior(model), 5, seed=0),
    "draw_step": lambda model: model.draw_step(0, torch.zeros(3, dtype=torch.long)),
    "fit": lambda model: inference.fit(
        model, Two(), estimator="score", steps=2, samples=4, progress=False
    ),
    "importance": lambda model: inference.importance(model, _prior(model), 10),
    "smc": lambda model: inference.smc(model, particles=10),
    "graph": graphical_model,
}


class Two(torch.nn.Module):
    """One distribution of two actions."""

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(2))

    def forward(self, t, s):
        return dist.Categorical(logits=self.logits.expand(*s.shape, 2))


@pytest.mark.parametrize("error", [Boom("mine"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", CALLS)
def test_an_exception_leaves_nothing_behind(call, error):
    late = threading.Event()
    model = _failing(error, late)
    late.set()
    with pytest.raises((Boom, KeyboardInterrupt, ValueError)) as caught:
        CALLS[call](model)
    assert _PYRO_STACK == []  # although the traceback keeps the frames alive
    assert torch.get_default_dtype() == torch.float32
    late.clear()
    assert cai.tabulate(model).log_dynamics.exp().sum(-1) == pytest.approx(torch.ones(2, 2))
    del caught


@pytest.mark.parametrize("error", [Boom("mine"), KeyboardInterrupt()])
def test_an_exception_under_nuts_leaves_nothing_behind(error):
    late = threading.Event()
    model = _failing_smoothly(error, late)
    late.set()
    with pytest.raises((Boom, KeyboardInterrupt)):
        inference.sample_plans(model, samples=4, warmup=1, chains=1, progress=False)
    assert _PYRO_STACK == []


def test_an_interrupt_between_a_handler_and_its_block_leaves_no_handler():
    @exclusive()
    def interrupted():
        pyro.poutine.trace().__enter__()
        raise KeyboardInterrupt

    with pyro.poutine.block():
        outer = list(_PYRO_STACK)
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert outer == _PYRO_STACK


def test_an_exception_frees_the_lock():
    with pytest.raises(Boom), exclusive(), seeded(3):
        raise Boom
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(evidence, 1.0).result(timeout=60) == evidence(1.0)


def test_seeds_nest():
    with seeded(1):
        first = torch.rand(2)
        with seeded(1):
            assert torch.equal(torch.rand(2), first)
        second = torch.rand(2)
    with seeded(1):
        assert torch.equal(torch.rand(4), torch.cat([first, second]))


def test_threads_of_torch_are_as_many_as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    inside, leave = threading.Event(), threading.Event()
    found = []

    def work():
        with suited_to(1):
            found.append(torch.get_num_threads())
            inside.set()
            leave.wait(10)
        found.append(torch.get_num_threads())

    with suited_to(1):
        with suited_to(1):
            pass
        assert torch.get_num_threads() == 1  # the inner one has not ended the outer one
        other = threading.Thread(target=work)
        other.start()
        inside.wait(10)
    assert torch.get_num_threads() == 2
    leave.set()
    other.join()
    assert found == [1, 2]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 2
    torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_the_threads_of_its_parent():
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with exclusive():
            inside.set()
            leave.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    inside.wait(10)
    child = os.fork()
    if child == 0:
        ready = threading.Thread(target=lambda: exclusive().__enter__(), daemon=True)
        ready.start()
        ready.join(10)
        os._exit(int(ready.is_alive()))
    leave.set()
    other.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_is_computed_once_makes_no_two_threads_wait_for_each_other():
    """One has its turn and asks for a table, the other asks for one and waits for its turn."""
    one, other = as_problem(models.ledge()), as_problem(models.lottery())
    entered, asking = threading.Event(), threading.Event()

    def has_its_turn():
        with exclusive():
            entered.set()
            asking.wait(10)
            time.sleep(0.2)  # the other is inside by now
            assert one.table is not None

    def waits():
        entered.wait(10)
        asking.set()
        assert other.table is not None

    both = [threading.Thread(target=job, daemon=True) for job in (has_its_turn, waits)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(20)
    assert not any(thread.is_alive() for thread in both)
