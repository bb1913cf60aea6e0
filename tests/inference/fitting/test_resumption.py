"""A checkpoint is that of this problem, by this schedule and estimator, or it is refused."""

import dataclasses
import functools
import os

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import cai
from cai import inference, models
from cai.evaluation.problem import as_problem
from cai.files import whole_file
from cai.inference.fitting import checkpoint_file
from cai.inference.fitting._identity import alike, sketch

LEDGE = models.ledge()
TABLE = cai.tabulate(LEDGE)
STEPS = 6


def fit(model, path, policy=cai.TabularPolicy, **how):
    torch.manual_seed(0)
    how = {"steps": STEPS, "samples": 4, "progress": False, **how}
    return inference.fit(model, policy(model), checkpoint=path, **how)


def refused(one, other, path):
    """Whether the second of two fits refuses the file of the first; it goes on from its own."""
    first = one(path)
    again = one(path)
    assert torch.equal(first.losses, again.losses)
    assert first.elbo == again.elbo
    with pytest.raises(
        ValueError, match=r"expected a run with .*; resume with the same arguments"
    ) as error:
        other(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def two_states(P, reward, **how):
    return models.tabular(np.array(P), np.array(reward, float), **{"horizon": 5, **how})


P = [[[0.9, 0.1], [0.1, 0.9]], [[0.5, 0.5], [0.5, 0.5]]]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (two_states(P, [[0, 1], [0, 0]]), "reward"),
        (two_states(np.array(P)[:, ::-1], [[1, 0], [0, 0]]), "log_dynamics"),
        (two_states(P, [[1, 0], [0, 0]], discount=0.9), "discount = 0.9"),
        (two_states(P, [[1, 0], [0, 0]], initial=[0.5, 0.5]), "the return under"),
    ],
)
def test_a_table_is_known_by_its_arrays(other, named, tmp_path):
    """The prior earns 1.6 under either reward, and under either dynamics."""
    path = tmp_path / "fit.pt"
    mine = two_states(P, [[1, 0], [0, 0]])
    message = refused(functools.partial(fit, mine), functools.partial(fit, other), path)
    assert named in message
    fresh = fit(other, tmp_path / "other.pt", steps=100)
    assert fresh.elbo == pytest.approx(inference.soft_values(other).elbo, abs=1e-2)


def test_one_number_of_a_large_table():
    """Beyond 4096 numbers there are weighted sums: a change of one number, or of two, shows."""
    x = torch.linspace(-3, 5, 100_000, dtype=torch.float64)
    swapped, changed, forbidden = x.clone(), x.clone(), x.clone()
    swapped[[77, 77 + 4096]] = x[[77 + 4096, 77]]
    changed[5] += 1e-3
    forbidden[5] = -torch.inf
    like = functools.partial(alike, sketch(x))
    assert like(sketch(x * (1 + 1e-8)))
    for other in (swapped, changed, forbidden, x.view(100, 1000)):
        assert not like(sketch(other))


def system(**change):
    one = torch.eye(2, dtype=torch.float64)
    matrices = {"A": one, "B": one, "noise": 0.1 * one, "Q": one, "R": one, "horizon": 4}
    return models.linear_gaussian(**{**matrices, **change})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"A": -torch.eye(2)}, "same A"),
        ({"B": -torch.eye(2)}, "same B"),
        ({"noise": torch.eye(2)}, "same noise"),
        ({"q": torch.tensor([1.0, -1.0])}, "same q"),
        ({"action_prior": dist.MultivariateNormal(torch.zeros(2), 2 * torch.eye(2))}, "prior"),
    ],
)
def test_a_linear_gaussian_model_is_known_by_its_matrices(change, named, tmp_path):
    how = {"policy": cai.LinearGaussianPolicy}
    mine, other = (functools.partial(fit, m, **how) for m in (system(), system(**change)))
    assert named in refused(mine, other, tmp_path / "fit.pt")


