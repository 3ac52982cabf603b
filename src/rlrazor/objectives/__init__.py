"""What SFT and RL minimise or maximise: exact objectives, sampled losses, and the advantages between them.

`exact` holds functions of log-policies, `sampled` losses of samples, `advantages` what a group of rewards becomes.
`rlrazor.methods` has the table of the methods that they make up.
"""

from rlrazor.objectives.advantages import dr_grpo_advantage as dr_grpo_advantage
from rlrazor.objectives.advantages import grpo_advantage as grpo_advantage
from rlrazor.objectives.advantages import rloo_advantage as rloo_advantage
from rlrazor.objectives.exact import dr_grpo_objective as dr_grpo_objective
from rlrazor.objectives.exact import expected_reward as expected_reward
from rlrazor.objectives.exact import expected_simpo_loss as expected_simpo_loss
from rlrazor.objectives.exact import grpo_coefficient as grpo_coefficient
from rlrazor.objectives.exact import grpo_objective as grpo_objective
from rlrazor.objectives.exact import ppo_clip_objective as ppo_clip_objective
from rlrazor.objectives.exact import regularized_reward as regularized_reward
from rlrazor.objectives.exact import sft_loss as sft_loss
from rlrazor.objectives.sampled import kl_penalty_loss as kl_penalty_loss
from rlrazor.objectives.sampled import ppo_clip_loss as ppo_clip_loss
from rlrazor.objectives.sampled import reinforce_loss as reinforce_loss
from rlrazor.objectives.sampled import simpo_loss as simpo_loss
