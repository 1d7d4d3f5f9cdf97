"""The vocabulary shared by every part: array shapes and the few function types that travel between modules.

``h, w``: height and width in pixels; ``c``: channels; ``n``: images.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeAlias

from jaxtyping import Array, Float, Key

Image: TypeAlias = Float[Array, "h w c"]
Images: TypeAlias = Float[Array, "n h w c"]
Field: TypeAlias = Float[Array, "h w 2"]
"""A backward displacement field in pixels, order (dy, dx): ``output[p] = image[p + field[p]]``."""
Shifts: TypeAlias = Float[Array, "gy gx 2"]
"""Control-point displacements in pixels, order (dy, dx)."""
Kernel: TypeAlias = Float[Array, "kh kw c_in c_out"]
RandomKey: TypeAlias = Key[Array, ""]
PyTree: TypeAlias = Any
Taps: TypeAlias = OrderedDict[str, Array]
"""Layer name → activations (n, …), in depth order."""
Represent: TypeAlias = Callable[[Images], Taps]
"""Any function from images to taps: a Flax, NNX or Equinox network, or a plain function."""
Perturb: TypeAlias = Callable[[RandomKey, Image], Image]
"""A random image transformation, written for one image; ``jax.vmap`` it over keys and images."""