def walk(
    dynamics=lambda s, a: dist.Normal(0.9 * s + 0.5 * a, 0.1),
    reward=lambda s, a: -(s**2),
    initial=dist.Normal(0.0, 0.3),  # noqa: B008
    action_prior=dist.Normal(0.0, 1.0),  # noqa: B008
    kind=cai.TrajectoryModel,
    **how,
):
    return kind(
        initial=initial,
        dynamics=dynamics,
        reward=reward,
        action_prior=action_prior,
        horizon=5,
        **how,
    )


def network(model, **how):
    return cai.NeuralPolicy(model, (4,), **how)


def slipping(p):
    def dynamics(s, a):
        slips = pyro.sample("slip", dist.Bernoulli(p))
        return dist.Normal(torch.where(slips > 0, s, s + a), 0.1)

    return dynamics


class Late(cai.TrajectoryModel):
    last = 1

    def rewards(self, s, a, t=0):
        late = torch.as_tensor(t) >= self.horizon - self.last
        return super().rewards(s, a, t) * late


class Earlier(Late):
    last = 2


class Arriving(cai.TrajectoryModel):
    pays = 1.0

    def arrival_rewards(self, s, a, s_next):
        return self.pays * s_next.double()


class Leaving(Arriving):
    pays = -1.0


PROGRAMS = {
    "mirrored": (walk(), walk(lambda s, a: dist.Normal(0.9 * s - 0.5 * a, 0.1))),
    "noise": (walk(), walk(lambda s, a: dist.Normal(0.9 * s + 0.5 * a, 0.101))),
    "start": (walk(), walk(initial=dist.Normal(0.0, 0.31))),
    "prior": (walk(), walk(action_prior=dist.Normal(0.0, 1.01))),
    "where the prior never is": (
        walk(reward=lambda s, a: (s > 4) * 1.0),
        walk(reward=lambda s, a: (s < -4) * 1.0),
    ),
    "an end there": (
        walk(final_reward=lambda s: (s > 4) * 1.0),
        walk(final_reward=lambda s: (s < -4) * 1.0),
    ),
    "on arrival": (
        walk(arrival_reward=lambda s, a, s_next: s_next - s),
        walk(arrival_reward=lambda s, a, s_next: s - s_next),
    ),
    "by a method of arrival": (walk(kind=Arriving), walk(kind=Leaving)),
    "with a method of arrival": (walk(), walk(kind=Arriving)),
    "certain": (walk(lambda s, a: dist.Delta(s + a)), walk(lambda s, a: dist.Delta(s - a))),
    "a latent": (walk(slipping(0.1)), walk(slipping(0.101))),
    "later": (walk(kind=Late), walk(kind=Earlier)),
    "starts": (
        walk(initial=cai.EmpiricalStates(torch.arange(500.0))),
        walk(initial=cai.EmpiricalStates(torch.arange(500.0) + 1e-2 * (torch.arange(500) == 77))),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_known_by_what_it_scores_and_pays(name, tmp_path):
    mine, other = (
        functools.partial(fit, m, policy=network, estimator="score") for m in PROGRAMS[name]
    )
    refused(mine, other, tmp_path / "fit.pt")


def of_module(act):
    layers = nn.Sequential(nn.Linear(2, 4), act, nn.Linear(4, 2))
    return lambda model: cai.NeuralPolicy(model, network=layers)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (network, functools.partial(network, observe=lambda s: 2 * s)),
        (of_module(nn.Tanh()), of_module(nn.ReLU())),
        (
            functools.partial(cai.RecurrentPolicy, memory=4, hidden=(4,)),
            functools.partial(cai.RecurrentPolicy, memory=4, hidden=(4,), observe=lambda s: -s),
        ),
    ],
)
def test_a_policy_of_the_same_shapes_that_acts_otherwise(one, other, tmp_path):
    """By its actions at the parameters in the file."""
    fits = [
        functools.partial(fit, walk(), policy=policy, estimator="score") for policy in (one, other)
    ]
    assert "same policy" in refused(*fits, tmp_path / "fit.pt")


