"""Faults of files: damaged, half-written, of other settings, and with times that cannot be."""

import collections
import contextlib
import io
import os
import random
import re
import shutil
import time

import fault_child
import training_toys as toys
from fault_tools import CHILD, Child, Outcome, check, check_same, newest, plural, train, undisturbed

from deform_jax import data, training
from experiments.common import cli, runs, tables, tasks

DETECTED, HARMLESS = "detected and named", "harmless"


def damaged_checkpoint(root, tries=4, resumed=True):
    """Each kind of file of a resumable step: deleted, emptied, cut, and ``tries`` times with one bit flipped.

    ``resumed=False``: only loaded, deleted and with bits flipped.
    """
    rng, found = random.Random(2), {}
    expected, copy = undisturbed(root), root / "damaged"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(expected, copy)
    path = copy / "resume" / str(newest(copy))
    good = training.load(path, resume=True)
    for file in files_by_kind(path):
        for name, damage in damages(file.read_bytes(), tries, rng):
            if resumed or name not in ("emptied", "cut"):
                found[file, name] = _loaded(path, file, damage, good)
    outcomes = collections.Counter(found.values())
    text = (
        f"{outcomes[DETECTED]} detected and named, {outcomes[HARMLESS]} harmless (in what orbax does not read again: "
    )
    text += "arrays and records the same)"
    kinds = {kind(file, path) for file, _ in found}
    if not resumed:
        return Outcome(len(found), f"{text}; {len(kinds)} kinds of files", "nothing")
    for file in {kind(file, path): file for file, _ in found}.values():
        deleted = found[file, "deleted"] == DETECTED
        _resumes(expected, root / "damaged-run", file.relative_to(copy), None if deleted else b"?", deleted)
    text += f"; of each of the {len(kinds)} kinds of files, a run with one damaged went on and ended bit-identical"
    return Outcome(len(found) + len(kinds), text, "the damaged step: its work since the step before, repeated")


def kind(file, path):
    return re.sub(r"[0-9a-f]{32}", "…", str(file.relative_to(path)))


def files_by_kind(path):
    """Return the files of a checkpoint; of those that differ by a random name only, the largest and the smallest."""
    kinds = collections.defaultdict(list)
    for file in sorted(path.rglob("*")):
        if file.is_file():
            kinds[kind(file, path)].append(file)
    for group in kinds.values():
        group.sort(key=lambda file: file.stat().st_size)
        yield from dict.fromkeys((group[0], group[-1]))


