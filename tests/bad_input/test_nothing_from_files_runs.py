"""Nothing that is loaded can run: no source unpickles or evaluates, and a harmful file of each kind is refused.

Weight files have a test of their own, ``tests/models/test_weight_file_safety.py``.
"""

import ast
import gzip
import hashlib
import io
import json
import pathlib
import pickle
import tarfile

import numpy as np
import pytest

import deform_jax
from deform_jax import data, models, training
from deform_jax.data import archives, sources

ROOT = pathlib.Path(deform_jax.__file__).parent
FORBIDDEN_IMPORTS = {
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "torch",
    "code",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
FORBIDDEN_ATTRIBUTES = {"unpickle", "Unpickler", "system", "popen", "extractall"}
COMPILES = {"re"}
"""Modules whose ``compile`` makes no code."""


def faults(source):
    """Yield (line, what) of everything in a source that could run what a file holds."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                if name.partition(".")[0] in FORBIDDEN_IMPORTS:
                    yield node.lineno, f"imports {name}"
        if not isinstance(node, ast.Call):
            continue
        called, keywords = node.func, {word.arg: word.value for word in node.keywords}
        if isinstance(called, ast.Name) and called.id in FORBIDDEN_CALLS:
            yield node.lineno, f"calls {called.id}"
        if isinstance(called, ast.Attribute):
            owner = called.value.id if isinstance(called.value, ast.Name) else ""
            if called.attr in FORBIDDEN_ATTRIBUTES or (called.attr == "compile" and owner not in COMPILES | {""}):
                yield node.lineno, f"calls {owner}.{called.attr}"
            allowed = keywords.get("allow_pickle")
            if (
                called.attr == "load"
                and owner in ("np", "numpy", "jnp")
                and getattr(allowed, "value", True) is not False
            ):
                yield node.lineno, f"{owner}.load without allow_pickle=False"
        if "allow_pickle" in keywords and getattr(keywords["allow_pickle"], "value", None) is not False:
            yield node.lineno, "allow_pickle is not False"


def test_no_source_unpickles_or_evaluates():
    files = sorted(ROOT.rglob("*.py"))
    assert len(files) > 50
    found = [f"{path.relative_to(ROOT)}:{line} {what}" for path in files for line, what in faults(path.read_text())]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from torch import load",
        "eval('1')",
        "exec(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "read(path, allow_pickle=flag)",
        "os.system(text)",
        "tar.extractall()",
        "builtins.compile(text)",
    ],
)
def test_the_walk_sees_each_fault(source):
    assert list(faults(source))


class Harmful:
    """Makes a folder when unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return pathlib.Path.mkdir, (self.folder,)


@pytest.fixture
def harm(tmp_path):
    """A pickle that makes a folder, and the folder, which must not come to be."""
    content = pickle.dumps(Harmful(tmp_path / "harm"))
    pickle.loads(content)
    (tmp_path / "harm").rmdir()  # it does what it is for
    yield content, tmp_path / "harm"
    assert not (tmp_path / "harm").exists()


def test_a_pickle_among_the_embedded_arrays_is_refused(harm, tmp_path):
    content, folder = harm
    array = np.array([Harmful(folder)], dtype=object)
    np.savez(tmp_path / sources.EMBEDDED, train_images=array)
    digest = hashlib.sha256((tmp_path / sources.EMBEDDED).read_bytes()).hexdigest()
    (tmp_path / sources.EMBEDDED_HASHES).write_text(f"{digest}  {sources.EMBEDDED}\n")
    with pytest.raises(ValueError, match="allow_pickle=False"):
        sources.embedded(tmp_path)
    (tmp_path / sources.EMBEDDED).write_bytes(content)
    with pytest.raises(ValueError, match="damaged: its sha256"):
        sources.embedded(tmp_path)


def test_a_pickle_in_the_place_of_an_archive_is_refused_unread(harm, tmp_path):
    content, _ = harm
    for name, source in sources.SOURCES.items():
        (tmp_path / name).mkdir()
        for archive in source.archives:
            (tmp_path / name / archive.file).write_bytes(gzip.compress(content))
        with pytest.raises(ValueError, match=r"Argument `folder` must hold the official .*, but .* is another"):
            data.load(name, folder=tmp_path)


def test_a_pickle_inside_an_archive_of_the_right_hash_is_numbers_at_most(harm, tmp_path):
    """What the hash lets pass is parsed as bytes: CIFAR's Python version, whose members are pickles, is none."""
    content, _ = harm
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in ("cifar-10-batches-py/data_batch_1", "../../escaped"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(KeyError, match=r"data_batch_1\.bin"):
        sources.SOURCES["cifar10"].parse([packed.getvalue()])
    with pytest.raises(ValueError, match="Not an idx file"):
        sources.read_idx(gzip.compress(content))
    assert not list(tmp_path.parent.glob("escaped"))
    assert archives.digest(content) == hashlib.sha256(content).hexdigest()


def test_pickles_in_the_place_of_a_checkpoint_s_files_are_refused(harm, tmp_path):
    content, _ = harm
    training.save(tmp_path / "good", {"params": {"a": np.arange(3.0)}}, manifest={"step": 1})
    files = sorted(path.relative_to(tmp_path / "good") for path in (tmp_path / "good").rglob("*") if path.is_file())
    assert len(files) > 5
    manifest = pathlib.Path("manifest", "metadata")
    assert manifest in files
    for file in files:
        bad = tmp_path / "bad" / str(len(list(tmp_path.glob("bad/*"))))
        training.save(bad, {"params": {"a": np.arange(3.0)}}, manifest={"step": 1})
        (bad / file).write_bytes(content)
        try:
            found = training.load(bad).variables["params"]["a"]
        except training.CorruptCheckpointError as error:
            assert str(bad) in str(error)  # noqa: PT017
        else:
            np.testing.assert_array_equal(found, np.arange(3.0))  # a file that says nothing of the arrays
            assert file != manifest
    (bad / manifest).write_text(json.dumps({"checksums": {"variables": "os.system"}}))
    with pytest.raises(training.CorruptCheckpointError, match=str(bad)):
        training.load(bad)


def test_a_pickle_is_no_weights_file(harm, tmp_path):
    content, _ = harm
    for name in ("weights.pth", "weights.safetensors", "weights.npz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="Argument `source` must"):
            models.read_weights(tmp_path / name)