def test_a_guide_of_another_optimism(tmp_path):
    fits = [
        functools.partial(fit, LEDGE, policy=functools.partial(cai.DynamicsGuide, optimism=eta))
        for eta in (1.0, 0.5)
    ]
    assert "optimism 0.5" in refused(*fits, tmp_path / "fit.pt")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda step: 1 + 1 / (step + 1), lambda step: 1 + 2 / (step + 1)),
        (lambda step: 1 + 1 / (step + 1), None),
        (lambda step: 1.0 if step < STEPS - 1 else 1.5, None),
    ],
)
def test_another_annealing(one, other, tmp_path):
    fits = [functools.partial(fit, LEDGE, temperature=alpha) for alpha in (one, other)]
    assert "temperature(" in refused(*fits, tmp_path / "fit.pt")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            lambda o: lr_scheduler.CosineAnnealingLR(o, 12),
            lambda o: lr_scheduler.CosineAnnealingLR(o, 9),
        ),
        (lambda o: lr_scheduler.StepLR(o, 20), lambda o: lr_scheduler.StepLR(o, 40)),
        (
            lambda o: lr_scheduler.LambdaLR(o, lambda k: 1 / (k + 1)),
            lambda o: lr_scheduler.LambdaLR(o, lambda k: 1 / (k + 2)),
        ),
        (
            lambda o: lr_scheduler.LambdaLR(o, lambda k: 1.0),
            lambda o: lr_scheduler.LambdaLR(o, lambda k: 0.5 if k == 2 else 1.0),
        ),
        (
            lambda o: lr_scheduler.OneCycleLR(o, 0.1, 12),
            lambda o: lr_scheduler.OneCycleLR(o, 0.1, 12, max_momentum=0.8),
        ),
        (
            lambda o: lr_scheduler.ReduceLROnPlateau(o, threshold=9.0, patience=1),
            lambda o: lr_scheduler.ReduceLROnPlateau(o, threshold=9.0, patience=2),
        ),
    ],
)  # fmt: skip
def test_another_schedule_of_the_same_kind(one, other, tmp_path):
    fits = [functools.partial(fit, LEDGE, schedule=schedule) for schedule in (one, other)]
    refused(*fits, tmp_path / "fit.pt")


def critic(model, policy, samples, lam=1.0, parts=()):
    return inference.critic_gradient(model, policy, samples, lam=lam)


def enclosing(lam):
    return lambda *what: inference.critic_gradient(*what, lam=lam)


class Critic:
    def __init__(self, lam):
        self.lam = lam

    def __call__(self, *what):
        return inference.critic_gradient(*what, lam=self.lam)


def rates(*rates):
    def optimizer(parameters):
        groups = zip(parameters, rates, strict=True)
        return torch.optim.SGD([{"params": [p], "lr": rate} for p, rate in groups], lr=1)

    return optimizer


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("estimator", enclosing(0.5), enclosing(0.6)),
        ("estimator", Critic(0.5), Critic(0.6)),
        ("estimator", functools.partial(critic, parts=[1]), functools.partial(critic, parts=[2])),
        (
            "estimator",
            lambda *what: inference.critic_gradient(*what, lam=0.5),
            lambda *what: inference.critic_gradient(*what, lam=0.6),
        ),
        ("tolerance", 0.0, 1e-3),
        ("optimizer", rates(0.2), rates(0.3)),
    ],
)
def test_another_estimator_or_optimiser_of_the_same_name(name, one, other, tmp_path):
    fits = [functools.partial(fit, LEDGE, **{name: x}) for x in (one, other)]
    refused(*fits, tmp_path / "fit.pt")


# The file itself.


def test_a_flipped_bit_is_found(tmp_path):
    """torch does not look at the checksums that its archives have."""
    path = tmp_path / "fit.pt"
    fit(LEDGE, path)
    content = torch.load(path, weights_only=True)
    logits = content["state"]["run"]["policy"]["logits"].numpy().tobytes()
    whole = path.read_bytes()
    at = whole.index(logits)
    for place in (at, at + len(logits) // 2, at + len(logits) - 1):
        broken = bytearray(whole)
        broken[place] ^= 0x40
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"checkpoint .*: expected a file that fit wrote, got"):
            fit(LEDGE, path)


