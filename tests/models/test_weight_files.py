"""Weight files written by PyTorch and safetensors themselves, and by hand in the ways that must be refused."""

import collections
import io
import pickle
import struct
import sys
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from deform_jax import models
from deform_jax.models import torch_pickle, weight_files

FORMATS = {"zip": True, "legacy": False}


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return torch


@pytest.fixture
def tensors(torch):
    """Arrays of every type that a state dict holds, and views of every kind."""
    dtypes = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8)
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) - 7.5
    kinds = {str(dtype): (base * 1.25 + 10).to(dtype) for dtype in dtypes}
    views = {"whole": base, "rows": base[1:3], "columns": base[:, ::2], "turned": base.t(), "one": base[2, 3]}
    parameter = torch.nn.Parameter(torch.full((1, 1, 2), 3.0))
    return collections.OrderedDict({**kinds, **views, "parameter": parameter, "tracked": torch.tensor(5)})


def expected(state):
    return {name: value.detach().double().numpy() for name, value in state.items()}


def check(read, state):
    assert list(read) == list(state)
    for name, value in expected(state).items():
        assert read[name].dtype.name == str(state[name].dtype).removeprefix("torch.")
        np.testing.assert_array_equal(np.asarray(read[name], np.float64), value, err_msg=name)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("new", FORMATS.values(), ids=FORMATS)
def test_reads_what_torch_saves(torch, tensors, tmp_path, new, protocol):
    torch.save(tensors, tmp_path / "w.pth", _use_new_zipfile_serialization=new, pickle_protocol=protocol)
    read = models.read_weights(tmp_path / "w.pth")
    check(read, tensors)
    assert read["torch.bfloat16"].dtype == jnp.bfloat16
    assert np.shares_memory(read["whole"], read["columns"])
    with pytest.raises(ValueError, match="read-only"):
        read["whole"][0] = 0


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
@pytest.mark.parametrize("new", FORMATS.values(), ids=FORMATS)
def test_reads_a_module_s_state_from_a_checkpoint(torch, tmp_path, new, wrapper):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2))
    checkpoint = {wrapper: module.state_dict(), "epoch": 3, "best": 0.5, "history": [1, (2, None, True)], "note": "x"}
    torch.save(checkpoint, tmp_path / "w.pth", _use_new_zipfile_serialization=new)
    check(models.read_weights(str(tmp_path / "w.pth")), module.state_dict())


def test_reads_safetensors_bfloat16_included(tensors, tmp_path):
    from safetensors.torch import save_file

    state = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
    save_file(state, tmp_path / "w.bin")  # by its content, not by its name
    read = models.read_weights(tmp_path / "w.bin")
    check({name: read[name] for name in state}, state)


def test_big_endian_files_are_turned(torch, tensors, tmp_path):
    state = {name: tensors[name] for name in ("torch.float32", "torch.bfloat16", "torch.uint8")}
    torch.save(state, tmp_path / "little.pth")
    with zipfile.ZipFile(tmp_path / "little.pth") as little, zipfile.ZipFile(tmp_path / "big.pth", "w") as big:
        for name in little.namelist():
            content = b"big" if name.endswith("/byteorder") else little.read(name)
            if "/data/" in name:
                size = (4, 2, 1)[int(name.rsplit("/", 1)[1])]
                content = np.frombuffer(content, f"u{size}").byteswap().tobytes()
            big.writestr(name, content)
    check(models.read_weights(tmp_path / "big.pth"), state)


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


def test_reads_the_forms_that_files_of_2017_have(tmp_path):
    part = storage(10, ("1", 4, 6))
    old = Named("collections OrderedDict", [["a", tensor(part, rebuild="torch._utils _rebuild_tensor")]])
    parameter = Named(
        "torch._utils _rebuild_parameter", tensor(storage(10, None, kind="torch.cuda FloatStorage")), True, {}
    )
    old.arguments[0].append(["b", parameter])
    (tmp_path / "old.pth").write_bytes(legacy(old, {"0": NUMBERS}))
    read = models.read_weights(tmp_path / "old.pth")
    np.testing.assert_array_equal(read["a"], NUMBERS[4:].reshape(2, 3))
    np.testing.assert_array_equal(read["b"], NUMBERS[:6].reshape(2, 3))


CALLS = []


