"""The pickles inside PyTorch's weight files, read without running anything that they name.

A pickle is a program: it names functions and has them called. Here a small machine of our own carries out the few
instructions that a state dict needs, names stand for descriptions in a closed list, and any other name or instruction
ends the reading. Nothing is imported or called on a file's behalf, and no number in it sets the size of anything.

The instructions are those that Python's ``pickletools`` documents; the names are those of PyTorch's ``torch._utils``,
the oldest (``_rebuild_tensor``) included: some of torchvision's published files date from 2017.
"""

import dataclasses
import io
import pickletools
from typing import Any

import jax.numpy as jnp
import numpy as np

DTYPES = {
    "DoubleStorage": np.dtype("float64"),
    "FloatStorage": np.dtype("float32"),
    "HalfStorage": np.dtype("float16"),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype("int64"),
    "IntStorage": np.dtype("int32"),
    "ShortStorage": np.dtype("int16"),
    "CharStorage": np.dtype("int8"),
    "ByteStorage": np.dtype("uint8"),
}

_MAPPING = "collections OrderedDict"
_REBUILD_TENSOR = ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2")
_REBUILD_PARAMETER = ("torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state")
_STORAGES = {f"{module} {name}": dtype for module in ("torch", "torch.cuda") for name, dtype in DTYPES.items()}
_KNOWN = {_MAPPING, *_REBUILD_TENSOR, *_REBUILD_PARAMETER, *_STORAGES}

_IGNORED = {"PROTO", "FRAME"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_ARGUMENTS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_ARGUMENTS |= {"BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS, _GETS = {"BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"BINGET", "LONG_BINGET"}


class RefusedError(Exception):
    """A file is not what it must be: the requirement, what was found, and what to do."""

    def __init__(self, requirement: str, found: str, remedy: str):
        super().__init__(found)
        self.requirement, self.found, self.remedy = requirement, found, remedy


@dataclasses.dataclass(frozen=True)
class Global:
    """A name in the pickle, ``module name``; never looked up."""

    name: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """The stretch ``[start, stop)`` of a flat array of ``count`` numbers that stands elsewhere in the file."""

    dtype: np.dtype
    key: str
    count: int
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A strided view of a storage; offset and strides count numbers. Nothing in it has been checked."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


def load(stream: io.BytesIO) -> Any:
    """Return what one pickle describes, its tensors as :class:`Tensor`; the stream is left behind the pickle's end.

    Raises:
      RefusedError: a name or an instruction that state dicts have no need of.
      ValueError, LookupError, TypeError: not a pickle, or a damaged one.
    """
    machine = _Machine(budget=stream.getbuffer().nbytes)
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "STOP":
            break
        machine.step(opcode.name, argument)
    return machine.stack.pop()


class _Machine:
    def __init__(self, budget: int):
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.budget = budget  # of entries that may be copied: a file has fewer entries than bytes

    def step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _ARGUMENTS:
            self.stack.append(argument)
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(reversed([self.stack.pop() for _ in range(_TUPLES[name])])))
        elif name in _PUTS:
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif name not in _IGNORED:
            action = getattr(self, f"_{name.lower()}", None)
            if action is None:
                raise RefusedError("be a state dict", f"it holds the pickle instruction {name}", _RESAVE)
            action(argument)

    def _mark(self, _: None) -> None:
        self.marks.append(len(self.stack))

    def _tuple(self, _: None) -> None:
        self.stack.append(tuple(self._marked()))

    def _append(self, _: None) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, _: None) -> None:
        self._extend(self._marked())

    def _setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([(key, value)])

    def _setitems(self, _: None) -> None:
        items = self._marked()
        self._update(list(zip(items[::2], items[1::2], strict=True)))

    def _global(self, argument: str) -> None:
        if argument not in _KNOWN:
            name = argument.replace(" ", ".")[:100]
            raise RefusedError(
                "hold nothing but arrays",
                f"it names `{name}`, which an ordinary reader would import and may call; it was refused and nothing "
                "in it was run",
                _RESAVE,
            )
        self.stack.append(Global(argument))

    def _stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._global(f"{module!s} {name!s}" if isinstance(name, str) and isinstance(module, str) else "? ?")

    def _reduce(self, _: None) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Global) or not isinstance(arguments, tuple):
            raise TypeError("something other than a name is called")
        if called.name == _MAPPING:
            self.stack.append({})
            if arguments:  # as Python 2 wrote it
                self._update(arguments[0])
        elif called.name in _REBUILD_TENSOR:
            self.stack.append(Tensor(*arguments[:4]))
        elif called.name in _REBUILD_PARAMETER and isinstance(arguments[0], Tensor):
            self.stack.append(arguments[0])
        else:
            raise TypeError(f"{called.name} is called with what it cannot take")

    def _build(self, _: None) -> None:
        self.stack.pop()  # a state dict's versions (`_metadata`), which nothing here depends on
        if not isinstance(self.stack[-1], dict):
            raise TypeError("attributes are set on something other than a mapping")

    def _binpersid(self, _: None) -> None:
        kind, dtype, key, _, count, *view = self.stack.pop()
        known = _STORAGES.get(dtype.name) if isinstance(dtype, Global) else None
        if kind != "storage" or known is None or not isinstance(key, str) or not _are_sizes(count):
            raise TypeError("a storage is not described as one")
        start, stop = 0, count
        if view and view[0] is not None:  # until 2017 a storage could be a part of another
            _, start, length = view[0]
            stop = start + length if _are_sizes(start, length) else -1
        if not 0 <= start <= stop <= count:
            raise ValueError("a part of a storage reaches beyond it")
        self.stack.append(Storage(known, key, count, start, stop))

    def _marked(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise TypeError("something is appended to what is not a list")
        self.stack[-1].extend(items)

    def _update(self, items: Any) -> None:
        if not isinstance(self.stack[-1], dict) or not isinstance(items, list):
            raise TypeError("an entry is set in what is not a mapping")
        self.budget -= len(items)
        if self.budget < 0:
            raise ValueError("more entries than it has bytes")
        for key, value in items:
            if not isinstance(key, str | int):
                raise RefusedError("be a state dict", f"a mapping in it has a {type(key).__name__} as key", _RESAVE)
            self.stack[-1][key] = value


_RESAVE = (
    "Save the state dict alone, with `torch.save(model.state_dict(), path)` or as .safetensors, or get the weights "
    "from a source that you trust."
)


def _are_sizes(*values: Any) -> bool:
    return all(isinstance(value, int) and value >= 0 for value in values)
