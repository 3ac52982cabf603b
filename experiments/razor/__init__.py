"""RL's Razor: is the policy that RL finds the closest one?

"RL's Razor" (Shenfeld, Pari, Agrawal, arXiv:2509.04259) holds exactly for the natural gradient, for a KL penalty at
convergence and for rejection sampling. Plain policy gradient leaves the frontier unless its base is uniform on the
correct answers; that drift predicts forgetting rests on features that new and old inputs share.
"""

FIGURES = (
    "frontier",
    "conserved",
    "em",
    "on_policy",
    "distillation",
    "group_coefficient",
    "refits",
    "law",
    "law_limits",
    "parity_law",
    "parity_razor",
)