@pytest.mark.parametrize("new", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    ("harmful", "name"),
    [
        (Named("os system", "touch touched"), "os.system"),
        (Named("builtins eval", "CALLS.append(1)"), "builtins.eval"),
        (Named("torch.nn.modules.linear Linear", state={"a": 1}), "torch.nn.modules.linear.Linear"),
        (Named("argparse Namespace", state={"lr": 1}), "argparse.Namespace"),
        (Named("test_weight_files CALLS.append", 1), "test_weight_files.CALLS.append"),
    ],
)
def test_a_pickle_that_names_anything_else_is_refused_by_that_name_and_not_run(
    tmp_path, monkeypatch, new, harmful, name
):
    monkeypatch.chdir(tmp_path)
    loaded = {"a": tensor(storage(10, *() if new else (None,))), "b": harmful}
    path = tmp_path / "w.pth"
    if new:
        zipped(path, {"w/data.pkl": pickled(loaded), "w/data/0": NUMBERS.tobytes()})
    else:
        path.write_bytes(legacy(loaded, {"0": NUMBERS}))
    before = set(sys.modules)
    with pytest.raises(ValueError, match=r"`source` must hold nothing but arrays, but .*w\.pth: it names") as caught:
        models.read_weights(path)
    for part in (f"`{name}`", "it was refused and nothing in it was run", "torch.save(model.state_dict(), path)"):
        assert part in str(caught.value)
    assert {p.name for p in tmp_path.iterdir()} == {"w.pth"}
    assert not CALLS
    assert set(sys.modules) == before


def test_instructions_that_could_fetch_or_build_otherwise_are_refused(tmp_path):
    for content in (
        b"\x80\x02cos\nsystem\n.",
        b"\x80\x02ios\nsystem\n.",  # INST
        b"(S'ls'\nios\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"\x80\x02ccollections\nOrderedDict\n)\x81.",  # NEWOBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02}(K\x01K\x02d.",  # DICT
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",  # BYTEARRAY8 of a terabyte
        b"\x80\x02Nr\xff\xff\xff\xffq\x00.",  # a memo's index of 2³²
        b"\x80\x02}" + b"N" + b"\x85" * 100_000 + b"Ns.",  # a key nested so deep that hashing it would crash
        b"\x80\x02ctorch\nFloatStorage\n)R.",  # a known name, called
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.",  # attributes set on it
        b"\x80\x02ccollections\nOrderedDict\n]\x85R0.",
        b"\x80\x02.",
        b"\x80\x02]K\x01a]K\x01u.",
    ):
        path = zipped(tmp_path / "w.pth", {"w/data.pkl": content})
        with pytest.raises(ValueError, match="Argument `source` must"):
            models.read_weights(path)


def test_copies_of_one_long_list_do_not_multiply():
    entries = [[str(i), i] for i in range(1000)]
    once = pickled({"a": Named("collections OrderedDict", entries)})
    assert len(torch_pickle.load(io.BytesIO(once))["a"]) == 1000
    many = pickled([Named("collections OrderedDict", entries) for _ in range(1000)])
    with pytest.raises(ValueError, match="more entries than it has bytes"):
        torch_pickle.load(io.BytesIO(many))


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (tensor(storage(10), offset=5), "does not fit into its 10 numbers"),
        (tensor(storage(10), offset=-1), "are not sizes"),
        (tensor(storage(10), offset=2**70), "are not sizes"),
        (tensor(storage(10), shape=(2, 2**50)), "does not fit"),
        (tensor(storage(10), shape=(2**40, 2**20), strides=(0, 0)), "does not fit"),
        (tensor(storage(10), shape=(10, 10), strides=(0, 1)), "does not fit"),
        (tensor(storage(10), strides=(2**60, 1)), "does not fit"),
        (tensor(storage(10), strides=(-1, 1)), "are not sizes"),
        (tensor(storage(10), strides=(1,)), "do not fit"),
        (tensor(storage(10), shape=[2, 3]), "do not fit"),
        (tensor(storage(10), shape=(0, 3)), "does not fit"),
        (tensor(storage(11)), "has 40 bytes of 44"),
        (tensor(storage(2**62)), "has 40 bytes"),
        (tensor(storage(-1)), "not described as one"),
        (tensor(storage("10")), "not described as one"),
        (tensor(storage(10, ("1", 5, 6))), "reaches beyond it"),
        (tensor(storage(10, ("1", -5, 6))), "reaches beyond it"),
        (tensor(storage(10, kind="torch ComplexFloatStorage")), "names `torch.ComplexFloatStorage`"),
        (tensor(storage(10, key="../../etc/passwd")), "KeyError"),
        (tensor("none"), "entry 'a' is a Tensor"),
        (Named("torch._utils _rebuild_tensor_v2", 1), "TypeError"),
    ],
)
def test_no_number_in_a_file_is_believed(tmp_path, described, message):
    members = {"w/data.pkl": pickled({"a": described}), "w/data/0": NUMBERS.tobytes()}
    with pytest.raises(ValueError, match="Argument `source` must") as caught:
        models.read_weights(zipped(tmp_path / "w.pth", members))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        legacy({"a": tensor(storage(10, None))}, {"0": NUMBERS})[:-1],
        legacy({"a": tensor(storage(10, None))}, {"0": NUMBERS[:9]}),
        legacy({"a": tensor(storage(10, None))}, {"0": NUMBERS[:9]}) + NUMBERS.tobytes(),
        legacy({"a": tensor(storage(10, None))}, {"1": NUMBERS}),
        legacy({"a": tensor(storage(10, None))}, {"0": NUMBERS}, keys=["0", "0"]),
        legacy({"a": tensor(storage(10, None))}, {}, keys=["0"]) + struct.pack("<q", 2**62),
        legacy({"a": tensor(storage(10, None))}, {}, keys=["0"]) + struct.pack("<q", -1),
        legacy({"a": tensor(storage(10, None))}, {}, keys=3),
        pickled({"a": 1}),
    ],
)
def test_damaged_files_of_the_old_format_are_refused(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"Argument `source` must be a (whole )?PyTorch .*w\.pth"):
        models.read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        ({}, "an empty mapping"),
        ([tensor(storage(10))], "a list"),
        ({"epoch": 3, "a": tensor(storage(10))}, "its entry 'epoch' is a int"),
        ({1: tensor(storage(10))}, "its entry 1 is a Tensor"),
        ({("a",): 1}, "has a tuple as key"),
    ],
)
def test_what_is_not_a_state_dict_is_told_so(tmp_path, loaded, message):
    members = {"w/data.pkl": pickled(loaded), "w/data/0": NUMBERS.tobytes()}
    with pytest.raises(ValueError, match=f"state dict.*{message}.*Save"):
        models.read_weights(zipped(tmp_path / "w.pth", members))


