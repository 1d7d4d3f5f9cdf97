"""PyTorch's state dicts to Flax variables and back, for the networks of the zoo that have a public PyTorch twin.

Names are torchvision's for the ImageNet forms, and for the CIFAR10 forms those of the VGGs and ResNets most often
trained there (github.com/kuangliu/pytorch-cifar): the same but for ``classifier``, ``shortcut`` and ``linear``.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from deform_jax import checks
from deform_jax.models import resnet, vgg
from deform_jax.models.alexnet import AlexNet
from deform_jax.models.vgg import VGG
from deform_jax.models.zoo import IMAGENET_ZOO, ZOO, create
from deform_jax.typing import PyTree

CONVERTIBLE = (*IMAGENET_ZOO, *(name for name in ZOO if name.startswith(("vgg", "resnet"))))
"""Names of the architectures that ``from_torch`` and ``to_torch`` know, as ``create`` takes them."""

_FIELDS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_TIMM_VGG = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}
_LISTED = 10

Path = tuple[str, str, str]
"""Collection, layer and field of one of Flax's arrays, such as ``("params", "conv01", "kernel")``."""


def from_torch(name: str, state: Mapping[str, Any], **settings: Any) -> PyTree:
    """Return the Flax variables, ``{"params": …, "batch_stats": …}`` in float32, that a PyTorch state dict amounts to.

    Convolutions turn from (out, in, h, w) to (h, w, in, out), linear layers from (out, in) to (in, out), the first one
    after a flattening from PyTorch's order (c, h, w) to ours, (h, w, c); a batch norm's weight, bias, running mean and
    variance become scale, bias, mean and var. ``num_batches_tracked`` and the prefix ``module.`` of a parallel module
    are dropped. timm's layout of VGGs is accepted too.

    Args:
      name: one of ``models.CONVERTIBLE``, such as ``"vgg11_bn_imagenet"`` (torchvision's ``vgg11_bn``).
      state: arrays by name, as ``module.state_dict()`` or ``models.read_weights`` gives them.
      **settings: fields of the module, as for ``models.create``; ``num_classes`` is the state's.

    Raises:
      ValueError: unknown name; arrays missing, unexpected or of another shape: all are counted, the first ones listed.
      TypeError: ``state`` is not a mapping, or holds what is not an array.
    """
    if not isinstance(state, Mapping):
        checks.fail("state", "be a mapping of names to arrays", f"a {type(state).__name__} was given", error=TypeError)
    model = _create(name, settings)
    given = _plain({str(key): _array(str(key), value) for key, value in state.items()})
    layers = _layers(model)
    first, last = given.get(f"{next(iter(layers.values()))}.weight"), given.get(f"{layers['head']}.bias")
    variables = _expected(_with_classes(model, last), 3 if first is None or first.ndim != 4 else first.shape[1])
    names = _names(layers, variables)
    sides = _sides(model)
    _compare("state", name, {key: _torch_shape(variables[path].shape) for path, key in names.items()}, given)
    arrays = {path: _from_torch(given[names[path]], sides.get(path, 1)) for path in variables}
    # Copies, unlike `jax.device_put`'s: the memory is the caller's, who may go on training with it.
    # Copied by numpy, which is done when it returns; jax's copy may wait while the caller's array changes.
    copies = {path: jnp.asarray(np.array(array, np.float32)) for path, array in arrays.items()}
    return traverse_util.unflatten_dict(copies)


def to_torch(name: str, variables: PyTree, **settings: Any) -> dict[str, np.ndarray]:
    """Return the PyTorch state dict, numpy arrays by name, of Flax variables: the inverse of :func:`from_torch`.

    ``module.load_state_dict({name: torch.from_numpy(array) …})`` takes it.

    Args:
      name: one of ``models.CONVERTIBLE``.
      variables: ``{"params": …, "batch_stats": …}``.
      **settings: fields of the module, as for ``models.create``; ``num_classes`` is the variables'.

    Raises:
      ValueError: unknown name; arrays missing, unexpected or of another shape: all are counted, the first ones listed.
      TypeError: ``variables`` is not a mapping.
    """
    if not isinstance(variables, Mapping):
        found = f"a {type(variables).__name__} was given"
        checks.fail("variables", "be a mapping with the key 'params'", found, error=TypeError)
    model = _create(name, settings)
    given = {path: np.asarray(array) for path, array in traverse_util.flatten_dict(dict(variables)).items()}
    layers = _layers(model)
    first, last = given.get(("params", next(iter(layers)), "kernel")), given.get(("params", "head", "bias"))
    expected = _expected(_with_classes(model, last), 3 if first is None or first.ndim != 4 else first.shape[2])
    shapes = {"/".join(path): array.shape for path, array in expected.items()}
    _compare("variables", name, shapes, {"/".join(map(str, path)): array for path, array in given.items()})
    sides = _sides(model)
    return {
        key: np.array(_to_torch(given[path], sides.get(path, 1)), order="C")
        for path, key in _names(layers, expected).items()
    }


def _create(name: str, settings: dict[str, Any]) -> Any:
    checks.option("name", name, CONVERTIBLE)
    return create(name, **settings)


