"""What is saved comes back to the bit or not at all: flips, truncations and losses, checksums against numpy."""

import json
import pathlib
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training_toys as toys
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from deform_jax import training
from deform_jax.training import checkpoints
from deform_jax.training import checksums as sums
from deform_jax.training.checksums import checksums

RNG = np.random.default_rng(0)
VARIABLES = {
    "params": {
        # Large enough for a value of its own on disk: what is small lies in index nodes, which tensorstore verifies.
        "conv": {"kernel": RNG.normal(size=(3, 3, 16, 32)).astype(np.float32), "bias": np.zeros(8, np.float32)},
        "head": {"kernel": jnp.asarray(RNG.normal(size=(8, 5)), jnp.bfloat16)},
    },
    "batch_stats": {"norm": {"mean": np.float32([1e-30, np.inf, -0.0]), "var": np.ones(3, np.float16)}},
}
RESUME = {
    "step": jnp.asarray(12, jnp.int32),
    "key": np.uint32([1, 2]),
    "flags": np.array([True, False, True]),
    "bytes": RNG.integers(-128, 127, 17).astype(np.int8),
    "wide": RNG.normal(size=(2, 3)),
    "opt_state": {f"{i:04d}": RNG.normal(size=(4, i + 1)).astype(np.float32) for i in range(3)},
}
MANIFEST = {"history": [{"epoch": 1, "loss": 0.1}], "accuracy": 1 / 3, "none": None}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return training.save(tmp_path_factory.mktemp("saved") / "10", VARIABLES, resume=RESUME, manifest=MANIFEST)


@pytest.fixture
def copy(saved, tmp_path):
    return pathlib.Path(shutil.copytree(saved, tmp_path / "runs" / "10"))


def assert_whole(found):
    """Exactly what was saved, as numpy arrays."""
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves((found.variables, found.resume)))
    toys.assert_identical(found.variables, VARIABLES)
    toys.assert_identical(found.resume, RESUME)
    assert {name: found.manifest[name] for name in MANIFEST} == MANIFEST


def test_comes_back_to_the_bit(saved):
    assert_whole(training.load(saved, resume=True))
    assert np.signbit(training.load(str(saved)).variables["batch_stats"]["norm"]["mean"][2])
    assert training.load(saved).resume is None


def test_variables_alone_and_empty_parts(tmp_path):
    variables = {"params": {"w": np.arange(3.0, dtype=np.float32)}, "batch_stats": {}}
    found = training.load(training.save(tmp_path / "a" / "b", variables), resume=True)
    toys.assert_identical(found.variables, variables)
    assert found.resume is None


@pytest.mark.parametrize("layout", [P(), P("seed"), P("data"), P("seed", "data"), P(("seed", "data"))], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (2, 4), (8, 1)], ids=str)
def test_checksums_do_not_depend_on_the_sharding(layout, shape):
    tree = {"a": RNG.normal(size=(8, 16)).astype(np.float32), "b": np.arange(64, dtype=np.int8).reshape(8, 8)}
    placed = jax.device_put(tree, NamedSharding(training.make_mesh(*shape), layout))
    assert checksums(placed) == checksums(tree)


def test_saved_from_eight_devices_and_loaded_on_one(tmp_path):
    tree = {"w": RNG.normal(size=(8, 16)).astype(np.float32)}
    placed = jax.device_put(tree, NamedSharding(training.make_mesh(2, 4), P("seed", "data")))
    toys.assert_identical(training.load(training.save(tmp_path / "x", placed)).variables, tree)


def numpy_checksum(leaf):
    """Σ w and Σ w·(2654435762·i + 1) modulo 2³², in Python's unbounded integers."""
    leaf = np.asarray(leaf)
    words = leaf.reshape(-1).view({1: np.uint8, 2: np.uint16}.get(leaf.dtype.itemsize, np.uint32))
    plain = sum(int(word) for word in words)
    weighted = sum(int(word) * (2654435762 * i + 1) for i, word in enumerate(words))
    return [plain % 2**32, weighted % 2**32, str(leaf.dtype), list(leaf.shape)]


