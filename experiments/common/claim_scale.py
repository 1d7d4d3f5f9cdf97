"""At what scale a result was made, in words: what stands beside every verdict."""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.common import tables, tasks


def describe(
    folder: pathlib.Path, record: Mapping[str, Any], *, where: Mapping[str, Any], exact: bool = False
) -> dict[str, Any]:
    """Return the scale, on which ``data`` and with how much training a result was made: ``images_trained_on``.

    Args:
      folder: of the result; its name is the scale.
      record: its provenance.
      where: the rows that are looked at, by the values of columns; where they are of one task, so are the words.
      exact: nothing is trained or drawn at random, unless there are accuracies.
    """
    settings = record["settings"]
    networks = settings.get("networks", {})
    if "tested_on" in record:  # made from other results, which it describes
        return {"scale": folder.name, **record["tested_on"]}
    if "photo_count" in settings:
        data = f"{settings['photo_count']} photographs, {settings['size']} px, weights as given"
        return {"scale": folder.name, "data": data, "images_trained_on": 0}
    if not (folder / "accuracy.csv").is_file():
        data = "no networks: exact theory" if exact else "untrained networks"
        return {"scale": folder.name, "data": data, "images_trained_on": 0}
    rows = tables.read(folder / "accuracy.csv")
    if "train_images" not in rows[0]:
        sys.exit(f"error: {folder} holds results of an earlier version. Run the figure again, or remove the folder.")
    if "channels" in networks:
        rows = [row for row in rows if row["task"] == where.get("task", row["task"])]
    images, epochs = (int(max(row[name] for row in rows)) for name in ("train_images", "epochs"))
    words = _simple if "channels" in networks else _zoo
    return {"scale": folder.name, "data": words(networks, rows, images, epochs), "images_trained_on": epochs * images}


def _zoo(networks: Mapping[str, Any], rows: Sequence[tables.Row], images: int, epochs: int) -> str:
    training = networks["training"]
    what = f"{training['dataset']}, {images:,} images"
    if training["dataset"] == tasks.PAIRS:
        sides = " × ".join(str(side) for side in training["pairs"]["shape"])
        what = f"two active pixels, {sides}, {images:,} pairs"
    return f"{what}, up to {epochs} epoch{'s' if epochs > 1 else ''}, width × {training['width']:g}"


def _simple(networks: Mapping[str, Any], rows: Sequence[tables.Row], images: int, epochs: int) -> str:
    """Say of simple CNNs how far they were trained, which their sensitivities and filters depend on."""
    named = " and ".join(task.replace("task", "task ") for task in tables.unique(rows, "task"))
    ended, count = sum(int(row["to_the_end"]) for row in rows), len(rows)
    length = f"{ended} of {count} network{'s' if count > 1 else ''} to {networks['interpolations']} × interpolation"
    channels = " or ".join(f"{value:g}" for value in tables.unique(rows, "channels"))
    return f"two active pixels, {named}, {images:,} pairs, H = {channels}, up to {epochs:,} epochs, {length}"