def set_nan(run):
    run["policy"]["logits"][0, 0, 0] = torch.nan


@pytest.mark.parametrize(
    "tamper",
    [
        set_nan,
        lambda run: run.pop("losses"),
        lambda run: run["policy"].update(logits=torch.zeros(2, 2)),
        lambda run: run.update(settled="no number"),
        lambda run: run["optimizer"].pop("param_groups"),
    ],
)
@pytest.mark.parametrize("signed", [False, True])
def test_what_was_tampered_with_is_refused_in_one_line(tamper, signed, tmp_path):
    path = tmp_path / "fit.pt"
    fit(LEDGE, path)
    content = torch.load(path, weights_only=True)
    tamper(content["state"]["run"])
    if signed:
        del content["digest"]
        content["digest"] = checkpoint_file._digest(content)
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"checkpoint .*: expected a .*, got") as error:
        fit(LEDGE, path)
    assert "\n" not in str(error.value)


def test_files_of_an_older_version_are_told_apart(tmp_path):
    path = tmp_path / "fit.pt"
    torch.save({"format": "cai.inference.fit, 1", "settings": {}, "state": {}}, path)
    with pytest.raises(ValueError, match="got one of another version of fit"):
        fit(LEDGE, path)


def test_what_a_killed_run_leaves_behind_is_removed_by_the_next(tmp_path):
    """It can delete nothing, and its lock is gone with it."""
    path = tmp_path / "fit.pt"
    left = tmp_path / ".fit.pt-0123456789abcdef"
    handle = os.open(left, os.O_RDWR | os.O_CREAT)
    os.write(handle, b"PK, and half of the rest")
    mine = tmp_path / ".fit.pt.notes"
    mine.write_text("not of fit")
    whole_file._lock(handle)
    fit(LEDGE, path)
    assert os.path.exists(left)
    os.close(handle)
    fit(LEDGE, path)
    assert sorted(os.listdir(tmp_path)) == [".fit.pt.notes", "fit.pt"]


def test_what_a_living_run_is_writing_is_left_alone(tmp_path, monkeypatch):
    path, save = tmp_path / "fit.pt", torch.save

    def meanwhile(content, file):
        whole_file.remove_unfinished(path)
        save(content, file)

    monkeypatch.setattr(torch, "save", meanwhile)
    fit(LEDGE, path)
    assert os.listdir(tmp_path) == ["fit.pt"]


# Where else problems are told apart.


def with_another_prior():
    tilted = TABLE.log_prior + torch.arange(TABLE.num_actions)
    return dataclasses.replace(TABLE, log_prior=tilted.log_softmax(-1))


def test_a_guide_of_another_prior_is_none_of_this_problem():
    free = cai.DynamicsGuide(LEDGE)
    assert free.is_of(as_problem(TABLE))
    assert not free.is_of(as_problem(with_another_prior()))
    with pytest.raises(ValueError, match="of another problem"):
        cai.compare(with_another_prior(), {"free": free})


def test_a_table_whose_dynamics_were_replaced_is_not_its_program():
    """It still says which program it was made of."""
    upside_down = {
        name: x.flip(0)
        for name in ("log_dynamics", "successors")
        if (x := getattr(TABLE, name)) is not None
    }
    other = inference.posterior(dataclasses.replace(TABLE, **upside_down))
    with pytest.raises(ValueError, match="expected a solution of this model's dynamics"):
        inference.smc(LEDGE, 10, proposal=other)
    right = inference.smc(LEDGE, 10, proposal=inference.posterior(TABLE))
    assert right.log_evidence == pytest.approx(inference.posterior(TABLE).bound, abs=3)


def test_solutions_with_observations_are_no_goals():
    seen = inference.posterior(TABLE, {"s_2": 2})
    with pytest.raises(ValueError, match="solutions: expected none with observations"):
        inference.compose([seen, seen], [0.5, 0.5])
