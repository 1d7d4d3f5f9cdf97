"""Which processes a command joins: none on a laptop or in Colab, what flags, variables and schedulers say elsewhere."""

from unittest import mock

import jax
import pytest

from deform_jax.training import mesh, processes
from experiments.common import cli, hosts

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[001-004]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
}
OPEN_MPI_4 = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.0.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}


@pytest.fixture
def joined(monkeypatch):
    """What ``jax.distributed.initialize`` was called with, instead of it; and an environment that says nothing."""
    for name in (*SLURM, *OPEN_MPI_4, *hosts.VARIABLES.values(), "COLAB_RELEASE_TAG"):
        monkeypatch.delenv(name, raising=False)
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given, **limits: calls.append((given, limits)))
    return calls


@pytest.mark.parametrize(
    ("variables", "flags", "expected"),
    [
        ({}, (None, None, None), None),
        (SLURM, (None, None, None), (None, None, None)),  # jax finds the rest
        ({**SLURM, "SLURM_NTASKS": "1"}, (None, None, None), None),
        ({**SLURM, "COLAB_RELEASE_TAG": "x"}, (None, None, None), None),
        (OPEN_MPI_4, (None, None, None), (None, None, None)),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, (None, None, None), None),
        ({}, ("a:1", 1, 0), None),
        ({}, ("a:1", 2, 1), ("a:1", 2, 1)),
        ({"JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"}, ("a:1", None, None), ("a:1", 3, 2)),
        ({"JAX_PROCESS_ID": "0"}, ("[::1]:99", 3, 1), ("[::1]:99", 3, 1)),
    ],
)
def test_joins_what_is_announced(joined, monkeypatch, variables, flags, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    hosts.start(*flags, 45)
    limits = {"initialization_timeout": hosts.CONNECTING, "heartbeat_timeout_seconds": 45}
    assert joined == ([] if expected is None else [(expected, limits)])


@pytest.mark.parametrize(
    ("variables", "flags", "message"),
    [
        ({}, ("a:1", None, None), r"given together.* no --processes \(or \$JAX_NUM_PROCESSES\) and no --process \(or"),
        ({"JAX_PROCESS_ID": "0"}, (None, None, None), r"no --coordinator .* and no --processes"),
        ({}, ("a:1", 2, 2), r"`process` must be an integer ≥ 0 and ≤ 1, but 2 was given"),
        ({}, ("a:1", 2, -1), r"`process` must be .* but -1 was given"),
        ({}, ("a:1", 0, 0), r"`processes` must be an integer ≥ 1, but 0 was given"),
        ({"JAX_NUM_PROCESSES": "two"}, ("a:1", None, 0), r"`processes` must be an integer, but \$JAX_NUM_PROCESSES is"),
        ({}, ("here", 2, 0), r"`coordinator` must be HOST:PORT of process 0, but 'here' was given"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, (None, None, None), r"given under Open MPI 5.* sh -c 'python -m experiments"),
    ],
)
def test_refuses_impossible_combinations(joined, monkeypatch, variables, flags, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        hosts.start(*flags, 60)
    assert not joined


def test_the_command_line_is_the_same_on_every_process():
    flags = ["--coordinator", "a:1", "--processes", "2", "--process", "1", "--peer-timeout", "9", "--runs", "x"]
    assert cli._line("fig3", ["--seeds", "2", *flags]) == "python -m experiments fig3 --seeds 2"


def device_of(number, process_index):
    return mock.Mock(spec=jax.Device, id=number, process_index=process_index)


def test_layouts_keep_each_process_in_one_block(monkeypatch):
    """3 processes of 4 devices, given in another order; 2 × 6 would split the second one."""
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    devices = [device_of(number, number % 3) for number in range(12)]
    found = mesh.layouts(devices)
    assert found == [(1, 3), (1, 6), (1, 12), (3, 1), (3, 2), (3, 4), (6, 1), (6, 2), (12, 1)]
    for seed, data in found:
        owners = [device.process_index for device in mesh.make_mesh(seed, data, devices=devices).devices.flat]
        assert owners == sorted(owners)
        assert {owners.count(process) for process in range(3)} == {seed * data // 3}
    with pytest.raises(ValueError, match=r"equally many of each process, but 4 of process 0, 4 of process 1, 3 of"):
        mesh.make_mesh(1, 1, devices=devices[:-1])
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: False)
    with pytest.raises(ValueError, match="`devices` must be of this process, or of several that know of one another"):
        mesh.layouts(devices)


def test_one_process_waits_for_nobody(tmp_path):
    assert (processes.count(), processes.index(), processes.is_writer()) == (1, 0, True)
    processes.barrier("here", 0.001)
    processes.check_shared(tmp_path / "missing")
    assert processes.agreed({"a": 1}) == {"a": 1}
    assert processes.gathered(3) == [3]
    assert processes.jointly(lambda: 4) == 4
    assert not processes.appeared(tmp_path / "missing")