def _to_torch(array: Any, side: int) -> Any:
    """Turn one array to PyTorch's order of axes; ``side``: of the (side, side, c) images that its rows flatten."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if array.ndim == 2:
        images = array.reshape(side, side, -1, array.shape[1])
        return images.transpose(3, 2, 0, 1).reshape(array.shape[1], -1)
    return array


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]


def _from_torch(array: np.ndarray, side: int) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 2:
        return array.reshape(len(array), -1, side, side).transpose(2, 3, 1, 0).reshape(-1, len(array))
    return array


def _layers(model: Any) -> dict[str, str]:
    """Return the name of each layer here → its name there, in depth order."""
    imagenet = model.form == "imagenet"
    if isinstance(model, AlexNet):
        convolutions = {f"conv{layer}": f"features.{place}" for layer, place in enumerate((0, 3, 6, 8, 10), 1)}
        return {**convolutions, "dense1": "classifier.1", "dense2": "classifier.4", "head": "classifier.6"}
    if isinstance(model, VGG):
        dense = {"dense1": "classifier.0", "dense2": "classifier.3", "head": "classifier.6"}
        return {**_vgg_layers(model), **(dense if imagenet else {"head": "classifier"})}
    shortcut = "downsample" if imagenet else "shortcut"
    return {**_resnet_layers(model.depth, shortcut), "head": "fc" if imagenet else "linear"}


def _vgg_layers(model: VGG) -> dict[str, str]:
    names, place = {}, 0
    for count in vgg.CONVOLUTIONS[model.depth]:
        for _ in range(count):
            layer = f"conv{len(names) // 2 + 1:02d}"
            names[layer], names[f"{layer}_norm"] = f"features.{place}", f"features.{place + 1}"
            place += 3 if model.batch_norm else 2
        place += 1  # the pooling
    return names


def _resnet_layers(depth: int, shortcut: str) -> dict[str, str]:
    names = {"block00_conv": "conv1", "block00_conv_norm": "bn1"}
    blocks = [f"layer{stage}.{block}" for stage, count in enumerate(resnet.BLOCKS[depth], 1) for block in range(count)]
    for number, block in enumerate(blocks, 1):
        for layer in (1, 2, 3):
            names[f"block{number:02d}_conv{layer}"] = f"{block}.conv{layer}"
            names[f"block{number:02d}_conv{layer}_norm"] = f"{block}.bn{layer}"
        names[f"block{number:02d}_shortcut"] = f"{block}.{shortcut}.0"
        names[f"block{number:02d}_shortcut_norm"] = f"{block}.{shortcut}.1"
    return names


def _sides(model: Any) -> dict[Path, int]:
    """Return the kernels of linear layers that read flattened images, and those images' side."""
    if model.form == "imagenet" and isinstance(model, AlexNet | VGG):
        return {("params", "dense1", "kernel"): 6 if isinstance(model, AlexNet) else 7}
    return {}


def _with_classes(model: Any, bias: np.ndarray | None) -> Any:
    """Return the model with as many classes as the head's bias has numbers."""
    return model if bias is None or bias.size == 0 else model.clone(num_classes=bias.size)


@functools.lru_cache(maxsize=32)  # tracing a deep network takes a second
def _expected(model: Any, channels: int) -> Mapping[Path, jax.ShapeDtypeStruct]:
    """Return shape and type of every variable, for images of so many channels."""
    size = 64 if model.form == "imagenet" else 32
    images = jax.ShapeDtypeStruct((1, size, size, max(1, channels)), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return traverse_util.flatten_dict(variables)  # pyright: ignore[reportReturnType]


def _names(layers: dict[str, str], expected: Iterable[Path]) -> dict[Path, str]:
    """Return each variable's name in PyTorch, in PyTorch's order."""
    order, fields = list(layers), list(_FIELDS)
    paths = sorted(expected, key=lambda path: (order.index(path[1]), fields.index(path[2])))
    return {path: f"{layers[path[1]]}.{_FIELDS[path[2]]}" for path in paths}


def _plain(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return torchvision's names for a parallel module's and for timm's."""
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): array for key, array in state.items()}
    state = {key: array for key, array in state.items() if key.rpartition(".")[2] != "num_batches_tracked"}
    if "pre_logits.fc1.weight" not in state:
        return state
    renamed = {}
    for key, array in state.items():
        layer, _, field = key.rpartition(".")
        # Linear layers written as 7 × 7 and 1 × 1 convolutions, whose (c, h, w) flattens to the same order.
        array = array.reshape(len(array), -1) if layer.startswith("pre_logits") and array.ndim == 4 else array
        renamed[f"{_TIMM_VGG.get(layer, layer)}.{field}"] = array
    return renamed


def _array(key: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # PyTorch's: gradients wanted, bfloat16, another device
        remedy = "Pass `module.float().cpu().state_dict()`."
        checks.fail("state", "hold arrays", f"{key} is not one ({error})", remedy, error=TypeError)
    if not (jnp.issubdtype(array.dtype, jnp.floating) or key.endswith("num_batches_tracked")):
        checks.fail("state", "hold floating-point numbers", f"{key} is of type {array.dtype}", error=TypeError)
    return array


def _compare(argument: str, name: str, expected: Mapping[str, tuple[int, ...]], given: Mapping[str, Any]) -> None:
    missing = [f"{key} {shape}" for key, shape in expected.items() if key not in given]
    unexpected = [f"{key} {array.shape}" for key, array in given.items() if key not in expected]
    other = [
        f"{key} is {given[key].shape}, not {shape}"
        for key, shape in expected.items()
        if key in given and given[key].shape != shape
    ]
    groups = {"missing": missing, "unexpected": unexpected, "of another shape": other}
    found = [
        f"{len(group)} {what} ({', '.join(group[:_LISTED])}{', …' if len(group) > _LISTED else ''})"
        for what, group in groups.items()
        if group
    ]
    if found:
        checks.fail(
            argument,
            f"hold the {len(expected)} arrays of {name}",
            f"there are {'; '.join(found)}",
            "Give the name of the architecture that they are of ('vgg11_imagenet' is torchvision's vgg11), and for a "
            "narrower one its `width`.",
        )
