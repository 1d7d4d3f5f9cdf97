"""Weight files written by PyTorch and safetensors themselves, and by hand as of old; what is no weight file."""

import collections
import struct
import sys
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from weight_file_maker import FORMATS, NUMBERS, Named, legacy, pickled, storage, tensor, zipped

from deform_jax import models


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
