"""What SFT and RL minimise or maximise: exact objectives, sampled losses, and the advantages between them.

`exact` holds functions of log-policies, `sampled` losses of samples, `advantages` what a group of rewards becomes,
`preferences` losses of pairs of answers, `anchors` what practice adds to stay near the start.
`rlrazor.methods` has the table of the methods that they make up.
"""

from rlrazor.objectives.advantages import dr_grpo_advantage as dr_grpo_advantage
from rlrazor.objectives.advantages import grpo_advantage as grpo_advantage
from rlrazor.objectives.advantages import rloo_advantage as rloo_advantage
from rlrazor.objectives.anchors import adapted_beta as adapted_beta
from rlrazor.objectives.anchors import entropy_bonus_loss as entropy_bonus_loss
from rlrazor.objectives.anchors import entropy_regularized_reward as entropy_regularized_reward
from rlrazor.objectives.anchors import penalized_reward as penalized_reward
from rlrazor.objectives.anchors import ppo_ptx_loss as ppo_ptx_loss
from rlrazor.objectives.anchors import ppo_ptx_objective as ppo_ptx_objective
from rlrazor.objectives.exact import dr_grpo_objective as dr_grpo_objective
from rlrazor.objectives.exact import expected_reward as expected_reward
from rlrazor.objectives.exact import grpo_coefficient as grpo_coefficient
from rlrazor.objectives.exact import grpo_objective as grpo_objective
from rlrazor.objectives.exact import ppo_clip_objective as ppo_clip_objective
from rlrazor.objectives.exact import regularized_reward as regularized_reward
from rlrazor.objectives.exact import sft_loss as sft_loss
from rlrazor.objectives.preferences import Displacement as Displacement
from rlrazor.objectives.preferences import PreferencePairs as PreferencePairs
from rlrazor.objectives.preferences import bradley_terry_loss as bradley_terry_loss
from rlrazor.objectives.preferences import bradley_terry_pairs as bradley_terry_pairs
from rlrazor.objectives.preferences import displacement as displacement
from rlrazor.objectives.preferences import dpo_loss as dpo_loss
from rlrazor.objectives.preferences import dpo_nll_loss as dpo_nll_loss
from rlrazor.objectives.preferences import expected_simpo_loss as expected_simpo_loss
from rlrazor.objectives.preferences import f_dpo_loss as f_dpo_loss
from rlrazor.objectives.preferences import hinge_loss as hinge_loss
from rlrazor.objectives.preferences import ipo_loss as ipo_loss
from rlrazor.objectives.preferences import nll_loss as nll_loss
from rlrazor.objectives.preferences import per_token as per_token
from rlrazor.objectives.preferences import simpo_loss as simpo_loss
from rlrazor.objectives.sampled import kl_penalty_loss as kl_penalty_loss
from rlrazor.objectives.sampled import ppo_clip_loss as ppo_clip_loss
from rlrazor.objectives.sampled import reinforce_loss as reinforce_loss
