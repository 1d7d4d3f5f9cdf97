"""Files at hand and downloaded, against archives written here in the documented formats and served on loopback."""

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import http.server
import importlib.metadata
import io
import socket
import struct
import sys
import tarfile
import threading

import numpy as np
import pytest

from deform_jax import data
from deform_jax.data import archives, sources

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def idx(values):
    """The idx format of yann.lecun.com/exdb/mnist: 0, 0, type 8, rank, big-endian lengths, values."""
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (7, 28, 28), np.uint8),
        "train_labels": rng.integers(0, 10, 7).astype(np.uint8),
        "test_images": rng.integers(0, 256, (4, 28, 28), np.uint8),
        "test_labels": rng.integers(0, 10, 4).astype(np.uint8),
    }


@pytest.fixture
def tiny_mnist(arrays, monkeypatch):
    """Point ``"mnist"`` at four tiny archives; return their bytes by name and a function to set their address."""
    files = {f"{name}.gz": gzip.compress(idx(a), mtime=0) for name, a in zip(FILES, arrays.values(), strict=True)}

    def serve_from(base):
        table = tuple(archives.Archive(f"{base}/{name}", sha256(content)) for name, content in files.items())
        changed = dataclasses.replace(sources.SOURCES["mnist"], archives=table)
        monkeypatch.setitem(sources.SOURCES, "mnist", changed)

    serve_from("http://127.0.0.1:9/none")
    return files, serve_from


