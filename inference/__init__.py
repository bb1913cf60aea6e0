"""Inference: functions from a model to a named result.

Exact, finite horizon:

- ``posterior``: p(τ|O) by forward and backward messages.
- ``soft_values``: values, policy and bound at any optimism.
- ``map_trajectory``: the most probable trajectory given optimality.
- ``MapTrajectory``: its result.
- ``compose``: the solution for a mixture of goals, from the solutions of each.
- ``compose_rewards``: the policy for a mean of rewards, its bounds, and what corrects it.
- ``ComposedRewards``: its result.
- ``divergence_budget``: the temperature at which the policy pays just so many nats.
- ``DivergenceBudget``: its result.
- ``enumeration``: the whole program enumerated by Pyro, a second opinion.
- ``Enumeration``: its result.
- ``optimism_range``: the optimisms at which a linear-Gaussian model has a solution.
- ``stabilising_values``: its stationary solution with a stable closed loop.

Infinite horizon:

- ``average_reward``: the best average reward per step.
- ``AverageReward``: its result.
- ``linear_system``: values at optimism 1 by one sparse factorisation.
- ``LinearValues``: its result.
- ``goal_values``: the log-probability of reaching each of many goals, optimally.
- ``GoalValues``: its result.
- ``count_transitions``: the counts of transitions that the likelihood of trajectories depends on.
- ``TransitionCounts``: its result.
- ``z_learning``: values at optimism 1 learnt from episodes of the action prior.
- ``ZLearning``: its result.

Optimism:

- ``optimism_curve``: bound, ELBO and return of the policy from the worst case to the best.
- ``OptimismCurve``: its result.
- ``PolicySwitch``: where the policy prefers another action.
- ``robust``: the policy with the best worst case within a budget of nats.
- ``RobustSolution``: its result.
- ``renyi_bound``: the variational Rényi bound of a policy.
- ``RenyiBound``: its result.
- ``renyi_elbo``: Pyro's objective with that bound as its maximum.
- ``effective_sample_ceiling``: the best effective sample size with the true dynamics.

Derivatives:

- ``differentiable_values``: soft values that torch differentiates.
- ``differentiable_bound``: the bound that torch differentiates.
- ``log_likelihood``: the log-likelihood of observed actions, differentiable.
- ``reward_hessian_vector_product``: H u, H the Hessian of the bound in the rewards.

Sampling:

- ``importance``: importance sampling of p(τ|O) by a policy.
- ``ImportanceSample``: its result.
- ``smc``: particle smoothing with a value function that looks ahead.
- ``ParticlePosterior``: its result.
- ``evidence_bracket``: lower and upper bounds of log p(O), by importance weights.
- ``pareto_k``: the tail index of importance weights.
- ``pareto_threshold``: the largest tail index at which they are reliable.

Planning open loop or under partial observability:

- ``factorised_plan``: the plan with independent steps.
- ``FactorisedPlan``: its result.
- ``gaussian_plan``: the Gaussian plan of a linear-Gaussian model.
- ``GaussianPlans``: its result.
- ``sample_plans``: plans drawn by NUTS.
- ``PlanSamples``: its result.
- ``belief_values``: the best policy with perfect memory of what is observed.
- ``BeliefSolution``: its result.
- ``price_ladder``: what each restriction of the guide costs, in nats.
- ``PriceLadder``: its result.

Training:

- ``fit``: maximises the ELBO over policies that keep the true dynamics.
- ``Fit``: its result.
- ``FitStopped``: raised if training cannot continue.
- ``RolloutELBO``: the same ELBO as an objective for Pyro's SVI.
- ``critic_gradient``: the score function weighted by advantages over a critic.
- ``natural_gradient``: the natural gradient of any policy, by conjugate gradients.

Learning from transitions, of models and of environments that can only be stepped:

- ``actor_critic``: a policy and both backward messages as networks.
- ``sac``: a policy and two critics from a replay memory, soft actor-critic.
- ``soft_q``: soft, hard and expected-SARSA action values, in tables or by networks.
- ``stein_soft_q``: soft values of continuous actions, and a sampler by Stein's gradient.
- ``AutomaticTemperature``: a temperature that adapts to a number of nats a step.
- ``policy_gradient``: a policy and its critic, by the maximum-entropy policy gradient.
- ``path_consistency``: a policy and values that agree along segments of trajectories.
- ``svgd``: particles moved until they are spread like a density.
- ``amortised_svgd``: a sampler trained until its draws are.
- ``stein_direction``: where particles should move, the step of both.
- ``Learned``: the result of a learner.
- ``LearningStopped``: raised if a learner cannot continue.

Inverse problems:

- ``fit_reward``: a reward from demonstrations: weights with errors, a table, or a network.
- ``RewardFit``: its result for weights.
- ``TrainedReward``: its result for a table or a network.
- ``RewardTraining``: how it trains a network.
- ``max_margin``: weights under which demonstrations beat all other policies by a margin.
- ``MaxMargin``: its result.
- ``feature_matching``: a mixture of policies with the features of demonstrations.
- ``FeatureMatching``: its result.
- ``laplace_reward``: weights from continuous actions, by local models of the return.
- ``LaplaceReward``: its result.
- ``sampled_reward``: a linear reward from rollouts, by guided cost learning.
- ``SampledReward``: its result.
- ``adversarial_reward``: a reward, or a policy alone, by a discriminator (AIRL, GAIL).
- ``AdversarialReward``: its result.
- ``AdversarialTraining``: how it learns from transitions.
- ``fit_optimism``: the optimism of a demonstrator, with an interval.
- ``OptimismFit``: its result.
- ``reward_posterior``: what is known of a reward, or of that of each demonstrator, as draws.
- ``RewardPosterior``: its result for one demonstrator.
- ``GroupPosterior``: its result for several, who differ.
- ``reward_program``: the same as a Pyro program, for NUTS and SVI.
- ``RewardProgram``: that program.
- ``routes``: routes on a road network, how segments are used, and where somebody is going.
- ``Routes``: its result.
- ``route_table``: models of routes side by side on trips that they have not seen.
- ``RouteTable``: its result.
- ``intent``: which of several models somebody follows, after each step of a trajectory.
- ``Intent``: its result.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
