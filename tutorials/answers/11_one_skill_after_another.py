"""Answers to the exercises of notebook 11."""

import dataclasses

import torch

import cai
from cai import inference, models

ROOMS = models.gridworld("rooms", horizon=40, slip=0.1, temperature=0.5)
CELL = {place: s for s, place in enumerate(ROOMS.layout.cells)}


def answer_1():
    """The policy is the same. The values are those of the sum minus those of what came first.

    p(O_1) p(O_2 | O_1) = p(O_2) p(O_1 | O_2): the joint evidence is one number, and the order in
    which one learns of it decides only how it is split.
    """
    toll = torch.zeros(len(CELL), dtype=torch.float64)
    toll[CELL[2, 3]] = -20.0
    paying = dataclasses.replace(ROOMS, reward=lambda s, a: toll[s], arrival_reward=None)
    walked, paid = (inference.soft_values(model) for model in (ROOMS, paying))
    toll_last = inference.soft_values(cai.with_prior(paying, walked.policy))
    toll_first = inference.soft_values(cai.with_prior(ROOMS, paid.policy))
    apart = (toll_last.policy.log_probs.exp() - toll_first.policy.log_probs.exp()).abs().max()
    sums = [(one.V + two.V)[0, 0].item() for one, two in ((walked, toll_last), (paid, toll_first))]
    print(f"way home {walked.V[0, 0]:.4f}, then the toll {toll_last.V[0, 0]:.4f}: {sums[0]:.4f}")
    print(f"toll {paid.V[0, 0]:.4f}, then the way home {toll_first.V[0, 0]:.4f}: {sums[1]:.4f}")
    assert apart < 1e-9
    assert abs(sums[0] - sums[1]) < 1e-9


def corners(temperature):
    """The rooms without an end, and a reward of 1 for each step in a corner: east, south, both."""
    base = cai.tabulate(
        models.gridworld(
            [row.replace("G", ".") for row in ROOMS.layout.map],
            horizon=None,
            discount=0.9,
            slip=0.1,
            temperature=temperature,
            step_reward=0.0,
        )
    )
    rewards = torch.zeros(3, base.num_states, 4, dtype=torch.float64)
    rewards[0, CELL[0, 6]] = rewards[2, CELL[0, 6]] = 1.0
    rewards[1, CELL[6, 0]] = rewards[2, CELL[6, 0]] = 1.0
    return [dataclasses.replace(base, reward=r) for r in rewards]


def answer_2():
    """Solve each part at α/2, compose their mean, and double the values.

    E[r_1 + r_2] - α KL = 2 (E[(r_1 + r_2)/2] - (α/2) KL), and the bracket is a mean of rewards at
    the temperature α/2.
    """
    east, south, _ = corners(0.05)
    mean = inference.compose_rewards([inference.soft_values(x) for x in (east, south)], [0.5, 0.5])
    doubled = 2 * (mean.Q + mean.correction)
    solved = inference.soft_values(corners(0.1)[2])
    off = (doubled - solved.Q).abs().max()
    print(f"Q of the sum at the start {solved.Q[0].max():.4f}, composed {doubled[0].max():.4f}")
    assert off < 1e-6


OLD = ["S..#...", "...#...", ".......", "...#...", "##.##.#", "...#...", "...#..G"]
NEW = ["S..#...", ".......", "...#...", "...#...", "##.##.#", "...#...", "...#..G"]


def maze(rows):
    return models.gridworld(
        rows,
        horizon=None,
        discount=0.95,
        slip=0.1,
        temperature=0.03,
        step_reward=0.0,
        goal_reward=1.0,
    )


def carried_over(policy):
    """A policy of the old maze in the new one: random in cells that are new."""
    known = {place: s for s, place in enumerate(maze(OLD).layout.cells)}
    new = torch.full((4,), 0.25, dtype=torch.float64).log()
    rows = [policy.log_probs[known[c]] if c in known else new for c in maze(NEW).layout.cells]
    return cai.TabularPolicy.from_log_probs(torch.stack(rows))


