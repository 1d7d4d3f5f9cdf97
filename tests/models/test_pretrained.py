"""Weights from PyTorch's modules, from files, and from servers on loopback; the oracle is PyTorch itself.

``DEFORM_JAX_FULL=1`` also compares every ImageNet form at its full width, on 224 × 224 pixels (a few minutes, 4 GB).
"""

import contextlib
import functools
import gc
import hashlib
import http.server
import os
import socket
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deform_jax import data, models
from deform_jax.models import convert, pretrained

NARROW, CLASSES = 1 / 16, 7


@functools.cache
def images(size):
    return np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)


@functools.cache
def variables(name):
    """Variables of the narrow network, numbered through: every number of every array is another."""
    model = models.create(name, width=NARROW, num_classes=CLASSES)
    size = 64 if name.endswith("imagenet") else 32
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    shapes, tree = jax.tree.flatten(jax.eval_shape(model.init, jax.random.key(0), image))
    starts = np.cumsum([0, *[leaf.size for leaf in shapes]])
    leaves = [
        np.arange(start, start + leaf.size, dtype=np.float32) for start, leaf in zip(starts, shapes, strict=False)
    ]
    assert starts[-1] < 2**24  # exact in float32
    return jax.tree.unflatten(tree, [a.reshape(leaf.shape) for a, leaf in zip(leaves, shapes, strict=True)])


def state_of(name):
    return models.to_torch(name, variables(name), width=NARROW)


def same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.fixture
def oracles():
    pytest.importorskip("torch")
    return pytest.importorskip("torchvision_oracles")


