"""Which channel meets which: connections shuffled, or every channel replaced by their mean."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from deform_jax import checks
from deform_jax.probes.distances import widen
from deform_jax.probes.filters import KERNEL_NAMES, find_kernels, kernel_layer, path_names
from deform_jax.probes.represent import read_taps
from deform_jax.typing import Images, PyTree, RandomKey, Represent, Taps

BIAS_NAMES = ("bias", "b")
"""What Flax and Haiku call the bias beside a kernel."""

Layers = Iterable[str] | Callable[[str], bool] | None


def shuffle_channels(key: RandomKey, params: PyTree, *, layers: Layers = None, outputs: bool = False) -> PyTree:
    """Permute at random the input channels of every convolution kernel: the same permutation for all its outputs.

    Single filters stay as they are, but each now looks at another channel: what layers build together across channels
    is lost, what each filter does in space is kept. Biases, batch norm and dense layers are left alone. A kernel of one
    input channel, such as a depthwise one, does not change; in a grouped convolution channels move within their group.

    Args:
      key: one random key. A layer's permutation follows from the key and the layer's place in natural order among all
        convolutions, whichever are shuffled. ``vmap`` over keys for several shuffles.
      params: nested dicts or any other pytree; kernels are the leaves that :func:`filter_statistics` knows, and here
        also those of one spatial entry, such as the 1 × 1 convolutions of shortcuts. May be traced.
      layers: which: names as :func:`filter_statistics` has them (``"block1/conv2"``), or a function from the name to
        whether. ``None``: every convolution, the first one's RGB channels included.
      outputs: also permute the output channels, independently, while biases and batch norm keep their places.

    Returns:
      The same pytree with those kernels permuted, and all other leaves as they were.

    Raises:
      TypeError: ``key`` is not a random key, or ``layers`` neither names nor a function.
      ValueError: several keys, no convolution kernel in ``params``, or ``layers`` unknown or none.

    Source: SI 2, "shuffle at random the connections between channels", Figs 3, 9 and 11. That the permutations are of
    the inputs, and shared by the outputs, is the released code; the text permutes "the values of c, c'" (``outputs``).
    """
    key = checks.key(key, remedy="`jax.vmap` the call over keys.")
    outputs = checks.flag("outputs", outputs)
    kernels = find_kernels(params, points=True)
    chosen = _choose(layers, list(kernels))
    orders = []
    for axis, axis_key in zip((-2, -1) if outputs else (-2,), jax.random.split(key), strict=False):
        orders.append((axis, _orders(axis_key, {layer: kernel.shape[axis] for layer, kernel in kernels.items()})))

    def change(path: tuple[Any, ...], leaf: Any) -> Any:
        layer = kernel_layer(path, leaf, points=True)
        if layer not in chosen:
            return leaf
        for axis, order in orders:
            leaf = jnp.take(leaf, order[layer], axis=axis, mode="clip")
        return leaf

    return jax.tree_util.tree_map_with_path(change, params)


def mean_channel(params: PyTree, *, layers: Layers = None, first: str | None = None) -> PyTree:
    """Replace every filter of a layer by their mean over channel pairs, and its biases by their mean.

    After it all channels of a layer are equal, as far as nothing but convolutions, biases and pointwise functions lies
    before them: batch norm is left alone, whose scales and averages differ between channels. In the first layer, whose
    input channels are the image's, the mean is over output channels only.

    Args:
      params: as for :func:`shuffle_channels`. The bias of a layer is the leaf ``bias`` (Flax) or ``b`` (Haiku) beside
        its kernel.
      layers: which, as for :func:`shuffle_channels`: name one to replace it alone. ``None``: every convolution.
      first: the layer that sees the image, by default the first in natural order among all convolutions.

    Returns:
      The same pytree with those kernels and biases replaced, in their own shapes and dtypes, and all other leaves as
      they were.

    Raises:
      TypeError: ``layers`` neither names nor a function.
      ValueError: no convolution kernel in ``params``, ``layers`` unknown or none, or ``first`` unknown.

    Source: SI 4.3 and the dotted lines of Fig. 7, as the text has it: "all the filters at a given layer are replaced
    with their average". The released code averages activations instead: :func:`average_channels`. Ours: the biases, and
    what is done in the first layer.
    """
    kernels = list(find_kernels(params, points=True))
    chosen = _choose(layers, kernels)
    first = kernels[0] if first is None else _known("first", [first], kernels)[0]

    def change(path: tuple[Any, ...], leaf: Any) -> Any:
        layer = kernel_layer(path, leaf, points=True)
        if layer in chosen:
            return _average(jnp.asarray(leaf), (-1,) if layer == first else (-2, -1))
        if _is_bias(path, leaf) and any(beside in chosen for beside in _beside(path)):
            return _average(jnp.asarray(leaf), (-1,))
        return leaf

    return jax.tree_util.tree_map_with_path(change, params)


def average_channels(represent: Represent) -> Represent:
    """The same network with each tap (n, …, c) averaged over its channels: (n, …, 1).

    Only what is measured changes; inside the network all channels go on as they were, unlike with :func:`mean_channel`.
    Taps (n, features) of dense layers are left as they are.

    Args:
      represent: images (n, …) → ordered mapping {tap: (n, …)}, as for :func:`sensitivity`.

    Returns:
      Such a function, compiled as often as ``represent`` itself, once for all seeds if it is a pytree that can be
      called, such as ``jax.tree_util.Partial(function, variables)``, and at every call if it is a plain function.

    Raises:
      TypeError: ``represent`` is not callable; when called, it returns no mapping of floating-point arrays.

    Source: the code released with SI, for the dotted lines of Fig. 7.
    """
    if not callable(represent):
        given = f"its type is {type(represent).__name__}"
        checks.fail("represent", "be callable, from images to taps", given, error=TypeError)
    # Inside a pytree a plain function would be taken for one that hides no arrays, and be compiled once for good.
    plain = jax.tree_util.treedef_is_leaf(jax.tree.structure(represent))
    return (functools.partial if plain else jax.tree_util.Partial)(_averaged_taps, represent)


def _averaged_taps(represent: Represent, images: Images) -> Taps:
    images = checks.array("images", images, "...")
    if images.ndim == 0:
        checks.fail("images", "hold images along its first axis", "its shape is ()")
    taps = read_taps(represent, images)
    return OrderedDict((tap, widen(x).mean(-1, keepdims=True) if x.ndim > 2 else x) for tap, x in taps.items())


def _orders(key: Array, lengths: dict[str, int]) -> dict[str, Array]:
    return dict(zip(lengths, _permutations(key, tuple(lengths.values())), strict=True))


@partial(jax.jit, static_argnums=1)
def _permutations(key: Array, lengths: tuple[int, ...]) -> list[Array]:
    """A random permutation of each length, the i-th from the i-th key folded out of ``key``.

    One sort for all, of random bits padded to the longest: `jax.random.permutation` compiles a sort for each length,
    a second apiece.
    """
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(len(lengths)))
    bits = jax.vmap(lambda one: jax.random.bits(one, (max(lengths),), "uint32"))(keys)
    inside = np.arange(max(lengths)) < np.array(lengths)[:, None]
    # Stable, so that the padding stays last even behind bits that are all ones.
    orders = jnp.argsort(jnp.where(inside, bits, np.uint32(0xFFFFFFFF)), axis=1, stable=True)
    return [orders[i, :length] for i, length in enumerate(lengths)]


@partial(jax.jit, static_argnums=1)
def _average(leaf: Array, axes: tuple[int, ...]) -> Array:
    return jnp.broadcast_to(widen(leaf).mean(axes, keepdims=True), leaf.shape).astype(leaf.dtype)


def _is_bias(path: tuple[Any, ...], leaf: Any) -> bool:
    named = path_names(path)[-1:] in [[name] for name in BIAS_NAMES]
    return named and hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating) and len(leaf.shape) > 0


def _beside(path: tuple[Any, ...]) -> tuple[str, ...]:
    """What a kernel in the same module would be called: a kernel in none goes by its own name."""
    modules = path_names(path)[:-1]
    return ("/".join(modules),) if modules else KERNEL_NAMES


def _choose(layers: Any, known: list[str]) -> set[str]:
    if layers is None:
        return set(known)
    arrays = isinstance(layers, jax.Array | np.ndarray)
    if isinstance(layers, str) or arrays or not (callable(layers) or isinstance(layers, Iterable)):
        remedy = f"Write `layers=[{layers!r}]`." if isinstance(layers, str) else ""
        given = f"{layers!r} was given"
        checks.fail("layers", "be names of layers, or a function of one name", given, remedy, error=TypeError)
    names = [name for name in known if layers(name)] if callable(layers) else _known("layers", list(layers), known)
    if not names:
        checks.fail("layers", "choose at least one convolution", "it chooses none", f"There are {', '.join(known)}.")
    return set(names)


def _known(argument: str, names: list[Any], known: list[str]) -> list[str]:
    for name in names:
        if not isinstance(name, str) or name not in known:
            given = f"{name!r} is none of them"
            checks.fail(argument, "name convolutions of `params`", given, f"There are {', '.join(known)}.")
    return names
