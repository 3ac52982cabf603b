"""The shapes that signatures speak of: `*batch` are the leading axes, a name with `#` broadcasts."""

from typing import TypeAlias

from jaxtyping import Array, Bool, Float, PyTree, Real

LogProbs: TypeAlias = Float[Array, "*#batch outcomes"]
Outcomes: TypeAlias = Float[Array, "*#batch outcomes"]  # of any meaning, once inside
Numbers: TypeAlias = Float[Array, "*#batch #outcomes"]  # one a row, ready to broadcast against its outcomes
Rewards: TypeAlias = Real[Array, "*#batch outcomes"] | Bool[Array, "*#batch outcomes"]
Policy: TypeAlias = Float[Array, "*batch outcomes"]
PerRow: TypeAlias = Float[Array, "*batch"]
Scalar: TypeAlias = Float[Array, ""]
Params: TypeAlias = PyTree[Float[Array, "..."]]
Number: TypeAlias = int | float | Real[Array, "*#batch"]
