"""At tiny sizes: every contender does the same work, and every command writes what it says."""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

HERE = pathlib.Path(__file__).resolve().parent


def _pairs():
    sys.path.insert(0, str(HERE))
    from works import WORKS

    sys.path.remove(str(HERE))
    seen = set()
    for work in WORKS:
        for contender in work.contenders:
            alone = contender.maker.endswith(("sampling", "forward", "products"))
            if (contender.is_ours and not alone) or (work.name.split("_")[0], contender.maker, str(work.smoke)) in seen:
                continue
            seen.add((work.name.split("_")[0], contender.maker, str(work.smoke)))
            yield pytest.param(work, contender, id=f"{work.name}-{contender.name}")


def made(contender, work):
    import side_by_side as run

    if not run.installed(contender):
        pytest.skip(f"{contender.name} is not installed")
    return contender.make(work.smoke, contender.choices[-1])


@pytest.mark.parametrize(("work", "contender"), list(_pairs()))
def test_a_peer_gives_our_answer(work, contender):
    peer = made(contender, work)
    peer.run()
    if peer.answer is None:
        assert any(name in contender.name for name in ("kornia", "forward", "products"))
        return
    mine = next(one for one in work.contenders if one.is_ours)
    ours, theirs = made(mine, work).answer(), peer.answer()
    ours = ours[:: len(ours) // len(theirs)]
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= work.tolerance * np.abs(ours).max()


def test_an_answer_that_differs_stops_the_benchmark(tmp_path):
    import side_by_side as run
    from works import WORKS

    class Fake:
        def __init__(self, contender, answer):
            self.contender, self.value = contender, answer

        def ask(self, line):
            np.save(line.split()[1], self.value)
            return {"saved": True}

    work = WORKS[0]
    peer = next(one for one in work.contenders if not one.is_ours)
    ours, wrong = np.ones((4, 3)), np.ones((2, 3))
    workers = [Fake(work.contenders[0], ours), Fake(peer, wrong)]
    assert run.compare(work, workers) == [0, 0]
    workers[1].value = wrong + np.array([0, 0, 0.01])
    with pytest.raises(ValueError, match=r"torch basis.*differs from ours"):
        run.compare(work, workers)


def test_targets_are_ratios_of_medians():
    import side_by_side as run
    from jobs import Target, Work

    targets = (
        Target("a", "b", 2),
        Target("a", "b", 5),
        Target("a", "b", 0.5, of="memory"),
        Target("a", "", 2, of="GiB"),
        Target("a", "absent", 1),
    )
    work = Work("tps_32", "", "", {}, {}, (), 0.0, targets)
    rows = [
        {"contender": "a", "rate": 30.0, "peak_gib": 2.5},
        {"contender": "b", "rate": 10.0, "peak_gib": 5.0},
    ]
    held = list(run.targets(work, rows))
    assert [row["found"] for row in held] == [3.0, 3.0, 0.5, 2.5]
    assert [row["met"] for row in held] == ["True", "False", "True", "False"]


def command(script, *arguments):
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(
        [sys.executable, str(HERE / script), "--smoke", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_benchmark_runs_contenders_in_turn(tmp_path):
    import records

    text = command("side_by_side.py", "--only", "max_entropy_32", "--repeats", "2", "--out", str(tmp_path))
    singles = records.read_csv(tmp_path / "runs.csv")
    assert {row["contender"] for row in singles} >= {"deform_jax"}
    assert sorted({row["run"] for row in singles}) == [0, 1]
    rows = records.read_csv(tmp_path / "table.csv")
    for row in rows:
        of = [one["seconds"] for one in singles if one["contender"] == row["contender"]]
        assert row["median_s"] == pytest.approx(np.median(of), rel=1e-4)
        assert row["rate"] == pytest.approx(row["count"] / row["median_s"], rel=1e-4)
    assert text.strip() == (tmp_path / "table.md").read_text().strip()
    assert json.loads((tmp_path / "provenance.json").read_text())["arguments"]["repeats"] == 2


def test_ours_can_have_another_interpreter(tmp_path):
    """Only ours: the peers stay where they are installed."""
    import records
    import side_by_side as run
    from works import WORKS

    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/asked"\nexec "{sys.executable}" "$@"\n')
    stand_in.chmod(0o755)
    assert records.versions_of(str(stand_in)) == records.versions()
    work = next(work for work in WORKS if work.name == "tps_32")
    options = argparse.Namespace(python=str(stand_in), threads=1, smoke=True)
    for index, contender in enumerate(work.contenders):
        if contender.maker.startswith(("ours:tps", "peers_arrays:scipy")):
            run.Worker(work, index, options).end()
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.split()[1:3] for line in asked[1:]] == [["tps_32", "0"], ["tps_32", "1"]]


def test_works_measured_alone_leave_the_others_rows(tmp_path, monkeypatch):
    import records
    import side_by_side as run

    def measure(work, options):
        row = {"contender": "deform_jax", "setting": "", "unit": "images/s", "count": 8, "runs": 1, "peak_gib": 1.0}
        seconds = options.repeats / 2
        times = {"median_s": seconds, "min_s": seconds, "max_s": seconds, "rate": 8 / seconds}
        return [{"work": work.name, **row, **times}], [{"work": work.name, "run": 0, "seconds": seconds}]

    monkeypatch.setattr(run, "measure", measure)
    for works, repeats in ((["tps_224", "max_entropy_32"], 2), (["tps_224"], 3), (["tps_32"], 4)):
        line = ["side_by_side.py", "--only", *works, "--repeats", str(repeats), "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", line)
        run.main()
    expected = {"tps_224": 1.5, "tps_32": 2.0, "max_entropy_32": 1.0}
    for name, column in (("table.csv", "median_s"), ("runs.csv", "seconds")):
        assert {row["work"]: row[column] for row in records.read_csv(tmp_path / name)} == expected
    facts = json.loads((tmp_path / "provenance.json").read_text())
    assert [facts["arguments"]["repeats"], facts["earlier"]["arguments"]["repeats"]] == [4, 3]


def test_growth_is_measured_and_drawn(tmp_path, monkeypatch):
    import growth
    import records

    monkeypatch.setattr(growth, "LINES", growth.LINES[3:4])
    monkeypatch.setattr(sys, "argv", ["growth.py", "--smoke", "--repeats", "1", "--out", str(tmp_path)])
    growth.main()
    rows = records.read_csv(tmp_path / "growth.csv")
    assert [row["value"] for row in rows] == [4, 6]
    assert all(row["median_s"] > 0 and row["peak_gib"] > row["gib_above_start"] > 0 for row in rows)
    assert {path.name for path in tmp_path.iterdir()} == {"growth.csv", "growth.png", "growth.pdf", "provenance.json"}


def test_the_accelerator_benchmark_runs(tmp_path, monkeypatch):
    import accelerator
    import records

    monkeypatch.setattr(sys, "argv", ["accelerator.py", "--smoke", "--repeats", "1", "--out", str(tmp_path)])
    monkeypatch.setattr(accelerator, "training_step", lambda *_: (1.0, 1e9))
    accelerator.main()
    rows = records.read_csv(tmp_path / "table.csv")
    warps = [row for row in rows if row["work"].startswith("warp")]
    assert len(warps) == 4
    assert all(row["of_copy_bandwidth"] > 0 for row in warps)
    assert any("10 steps" in row["contender"] for row in rows)


def test_steps_in_one_dispatch_are_the_same_steps():
    import accelerator
    import jax
    import works

    from deform_jax import training

    state, data = accelerator.start(4, 8, works.SMALL, "float32")
    stacked = jax.tree.map(lambda leaf: jax.numpy.stack([leaf] * 2), state)
    together = accelerator.dispatch(2)(stacked, data)
    step = jax.jit(training.train_step)
    alone = step(step(state, data)[0], data)[0]
    for seed in range(2):
        found = jax.tree.map(lambda leaf, seed=seed: leaf[seed], together.params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, alone.params)
    assert int(together.step[0]) == int(alone.step) == 2


def test_without_an_accelerator_its_benchmark_says_so(monkeypatch, capsys):
    import accelerator

    monkeypatch.setattr(sys, "argv", ["accelerator.py"])
    with pytest.raises(SystemExit):
        accelerator.main()
    assert "no accelerator" in capsys.readouterr().err


def test_surroundings_are_those_asked_for():
    asked = "import sys, os; sys.path.insert(0, sys.argv[1]); import worker; from jobs import Contender; "
    told = "; import jax; print(jax.device_count(), 'PJRT_NPROC' in os.environ, 'experiments' in sys.modules)"
    kept = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "PJRT_NPROC")}
    for simulate in (False, True):
        made = f"worker.surroundings(Contender('', '', simulate={simulate}), 2)"
        command = [sys.executable, "-c", asked + made + told, str(HERE)]
        done = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=120, check=True)
        devices, processes, package = done.stdout.split()
        assert (int(devices) > 1) == simulate or len(os.sched_getaffinity(0)) == 1
        assert processes == str(simulate)
        assert package == "False"