@pytest.fixture
def files(tmp_path):
    """One array in each of the three formats."""
    from safetensors.numpy import save

    new = zipped(tmp_path / "new", {"w/data.pkl": pickled({"a": tensor(storage(10))}), "w/data/0": NUMBERS.tobytes()})
    return save({"a": NUMBERS}), legacy({"a": tensor(storage(10, None))}, {"0": NUMBERS}), new.read_bytes()


def test_every_cut_of_a_file_is_refused(files, tmp_path):
    path = tmp_path / "w"
    for content in files:
        path.write_bytes(content)
        assert set(models.read_weights(path)) == {"a"}
        for length in (*range(0, len(content), 13), len(content) - 1):
            path.write_bytes(content[:length])
            with pytest.raises(ValueError, match="Argument `source` must be a"):
                models.read_weights(path)


def test_any_damage_is_refused_or_does_no_harm(files, tmp_path):
    """Changed bytes that are still a file: numbers and names of .safetensors and of the old format have no checksum."""
    rng, refused = np.random.default_rng(0), 0
    path = tmp_path / "w"
    for content in files * 200:
        damaged = bytearray(content)
        for place in rng.integers(len(content), size=rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert sum(array.size for array in models.read_weights(path).values()) <= len(content)
        except ValueError as error:
            assert "Argument `source` must" in str(error)  # noqa: PT017
            refused += 1
    assert 300 < refused < 600


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty. It may be what is left of a failed download"),
        (b"<!DOCTYPE html><html>Not found</html>", r"begins with '<!DOCTYPE html>.*failed download"),
        (b"version https://git-lfs.github.com/spec/v1", "begins with 'version https://git-lfs"),
        (bytes(range(200, 256)), "it is of another kind"),
        (struct.pack("<Q", 2**60) + b"{}", "truncated or damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ValueError, match=rf"Argument `source` must .*{message}"):
        models.read_weights(tmp_path / "w.pth")


def test_zip_files_of_another_kind_are_refused(tmp_path):
    state = {"w/data.pkl": pickled({"a": tensor(storage(10))}), "w/data/0": NUMBERS.tobytes()}
    path = tmp_path / "w.pth"
    with pytest.raises(ValueError, match=r"without PyTorch's data.pkl \(a.txt, b/c.txt\)"):
        models.read_weights(zipped(path, {"a.txt": "", "b/c.txt": ""}))
    with pytest.raises(ValueError, match=r"without PyTorch's data\.pkl"):
        models.read_weights(zipped(path, {**state, "v/data.pkl": state["w/data.pkl"]}))
    with pytest.raises(ValueError, match=r"data\.pkl is compressed"):
        models.read_weights(zipped(path, state, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="data/0"):
        models.read_weights(zipped(path, {"w/data.pkl": state["w/data.pkl"]}))
    content = bytearray(zipped(path, state).read_bytes())
    content[content.index(NUMBERS.tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"truncated or damaged .*CRC"):
        models.read_weights(path)


def test_types_that_are_not_real_numbers_are_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2, np.complex64)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"must hold real numbers.*a is of type C64. Convert"):
        models.read_weights(tmp_path / "w.safetensors")


def test_a_missing_file_and_a_missing_package_say_what_to_do(tmp_path, monkeypatch):
    for path in (tmp_path / "nothing.pth", tmp_path):
        with pytest.raises(ValueError, match=r"`source` must be an existing file.*Correct the path"):
            models.read_weights(path)
    from safetensors.numpy import save_file

    save_file({"a": NUMBERS}, tmp_path / "w.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"needs safetensors.*pip install 'deform_jax\[pretrained\]'"):
        models.read_weights(tmp_path / "w.safetensors")
