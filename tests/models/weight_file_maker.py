"""Weight files by hand: pickles that name what they are told, and both of PyTorch's containers around them."""

import io
import pickle
import struct
import zipfile

import numpy as np

from deform_jax.models import weight_files

FORMATS = {"zip": True, "legacy": False}


class Named:
    """Pickled as a call of a global, whatever it is."""

    def __init__(self, name, *arguments, state=None):
        self.name, self.arguments, self.state = name, arguments, state


class Pickler(pickle._Pickler):
    """Writes the names it is told, imports nothing, and describes storages as PyTorch does."""

    def persistent_id(self, obj):
        return obj.arguments if isinstance(obj, Named) and obj.name == "storage" else None

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Named) and obj.name != "storage":
            self.write(pickle.GLOBAL + obj.name.replace(" ", "\n").encode() + b"\n")
            if obj.arguments != ("bare",):
                super().save(obj.arguments)
                self.write(pickle.REDUCE)
            if obj.state is not None:
                super().save(obj.state)
                self.write(pickle.BUILD)
        else:
            super().save(obj, save_persistent_id)


def pickled(obj, protocol=2):
    stream = io.BytesIO()
    Pickler(stream, protocol).dump(obj)
    return stream.getvalue()


def storage(*rest, key="0", kind="torch FloatStorage"):
    return Named("storage", "storage", Named(kind, "bare"), key, "cpu", *rest)


def tensor(described, offset=0, shape=(2, 3), strides=(3, 1), rebuild="torch._utils _rebuild_tensor_v2"):
    extra = (False, {}) if rebuild.endswith("v2") else ()
    return Named(rebuild, described, offset, shape, strides, *extra)


def legacy(obj, storages, keys=None):
    """A file of the old format: magic number, protocol, system, state, keys; count and numbers of each storage."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [weight_files.MAGIC, weight_files.PROTOCOL, system, obj, keys or sorted(storages)]
    numbers = [struct.pack("<q", len(values)) + values.astype("<f4").tobytes() for values in storages.values()]
    return b"".join([*map(pickled, parts), *numbers])


def zipped(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


NUMBERS = np.arange(10, dtype=np.float32)
