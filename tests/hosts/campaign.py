"""What takes minutes: kills, other topologies, and a figure. `python -m pytest tests/hosts/campaign.py`."""

import json
import pickle
import subprocess
import sys
import time

import conftest
import jax
import numpy as np
import pytest
import train
import training_toys as toys

from deform_jax import training
from deform_jax.training import loop
from experiments.common import tables

PEER_TIMEOUT = 10
"""What train.py asks for, seconds."""
FIGURE = 1e-5
"""Relative difference between tables. Networks before training agree to the bit; what two devices of a process train
depends in the last digit on how many others share its threads, and differed by 4e-7 when this was written."""


def reach(folder, seeds, step, group):
    """Wait until the seeds have a resumable checkpoint at a step or after it."""
    deadline = time.monotonic() + conftest.LIMIT
    while not all(
        any(path.name.isdigit() and int(path.name) >= step for path in (folder / str(seed)).glob("resume/*"))
        for seed in range(seeds)
    ):
        assert group.running()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("killed", [0, 1])
def test_one_of_two_is_killed_and_all_are_started_again(together, tmp_path, killed):
    """The other ends by itself, with a message; and then the end is that of an uninterrupted run, to the bit."""
    command = [train.__file__, tmp_path / "killed", "2x2"]
    group = together(lambda _: command)
    reach(tmp_path / "killed" / "2x2", 2, 4, group)
    group.kill(killed)
    began = time.monotonic()
    codes, said = group.wait()
    took = time.monotonic() - began
    assert codes[killed] == -9
    assert codes[1 - killed] != 0
    words = ("another process ended before", "another task died", "waited for the others")
    assert any(word in said[1 - killed] for word in words), said[1 - killed]
    print(f"\nprocess {killed} killed: the other ended {took:.1f} s later (exit code {codes[1 - killed]})")
    assert took < 3 * PEER_TIMEOUT
    codes, said = together(lambda _: command).wait()
    assert codes == [0, 0], said
    found = pickle.loads((tmp_path / "killed" / f"2x2.{killed}.pickle").read_bytes())
    for one, other in zip(found, train.fit(tmp_path / "whole", "2x2"), strict=True):
        toys.assert_identical(one[1], other[1])
        assert one[2] == other[2]


def test_a_run_goes_on_under_any_topology(together, tmp_path, monkeypatch):
    """Begun by 2 processes of 2 devices, gone on by 1 of 1, ended by 1 of 8: within the limit of test_mesh.py."""
    group = together(lambda _: [train.__file__, tmp_path, "1x4"])
    reach(tmp_path / "1x4", 1, 4, group)
    group.kill()
    group.wait()
    (whole,) = train.fit(tmp_path / "whole", "1x1")
    save = loop._save

    def interrupted(members, *rest):
        save(members, *rest)
        if members[0].folder.joinpath("resume", "8").exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.fit(tmp_path, "1x4", training.make_mesh(1, 1))
    monkeypatch.setattr(loop, "_save", save)
    (found,) = train.fit(tmp_path, "1x4", training.make_mesh(1, 8))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5), found[1], whole[1])
    assert [row["step"] for row in found[2]] == [4, 8, 12]


@pytest.mark.parametrize(("layout", "tolerance"), [("2x2", 0.0), ("1x4", 2e-5)])
def test_each_process_reads_its_part_of_a_stream(together, tmp_path, layout, tolerance):
    """Killed in mid-epoch and started again, the end is that of one process, which reads all."""
    command = [train.__file__, tmp_path / "two", layout, "--stream"]
    group = together(lambda _: command)
    reach(tmp_path / "two" / layout, int(layout[0]), 6, group)
    group.kill()
    group.wait()
    codes, said = together(lambda _: command).wait()
    assert codes == [0, 0], said
    expected = train.fit(tmp_path / "one", layout, stream=True)
    for index in (0, 1):
        found = pickle.loads((tmp_path / "two" / f"{layout}.{index}.pickle").read_bytes())
        for one, other in zip(found, expected, strict=True):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance), one[1], other[1])
            assert [row["step"] for row in one[2]] == [4, 8, 12]
            assert one[2][-1] == pytest.approx(other[2][-1], abs=50 * tolerance)


def test_disks_of_their_own_are_refused_before_training(together, tmp_path):
    _, said = together(lambda _: [train.__file__, tmp_path, "2x2", "--own-disks"]).wait()
    for text in said:
        assert "`folders` must be seen by all processes, but process 1 does not see in" in text, said
    assert not list(tmp_path.glob("*/2x2/*/states"))


def test_a_figure_is_that_of_one_process(together, tmp_path):
    """LS Fig. 3 of two seeds: the same tables, and only process 0 writes and prints."""
    shared = "--scale smoke --downsamplings max --seeds 2 --train-images 64 --batch-size 32 --probe-images 8 --draws 1"
    command = ["-m", "experiments", "fig3_layer_sensitivity", *shared.split()]

    def places(name, index):
        return ["--runs", tmp_path / f"runs_{name}", "--results", tmp_path / f"results_{name}_{index}"]

    codes, said = together(lambda index: [*command, *places("two", index)]).wait()
    assert codes == [0, 0], said
    alone = [sys.executable, *map(str, [*command, *places("one", 0)])]
    subprocess.run(alone, cwd=conftest.ROOT, env=conftest.environment(4), check=True, capture_output=True)
    assert "figure:" in said[0]
    assert "figure:" not in said[1]
    assert "img/s" not in said[1]
    assert not (tmp_path / "results_two_1").exists()
    two, one = tmp_path / "results_two_0", tmp_path / "results_one_0"
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    for name in ("table", "summary", "accuracy"):
        rows = [tables.read(folder / f"{name}.csv") for folder in (two, one)]
        for row, other in zip(*rows, strict=True):
            assert row.keys() == other.keys()
            for key in row.keys() - {"images_per_second"}:
                number = isinstance(other[key], float)
                wanted = pytest.approx(other[key], rel=FIGURE, nan_ok=True) if number else other[key]
                assert row[key] == wanted, (name, key)
    records = [json.loads((folder / "provenance.json").read_text()) for folder in (two, one)]
    assert [record["processes"] for record in records] == [2, 1]
    assert records[0]["command"] == records[1]["command"]
    assert records[0]["device"] == records[1]["device"]
    for run in (tmp_path / "runs_two").iterdir():
        assert (run / "settings.json").exists()
        assert {path.parent.name for path in run.glob("*/history.csv")} == {"seed_000", "seed_001"}
