"""The two-mode world of "Retaining by Doing": an old mode to remember, a new mode to learn.

Chen, Razin, Narasimhan, Chen, arXiv:2510.18874, simulation of section 3. A policy is a Gaussian mixture on the line.
The first component is its old mode, the last its new mode; in the uni-modal setting they are one and the same.

    world       mixtures, the two settings, overlaps of modes: gain and drop
    published   the released updates on samples, with every constant that decides their outcome
    recursion   what they do for infinitely many samples and separated modes
    exact       the gradient flow of KL itself, to targets that know the old mode and that do not
"""

from rlrazor.tasks.two_mode.exact import NEW_MODE as NEW_MODE
from rlrazor.tasks.two_mode.exact import TARGETS as TARGETS
from rlrazor.tasks.two_mode.exact import TILTED as TILTED
from rlrazor.tasks.two_mode.exact import Coordinates as Coordinates
from rlrazor.tasks.two_mode.exact import Flow as Flow
from rlrazor.tasks.two_mode.exact import Frames as Frames
from rlrazor.tasks.two_mode.exact import at_gains as at_gains
from rlrazor.tasks.two_mode.exact import coordinates as coordinates
from rlrazor.tasks.two_mode.exact import exact_flows as exact_flows
from rlrazor.tasks.two_mode.exact import gaussian_mixture as gaussian_mixture
from rlrazor.tasks.two_mode.exact import log_targets as log_targets
from rlrazor.tasks.two_mode.exact import raw_mixture as raw_mixture
from rlrazor.tasks.two_mode.published import Run as Run
from rlrazor.tasks.two_mode.published import Seeds as Seeds
from rlrazor.tasks.two_mode.published import Stop as Stop
from rlrazor.tasks.two_mode.published import clip as clip
from rlrazor.tasks.two_mode.published import first_stop as first_stop
from rlrazor.tasks.two_mode.published import forward_kl_gradient as forward_kl_gradient
from rlrazor.tasks.two_mode.published import published_optimizer as published_optimizer
from rlrazor.tasks.two_mode.published import published_reward as published_reward
from rlrazor.tasks.two_mode.published import reverse_kl_gradient as reverse_kl_gradient
from rlrazor.tasks.two_mode.published import sampled_runs as sampled_runs
from rlrazor.tasks.two_mode.published import summary as summary
from rlrazor.tasks.two_mode.recursion import Quadrature as Quadrature
from rlrazor.tasks.two_mode.recursion import forward_kl_recursion as forward_kl_recursion
from rlrazor.tasks.two_mode.recursion import predicted_run as predicted_run
from rlrazor.tasks.two_mode.recursion import quadrature as quadrature
from rlrazor.tasks.two_mode.recursion import reverse_kl_recursion as reverse_kl_recursion
from rlrazor.tasks.two_mode.world import DIRECTIONS as DIRECTIONS
from rlrazor.tasks.two_mode.world import FORWARD as FORWARD
from rlrazor.tasks.two_mode.world import REVERSE as REVERSE
from rlrazor.tasks.two_mode.world import TRAINER as TRAINER
from rlrazor.tasks.two_mode.world import Mixture as Mixture
from rlrazor.tasks.two_mode.world import Overlaps as Overlaps
from rlrazor.tasks.two_mode.world import Progress as Progress
from rlrazor.tasks.two_mode.world import Scalar as Scalar
from rlrazor.tasks.two_mode.world import Setting as Setting
from rlrazor.tasks.two_mode.world import bimodal_setting as bimodal_setting
from rlrazor.tasks.two_mode.world import check_direction as check_direction
from rlrazor.tasks.two_mode.world import component_log_densities as component_log_densities
from rlrazor.tasks.two_mode.world import density as density
from rlrazor.tasks.two_mode.world import gain_and_drop as gain_and_drop
from rlrazor.tasks.two_mode.world import mixture as mixture
from rlrazor.tasks.two_mode.world import overlaps as overlaps
from rlrazor.tasks.two_mode.world import path_gain_and_drop as path_gain_and_drop
from rlrazor.tasks.two_mode.world import unimodal_setting as unimodal_setting
