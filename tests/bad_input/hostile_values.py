"""Good and hostile values as Python source text, so that every example prints as a call that can be pasted.

Shapes come of a good one by a single change, and dtypes, values and kinds of object from short lists: what works needs
few compilations, and what does not is refused before any.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

NAMES = {"np": np, "jnp": jnp, "jax": jax, "inf": float("inf"), "nan": float("nan")}
"""What the texts may name; the tables of cases add to it."""


@dataclasses.dataclass(frozen=True)
class Argument:
    """One argument of a public function: source texts of good values and of hostile ones, and how to draw more."""

    good: tuple[str, ...]
    texts: tuple[str, ...]
    drawn: st.SearchStrategy[str] | None = None

    @property
    def hostile(self) -> st.SearchStrategy[str]:
        """A strategy of hostile texts."""
        listed = st.sampled_from(self.texts)
        return listed if self.drawn is None else st.one_of(listed, self.drawn)


def name(function):
    """Let texts call the function by its name."""
    NAMES[function.__name__] = function
    return function


@name
def host(shape, dtype="float32", fill="ramp"):
    """A numpy array of different values, of which ``fill`` changes one or all."""
    if fill == "ramp" or dtype == "bool":
        values = np.random.default_rng(len(shape)).random(shape)
        return (
            values > 0.5 if dtype == "bool" else values * 3 if jnp.issubdtype(dtype, jnp.integer) else values
        ).astype(jnp.dtype(dtype))
    values = np.array(host(shape, "float64"))
    first = (0,) * len(shape)
    if fill in ("nan", "inf", "-inf"):
        values[first] = float(fill)
    elif fill in ("tiny", "huge", "1e300"):
        values *= {"tiny": 1e-44, "huge": 3.3e38, "1e300": 1e300}[fill]
    else:
        values = np.full(shape, float(fill))
    with np.errstate(all="ignore"):
        return values.astype(jnp.dtype(dtype))


@name
def filled(shape, dtype="float32", fill="ramp"):
    """The same as a jax array."""
    return jnp.asarray(host(shape, dtype, fill))


NO_ARRAYS = (
    "None",
    "3",
    "2.5",
    "True",
    "1j",
    "'text'",
    "b'bytes'",
    "object()",
    "[]",
    "{}",
    "[[1.0], [1.0, 2.0]]",
    "nan",
    "jax.random.key(0)",
    "jax.random.split(jax.random.key(0), 3)",
    "jax.random.PRNGKey(0)",
    "np.array('text')",
    "np.array(None)",
    "np.datetime64('2020-01-01')",
    "np.zeros(2, 'datetime64[s]')",
    "range(3)",
    "abs",
    "(x for x in ())",
    "{'a': 1.0}",
    "[None]",
    "[[10**30]]",
    "np.zeros((2, 2), 'V3')",
    "np.float32(1)",
    "[1, 'a']",
)
DTYPES = ("float16", "bfloat16", "float64", "int32", "uint8", "int8", "int64", "uint32", "bool", "complex64")
FILLS = ("0", "1", "-1", "nan", "inf", "-inf", "tiny", "huge", "1e300")
FLOATS = ("float32", "float16", "bfloat16", "float64")


def shapes(good):
    """Shapes one change away from a good one."""
    changed = [(), (0,), (1,), (*good, 1), (1, *good), (2, *good), good[:-1], good[1:], good[::-1], (3,) * 7]
    for axis, length in enumerate(good):
        changed += [(*good[:axis], other, *good[axis + 1 :]) for other in (0, 1, 2, length + 1)]
    return tuple(dict.fromkeys(shape for shape in changed if shape != good))


def array(shape, dtype="float32", *, fill="ramp", also=(), lean=False):
    """An array argument; ``also``: hostile texts of its own; ``lean``: few that could work, where each is compiled."""
    integer = dtype.startswith(("int", "uint"))
    numbers = ("0", "1", "-1", "127") if integer else FILLS
    whole = (
        "np.full({0}, 2**40)",
        "np.full({0}, 2**31, 'uint32')",
        "np.full({0}, -2**40)",
        "np.full({0}, 2**63, 'uint64')",
    )
    others = [other for other in shapes(shape) if not lean or 0 in other or len(other) < 2 or other[1:] == shape[1:]]
    texts = [f"filled({other}, '{dtype}')" for other in others]
    texts += [f"filled({shape}, '{other}')" for other in DTYPES if other not in ("float64", "int64")]
    texts += [f"host({shape}, '{other}')" for other in DTYPES if not lean or other == "float64"]
    texts += [f"{of}({shape}, '{dtype}', '{value}')" for of in ("filled", "host") for value in numbers]
    texts += [f"host({shape}, 'float64', '{value}')" for value in ("1e300", "nan", "huge")]
    texts += [text.format(shape) for text in whole]
    texts += [f"host({shape}, '{dtype}').tolist()", f"np.asfortranarray(host({shape}, '{dtype}'))[::-1]"]
    return Argument((f"filled({shape}, '{dtype}', '{fill}')",), (*texts, *NO_ARRAYS, *also))


NUMBERS = (
    "0",
    "-1",
    "0.0",
    "-0.0",
    "1e-45",
    "1e-300",
    "1e30",
    "3.4e38",
    "3.5e38",
    "1e300",
    "10**9",
    "10**20",
    "-(10**20)",
    "10**400",
    "nan",
    "inf",
    "-inf",
    "True",
    "None",
    "'2'",
    "1j",
    "[2.0]",
    "(2.0,)",
    "{}",
    "np.float32(1)",
    "np.float64(1e39)",
    "np.float16(1)",
    "np.array(1)",
    "np.array(1.0)",
    "np.array([1.0])",
    "np.array(True)",
    "np.array('1')",
    "np.array(1j)",
    "jnp.asarray(1.0)",
    "jnp.asarray(1)",
    "jnp.asarray(True)",
    "jnp.asarray(nan)",
    "jnp.ones(3)",
    "jnp.asarray(1, 'bfloat16')",
    "jax.random.key(0)",
    "abs",
    "object()",
    "np.int64(1)",
    "np.timedelta64(3, 's')",
)


def number(*good, also=()):
    """A real number."""
    drawn = st.floats(allow_nan=False, allow_infinity=False).map(repr)
    return Argument(good, (*NUMBERS, *also), drawn)


INTEGERS = (
    "0",
    "-1",
    "1",
    "10**9",
    "2**31",
    "2**32 + 2",
    "2**63",
    "10**30",
    "10**400",
    "-(2**63)",
    "True",
    "2.0",
    "2.5",
    "nan",
    "inf",
    "'2'",
    "None",
    "np.int64(2)",
    "np.uint8(2)",
    "np.int64(2**62)",
    "np.array(2)",
    "np.array([2])",
    "jnp.asarray(2)",
    "[2]",
    "(2,)",
    "{}",
    "1j",
    "jax.random.key(0)",
    "abs",
    "object()",
)


def integer(*good, also=()):
    """A static integer."""
    return Argument(good, (*INTEGERS, *also), st.integers(max_value=3).map(repr))


def option(*good, also=()):
    """One of some strings."""
    texts = (
        "''",
        "'unknown'",
        f"{good[0]}.upper()",
        f"{good[0]} + ' '",
        "None",
        "0",
        "True",
        f"{good[0]}.encode()",
        f"[{good[0]}]",
        f"({good[0]},)",
        "{}",
        "nan",
        "np.ones(3)",
        "jnp.ones(3)",
        "object()",
        "abs",
        f"np.str_({good[0]})",
    )
    return Argument(good, (*texts, *also), st.text(max_size=3).map(repr))


def flag(good="False"):
    """True or False."""
    texts = (
        "None",
        "0",
        "1",
        "2",
        "'yes'",
        "''",
        "[]",
        "{}",
        "nan",
        "np.bool_(True)",
        "np.array(True)",
        "np.ones(3)",
        "jnp.asarray(True)",
        "object()",
    )
    return Argument((good, f"not {good}"), texts)


PAIRS = (
    "(0, 3)",
    "(3, 0)",
    "(-1, 3)",
    "(3,)",
    "(3, 3, 3)",
    "()",
    "[]",
    "[4, 4]",
    "3",
    "None",
    "'33'",
    "(2.0, 3)",
    "(True, 3)",
    "(10**9, 10**9)",
    "(10**9, 2)",
    "(2, 10**9)",
    "(2**31, 2)",
    "(2**63, 2**63)",
    "(10**30, 1)",
    "(10**6, 10**6)",
    "(1, 1)",
    "(2, 2)",
    "(nan, 3)",
    "(inf, 3)",
    "np.array([4, 4])",
    "jnp.asarray([4, 4])",
    "(np.int32(4), 4)",
    "((3,), 3)",
    "('3', 3)",
    "(None, 3)",
    "{3: 3}",
    "{3, 4}",
    "jax.random.key(0)",
    "object()",
    "range(2)",
    "(10**400, 2)",
    "(np.array(4), 4)",
    "(jnp.asarray(4), 4)",
)


def sizes(*good, also=()):
    """A static tuple of sides or sizes."""
    return Argument(good, (*PAIRS, *also))


KEYS = (
    "jax.random.split(jax.random.key(0), 3)",
    "jax.random.split(jax.random.PRNGKey(0), 3)",
    "None",
    "0",
    "'key'",
    "np.zeros(2, 'uint32')",
    "jnp.zeros(2, 'uint32')",
    "jnp.zeros(7, 'uint32')",
    "jnp.zeros(0, 'uint32')",
    "jnp.zeros((), 'uint32')",
    "jnp.zeros(2)",
    "jnp.zeros(2, 'int32')",
    "jax.random.key(0, impl='rbg')",
    "jax.random.PRNGKey(0, impl='rbg')",
    "jax.random.split(jax.random.key(0), 0)",
    "[0, 1]",
    "(0, 0)",
    "object()",
    "jax.random.key",
    "nan",
    "{}",
    "jax.random.key(0)[None, None]",
    "jnp.asarray(0)",
)


def key():
    """One random key, of either style."""
    return Argument(("jax.random.key(3)", "jax.random.PRNGKey(3)"), KEYS)


OBJECTS = (
    "None",
    "0",
    "3.5",
    "'text'",
    "b'bytes'",
    "[]",
    "{}",
    "()",
    "[1, 2]",
    "{'a': 1}",
    "{1: 2, 'a': 3}",
    "lambda *given: None",
    "object()",
    "nan",
    "True",
    "np.ones(3)",
    "jnp.ones(3)",
    "filled((2, 4, 4, 1))",
    "jax.random.key(0)",
    "{'a': None}",
    "[[]]",
    "(x for x in ())",
    "{'params': None}",
    "{'params': {}}",
    "np.array(None)",
    "range(3)",
    "1j",
)


def thing(*good, also=()):
    """Anything else; ``also``: near misses."""
    return Argument(good, (*OBJECTS, *also))


PATHS = (
    "None",
    "0",
    "''",
    "'.'",
    "'missing'",
    "'/dev/null'",
    "'a\\0b'",
    "b'bytes'",
    "'~no_such_user/x'",
    "'x' * 5000",
    "[]",
    "nan",
    "object()",
    "'missing/' * 3",
    "np.array('x')",
    "True",
    "'\\ud800'",
)
"""Names of files and folders."""


def path(*good, also=()):
    """Name of a file or folder."""
    return Argument(good, (*PATHS, *also), st.text(max_size=3).map(repr))
