"""Config -> results -> claims -> files: what every figure shares, and nothing else.

A figure is a module `experiments/<chapter>/<name>.py` with

    Config                    frozen dataclass; its defaults are the published run, `Config.quick()` takes seconds
    Results                   NamedTuple of named arrays, all that the claims and the plot need
    run(config)               -> Results, pure
    claims(config, results)   -> list[Claim]
    plot(config, results)     -> matplotlib Figure
    caption(config, results)  -> Caption
    animate(config, results)  -> matplotlib animation (optional)
"""

from experiments.harness.claims import Caption as Caption
from experiments.harness.claims import Claim as Claim
from experiments.harness.claims import Interval as Interval
from experiments.harness.claims import at_least as at_least
from experiments.harness.claims import at_most as at_most
from experiments.harness.claims import near as near
from experiments.harness.claims import number as number
from experiments.harness.config import UserError as UserError
from experiments.harness.config import bounded as bounded
from experiments.harness.config import check_sum as check_sum
from experiments.harness.config import checked_run as checked_run
