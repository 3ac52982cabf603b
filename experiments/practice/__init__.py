"""Which objective am I running? What practitioners ask of losses, estimators and samplers?

A loss of samples has an expected gradient, a noise and a fixed point, and on a finite space all three are sums. So what
a line of training code optimises is a computation, not an opinion.
"""

FIGURES = (
    "kl_estimators",
    "kl_in_the_loss",
    "sequences",
    "length_bias",
    "distillation",
    "beyond_the_teacher",
    "reward_frontier",
    "over_optimization",
)