def relative_error(model, values, net, oracles, size):
    logits = np.asarray(jax.jit(lambda v, x: model.apply(v, x)[0])(values, images(size)))
    expected = oracles.logits(net, images(size))
    return np.abs(logits - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", [*models.IMAGENET_ZOO, "vgg11_bn", "resnet18"])
def test_logits_are_torch_s(oracles, name):
    """To 1e-4; rounding makes 1e-6. Of 96 and 64 pixels, 2 × 2 are left to average adaptively."""
    net = oracles.network(name, NARROW, CLASSES)
    size = {"alexnet_imagenet": 96}.get(name, 64 if name.endswith("imagenet") else 32)
    converted = models.from_torch(name, net.state_dict(), width=NARROW)
    model = models.create(name, width=NARROW, num_classes=CLASSES)
    assert relative_error(model, converted, net, oracles, size) < 1e-4


@pytest.mark.skipif(os.environ.get("DEFORM_JAX_FULL") != "1", reason="minutes and gigabytes")
@pytest.mark.parametrize("name", models.IMAGENET_ZOO)
def test_logits_are_torch_s_at_full_width(oracles, name, tmp_path):
    import torch

    net = oracles.network(name)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    model, converted = models.load_pretrained(tmp_path / "w.pth", name)
    (tmp_path / "w.pth").unlink()  # all of them would fill gigabytes
    error = relative_error(model, converted, net, oracles, 224)
    print(f"\n{name}: {error:.1e}")
    assert error < 1e-4


@pytest.mark.parametrize("name", ["alexnet_imagenet", "vgg11_bn_imagenet", "vgg11", "resnet18_imagenet", "resnet18"])
def test_to_torch_and_back_is_exact(name):
    state = state_of(name)
    assert all(array.dtype == np.float32 and array.flags.writeable for array in state.values())
    back = models.from_torch(name, state, width=NARROW)
    assert {leaf.dtype for leaf in jax.tree.leaves(back)} == {jnp.dtype("float32")}
    same(back, variables(name))


def test_torch_takes_what_to_torch_gives(oracles):
    import torch

    net = oracles.network("vgg11_bn_imagenet", NARROW, CLASSES)
    given = {name: torch.from_numpy(array) for name, array in state_of("vgg11_bn_imagenet").items()}
    net.load_state_dict(given)  # strictly
    same(models.from_torch("vgg11_bn_imagenet", net.state_dict(), width=NARROW), variables("vgg11_bn_imagenet"))


def test_each_number_goes_where_torch_s_layout_has_it():
    """The first linear layer of a VGG reads (c, h, w) there and (h, w, c) here; a convolution is (o, i, h, w) there."""
    state, params = state_of("vgg11_imagenet"), variables("vgg11_imagenet")["params"]
    kernel = params["dense1"]["kernel"].reshape(7, 7, 32, 256)
    weight = state["classifier.0.weight"].reshape(256, 32, 7, 7)
    for h, w, c, o in [(0, 0, 0, 0), (6, 0, 31, 255), (2, 5, 7, 11)]:
        assert weight[o, c, h, w] == kernel[h, w, c, o]
    assert state["features.3.weight"][5, 3, 0, 2] == params["conv02"]["kernel"][0, 2, 3, 5]
    assert state["classifier.6.weight"][1, 9] == params["head"]["kernel"][9, 1]


def test_the_state_is_copied_and_its_type_widened():
    state = {key: array.astype(jnp.bfloat16) for key, array in state_of("alexnet_imagenet").items()}
    memory = np.zeros(256 + 16, np.float32)
    start = -(memory.ctypes.data // 4) % 16
    state["classifier.4.bias"] = bias = memory[start : start + 256]  # aligned as jax needs it to keep the memory
    result = models.from_torch("alexnet_imagenet", state, width=NARROW)["params"]
    bias += 1
    np.testing.assert_array_equal(result["dense2"]["bias"], np.zeros(256))
    assert result["conv2"]["kernel"].dtype == jnp.float32


def test_parallel_modules_counters_and_timm_s_vggs_are_accepted():
    state = state_of("vgg11_bn_imagenet")
    counted = {**state, "features.1.num_batches_tracked": np.array(5)}
    parallel = {f"module.{key}": array for key, array in counted.items()}
    names = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    timm = {}
    for key, array in counted.items():
        layer, field = key.rsplit(".", 1)
        if key == "classifier.0.weight":
            array = array.reshape(256, 32, 7, 7)
        elif key == "classifier.3.weight":
            array = array.reshape(256, 256, 1, 1)
        timm[f"{names.get(layer, layer)}.{field}"] = array
    for given in (counted, parallel, timm):
        same(models.from_torch("vgg11_bn_imagenet", given, width=NARROW), variables("vgg11_bn_imagenet"))


def test_grey_images_and_any_number_of_classes():
    state = state_of("resnet18")
    state["conv1.weight"] = state["conv1.weight"][:, :1]
    state["linear.weight"], state["linear.bias"] = state["linear.weight"][:3], state["linear.bias"][:3]
    params = models.from_torch("resnet18", state, width=NARROW)["params"]
    assert params["block00_conv"]["kernel"].shape == (3, 3, 1, 4)
    assert params["head"]["kernel"].shape == (32, 3)
    same(models.to_torch("resnet18", models.from_torch("resnet18", state, width=NARROW), width=NARROW), state)


def message(error, call, *arguments, **settings):
    with pytest.raises(error) as caught:
        call(*arguments, **settings)
    return str(caught.value)


def test_one_error_lists_what_is_missing_unexpected_and_of_another_shape():
    state = state_of("vgg11_imagenet")
    state["features.03.weight"] = state.pop("features.3.weight")
    state["features.0.weight"] = np.zeros((4, 3, 5, 5), np.float32)
    text = message(ValueError, models.from_torch, "vgg11_imagenet", state, width=NARROW)
    assert text.startswith("Argument `state` must hold the 22 arrays of vgg11_imagenet, but there are 1 missing")
    for part in (
        "1 missing (features.3.weight (8, 4, 3, 3))",
        "1 unexpected (features.03.weight (8, 4, 3, 3))",
        "1 of another shape (features.0.weight is (4, 3, 5, 5), not (4, 3, 3, 3))",
        "Give the name of the architecture",
    ):
        assert part in text
    text = message(ValueError, models.from_torch, "vgg11_imagenet", state_of("resnet18_imagenet"), width=NARROW)
    for part in ("22 missing (features.0.weight", "102 unexpected (conv1.weight (4, 3, 7, 7), ", ", …)"):
        assert part in text
    assert text.count("(") < 50
    assert "17 of another shape" in message(ValueError, models.from_torch, "vgg11", state_of("vgg11"))


def test_variables_are_compared_too():
    given = variables("vgg11_bn_imagenet")
    text = message(ValueError, models.to_torch, "vgg11_bn_imagenet", {"params": given["params"]}, width=NARROW)
    assert "16 missing (batch_stats/conv01_norm/mean (4,), " in text
    text = message(ValueError, models.to_torch, "vgg11_imagenet", given, width=NARROW)
    assert "`variables` must hold the 22 arrays" in text
    assert "32 unexpected (" in text


@pytest.mark.parametrize(
    ("call", "error", "part"),
    [
        (lambda: models.from_torch("lenet", {}), ValueError, "`name` must be one of 'alexnet_imagenet', 'vgg11_image"),
        (lambda: models.from_torch("alexnet", {}), ValueError, "`name` must be one of"),
        (lambda: models.to_torch("lenet", {}), ValueError, "`name` must be one of"),
        (lambda: models.from_torch("vgg11", {}, depht=3), ValueError, "`settings` must be one of"),
        (lambda: models.from_torch("vgg11", []), TypeError, "`state` must be a mapping of names to arrays, but a list"),
        (lambda: models.to_torch("vgg11", 3), TypeError, "`variables` must be a mapping"),
        (lambda: models.from_torch("vgg11", {"a": "b"}), TypeError, "must hold floating-point numbers, but a is of"),
        (lambda: models.from_torch("vgg11", {"a": np.ones(2, int)}), TypeError, "but a is of type int64"),
        (lambda: models.from_torch("vgg11", {"a": [[1.0], [1.0, 2.0]]}), TypeError, "must hold arrays, but a is not"),
        (lambda: models.from_torch("vgg11", {}), ValueError, "18 missing (features.0.weight (64, 3, 3, 3)"),
    ],
)
def test_other_arguments_are_refused(call, error, part):
    assert part in message(error, call)


def test_tensors_that_numpy_cannot_take_say_what_to_pass(oracles):
    net = oracles.network("vgg11", NARROW, CLASSES)
    parameters = dict(net.named_parameters())
    assert "Pass `module.float().cpu().state_dict()`" in message(TypeError, models.from_torch, "vgg11", parameters)
    assert "Pass `module.float()" in message(TypeError, models.from_torch, "vgg11", net.bfloat16().state_dict())


# Files and downloads.

FORM = "alexnet_imagenet"


@pytest.fixture
def narrow(monkeypatch):
    """Let files hold networks of 1/16 of the width; return the variables in one and its bytes, as .safetensors."""
    from safetensors.numpy import save

    for module in (convert, pretrained):
        monkeypatch.setattr(module, "create", functools.partial(models.create, width=NARROW))
    return variables(FORM), save(state_of(FORM))


def check(loaded, values):
    model, read = loaded
    assert model == models.create(FORM, num_classes=CLASSES, width=NARROW)
    same(read, values)


@contextlib.contextmanager
def server(files, headers=None):
    """Serve bytes by path on a free loopback port; yield its address and the requests made."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.command, self.path))
            content = files.get(self.path)
            self.send_response(404 if content is None else 200)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content or b"")

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}", asked
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture
def published(narrow, monkeypatch):
    """Let torchvision's AlexNet be the small file, at an address to be set; return its name and the function."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    file = f"alexnet-owt-{hashlib.sha256(narrow[1]).hexdigest()[:8]}.pth"
    monkeypatch.setitem(pretrained.PRETRAINED, "alexnet", file)

    def serve_from(base):
        monkeypatch.setattr(pretrained, "ADDRESS", f"{base}/models/")

    serve_from("http://127.0.0.1:9")
    return file, serve_from


def test_the_table_is_torchvision_s():
    assert [f"{name}_imagenet" for name in models.PRETRAINED] == list(models.IMAGENET_ZOO)
    assert pretrained.ADDRESS == "https://download.pytorch.org/models/"
    for name, file in models.PRETRAINED.items():
        stem, sha256 = file.removesuffix(".pth").rsplit("-", 1)
        assert stem.removesuffix("-owt") == name
        assert len(bytes.fromhex(sha256)) == 4
    prepare = data.IMAGENET_PREPARE
    for values in (prepare.mean, prepare.std):
        assert str(values) in models.load_pretrained.__doc__


@pytest.mark.parametrize("file", ["alexnet-owt-7be5be79.pth", "alexnet.safetensors", "alexnet_imagenet"])
def test_a_file_s_name_tells_the_architecture(narrow, tmp_path, file):
    (tmp_path / file).write_bytes(narrow[1])
    check(models.load_pretrained(tmp_path / file), narrow[0])


def test_a_name_may_be_given_and_must_be_where_the_file_s_does_not_tell(narrow, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(narrow[1])
    check(models.load_pretrained(str(path), "alexnet_imagenet"), narrow[0])
    text = message(ValueError, models.load_pretrained, path)
    assert "`name` must be given where the source does not tell it, but 'model.safetensors'" in text
    assert "Pass one of alexnet_imagenet, vgg11_imagenet" in text
    text = message(ValueError, models.load_pretrained, path, "vgg11_imagenet")
    assert text.startswith(f"{path}: Argument `state` must hold the 22 arrays of vgg11_imagenet")
    assert "`name` must be one of" in message(ValueError, models.load_pretrained, path, "alexnet_imagnet")
    text = message(ValueError, models.load_pretrained, "vgg12")
    assert "`source` must be the path of a file, 'hf:owner/repository', or one of alexnet, vgg11, " in text


def test_a_published_file_is_downloaded_once(narrow, published, tmp_path, capsys):
    file, serve_from = published
    with server({f"/models/{file}": narrow[1]}) as (base, asked):
        serve_from(base)
        check(models.load_pretrained("alexnet", cache=tmp_path / "new"), narrow[0])
        check(models.load_pretrained("alexnet_imagenet", cache=tmp_path / "new"), narrow[0])
    assert asked == [("GET", f"/models/{file}")]
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == {file: narrow[1]}
    assert "100%" in capsys.readouterr().err


def test_the_platform_s_cache_is_the_default(narrow, published, tmp_path, monkeypatch):
    import pooch

    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    (tmp_path / "deform_jax" / "pretrained").mkdir(parents=True)
    (tmp_path / "deform_jax" / "pretrained" / published[0]).write_bytes(narrow[1])
    check(models.load_pretrained("alexnet"), narrow[0])


@pytest.fixture
def leaves_a_socket():
    """A refused connection is closed only when it is collected."""
    yield
    gc.collect()


@pytest.mark.usefixtures("leaves_a_socket")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("what", ["page", "cut", "missing", "offline"])
def test_a_failed_download_is_not_kept_and_says_what_to_do(narrow, published, tmp_path, what):
    file, serve_from = published
    files = {"page": {f"/models/{file}": b"<html>"}, "cut": {f"/models/{file}": narrow[1][:-1]}}.get(what, {})
    with contextlib.ExitStack() as stack:
        if what == "offline":
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                base = f"http://127.0.0.1:{free.getsockname()[1]}"
        else:
            base, _ = stack.enter_context(server(files))
        serve_from(base)
        text = message(ConnectionError, models.load_pretrained, "alexnet", cache=tmp_path)
    for part in (f"{base}/models/{file}", str(tmp_path), "pass its path as `source`", f"place it there as {file}"):
        assert part in text
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_refused_and_left_alone(narrow, published, tmp_path):
    file, serve_from = published
    (tmp_path / file).write_bytes(narrow[1][:-1])
    with server({f"/models/{file}": narrow[1]}) as (base, asked):
        serve_from(base)
        text = message(ValueError, models.load_pretrained, "alexnet", cache=tmp_path)
    assert f"`cache` must hold the published {file}, but {tmp_path / file} is another or a damaged file" in text
    assert "Remove it to have it downloaded again" in text
    assert asked == []
    assert (tmp_path / file).read_bytes() == narrow[1][:-1]


def test_the_hub_s_client_downloads_into_its_cache(narrow, tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    headers = {"ETag": f'"{hashlib.sha256(narrow[1]).hexdigest()}"', "X-Repo-Commit": "0" * 40}
    with server({"/timm/alexnet.tv_in1k/resolve/main/model.safetensors": narrow[1]}, headers) as (base, asked):
        download = functools.partial(huggingface_hub.hf_hub_download, endpoint=base, token=False)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        for _ in range(2):
            check(models.load_pretrained("hf:timm/alexnet.tv_in1k", cache=tmp_path), narrow[0])
        assert [method for method, _ in asked].count("GET") == 1
        text = message(ConnectionError, models.load_pretrained, "hf:timm/alexnet.nothing", cache=tmp_path)
    assert "model.safetensors of timm/alexnet.nothing could not be had from the Hugging Face hub" in text
    assert "pass its path as `source`, with `name`" in text
    check(models.load_pretrained("hf:timm/alexnet.tv_in1k", cache=tmp_path), narrow[0])  # offline, from its cache


def test_sources_on_the_hub_are_parsed(monkeypatch, tmp_path, narrow):
    import huggingface_hub

    asked = []

    def download(repository, file, cache_dir):
        asked.append((repository, file, cache_dir))
        path = tmp_path / "blob"
        path.write_bytes(narrow[1])
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    check(models.load_pretrained("hf:a/alexnet-b"), narrow[0])
    check(models.load_pretrained("hf:a/b/c/d.pth", "alexnet_imagenet", cache=tmp_path), narrow[0])
    assert asked == [("a/alexnet-b", "model.safetensors", None), ("a/b", "c/d.pth", tmp_path)]
    for source in ("hf:", "hf:a", "hf:a/", "hf:/b"):
        text = message(ValueError, models.load_pretrained, source)
        assert "`source` must be 'hf:owner/repository' or 'hf:owner/repository/file'" in text
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("package", "source"), [("pooch", "alexnet"), ("tqdm", "alexnet"), ("huggingface_hub", "hf:a/alexnet")]
)
def test_a_missing_package_gives_the_line_to_run(monkeypatch, tmp_path, published, package, source):
    monkeypatch.setitem(sys.modules, package, None)
    text = message(ImportError, models.load_pretrained, source, cache=tmp_path)
    assert f"needs {package}, which is not installed. Run: pip install 'deform_jax[pretrained]'" in text


def test_convertible_names_are_those_of_the_zoo():
    assert set(models.CONVERTIBLE) <= {*models.ZOO, *models.IMAGENET_ZOO}
    assert set(models.IMAGENET_ZOO) <= set(convert.CONVERTIBLE)
