"""What is measured of simple CNNs: A_k, D_k, G_k and R_k of their layers, mean filters, and when they were fitted."""

import math
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from deform_jax import data, models, probes
from deform_jax.typing import PyTree, Represent
from experiments.common import cli, clock, results, runs, tables, watch
from experiments.common.tasks import Task, Training
from experiments.spatial_information import measures
from experiments.spatial_information.simple import CASES, Probe, Settings, train

CHUNK = 512
"""Images that are probed at once."""


class Sample(NamedTuple):
    """Pairs (n, 2, 1) and images (n, L, 1): clean, and several draws of displaced and of noisy ones."""

    positions: np.ndarray
    images: jax.Array
    displaced: list[jax.Array]
    noisy: list[jax.Array]


def sample(probe: Probe, task: str) -> Sample:
    """Return the images that all networks of a task are probed with."""
    wanted = CASES[task].pairs
    pairs = data.pixel_pairs(wanted)
    choice, *keys = jax.random.split(jax.random.key(probe.probe_seed), 1 + probe.draws)
    smallest = int(np.bincount(pairs.labels).min())
    each = max(1, min(smallest, round(probe.share * len(pairs.labels) / 2)))
    chosen, _ = data.balanced_split(choice, pairs.labels, train=2 * each)
    positions, value = pairs.positions[chosen], data.active_value(wanted)
    images = data.render_pixels(positions, wanted.shape, value=value)
    displaced, noisy = [], []
    for key in keys:
        move, noise = jax.random.split(key)
        moved = data.displace_pixels(move, positions, wanted.shape, law="step", boundary="periodic")
        displaced.append(data.render_pixels(moved, wanted.shape, value=value))
        noisy.append(probes.rectified_noise(noise, images, displaced[-1], rectified=probe.rectified))
    return Sample(positions, images, displaced, noisy)


def theory(task: str, *, rectified: bool = True) -> probes.HomogeneousTheory:
    """Return the exact sensitivities of the task's network with homogeneous filters, for its drawn layers."""
    case = CASES[task]
    pairs = data.pixel_pairs(case.pairs)
    return probes.homogeneous_network(
        pairs.positions,
        probes.balanced_weights(pairs.labels),
        case.pairs.shape,
        filter_size=case.filter_size,
        stride=case.stride,
        layers=case.probed,
        displacements=data.pixel_displacements("step", 1),
        value=data.active_value(case.pairs),
        rectified=rectified,
    )


def networks_of(model: Any, trained: runs.Trained, probe: Probe) -> Iterator[tuple[dict[str, Any], Represent]]:
    """Yield (state, shuffle) and the network: initial, trained, each layer its mean channel, channels shuffled."""
    yield {"state": "init", "shuffle": 0}, _drawn(model, trained.init)
    yield {"state": "trained", "shuffle": 0}, _drawn(model, trained.trained)
    mean = {**trained.trained, "params": probes.mean_channel(trained.trained["params"])}
    yield {"state": "mean_channel", "shuffle": 0}, _drawn(model, mean)
    shuffled = measures.shuffles(trained.trained, probe.probe_seed + trained.seed, probe.shuffles)
    for i, variables in enumerate(shuffled):
        yield {"state": "shuffled", "shuffle": i}, _drawn(model, variables)


def _drawn(model: Any, variables: PyTree) -> Represent:
    """Return the network's convolutions as taps, those of one site left out."""
    return jax.tree_util.Partial(_convolutions, models.represent(model, variables))


def _convolutions(represent: Represent, images: jax.Array) -> OrderedDict[str, jax.Array]:
    taps = represent(images).items()
    return OrderedDict((name, tap) for name, tap in taps if name != "input" and tap.shape[1] > 1)


def sensitivities(represent: Represent, found: Sample) -> dict[str, dict[str, float]]:
    """Return {layer: {"D", "G", "R"}}, D and G means over draws and R their ratio."""
    totals: dict[str, dict[str, float]] = {}
    chunk = CHUNK if len(found.images) > CHUNK else None
    for displaced, noisy in zip(found.displaced, found.noisy, strict=True):
        values = jax.device_get(probes.relative_sensitivity(represent, found.images, displaced, noisy, chunk=chunk))
        for layer in values.deformation:
            part = totals.setdefault(layer, {"D": 0.0, "G": 0.0})
            part["D"] += float(values.deformation[layer]) / len(found.noisy)
            part["G"] += float(values.noise[layer]) / len(found.noisy)
    return {layer: {**part, "R": part["D"] / part["G"] if part["G"] else math.nan} for layer, part in totals.items()}


