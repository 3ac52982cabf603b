"""GeneralPoints: make 24 of four cards, where a rule says what the face cards count (Chu et al., arXiv:2501.17161).

A network reads the cards as numbers, by the rule that the prompt states, and chooses a formula. All hands and all
formulas are enumerated in exact arithmetic, so that rewards and success rates are expectations, not samples.
"""

from rlrazor.tasks.points.arithmetic import Formula as Formula
from rlrazor.tasks.points.arithmetic import Values as Values
from rlrazor.tasks.points.arithmetic import all_formulas as all_formulas
from rlrazor.tasks.points.arithmetic import evaluate as evaluate
from rlrazor.tasks.points.arithmetic import formulas as formulas
from rlrazor.tasks.points.arithmetic import written as written
from rlrazor.tasks.points.game import RULES as RULES
from rlrazor.tasks.points.game import Game as Game
from rlrazor.tasks.points.game import Verdict as Verdict
from rlrazor.tasks.points.game import all_hands as all_hands
from rlrazor.tasks.points.game import card_numbers as card_numbers
from rlrazor.tasks.points.game import float_test as float_test
from rlrazor.tasks.points.game import hand_index as hand_index
from rlrazor.tasks.points.game import make_game as make_game
from rlrazor.tasks.points.game import rule_index as rule_index
from rlrazor.tasks.points.game import verify as verify
from rlrazor.tasks.points.methods import METHODS as METHODS
from rlrazor.tasks.points.methods import Pulls as Pulls
from rlrazor.tasks.points.methods import Success as Success
from rlrazor.tasks.points.methods import Truth as Truth
from rlrazor.tasks.points.methods import expected_reward as expected_reward
from rlrazor.tasks.points.methods import method_index as method_index
from rlrazor.tasks.points.methods import pulled_loss as pulled_loss
from rlrazor.tasks.points.methods import pulls as pulls
from rlrazor.tasks.points.methods import reward as reward
from rlrazor.tasks.points.methods import success as success
from rlrazor.tasks.points.player import Answers as Answers
from rlrazor.tasks.points.player import Size as Size
from rlrazor.tasks.points.player import Table as Table
from rlrazor.tasks.points.player import answers as answers
from rlrazor.tasks.points.player import make_table as make_table
from rlrazor.tasks.points.player import network_size as network_size
from rlrazor.tasks.points.training import ADAM as ADAM
from rlrazor.tasks.points.training import MOMENTUM as MOMENTUM
from rlrazor.tasks.points.training import OPTIMIZERS as OPTIMIZERS
from rlrazor.tasks.points.training import Hands as Hands
from rlrazor.tasks.points.training import Measures as Measures
from rlrazor.tasks.points.training import Setting as Setting
from rlrazor.tasks.points.training import draw_hands as draw_hands
from rlrazor.tasks.points.training import fine_tune as fine_tune
from rlrazor.tasks.points.training import fine_tune_many as fine_tune_many
from rlrazor.tasks.points.training import measure as measure
from rlrazor.tasks.points.training import pretrain as pretrain
from rlrazor.tasks.points.training import pretrain_many as pretrain_many
from rlrazor.tasks.points.training import settings as settings
from rlrazor.tasks.points.training import truth_of as truth_of