def answer_3():
    """A nat or two, or less than none, and the learner with it is *slower*; the exact skill helps.

    A skill learnt from 30 000 transitions at α = 0.03 is surer of itself than the exact one: in the
    old maze it has the higher return and the lower ELBO, since it rests on values that chance has
    spread apart. Its prior makes the step that has become wrong nearly impossible, so that the new
    door is hardly ever tried. The exact skill knows how little other steps would cost: it is worth
    nearly 5 nats, and with it the learner needs half of the transitions.
    """

    def learns(problem, steps, seed):
        run = inference.soft_q(problem, steps=steps, seed=seed, progress=False)
        return cai.evaluate(problem, run.policy).expected_return

    without = inference.soft_values(maze(NEW)).elbo
    exact = inference.soft_values(maze(OLD)).policy
    gained, found = {}, {}
    for seed in range(2):
        learnt = inference.soft_q(maze(OLD), steps=30_000, seed=seed, progress=False).policy
        for name, skill in {"learnt": learnt, "exact": exact}.items():
            in_old = cai.evaluate(maze(OLD), skill)
            problem = cai.with_prior(maze(NEW), carried_over(skill))
            gained[name, seed] = inference.soft_values(problem).elbo - without
            found[name, seed] = learns(problem, {"learnt": 32_000, "exact": 16_000}[name], seed)
            print(f"{name:6} skill, seed {seed}: return {in_old.expected_return:.2f} and", end=" ")
            print(
                f"ELBO {in_old.elbo:.1f} in the old maze, worth {gained[name, seed]:+.1f} nats",
                end="",
            )
            print(f" in the new one; the learner with it gets {found[name, seed]:.2f}")
        found["without", seed] = learns(maze(NEW), 32_000, seed)
        print(f"without a skill, seed {seed}: the learner gets {found['without', seed]:.2f}")
        assert gained["learnt", seed] < gained["exact", seed] - 2
        assert found["learnt", seed] < found["without", seed] < found["exact", seed] + 0.05


def answer_4():
    """Between 2 and 3 nats at α = 1, and between 1 and 2 at α = 0.3.

    From there on nature can afford to make any attempt fail, and the best answer is to stay where
    one is, for -40. At half of that budget the policy of α = 1 still walks as if nothing were
    the matter and arrives in 93 of 100 walks, while that of α = 0.3 has become careful, and
    arrives in 57: it waits beside the wall until it slips the safe way.
    """
    for alpha, (low, high) in ((1.0, (2.0, 3.0)), (0.3, (1.0, 2.0))):
        model = models.gridworld("cliff", horizon=40, slip=0.1, temperature=alpha)
        table = cai.tabulate(model)

        def arrives(budget, table=table):
            policy = inference.robust(table, budget=budget).policy
            return cai.evaluate(table, policy).states[-1, -1].item()

        assert arrives(low) > 0.5
        assert arrives(high) < 0.01
        for _ in range(3):
            middle = (low + high) / 2
            low, high = (middle, high) if arrives(middle) > 0.01 else (low, middle)
        half = arrives(middle / 2)
        print(f"α = {alpha}: stays away from about {middle:.2f} nats on; at half of that", end=" ")
        print(f"it arrives in {half:.0%} of the walks")


def answer_5():
    """One that was planned for worse ice: from a rate of 0.5 on it gets 0.6, not 0.37.

    η < 0 does not help. With the hard rule the best policy maximises E[R] at η = 0, and at another
    η log E[e^(ηR/α)]/η. If R is 0 or 1 that is log(1 + P(R = 1) (e^(η/α) - 1))/η, which rises with
    P(R = 1) for either sign of η. So all of these are the policy that arrives most often, and none
    of them prepares for other ice.
    """

    def ice(rate):
        model = models.gym("FrozenLake-v1", success_rate=rate, horizon=60, temperature=1.0)
        return cai.tabulate(model)

    returns = {}
    for rate in (0.8, 0.6, 0.5, 0.4):
        policy = inference.soft_values(ice(rate), rule="hard").policy
        returns[rate] = cai.evaluate(ice(0.4), policy).expected_return
        print(f"planned at {rate}: played at 0.4 {returns[rate]:.3f}")
    sober, careful = (
        inference.soft_values(ice(0.8), eta, rule="hard").policy for eta in (0.0, -0.5)
    )
    apart = (sober.log_probs.exp() - careful.log_probs.exp()).abs().max().item()
    print(f"largest difference of the policies at η = 0 and -0.5: {apart:.1e}")
    assert apart < 1e-9
    assert returns[0.4] > returns[0.8] + 0.2
