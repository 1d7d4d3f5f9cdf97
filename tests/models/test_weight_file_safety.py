"""Weight files by hand that must be refused: harmful, damaged, or with numbers that do not fit one another."""

import io
import struct
import sys

import numpy as np
import pytest
from weight_file_maker import FORMATS, NUMBERS, Named, legacy, pickled, storage, tensor, zipped

from deform_jax import models
from deform_jax.models import torch_pickle

CALLS = []


@pytest.mark.parametrize("new", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    ("harmful", "name"),
    [
        (Named("os system", "touch touched"), "os.system"),
        (Named("builtins eval", "CALLS.append(1)"), "builtins.eval"),
        (Named("torch.nn.modules.linear Linear", state={"a": 1}), "torch.nn.modules.linear.Linear"),
        (Named("argparse Namespace", state={"lr": 1}), "argparse.Namespace"),
        (Named("test_weight_file_safety CALLS.append", 1), "test_weight_file_safety.CALLS.append"),
    ],
)
def test_a_pickle_that_names_anything_else_is_refused_by_that_name_and_not_run(
    tmp_path, monkeypatch, new, harmful, name
):
    monkeypatch.chdir(tmp_path)
    path, harmless = tmp_path / "w.pth", {"a": tensor(storage(10, *() if new else (None,)))}
    for loaded in (harmless, {**harmless, "b": harmful}):
        if new:
            zipped(path, {"w/data.pkl": pickled(loaded), "w/data/0": NUMBERS.tobytes()})
        else:
            path.write_bytes(legacy(loaded, {"0": NUMBERS}))
        if loaded is harmless:
            models.read_weights(path)  # imports what reading any file takes
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