def damages(content, flips, rng):
    """Yield (name, damaged content), None for a deleted file."""
    yield "deleted", None
    if not content:
        return
    yield "emptied", b""
    yield "cut", content[: len(content) // 2]
    places = [0, 8 * len(content) - 1, *(rng.randrange(8 * len(content)) for _ in range(flips))][:flips]
    for place in places:
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        yield f"bit {place}", bytes(flipped)


def put(file, content):
    file.unlink() if content is None else file.write_bytes(content)


def _loaded(path, file, damage, good):
    before = file.read_bytes()
    put(file, damage)
    try:
        found = training.load(path, resume=True)
    except training.CorruptCheckpointError as error:
        check(str(path) in str(error), f"the damage of {file} was not named: {error}")
        return DETECTED
    finally:
        file.write_bytes(before)
    check(found.manifest == good.manifest, f"the damage of {file} changed the manifest unnoticed")
    toys.assert_identical((found.variables, found.resume), (good.variables, good.resume))
    return HARMLESS


def _resumes(expected, copy, file, damage, named):
    """Damage a file of the newest step of a finished run; the same call must end with the same bits."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(expected, copy)
    put(copy / file, damage)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        fault_child.train(copy)
    where = f"The checkpoint at {copy / 'resume' / file.parts[1]} "
    check(not named or where in said.getvalue(), f"{file}: {said.getvalue()}")
    check_same(copy, expected)


@contextlib.contextmanager
def small_figure(place):
    """Yield a function that trains or loads as a figure does, on the small task; and the runs' folder."""
    images = data.ImageSet(
        name="toys",
        train_images=toys.TRAIN["images"],
        train_labels=toys.TRAIN["labels"],
        test_images=toys.TEST["images"],
        test_labels=toys.TEST["labels"],
        num_classes=toys.CLASSES,
    )
    task, options = tasks.Task(images, toys.AUGMENTED, toys.CLEAN), cli.Options(runs=place, data_axis=1)
    build, runs.build = runs.build, lambda *_: toys.MODEL

    def trained(**changes):
        settings = tasks.Training(recipe=toys.RECIPE, **changes)
        (network,) = runs.train_or_load(settings, task, None, [0], options, keep_steps=False)
        return network

    try:
        yield trained
    finally:
        runs.build = build


def damaged_result(root, tries=2):
    """Each kind of file of a finished run's last state, as a figure's command reads it."""
    rng, outcomes, place = random.Random(3), collections.Counter(), root / "figure-runs"
    with small_figure(place) as trained:
        first = trained()
        pristine = shutil.copytree(first.folder, root / "pristine")
        for file in [file.relative_to(pristine) for file in files_by_kind(pristine / "states" / "final")]:
            for _, damage in list(damages((pristine / file).read_bytes(), tries, rng))[::-1][:tries]:
                shutil.rmtree(place)
                shutil.copytree(pristine, first.folder)
                put(first.folder / file, damage)
                said = io.StringIO()
                with contextlib.redirect_stderr(said):
                    again = trained()
                aside = list(place.glob("*/seed_000.damaged-*"))
                toys.assert_identical(again.trained, first.trained)
                check(toys.timeless(again.history) == toys.timeless(first.history), f"{file}: another history")
                named = f"The checkpoint at {first.folder / 'states' / 'final'} " in said.getvalue()
                check(bool(aside) == named, f"{file}: {said.getvalue()}")
                outcomes[DETECTED if aside else HARMLESS] += 1
    text = f"{outcomes[DETECTED]} named, the run set aside and trained again to the same bits; {outcomes[HARMLESS]}"
    return Outcome(outcomes.total(), f"{text} harmless (arrays the same)", "nothing; the damaged run is kept aside")


def other_settings(root, tries=2):
    """A runs folder with networks of other settings, and a run's folder with one of another learning rate."""
    place, said = root / "older", []
    with small_figure(place) as trained:
        before = trained().folder
        known = {path: path.stat().st_mtime_ns for path in before.rglob("*")}
        other = trained(width=0.5).folder
        check(other.parent != before.parent, "other settings, but the same folder")
        check({path: path.stat().st_mtime_ns for path in before.rglob("*")} == known, f"{before} was changed")
        said.append("a figure's other settings have a folder of their own, the older one is as it was")
    if tries > 1:
        folder = shutil.copytree(undisturbed(root), root / "other")
        child = train(folder, "--learning-rate", 0.2)
        refused = "error: Argument `folders` must hold runs of the same settings, but"
        check(child.end() == 1 and refused in child.text, child.text)
        check_same(folder, undisturbed(root))
        said.append("the same folder is refused and left alone")
    return Outcome(tries, "; ".join(said), "nothing")


def clock(root, tries=3):
    """Between save and resumption: times of files reversed; the clock a day back; both, and files of the future."""
    for number in range(tries):
        folder = shutil.copytree(undisturbed(root), root / f"clock{number}")
        shutil.rmtree(folder / "states" / "final")
        shutil.rmtree(folder / "resume" / str(newest(folder)))
        before, files = newest(folder), sorted(folder.rglob("*"), reverse=True)
        for age, file in enumerate(files if number != 1 else ()):
            moment = time.time() + (365 * 86400 if number == 2 else 0) - 60 * (len(files) - age)
            os.utime(file, (moment, moment))
        child = train(folder, *(("--clock", -86400) if number else ()))
        child.succeed()
        steps = int(folder.with_name(f"{folder.name}.steps").read_text())
        check(before < steps == fault_child.STEPS and "Going back" not in child.text, child.text)
        check_same(folder, undisturbed(root))
    return Outcome(tries, "went on from the newest step by number; ended bit-identical", "nothing")


def half_written(root, tries=10):
    """Two writers of one results folder at once, killed at random moments."""
    rng, place, versions, cut = random.Random(4), root / "tables", collections.defaultdict(set), 0
    expected = []
    for turn in (0, 1):
        tables.write(root / "expected.csv", fault_child.table(turn))
        expected.append((root / "expected.csv").read_bytes())
    for _ in range(tries):
        for path in place.glob(".*"):
            path.unlink()
        writers = [Child(CHILD, "write", place) for _ in range(2)]
        for writer in writers:
            writer.wait_for(lambda: any(place.glob(".*")))
        time.sleep(rng.uniform(0, 0.5))
        killed = [writer.kill() for writer in writers]
        check(all(killed), writers[0].text + writers[1].text)
        cut += len(list(place.glob(".*")))
        for path in place.glob("[!.]*"):
            versions[path.name].add(path.read_bytes())
    check(versions.pop("table.csv", set()) <= set(expected), "a table is of no one's writing")
    odd = [name for name, found in versions.items() if len(found) > 2]
    check(not odd, f"more than two contents of {odd}")
    check(cut > 0, "none was killed while it wrote")
    text = f"tables and figures always whole; {plural(cut, 'writing')} cut off, in hidden files beside them"
    return Outcome(2 * tries, text, "nothing")
