"""Weight files, ``.safetensors`` and PyTorch's ``.pth``, read into numpy arrays without PyTorch and without trust."""

import importlib
import io
import math
import os
import pathlib
import struct
import zipfile
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np

from deform_jax import checks
from deform_jax.models import torch_pickle
from deform_jax.models.torch_pickle import RefusedError, Storage, Tensor

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the format before PyTorch 1.6

_WRAPPERS = ("state_dict", "model")
_SAFETENSORS = {
    "F64": np.dtype("float64"),
    "F32": np.dtype("float32"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype("int64"),
    "I32": np.dtype("int32"),
    "I16": np.dtype("int16"),
    "I8": np.dtype("int8"),
    "U8": np.dtype("uint8"),
}
_AGAIN = "Download or save it again."
_DAMAGE = (ArithmeticError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError)
_DAMAGE += (struct.error, zipfile.BadZipFile)


def read_weights(source: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return the arrays of a weights file by name, ``{name: array}``, as PyTorch stores them.

    A ``.safetensors`` file, or a ``.pth`` file with a state dict, in PyTorch's format before or since version 1.6; a
    checkpoint that holds the state dict under ``"state_dict"`` or ``"model"`` will do. The format is recognised by
    the content, not by the file's name. Nothing in the file is run: its pickle is read by a reader of our own, which
    refuses all names but the few that describe arrays; and no number in it is believed before it is compared with the
    file's size. The arrays may share memory and cannot be written to.

    Args:
      source: path of the file.

    Raises:
      ValueError: no such file; empty, truncated, damaged, of another kind; or a pickle that holds more than arrays.
      ImportError: a ``.safetensors`` file, and safetensors is not installed.
    """
    path = checks.path("source", source)
    if not path.is_file():
        checks.fail("source", "be an existing file", f"{str(path)!r} is not", "Correct the path.")
    with path.open("rb") as file:
        reader, kind = _reader(file.read(512))
    try:
        return reader(path)
    except RefusedError as error:
        checks.fail("source", error.requirement, f"{path}: {error.found}", error.remedy)
    except _DAMAGE as error:
        what = f"{path} is truncated or damaged ({type(error).__name__}: {str(error)[:200]})"
        checks.fail("source", f"be a whole {kind} file", what, _AGAIN)


def needed(module: str, purpose: str) -> ModuleType:
    """Import an optional module, or say what it is for and how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs {module}, which is not installed. Run: pip install 'deform_jax[pretrained]'"
        ) from error


def _reader(head: bytes) -> tuple[Callable[[pathlib.Path], dict[str, np.ndarray]], str]:
    """Choose by the first bytes: a zip member, a pickle, or the eight-byte length of a JSON header."""
    if head.startswith(b"PK\3\4"):
        return _read_zip, "PyTorch (zip)"
    if head.startswith(b"\x80"):
        return _read_legacy, "PyTorch (before 1.6)"
    if head[8:9] == b"{":
        return _read_safetensors, "safetensors"
    return _refuse, "weights"


def _refuse(path: pathlib.Path) -> dict[str, np.ndarray]:
    head = path.read_bytes()[:60]
    text = head.isascii() and bool(head.strip())
    what = f"it begins with {head.decode()!r}, as text or a web page does" if text else "it is of another kind"
    raise RefusedError(
        "be a .safetensors or .pth file",
        what if head else "it is empty",
        "It may be what is left of a failed download; download it again." if text or not head else _AGAIN,
    )


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    safetensors = needed("safetensors", "Reading .safetensors files")
    try:
        # Not `safetensors.numpy`, which has no bfloat16.
        described = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error
    for name, array in described:
        if array["dtype"] not in _SAFETENSORS:
            raise RefusedError("hold real numbers", f"{name} is of type {array['dtype']}", "Convert it to float32.")
    return {
        name: np.frombuffer(array["data"], _SAFETENSORS[array["dtype"]]).reshape(array["shape"])
        for name, array in described
    }


def _read_zip(path: pathlib.Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            listed = ", ".join(list(members)[:5])
            raise RefusedError("be a PyTorch file", f"it is a zip file without PyTorch's data.pkl ({listed})", _AGAIN)
        folder = pickles[0].removesuffix("data.pkl")

        def member(name: str) -> bytes:
            info = members[folder + name]
            if info.compress_type != zipfile.ZIP_STORED:  # PyTorch never compresses; what this expands to is unknown
                raise ValueError(f"{name} is compressed")
            return archive.read(info)

        def storage(described: Storage) -> np.ndarray:
            return _numbers(member(f"data/{described.key}"), described, order)

        order = ">" if f"{folder}byteorder" in members and member("byteorder") == b"big" else "<"
        return _arrays(torch_pickle.load(io.BytesIO(member("data.pkl"))), storage)


def _read_legacy(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read four pickles (magic number, protocol, system, state), one with the storages' keys, then the storages.

    Each storage is its count as an int64 and its numbers, little-endian whatever the machine that wrote them.
    """
    stream = io.BytesIO(path.read_bytes())
    if torch_pickle.load(stream) != MAGIC or torch_pickle.load(stream) != PROTOCOL:
        raise RefusedError("be a PyTorch file", "it is another pickle", "Save it with `torch.save`.")
    torch_pickle.load(stream)
    loaded, keys = torch_pickle.load(stream), torch_pickle.load(stream)
    content, position = stream.getbuffer(), stream.tell()
    starts = {}
    storages = {tensor.storage.key: tensor.storage for tensor in _state(loaded).values()}
    for key in keys:
        (count,) = struct.unpack_from("<q", content, position)
        if key not in storages or count != storages[key].count:
            raise ValueError("its storages are not those of its tensors")
        starts[key] = position + 8
        position += 8 + count * storages[key].dtype.itemsize
    return _arrays(loaded, lambda described: _numbers(content[starts[described.key] :], described, "<"))


def _arrays(loaded: Any, storage: Callable[[Storage], np.ndarray]) -> dict[str, np.ndarray]:
    storages: dict[tuple[str, int, int], np.ndarray] = {}
    arrays = {}
    for name, tensor in _state(loaded).items():
        described = tensor.storage
        place = (described.key, described.start, described.stop)
        if place not in storages:
            storages[place] = storage(described)
        arrays[name] = _view(storages[place], tensor)
    return arrays


def _state(loaded: Any) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not loaded:
        found = f"it holds {'an empty mapping' if isinstance(loaded, dict) else f'a {type(loaded).__name__}'}"
        raise RefusedError("hold a state dict", found, "Save it with `torch.save(model.state_dict(), path)`.")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or not isinstance(tensor.storage, Storage):
            found = f"its entry {name!r} is a {type(tensor).__name__}"
            raise RefusedError("hold a state dict of arrays", found, "Save `model.state_dict()` alone.")
    return loaded


def _numbers(content: bytes | memoryview, described: Storage, order: str) -> np.ndarray:
    size = described.dtype.itemsize
    if described.count * size > len(content):
        raise ValueError(f"storage {described.key[:20]} has {len(content)} bytes of {described.count * size}")
    raw = np.frombuffer(content, f"{order}u{size}", count=described.count)
    return raw.astype(f"u{size}", copy=False).view(described.dtype)[described.start : described.stop]


def _view(numbers: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Return the strided view that a tensor describes, once it is known to stay within its storage."""
    shape, strides, offset = tensor.shape, tensor.strides, tensor.offset
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or not len(shape) == len(strides) <= 8:
        raise ValueError("a tensor's shape and strides do not fit")
    if not all(isinstance(number, int) and 0 <= number < 2**63 for number in (offset, *shape, *strides)):
        raise ValueError("a tensor's shape, strides and offset are not sizes")
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    # Nor may it repeat numbers: a stride of 0 would make any shape fit, and its copy take any amount of memory.
    if min(shape, default=1) < 1 or math.prod(shape) > len(numbers) or last >= len(numbers):
        raise ValueError(f"a tensor of shape {shape} does not fit into its {len(numbers)} numbers")
    steps = [stride * numbers.itemsize if length > 1 else 0 for length, stride in zip(shape, strides, strict=True)]
    return np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps, writeable=False)
