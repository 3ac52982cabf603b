"""Retaining by Doing: SFT drains the old mode, RL moves the new one.

"Retaining by Doing" (Chen, Razin, Narasimhan, Chen, arXiv:2510.18874) reproduces from its released simulation. What
decides is not the direction of KL: it is a slow factor of 0.005, and whether the target can see the old mode.
"""

FIGURES = ("published", "what_decides")