@clock.COMMAND.part("probe")
def rows(
    model: Any, trained: runs.Trained, found: Sample, probe: Probe, task: str, states: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Return one row per state, shuffle and layer: A_k as measured, D_k, G_k, R_k; nan where all images are alike."""
    case, table = CASES[task], []
    value = data.active_value(case.pairs)
    for state, represent in networks_of(model, trained, probe):
        if states is not None and state["state"] not in states:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # said below, once and with the network's name
            widths = probes.effective_receptive_field(represent, case.pairs.shape, value=value, stride=case.stride)
            values = sensitivities(represent, found)
        for k, (layer, measured) in enumerate(values.items(), 1):
            head = {"task": task, "seed": trained.seed, **state, "layer_index": k, "layer": layer}
            table.append({**head, "A": float(widths[layer]), **measured})
        if dead := [layer for layer, measured in values.items() if math.isnan(measured["R"])]:
            name = f"{task}, seed {trained.seed}, {state['state'].replace('_', ' ')}"
            print(f"warning: no sensitivities at {', '.join(dead)} ({name}): all images are alike.", file=sys.stderr)
    return table


def filter_rows(trained: runs.Trained, task: str) -> list[dict[str, Any]]:
    """Return one row per state, layer and place in the filter: the mean over channels of the raw weights."""
    table = []
    for state, variables in (("init", trained.init), ("trained", trained.trained)):
        found = jax.device_get(probes.filter_statistics(variables["params"], probes.mean_filter))
        for k, (layer, weights) in enumerate(found.items(), 1):
            head = {"task": task, "seed": trained.seed, "state": state, "layer_index": k, "layer": layer}
            table += [{**head, "place": i, "weight": float(w)} for i, w in enumerate(weights)]
    return table


def accuracy_row(settings: Training, loaded: Task, trained: runs.Trained, task: str) -> dict[str, Any]:
    """Return when a network interpolated, how it ended, and its error on all pairs that it was not trained on."""
    last = trained.history[-1]
    zeros = [row["epoch"] for row in trained.history if row["loss"] == 0]
    interpolated = int(zeros[0]) if zeros else None
    factor = settings.recipe.stop_interpolation or 1
    accuracy = runs.accuracy(settings, loaded, None, trained)
    return {
        "task": task,
        "seed": trained.seed,
        "channels": round(1000 * settings.width),
        "train_images": loaded.train_count,
        "epochs": int(last["epoch"]),
        "interpolation_epoch": interpolated if interpolated is not None else math.nan,
        "to_the_end": int(interpolated is not None and last["epoch"] >= factor * interpolated),
        "train_loss": last["loss"],
        "train_accuracy": last["accuracy"],
        "test_pairs": len(loaded.evaluation["labels"]),
        "test_error": 1 - accuracy,
        "images_per_second": last["images_per_second"],
    }


def measure(command: cli.Command[Settings]) -> results.Tables:
    """Train or load the networks of every task; return sensitivities, the theory and accuracies."""
    found: results.Tables = {"table": [], "theory": [], "accuracy": []}
    wanted = command.settings
    for task in wanted.networks.tasks:
        settings = wanted.networks.training_of(task)
        loaded, trained = train(wanted.networks, task, command.options)
        model = runs.build(settings, None, loaded.num_classes)
        images = sample(wanted.probe, task)
        for network in watch.each(trained, f"probing {task}"):
            found["table"] += rows(model, network, images, wanted.probe, task)
            found["accuracy"].append(accuracy_row(settings, loaded, network, task))
        found["theory"] += theory_rows(task, rectified=wanted.probe.rectified)
    return found


def measure_filters(command: cli.Command[Settings]) -> results.Tables:
    """Train or load the networks of every task; return their mean filters and accuracies."""
    found: results.Tables = {"table": [], "accuracy": []}
    networks = command.settings.networks
    for task in networks.tasks:
        loaded, trained = train(networks, task, command.options)
        for network in trained:
            found["table"] += filter_rows(network, task)
            found["accuracy"].append(accuracy_row(networks.training_of(task), loaded, network, task))
    return found


def theory_rows(task: str, *, rectified: bool = True) -> list[dict[str, Any]]:
    """Return one row per layer: the exact homogeneous network, and the asymptotic laws through its first layer."""
    case, exact = CASES[task], theory(task, rectified=rectified)
    slopes = probes.asymptotic_exponents(strided=case.stride > 1)
    table = []
    for k in range(case.probed):
        row: dict[str, Any] = {"task": task, "layer_index": k + 1, "A": exact.receptive_field[k]}
        for column, part in measures.COLUMNS.items():
            values = getattr(exact, part)
            grown = (exact.receptive_field[k] / exact.receptive_field[0]) ** getattr(slopes, part)
            row |= {column: values[k], f"{column}_asymptotic": values[0] * grown}
        table.append({name: value if isinstance(value, str | int) else float(value) for name, value in row.items()})
    return table


def stamp(command: cli.Command[Settings], accuracy: Sequence[tables.Row]) -> str:
    """Return the line that says on a figure at what scale it was made."""
    wanted, parts = command.settings.networks, []
    for task in wanted.tasks:
        own = tables.select(accuracy, task=task)
        ended = sum(int(row["to_the_end"]) for row in own)
        epochs = max(int(row["epochs"]) for row in own)
        length = f"{ended} to {wanted.interpolations} × interpolation, up to {epochs:,} epochs"
        parts.append(f"{task.replace('task', 'task ')}: {wanted.of('train', task)} pairs, {len(own)} seed(s), {length}")
    return f"scale {command.options.scale} · $H$ = {wanted.channels} · " + " · ".join(parts)