@contextlib.contextmanager
def server(folder):
    """Serve a folder on a free loopback port; yield its address and the list of paths asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}", asked
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(archives.FOLDER_VARIABLE, raising=False)


def write(folder, files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def check_tiny(image_set, arrays):
    assert image_set.num_classes == 10
    for split in ("train", "test"):
        images = getattr(image_set, f"{split}_images")
        assert images.dtype == np.uint8
        assert images.shape == (len(arrays[f"{split}_images"]), 32, 32, 1)
        np.testing.assert_array_equal(images[:, 2:-2, 2:-2, 0], arrays[f"{split}_images"])
        assert images.sum(dtype=np.int64) == arrays[f"{split}_images"].sum(dtype=np.int64)  # the frame is black
        labels = getattr(image_set, f"{split}_labels")
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, arrays[f"{split}_labels"])


def test_the_table_is_the_one_tfds_records():
    distribution = importlib.metadata.distribution("tensorflow-datasets")
    for name, source in sources.SOURCES.items():
        path = distribution.locate_file(f"tensorflow_datasets/url_checksums/{name}.txt")
        lines = [line.split() for line in path.read_text().splitlines()]
        recorded = {url: checksum for url, _, checksum, *_ in lines}
        assert {archive.url: archive.sha256 for archive in source.archives} == recorded


@pytest.mark.parametrize("subfolder", ["", "mnist"])
def test_files_placed_by_hand_need_no_network(tiny_mnist, arrays, tmp_path, subfolder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)  # not even the library that would download
    write(tmp_path / subfolder, tiny_mnist[0])
    check_tiny(data.load("mnist", folder=tmp_path), arrays)


def test_the_folder_variable_is_used_where_no_folder_is_given(tiny_mnist, arrays, tmp_path, monkeypatch):
    monkeypatch.setenv(archives.FOLDER_VARIABLE, str(write(tmp_path / "here", tiny_mnist[0])))
    check_tiny(data.load("mnist"), arrays)
    monkeypatch.setenv(archives.FOLDER_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"`folder` must be an existing folder.*nowhere.*DEFORM_JAX_DATA"):
        data.load("mnist")


def test_the_cache_folder_is_the_last_resort(tiny_mnist, arrays, tmp_path, monkeypatch):
    import pooch

    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    write(tmp_path / "deform_jax", tiny_mnist[0])
    check_tiny(data.load("mnist"), arrays)


def test_downloads_with_progress_and_keeps_the_files(tiny_mnist, arrays, tmp_path, capsys):
    files, serve_from = tiny_mnist
    target = tmp_path / "target"
    target.mkdir()
    with server(write(tmp_path / "served", files)) as (base, asked):
        serve_from(base)
        check_tiny(data.load("mnist", folder=target), arrays)
        assert sorted(asked) == sorted(f"/{name}" for name in files)
        check_tiny(data.load("mnist", folder=target), arrays)
        assert len(asked) == 4  # the second time, from disk
    assert "100%" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (target / "mnist").iterdir()} == files


@pytest.mark.usefixtures("collected")  # pooch 1.9 leaves a refused download's response open
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_wrong_download_is_refused_and_not_kept(tiny_mnist, tmp_path):
    files, serve_from = tiny_mnist
    expected = sha256(files[f"{FILES[0]}.gz"])
    served = write(tmp_path / "served", files)
    (served / f"{FILES[0]}.gz").write_bytes(b"<html>moved</html>")
    target = tmp_path / "target"
    target.mkdir()
    with server(served) as (base, _):
        serve_from(base)
        with pytest.raises(ConnectionError, match=f"could not be downloaded.*hash.*{expected}"):
            data.load("mnist", folder=target)
    assert list((target / "mnist").iterdir()) == []


@pytest.mark.usefixtures("collected")  # pooch 1.9 leaves a refused download's response open
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("missing", ["server", "file"])
def test_a_failed_download_says_what_to_place_where(tiny_mnist, tmp_path, missing):
    files, serve_from = tiny_mnist
    with contextlib.ExitStack() as stack:
        if missing == "server":
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                base = f"http://127.0.0.1:{free.getsockname()[1]}"
        else:
            (tmp_path / "empty").mkdir()
            base, _ = stack.enter_context(server(tmp_path / "empty"))
        serve_from(base)
        with pytest.raises(ConnectionError) as caught:
            data.load("mnist", folder=tmp_path)
    name = f"{FILES[0]}.gz"
    for part in (f"{base}/{name}", str(tmp_path / "mnist"), f"place it there as {name}", sha256(files[name])):
        assert part in str(caught.value)


@pytest.mark.parametrize("damage", [lambda c: c[:-9], lambda c: b"not gzip", lambda c: gzip.compress(b"other"), bytes])
def test_a_wrong_file_is_refused_and_left_alone(tiny_mnist, tmp_path, damage):
    files, serve_from = tiny_mnist
    name = f"{FILES[2]}.gz"
    wrong = b"" if damage is bytes else damage(files[name])
    folder = write(tmp_path / "here", files | {name: wrong})
    with server(write(tmp_path / "served", files)) as (base, asked):
        serve_from(base)
        with pytest.raises(ValueError, match=r"`folder` must hold the official") as caught:
            data.load("mnist", folder=folder)
        assert asked == []  # never downloaded over the user's file
    for part in (str(folder / name), sha256(files[name]), sha256(wrong), f"{base}/{name}"):
        assert part in str(caught.value)
    assert (folder / name).read_bytes() == wrong


@pytest.mark.parametrize("damage", [None, lambda c: c[:-9], lambda c: gzip.compress(gzip.decompress(c)[:-1])])
def test_a_repackaged_archive_passes_by_its_content(tiny_mnist, arrays, tmp_path, monkeypatch, damage):
    files, _ = tiny_mnist
    table = tuple(
        dataclasses.replace(archive, content=sha256(gzip.decompress(files[archive.file])))
        for archive in sources.SOURCES["mnist"].archives
    )
    monkeypatch.setitem(sources.SOURCES, "mnist", dataclasses.replace(sources.SOURCES["mnist"], archives=table))
    repackaged = {name: gzip.compress(gzip.decompress(content), 1, mtime=1) for name, content in files.items()}
    assert all(repackaged[name] != content for name, content in files.items())
    if damage is not None:
        repackaged = {name: damage(content) for name, content in repackaged.items()}
    write(tmp_path, repackaged)
    if damage is None:
        check_tiny(data.load("mnist", folder=tmp_path), arrays)
    else:
        with pytest.raises(ValueError, match="another or a damaged file"):
            data.load("mnist", folder=tmp_path)


@pytest.mark.parametrize("module", ["pooch", "tqdm"])
def test_a_missing_downloader_gives_the_line_to_run(tiny_mnist, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs {module}.*pip install 'deform_jax\[data\]'"):
        data.load("mnist", folder=tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"\1\0\10\1" + struct.pack(">I", 2) + b"ab",  # the first bytes must be 0
        b"\0\0\11\1" + struct.pack(">I", 2) + b"ab",  # signed bytes
        b"\0\0\10\1" + struct.pack(">I", 3) + b"ab",  # too short
        b"\0\0\10\1" + struct.pack(">I", 1) + b"ab",  # too long
    ],
)
def test_idx_headers_are_checked(content):
    with pytest.raises(ValueError, match="Not an idx file"):
        sources.read_idx(gzip.compress(content))


def cifar(rng, records, label_bytes, classes):
    """Records of the binary CIFAR format, and what they hold, pixel by pixel."""
    content, images, labels = b"", [], []
    for _ in range(records):
        values = rng.integers(0, 256, (32, 32, 3), np.uint8)
        label = [int(rng.integers(20)) for _ in range(label_bytes - 1)] + [int(rng.integers(classes))]
        pixels = [values[row, column, channel] for channel in range(3) for row in range(32) for column in range(32)]
        content += bytes(label) + bytes(pixels)
        images.append(values)
        labels.append(label[-1])
    return content, images, labels


@pytest.mark.parametrize(
    ("name", "train", "test", "label_bytes"),
    [
        (
            "cifar10",
            [f"cifar-10-batches-bin/data_batch_{i}.bin" for i in (1, 2, 3, 4, 5)],
            "cifar-10-batches-bin/test_batch.bin",
            1,
        ),
        ("cifar100", ["cifar-100-binary/train.bin"], "cifar-100-binary/test.bin", 2),
    ],
)
def test_cifar_binary_archives(name, train, test, label_bytes, tmp_path, monkeypatch):
    rng, classes = np.random.default_rng(1), sources.SOURCES[name].num_classes
    images, labels, stream = [], [], io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        members = {member: cifar(rng, 3, label_bytes, classes) for member in [*train, test]}
        for member in [test, *reversed(train)]:  # the order inside the archive must not matter
            info = tarfile.TarInfo(member)
            info.size = len(members[member][0])
            tar.addfile(info, io.BytesIO(members[member][0]))
    for member in train:
        images += members[member][1]
        labels += members[member][2]
    (official,) = sources.SOURCES[name].archives
    patched = dataclasses.replace(official, sha256=sha256(stream.getvalue()))
    monkeypatch.setitem(sources.SOURCES, name, dataclasses.replace(sources.SOURCES[name], archives=(patched,)))
    write(tmp_path, {official.file: stream.getvalue()})
    image_set = data.load(name, folder=tmp_path)
    np.testing.assert_array_equal(image_set.train_images, np.stack(images))
    np.testing.assert_array_equal(image_set.train_labels, labels)
    np.testing.assert_array_equal(image_set.test_images, np.stack(members[test][1]))
    np.testing.assert_array_equal(image_set.test_labels, members[test][2])
    assert image_set.num_classes == (10 if name == "cifar10" else 100)
