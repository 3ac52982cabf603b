"""An on-rails walk through a city whose verifier has a rule: the text version of V-IRL in Chu et al., arXiv:2501.17161.

An instruction names each turn in the words of every rule ("turn left to face east"); the prompt says which rule's words
are to be used. A network that follows either rule is fine-tuned under one of them, by imitation or by reward, and then
asked under the other.
"""

from rlrazor.tasks.navigation.methods import METHODS as METHODS
from rlrazor.tasks.navigation.methods import Demonstration as Demonstration
from rlrazor.tasks.navigation.methods import Weights as Weights
from rlrazor.tasks.navigation.methods import method_index as method_index
from rlrazor.tasks.navigation.methods import weighted_loss as weighted_loss
from rlrazor.tasks.navigation.methods import weights as weights
from rlrazor.tasks.navigation.network import Answers as Answers
from rlrazor.tasks.navigation.network import Size as Size
from rlrazor.tasks.navigation.network import answers as answers
from rlrazor.tasks.navigation.training import ADAM as ADAM
from rlrazor.tasks.navigation.training import MOMENTUM as MOMENTUM
from rlrazor.tasks.navigation.training import OPTIMIZERS as OPTIMIZERS
from rlrazor.tasks.navigation.training import SGD as SGD
from rlrazor.tasks.navigation.training import Batch as Batch
from rlrazor.tasks.navigation.training import Measures as Measures
from rlrazor.tasks.navigation.training import Setting as Setting
from rlrazor.tasks.navigation.training import World as World
from rlrazor.tasks.navigation.training import base_answers as base_answers
from rlrazor.tasks.navigation.training import demonstration as demonstration
from rlrazor.tasks.navigation.training import draw_batch as draw_batch
from rlrazor.tasks.navigation.training import fine_tune as fine_tune
from rlrazor.tasks.navigation.training import fine_tune_many as fine_tune_many
from rlrazor.tasks.navigation.training import make_world as make_world
from rlrazor.tasks.navigation.training import measure as measure
from rlrazor.tasks.navigation.training import network_size as network_size
from rlrazor.tasks.navigation.training import pretrain as pretrain
from rlrazor.tasks.navigation.training import pretrain_many as pretrain_many
from rlrazor.tasks.navigation.training import settings as settings
from rlrazor.tasks.navigation.verifier import ATTEMPTS as ATTEMPTS
from rlrazor.tasks.navigation.verifier import Episode as Episode
from rlrazor.tasks.navigation.verifier import Scores as Scores
from rlrazor.tasks.navigation.verifier import Verdict as Verdict
from rlrazor.tasks.navigation.verifier import exact_scores as exact_scores
from rlrazor.tasks.navigation.verifier import simulate as simulate
from rlrazor.tasks.navigation.verifier import start_episode as start_episode
from rlrazor.tasks.navigation.verifier import verify as verify
from rlrazor.tasks.navigation.world import RELATIVE_WORDS as RELATIVE_WORDS
from rlrazor.tasks.navigation.world import RULES as RULES
from rlrazor.tasks.navigation.world import Routes as Routes
from rlrazor.tasks.navigation.world import States as States
from rlrazor.tasks.navigation.world import expert_states as expert_states
from rlrazor.tasks.navigation.world import listed_actions as listed_actions
from rlrazor.tasks.navigation.world import num_actions as num_actions
from rlrazor.tasks.navigation.world import relative_word as relative_word
from rlrazor.tasks.navigation.world import rule_index as rule_index
from rlrazor.tasks.navigation.world import sample_routes as sample_routes