def test_checksums_are_those_of_numpy(saved):
    recorded = training.load(saved, resume=True).manifest["checksums"]
    for name, tree in (("variables", VARIABLES), ("resume", RESUME)):
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        expected = {jax.tree_util.keystr(path): numpy_checksum(leaf) for path, leaf in leaves}
        assert checksums(tree) == expected == recorded[name]


def test_checksums_of_arrays_of_many_blocks(monkeypatch):
    monkeypatch.setattr(sums, "BLOCK", 7)
    for dtype in (np.float32, np.float16, np.int8):
        leaf = (100 * RNG.normal(size=(4, 13))).astype(dtype)
        assert checksums({"x": leaf}) == {"['x']": numpy_checksum(leaf)}


def test_three_hundred_flips_of_one_bit_in_memory():
    """Every one changes the checksum: h is odd, so w·h determines w."""
    rng = np.random.default_rng(1)
    tree = jax.tree.map(np.array, {"a": VARIABLES["params"]["conv"]["kernel"], "b": RESUME["bytes"]})
    clean = checksums(tree)
    for _ in range(300):
        leaf = tree[rng.choice(["a", "b"])]
        view = leaf.reshape(-1).view(np.uint8)
        at, bit = rng.integers(view.size), np.uint8(1 << rng.integers(8))
        view[at] ^= bit
        assert checksums(tree) != clean
        view[at] ^= bit
    assert checksums(tree) == clean


def test_checksums_tell_an_exchange_from_the_original():
    """Two words in each other's place leave their sum as it was."""
    swapped = np.array([3, 2, 1, 4], np.float32)
    first, second = (checksums({"x": x})["['x']"] for x in (np.array([1, 2, 3, 4], np.float32), swapped))
    assert first[0] == second[0]
    assert first[1] != second[1]


def outcome(copy):
    """What reading a damaged copy comes to; anything but these two fails the test."""
    try:
        assert_whole(training.load(copy, resume=True))
        return "harmless"
    except training.CorruptCheckpointError as error:
        return "checksum" if "differ from what was saved" in str(error) else "unreadable"


@pytest.mark.usefixtures("abandoned_reads")
def test_flipped_bits_on_disk_never_come_back_as_numbers(copy):
    """Two random bits in every file, and 30 in the largest, one at a time: an error, or exactly what was saved.

    Much is written twice or not read at all, so that not every flip does harm.
    """
    rng = np.random.default_rng(2)
    files = sorted(path for path in copy.rglob("*") if path.is_file() and path.stat().st_size)
    assert len(files) > 15
    largest = max(files, key=lambda path: path.stat().st_size)
    outcomes = []
    for path in [*files, *files, *[largest] * 30]:
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        outcomes.append(outcome(copy))
        path.write_bytes(whole)
    assert outcomes.count("unreadable") > 5
    # The largest is the kernel, in pieces that carry no checksum of their own: orbax alone would return wrong numbers.
    assert outcomes[-30:].count("checksum") > 25
    assert outcome(copy) == "harmless"


@pytest.mark.usefixtures("abandoned_reads")
def test_a_damaged_manifest_is_noticed(copy):
    path = copy / "manifest" / "metadata"
    path.write_text(path.read_text().replace('"loss": 0.1', '"loss": 0.2'))
    with pytest.raises(training.CorruptCheckpointError, match="its manifest is damaged"):
        training.load(copy)


def test_a_checkpoint_from_before_manifests_were_sealed_loads(copy):
    path = copy / "manifest" / "metadata"
    record = json.loads(path.read_text())
    del record["seal"]
    path.write_text(json.dumps(record))
    assert_whole(training.load(copy, resume=True))


@pytest.mark.usefixtures("abandoned_reads")
@pytest.mark.parametrize("part", [0, 0.5], ids=["emptied", "halved"])
def test_truncated_files(copy, part):
    """Each file in turn."""
    outcomes = []
    for path in sorted(path for path in copy.rglob("*") if path.is_file() and path.stat().st_size):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(part * len(whole))])
        outcomes.append(outcome(copy))
        path.write_bytes(whole)
    assert outcomes.count("unreadable") >= 5  # at least the manifest, and an index and values of both trees


