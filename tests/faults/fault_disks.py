"""Faults of disks: full, and read-only; on small file systems in memory, where this machine lets us mount them."""

import contextlib
import shutil
import subprocess
import time

from fault_tools import (
    Child,
    NotTried,
    Outcome,
    check,
    check_same,
    counted,
    newest,
    plural,
    steps_done,
    train,
    undisturbed,
)

from deform_jax import training


@contextlib.contextmanager
def mounted(folder, size):
    """Mount a file system of so many bytes; yields a function that mounts it anew with other options."""
    folder.mkdir(parents=True, exist_ok=True)

    def mount(options, *more):
        command = ["mount", "-t", "tmpfs", "-o", options, *more, "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    if shutil.which("mount") is None or mount(f"size={size}").returncode:
        raise NotTried("file systems cannot be mounted here")
    try:
        yield lambda options: check(mount(f"remount,{options}").returncode == 0, "it could not be mounted anew")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def disk_full(root, tries=5):
    """Disks that hold so much of a run; then room is made, and the same command called again."""
    expected, repeated, kept = undisturbed(root), 0, 0
    with mounted(root / "large", "256m"):  # what a run takes depends on the file system
        shutil.copytree(expected, root / "large" / "run")
        size = shutil.disk_usage(root / "large").used
    for number in range(tries):
        place = root / f"disk{number}"
        with mounted(place, int(size * (number + 0.6) / tries)) as again:
            folder = place / "run"
            full = train(folder, steps=root / f"disk{number}.steps")
            code, (*_, line) = full.end(), ["", *full.text.strip().splitlines()]
            check(code == 1 and line.startswith("error: ") and "Traceback" not in full.text, full.text)
            check("disk is full" in line or "No space left" in line, full.text)
            for path in folder.glob("*/**/manifest"):
                if not any("orbax-checkpoint-tmp" in part for part in path.parts):
                    training.load(path.parent, resume=path.parents[1].name == "resume")
                    kept += 1
            counter = root / f"disk{number}.steps"
            repeated = max(repeated, (counted(counter) or 0) - newest(folder))
            again("size=256m")
            train(folder, steps=counter).succeed()
            check_same(folder, expected)
    return Outcome(
        tries,
        f"one line that names the checkpoint and the cause; the {kept} checkpoints written before were all good; with "
        "room made, the same command ended bit-identical",
        f"work since the newest checkpoint, here at most {plural(repeated, 'step')}: repeated",
    )


def read_only(root, tries=4):
    """Folders for results and runs to which nothing can be written; and one that holds a finished run."""
    said, longest, place = [], 0.0, root / "read-only"
    with mounted(place, "64m") as again:
        shutil.copytree(undisturbed(root), place / "finished")
        again("ro")
        figure = ("-m", "experiments", "fig3_layer_sensitivity", "--scale", "smoke")
        commands = {
            "results": (figure, "--results", place / "results", "--runs", root / "runs"),
            "runs": (figure, "--results", root / "results", "--runs", place / "runs"),
        }
        for name, (command, *folders) in list(commands.items())[:tries]:
            began, child = time.monotonic(), Child(*command, *folders)
            code = child.end()
            longest = max(longest, time.monotonic() - began)
            wanted = f"error: Argument `{name}` must be a folder to write to, but {place / name}"
            check(code == 1 and wanted in child.text and f"choose another with --{name}." in child.text, child.text)
            said.append(f"--{name}")
        check(not list((root / "runs").glob("*/seed_*")), "it trained first")
        if tries > 2:
            child = train(place / "run", steps=root / "read-only.steps")
            check(
                child.end() == 1 and "error: Argument `folders` must be folders to write to" in child.text, child.text
            )
            said.append("the library's folders")
        if tries > 3:
            folder = place / "finished"
            train(folder, steps=root / "finished.steps").succeed()
            check(steps_done(root / "finished") is None, "a finished run was trained again")
            check_same(folder, undisturbed(root))
    ends = f"refused before any training, with the option that names another place ({', '.join(said)})"
    read = "; a finished run in a read-only place is read back" if tries > 3 else ""
    return Outcome(min(tries, 4), f"{ends}; at the latest {longest:.0f} s after the start{read}", "nothing")
