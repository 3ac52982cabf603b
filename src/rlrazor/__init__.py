"""An exact laboratory for the KL geometry of RL post-training.

On a finite outcome space the reward-tilted optimal policy, both KL directions, the path of a policy gradient and
what it forgets on the way are closed forms or small ODEs. These are pure functions on normalised log-probabilities
`[..., outcomes]`, safe under `jit`, `vmap` and `grad`.
"""

from rlrazor.checks import check_distribution as check_distribution
from rlrazor.checks import check_positive as check_positive
from rlrazor.checks import check_reward as check_reward
from rlrazor.divergences import bhattacharyya_coefficient as bhattacharyya_coefficient
from rlrazor.divergences import binary_kl as binary_kl
from rlrazor.divergences import chi2_divergence as chi2_divergence
from rlrazor.divergences import cross_entropy as cross_entropy
from rlrazor.divergences import entropy as entropy
from rlrazor.divergences import hellinger_distance as hellinger_distance
from rlrazor.divergences import jeffreys_divergence as jeffreys_divergence
from rlrazor.divergences import jensen_shannon_divergence as jensen_shannon_divergence
from rlrazor.divergences import kl_divergence as kl_divergence
from rlrazor.divergences import renyi_divergence as renyi_divergence
from rlrazor.divergences import total_variation as total_variation
from rlrazor.em import EMPath as EMPath
from rlrazor.em import alternate as alternate
from rlrazor.em import fit_mixture as fit_mixture
from rlrazor.em import mixture as mixture
from rlrazor.em import partial_m_steps as partial_m_steps
from rlrazor.flows import Trajectory as Trajectory
from rlrazor.flows import forward_kl_flow as forward_kl_flow
from rlrazor.flows import gradient_flow as gradient_flow
from rlrazor.flows import gradient_flows as gradient_flows
from rlrazor.flows import log_times as log_times
from rlrazor.flows import mirror_descent as mirror_descent
from rlrazor.flows import regularized_reward_flow as regularized_reward_flow
from rlrazor.flows import reverse_kl_flow as reverse_kl_flow
from rlrazor.flows import reward_flow as reward_flow
from rlrazor.flows import success_gradient_path as success_gradient_path
from rlrazor.forgetting import Drifts as Drifts
from rlrazor.forgetting import drifts as drifts
from rlrazor.forgetting import forward_drift as forward_drift
from rlrazor.forgetting import log_success as log_success
from rlrazor.forgetting import pareto_optimal as pareto_optimal
from rlrazor.forgetting import reverse_drift as reverse_drift
from rlrazor.forgetting import success_frontier as success_frontier
from rlrazor.forgetting import success_rate as success_rate
from rlrazor.forgetting import value_at_crossing as value_at_crossing
from rlrazor.geometry import Projection as Projection
from rlrazor.geometry import e_geodesic as e_geodesic
from rlrazor.geometry import fisher_metric as fisher_metric
from rlrazor.geometry import fisher_rao_distance as fisher_rao_distance
from rlrazor.geometry import i_projection as i_projection
from rlrazor.geometry import m_geodesic as m_geodesic
from rlrazor.geometry import m_projection as m_projection
from rlrazor.laws import Estimate as Estimate
from rlrazor.laws import bootstrap as bootstrap
from rlrazor.laws import isotonic_fit as isotonic_fit
from rlrazor.laws import isotonic_r2 as isotonic_r2
from rlrazor.laws import quadratic_r2 as quadratic_r2
from rlrazor.laws import rank_correlation as rank_correlation
from rlrazor.methods import METHODS as METHODS
from rlrazor.methods import Problem as Problem
from rlrazor.methods import exact_loss as exact_loss
from rlrazor.methods import exact_losses as exact_losses
from rlrazor.methods import sampled_loss as sampled_loss
from rlrazor.objectives import dr_grpo_advantage as dr_grpo_advantage
from rlrazor.objectives import dr_grpo_objective as dr_grpo_objective
from rlrazor.objectives import expected_reward as expected_reward
from rlrazor.objectives import expected_simpo_loss as expected_simpo_loss
from rlrazor.objectives import grpo_advantage as grpo_advantage
from rlrazor.objectives import grpo_coefficient as grpo_coefficient
from rlrazor.objectives import grpo_objective as grpo_objective
from rlrazor.objectives import kl_penalty_loss as kl_penalty_loss
from rlrazor.objectives import ppo_clip_loss as ppo_clip_loss
from rlrazor.objectives import ppo_clip_objective as ppo_clip_objective
from rlrazor.objectives import regularized_reward as regularized_reward
from rlrazor.objectives import reinforce_loss as reinforce_loss
from rlrazor.objectives import rloo_advantage as rloo_advantage
from rlrazor.objectives import sft_loss as sft_loss
from rlrazor.objectives import simpo_loss as simpo_loss
from rlrazor.policies import GaussianMixture as GaussianMixture
from rlrazor.policies import inverse_cdf as inverse_cdf
from rlrazor.policies import linear_softmax_policy as linear_softmax_policy
from rlrazor.policies import mixture_policy as mixture_policy
from rlrazor.policies import point_mass as point_mass
from rlrazor.policies import softmax_policy as softmax_policy
from rlrazor.representations import cknna as cknna
from rlrazor.representations import spectral_norm as spectral_norm
from rlrazor.tilting import Frontier as Frontier
from rlrazor.tilting import Tilt as Tilt
from rlrazor.tilting import best_of_n as best_of_n
from rlrazor.tilting import condition as condition
from rlrazor.tilting import frontier as frontier
from rlrazor.tilting import implied_reward as implied_reward
from rlrazor.tilting import log_partition as log_partition
from rlrazor.tilting import tilt as tilt
from rlrazor.tilting import tilt_to_kl as tilt_to_kl
from rlrazor.tilting import tilt_to_reward as tilt_to_reward

__version__ = "0.2.0"
