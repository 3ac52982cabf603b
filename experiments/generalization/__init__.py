"""SFT Memorizes, RL Generalizes: does a policy that was fine-tuned under one rule still follow another?

Chu et al. (arXiv:2501.17161) say that RL does and SFT does not. In a walk that a network learns the contrast is real
and large where the demonstrator adds what no verifier reads, or where Adam meets words that are never used; it
vanishes, or turns round, where neither holds, where the base does not obey the rule in force, or where the skill is not
shared.
"""

FIGURES = (
    "navigation",
    "dip_and_recovery",
    "drift_order",
    "conditions",
    "prompts",
    "general_points",
)
