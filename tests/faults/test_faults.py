"""The faults of the campaign that take little time, on the run that this process trains undisturbed."""

import re
import shutil

import fault_child
import fault_disks
import fault_files
import fault_processes
import fault_tools
import pytest

from deform_jax import training


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    fault_child.train(folder / "undisturbed")
    return folder


def test_a_run_killed_within_a_save_goes_on_to_the_same_bits(root):
    """In a process of its own; more of them, and at other moments, in the campaign."""
    found = fault_processes.killed(root, 1)
    assert "(killed 1 within a save)" in found.outcome


@pytest.mark.usefixtures("abandoned_reads")
def test_damage_to_any_kind_of_file_is_found_or_harmless(root):
    found = fault_files.damaged_checkpoint(root, 1, resumed=False)
    kinds = int(re.search(r"(\d+) kinds of files", found.outcome)[1])
    assert kinds >= 14  # with orbax 0.11, 18 with 0.12
    assert found.tried >= 2 * kinds  # each deleted and with a bit flipped
    assert int(found.outcome.split()[0]) > 12  # the others: files that orbax writes and does not read again


@pytest.mark.usefixtures("abandoned_reads")
def test_a_damaged_initial_state_is_made_anew(root, capsys):
    """A run that goes on does not need it; the figures do."""
    folder = shutil.copytree(root / "undisturbed", root / "damaged-init")
    (folder / "states" / "init" / "manifest" / "metadata").unlink()
    fault_child.train(folder)
    fault_tools.check_same(folder, root / "undisturbed")
    assert f"The checkpoint at {folder / 'states' / 'init'} cannot be read" in capsys.readouterr().err


def test_a_figure_s_other_settings_leave_the_older_run_alone(root):
    fault_files.other_settings(root, 1)


@pytest.mark.usefixtures("abandoned_reads")
def test_a_full_disk_keeps_what_was_saved(root):
    """And the run goes on with the same bits once there is room."""
    try:
        with fault_disks.mounted(root / "disk", 200_000) as again:
            with pytest.raises(training.SaveError, match=r"could not be written: the disk is full\. .* Make room; the"):
                fault_child.train(root / "disk" / "run")
            assert fault_tools.unfinished(root / "disk" / "run") == []
            training.load(root / "disk" / "run" / "states" / "init")
            again("size=64m")
            fault_child.train(root / "disk" / "run")
            fault_tools.check_same(root / "disk" / "run", root / "undisturbed")
    except fault_tools.NotTried as reason:
        pytest.skip(str(reason))


def test_the_comparison_finds_a_difference(root):
    """What would make all of the above pass whatever happens."""
    fault_child.train(root / "other-seed", 100, seed=1)
    with pytest.raises(fault_tools.Failed, match="differs from that of an undisturbed run"):
        fault_tools.check_same(root / "other-seed", root / "undisturbed")
    with pytest.raises(fault_tools.Failed, match="instead of"):
        fault_tools.check_same(root / "nothing", root / "undisturbed")
