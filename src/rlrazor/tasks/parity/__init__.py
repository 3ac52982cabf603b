"""ParityMNIST: one network that knows Fashion-MNIST, and is then taught whether a digit is even or odd.

Shenfeld, Pari, Agrawal, "RL's Razor", arXiv:2509.04259, section 3 and appendix B. The policy sees an image and a task
indicator and gives one of ten answers. In the new task every digit of the right parity is correct, so there are many
perfect policies, at different distances from the base; the old task is to classify garments. Everything is float32,
whatever the default dtype.
"""

from rlrazor.tasks.parity.measures import Base as Base
from rlrazor.tasks.parity.measures import Distances as Distances
from rlrazor.tasks.parity.measures import Measures as Measures
from rlrazor.tasks.parity.measures import make_base as make_base
from rlrazor.tasks.parity.measures import measure as measure
from rlrazor.tasks.parity.methods import METHODS as METHODS
from rlrazor.tasks.parity.methods import REPLAY as REPLAY
from rlrazor.tasks.parity.methods import Losses as Losses
from rlrazor.tasks.parity.methods import losses as losses
from rlrazor.tasks.parity.methods import method_index as method_index
from rlrazor.tasks.parity.network import WIDTHS as WIDTHS
from rlrazor.tasks.parity.network import Hidden as Hidden
from rlrazor.tasks.parity.network import Inputs as Inputs
from rlrazor.tasks.parity.network import LogPolicy as LogPolicy
from rlrazor.tasks.parity.network import Outputs as Outputs
from rlrazor.tasks.parity.network import Params as Params
from rlrazor.tasks.parity.network import Scalar as Scalar
from rlrazor.tasks.parity.network import apply_network as apply_network
from rlrazor.tasks.parity.network import init_network as init_network
from rlrazor.tasks.parity.training import BATCH_SIZE as BATCH_SIZE
from rlrazor.tasks.parity.training import GROUP_SIZE as GROUP_SIZE
from rlrazor.tasks.parity.training import FineTuned as FineTuned
from rlrazor.tasks.parity.training import Setting as Setting
from rlrazor.tasks.parity.training import Training as Training
from rlrazor.tasks.parity.training import fine_tune as fine_tune
from rlrazor.tasks.parity.training import prepare as prepare
from rlrazor.tasks.parity.training import pretrain as pretrain
from rlrazor.tasks.parity.updates import Batches as Batches
from rlrazor.tasks.parity.updates import Moments as Moments
from rlrazor.tasks.parity.updates import State as State
from rlrazor.tasks.parity.updates import adam as adam
from rlrazor.tasks.parity.updates import draw_batches as draw_batches
from rlrazor.tasks.parity.updates import run_updates as run_updates
from rlrazor.tasks.parity.updates import schedule as schedule
from rlrazor.tasks.parity.world import LABELS as LABELS
from rlrazor.tasks.parity.world import NEW_TASK as NEW_TASK
from rlrazor.tasks.parity.world import NUM_LABELS as NUM_LABELS
from rlrazor.tasks.parity.world import NUM_PIXELS as NUM_PIXELS
from rlrazor.tasks.parity.world import OLD_TASK as OLD_TASK
from rlrazor.tasks.parity.world import Task as Task
from rlrazor.tasks.parity.world import World as World
from rlrazor.tasks.parity.world import garment_task as garment_task
from rlrazor.tasks.parity.world import parity_task as parity_task
from rlrazor.tasks.parity.world import split_world as split_world
