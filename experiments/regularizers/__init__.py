"""Explicit regularisers: what does each of the terms that practice adds by hand do, exactly?

The KL penalty and its controller, pretraining gradients, the NLL anchor of DPO, margins of reward models: on
categorical spaces each has a closed form, and in it the constant that decides.
"""

FIGURES = (
    "kl_penalty",
    "pretraining_gradients",
    "likelihood_displacement",
    "reward_margin",
    "strengths",
    "explicit_vs_implicit",
)