@pytest.mark.usefixtures("abandoned_reads")
@pytest.mark.parametrize(
    "lost", ["manifest", "manifest/metadata", "variables", "variables/d", "resume", "resume/manifest.ocdbt"]
)
def test_lost_files(copy, lost):
    path = copy / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(training.CorruptCheckpointError, match=rf"The checkpoint at {copy} cannot be read: "):
        training.load(copy, resume=True)


@pytest.mark.usefixtures("abandoned_reads")
def test_a_manifest_without_checksums_is_corrupt(copy):
    (copy / "manifest" / "metadata").write_text("{}")
    with pytest.raises(training.CorruptCheckpointError, match="its manifest holds no checksums"):
        training.load(copy)


@pytest.mark.usefixtures("abandoned_reads")
def test_other_arrays_than_were_saved(copy, tmp_path):
    other = training.save(tmp_path / "other", {"params": {"w": np.ones(2, np.float32)}})
    shutil.rmtree(copy / "variables")
    shutil.copytree(other / "variables", copy / "variables")
    with pytest.raises(training.CorruptCheckpointError, match=r"has other arrays than were saved: .*\['w'\]"):
        training.load(copy)


@pytest.mark.usefixtures("abandoned_reads")
def test_the_newest_good_step(tmp_path):
    assert training.load_newest(tmp_path / "nowhere") is None
    for step in (2, 10, 9):
        training.save(tmp_path / str(step), {"params": {"w": np.full(2, step, np.float32)}}, manifest={"step": step})
    (tmp_path / "11.orbax-checkpoint-tmp").mkdir()
    assert [path.name for path in checkpoints.steps(tmp_path)] == ["2", "9", "10"]
    assert training.load_newest(tmp_path).manifest["step"] == 10
    toys.tamper(tmp_path / "10")
    with pytest.warns(UserWarning, match=r"10 is damaged: \['params'\]\['w'\] .* Going back to step 9\."):
        assert training.load_newest(tmp_path).manifest["step"] == 9
    shutil.rmtree(tmp_path / "9" / "manifest")
    toys.tamper(tmp_path / "2")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert training.load_newest(tmp_path) is None
    endings = ["Going back to step 9.", "Going back to step 2.", "There is no step before it."]
    assert all(str(warning.message).endswith(end) for warning, end in zip(warned, endings, strict=True))


def test_pruning_keeps_the_newest_and_clears_interrupted_saves(tmp_path):
    for name in ("2", "10", "9", "11.orbax-checkpoint-tmp", "3.orbax-checkpoint-tmp-17", "notes"):
        (tmp_path / name).mkdir()
    checkpoints.prune(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "9", "notes"]
    checkpoints.prune(tmp_path / "nowhere", keep=2)


def test_nothing_is_overwritten_and_nothing_is_found_where_nothing_is(saved, tmp_path):
    with pytest.raises(FileExistsError, match=f"There is a checkpoint at {saved} already. Remove it"):
        training.save(saved, VARIABLES)
    with pytest.raises(FileNotFoundError, match=f"no checkpoint at {tmp_path / 'none'}. Train first, or correct"):
        training.load(tmp_path / "none")


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"params": {"w": 1.0}}, r"must hold arrays, but it has \['params'\]\['w'\] of type float. Convert it"),
        ({"params": [np.ones(2)]}, r"must be nested dicts with strings as keys, but it has \['params'\]\[0\]. Turn it"),
        ({"params": {1: np.ones(2)}}, r"strings as keys, but it has \['params'\]\[1\]"),
        (np.ones(2), "must be nested dicts with strings as keys, but it has no keys at all"),
        ({"key": jax.random.key(0)}, r"it has \['key'\], a random key. Save `jax.random.key_data\(key\)`"),
        ({"params": {}}, "`variables` must hold at least one array, but it holds none"),
    ],
)
def test_refuses_what_would_not_come_back(tmp_path, tree, message):
    with pytest.raises((TypeError, ValueError), match=message):
        training.save(tmp_path / "x", tree)
    assert not list(tmp_path.iterdir())


def test_refuses_an_optimizer_state_as_it_is(tmp_path):
    """Orbax would write optax's named tuples and read plain dicts."""
    state = training.Recipe().optimizer(3).init(VARIABLES["params"])
    with pytest.raises(TypeError, match=r"`resume` must be nested dicts .* Turn it into dicts"):
        training.save(tmp_path / "x", VARIABLES, resume=state)
