"""Two directions of KL.

Forward and reverse KL agree to second order and part from there on: one covers, the other seeks, along the two straight
lines of information geometry. The closest policy that always succeeds is a point, and plain policy gradient misses it.
"""

FIGURES = ("simplex", "mode_covering")
