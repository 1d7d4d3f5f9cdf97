"""Weights from files and from servers on loopback, by name."""

import contextlib
import functools
import hashlib
import http.server
import socket
import sys
import threading

import pytest
from narrow_networks import CLASSES, NARROW, message, same, state_of, variables

from deform_jax import data, models
from deform_jax.models import convert, pretrained

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


@pytest.mark.usefixtures("collected")  # a refused connection is left open
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
