"""Answers to the exercises of notebook 13."""

import torch

import cai
from cai import inference, models

ROWS = ("S....", "..P..", "....G")
PIT, GOAL = (torch.tensor([c == x for row in ROWS for c in row]) for x in "PG")
FEATURES = cai.LinearReward(
    {"step": lambda s, a: ~(PIT | GOAL)[s]},
    arrival={"pit": lambda s, a, n: PIT[n] & ~PIT[s], "goal": lambda s, a, n: GOAL[n] & ~GOAL[s]},
)
TRUTH = torch.tensor([-1.0, -3.0, 0.0], dtype=torch.float64)


def floor(slip=0.2):
    return models.gridworld(list(ROWS), horizon=12, slip=slip, pit_reward=-3.0)


def walks(model, policy, n=300, seed=1):
    return cai.Demonstrations.from_trajectories(model.simulate(policy, n, seed=seed))


def weights(fit):
    return torch.tensor([*fit.weights.values()], dtype=torch.float64)


def shown(fit):
    return ", ".join(f"{name} {x:.3f}" for name, x in fit.weights.items())


LIKELIHOODS = {
    "actions, η = 0": {"likelihood": "actions", "optimism": 0.0},
    "matching, η = 0": {"likelihood": "matching", "optimism": 0.0},
    "paths, η = 1": {"likelihood": "paths", "optimism": 1.0},
}


def answer_1():
    """Without chance there is nothing to bend and nothing to average: one likelihood is left.

    log E exp and E are the same where there is one outcome, so that the policy is the same at every
    η; the probability of a path is that of its actions; and what was observed minus what was
    expected is the derivative of that. Something else is new: on a dry floor all 300 walks end, so
    that more for the pit and more for home at once is always better. Only the difference of the
    two has a finite estimate, and each fit says so.
    """
    model = floor(slip=0.0)
    seen = walks(model, inference.soft_values(model).policy)
    fits = [inference.fit_reward(model, seen, FEATURES, **how) for how in LIKELIHOODS.values()]
    for name, fit in zip(LIKELIHOODS, fits, strict=True):
        step, pit, home = weights(fit).tolist()
        found = torch.tensor([step, pit - home, fit.log_likelihood])
        print(f"{name:16} step {step:.3f}, pit - goal {pit - home:.3f}", end=", ")
        print(f"log-likelihood {fit.log_likelihood:.2f}")
        if name == "actions, η = 0":
            first = found
        assert (found - first).abs().max() < 0.02
        assert "No finite maximum" in str(fit)


def answer_2():
    """No: only "actions" at η = 1 fits this dreamer.

    The dreamer *acts* as if it could choose its luck, but its walks happened on the real floor.
    "Paths" at η = 1 supposes that the floor, too, was bent in its favour. "Actions" at η = 0 has
    the right floor and the wrong person. The one that is right supposes neither.
    """
    model = floor()
    seen = walks(model, inference.soft_values(model, optimism=1.0).policy, seed=0)
    errors = {}
    for name, how in {
        "paths, η = 1": LIKELIHOODS["paths, η = 1"],
        "actions, η = 0": LIKELIHOODS["actions, η = 0"],
        "actions, η = 1": {"likelihood": "actions", "optimism": 1.0},
    }.items():
        fit = inference.fit_reward(model, seen, FEATURES, **how)
        errors[name] = (weights(fit) - TRUTH).abs().max().item()
        print(f"{name:16} {shown(fit)}: off by up to {errors[name]:.2f}")
    assert min(errors, key=errors.get) == "actions, η = 1"
    assert errors["paths, η = 1"] > 0.5


def answer_3():
    """All bars, by √10: those of actions around the truth, those of paths around an error.

    More data make an estimate more precise, not more right.
    """
    model = floor()
    policy = inference.soft_values(model).policy
    few, many = (walks(model, policy, n) for n in (300, 3000))
    for name in ("actions, η = 0", "paths, η = 1"):
        pair = [inference.fit_reward(model, x, FEATURES, **LIKELIHOODS[name]) for x in (few, many)]
        bars = [torch.as_tensor([*fit.std_errors.values()]) for fit in pair]
        shorter = (bars[0] / bars[1]).mean()
        away = ((weights(pair[1]) - TRUTH) / bars[1]).abs().max()
        print(f"{name:16} bars {shorter:.2f} times as short; now up to {away:.1f} of them off")
        assert 2.5 < shorter < 4
        assert (away > 10) == (name == "paths, η = 1")


def answer_4():
    """Little: the wrong rule finds wrong weights that make nearly the same policy.

    The weights of the soft rule were fitted so that *its* policy looks like what was seen. Every
    weight is wrong, and yet the walks are alike. It is on another floor that they would differ.
    """
    model = floor()
    planner = inference.soft_values(model, rule="planned").policy
    seen = walks(model, planner, seed=0)
    fits = {
        f"rule {rule}": inference.fit_reward(model, seen, FEATURES, rule=rule)
        for rule in ("soft", "planned")
    }
    report = cai.compare(model, fits)
    for name, fit in fits.items():
        print(f"{name:13} {shown(fit)}: return {report[name].expected_return:.2f}", end=", ")
        print(f"ELBO {report[name].elbo:.2f}")
    itself = cai.evaluate(model, planner).expected_return
    print(f"the planner itself: return {itself:.2f}")
    assert max(abs(report[name].expected_return - itself) for name in fits) < 0.1
