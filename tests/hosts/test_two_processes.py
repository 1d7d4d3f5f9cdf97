"""Two processes of two devices each, against one process with four: seeds over the processes, and batches over them.

What takes longer is in campaign.py.
"""

import functools
import pickle

import jax
import numpy as np
import pytest
import train
import training_toys as toys

from deform_jax import training
from deform_jax.training import run_log

# Where each process holds whole seeds, nothing is summed over processes: the same bits. Where they share a batch, gloo
# adds their sums in another order than one process does: 1.2e-7 when this was written, and within test_mesh.py's limit.
TOLERANCE = {"2x2": 0.0, "1x4": 2e-5}


def writers(folder):
    """Return the processes that wrote arrays of a run's checkpoints, and those checkpoints' names."""
    parts = [path for path in folder.rglob("ocdbt.process_*") if any((path / "d").iterdir())]
    names = {str(path.parents[1].relative_to(folder)) for path in parts}
    return {path.name.removeprefix("ocdbt.process_") for path in parts}, names


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hosts")


def test_two_processes_train_as_one(together, folder, tmp_path):
    layouts = ("2x2", "1x4", "1x3")
    codes, said = together(lambda _: [train.__file__, folder, *layouts, "--short"]).wait()
    assert codes == [0, 0], said
    for text in said:
        message = "`seed × data` must divide the number of devices, 4, and give each of the 2 processes whole rows, or"
        assert message in text  # 1x3
        assert "Layouts that would: 1 × 2, 1 × 4, 2 × 1, 2 × 2, 4 × 1." in text
    for layout, tolerance in TOLERANCE.items():
        first, second = (pickle.loads((folder / f"{layout}.{index}.pickle").read_bytes()) for index in (0, 1))
        expected = train.fit(tmp_path, layout, short=True)
        for one, other, (seed, variables, history) in zip(first, second, expected, strict=True):
            toys.assert_identical(one[1], other[1])
            assert one[0] == other[0] == seed
            assert one[2] == other[2]
            close = functools.partial(np.testing.assert_allclose, rtol=0, atol=tolerance)
            jax.tree.map(close, one[1], variables)
            for row, wanted in zip(one[2], history, strict=True):
                assert row == pytest.approx(wanted, abs=50 * tolerance)
            saved = training.load(folder / layout / str(seed) / "states" / "final").variables
            toys.assert_identical(saved, one[1])
            told = [line["event"] for line in run_log.read(folder / layout / str(seed) / run_log.NAME)]
            assert told == ["start", "epoch", "epoch", "finished"]  # by one of them for both
            who, names = writers(folder / layout / str(seed))
            assert who == ({str(seed)} if layout == "2x2" else {"0", "1"})  # by its owner, or by both together
            assert {"states/init", "states/epoch_0002", "states/final", "resume/4", "resume/8"} <= names
            assert names == writers(tmp_path / layout / str(seed))[1]
