"""`python -m experiments runs`: what was trained, how far it is, and how well it does; show one run, remove some."""

import argparse
import collections
import datetime
import json
import os
import pathlib
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.common import run_folders, run_removal
from experiments.common.run_folders import Run, Seed

WIDTH = 100
NAMED = ("network", "downsampling")
"""Settings that a run's name tells."""
EPOCHS = 20
"""Rows of a history that are shown."""
TIED = "\N{NO-BREAK SPACE}"
"""Between words that belong on one line."""
COLUMNS = ("run", "seeds", "state", "last sign", "accuracy", "size")


def main(arguments: Sequence[str]) -> int:
    """List the trained networks in a folder of runs; or show one run, or remove some. Others may train meanwhile."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments runs",
        description=main.__doc__,
        epilog="Sizes are those on disk, accuracies means over seeds from 0 to 1, times those of this machine's zone.",
    )
    parser.set_defaults(act=_list)
    _add_folder(parser, run_folders.RUNS)
    parser.add_argument("--csv", type=pathlib.Path, metavar="FILE", help="also write a table, a row for each network")
    actions = parser.add_subparsers(title="instead of the list")
    show = actions.add_parser("show", help="all about one run", description=_show.__doc__)
    remove = actions.add_parser("remove", help="remove runs; asks first", description=_remove.__doc__)
    for one, act, number in ((show, _show, 1), (remove, _remove, "+")):
        one.set_defaults(act=act)
        one.add_argument("names", nargs=number, metavar="NAME", help="a run's name, or a beginning that no other has")
        _add_folder(one, argparse.SUPPRESS)
    remove.add_argument("--yes", action="store_true", help="remove without asking (default: ask)")
    wanted = parser.parse_args(arguments)
    try:
        return wanted.act(wanted)
    except BrokenPipeError:  # as of `… | head`; what is left goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except FileNotFoundError as error:
        print(f"error: there is no folder {error.filename}. Name that of the runs with --runs.", file=sys.stderr)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
    return 1


def _add_folder(parser: argparse.ArgumentParser, default: Any) -> None:
    text = f"the folder in which figures keep what they train (default: {run_folders.RUNS})"
    parser.add_argument("--runs", type=pathlib.Path, default=default, metavar="FOLDER", help=text)


def _list(wanted: argparse.Namespace) -> int:
    found = run_folders.listed(wanted.runs)
    usual = usual_settings(found)
    total = in_words(sum(run.size for run in found))
    print(f"{len(found)} run{'' if len(found) == 1 else 's'} in {wanted.runs}, {total}")
    if usual:
        print(_wrapped(f"Unless said otherwise: {_said(usual)}."))
    rows = [_row(run) for run in found]
    widths = [max(len(row[i]) for row in (COLUMNS, *rows)) for i in range(len(COLUMNS))]
    if rows:
        print("", _line(COLUMNS, widths), "  ".join("-" * width for width in widths), sep="\n")
    for run, row in zip(found, rows, strict=True):
        print(_line(row, widths), *_details(run, usual), sep="\n")
    if any(row[4].endswith("*") for row in rows):
        print("\n* on the images that are trained on, averaged over the epoch")
    if wanted.csv is not None:
        _write_csv(wanted.csv, found)
    return 0


def _show(wanted: argparse.Namespace) -> int:
    """Show a run's settings, and of each of its networks the state, the history, and the checkpoints with sizes."""
    (run,) = run_removal.named(run_folders.listed(wanted.runs), wanted.names)
    print(f"{run.path.name}, {in_words(run.size)}\n{run.path.absolute()}")
    if run.problem:
        print(_wrapped(run.problem))
    print("\nsettings")
    for name, value in run.settings.items():
        print(f"  {name.replace('_', '-'):<20} {_value(value)}")
    for seed in run.seeds:
        print(f"\nseed {seed.name}: {_progress(run, seed)}, {in_words(seed.size)}, last sign {_when(seed.changed)}")
        for line in _history(seed):
            print(line)
        kept = [
            f"{name}{TIED}({in_words(bytes_).replace(' ', TIED)})"
            for name, bytes_ in run_folders.checkpoints(seed.path)
        ]
        if kept:
            print(_wrapped(f"checkpoints: {', '.join(kept)}"))
    return 0


def _remove(wanted: argparse.Namespace) -> int:
    """Remove runs with all their networks, after asking. None is removed if one of them is being trained now."""
    chosen = run_removal.named(run_folders.listed(wanted.runs), wanted.names)
    run_removal.check(chosen)
    for run in chosen:
        print(_line(_row(run), [0] * len(COLUMNS)))
    whole = f"{len(chosen)} run{'' if len(chosen) == 1 else 's'}, {in_words(sum(run.size for run in chosen))}"
    if not wanted.yes:
        if not sys.stdin.isatty():
            raise ValueError("nobody can be asked here, so nothing was removed. Give --yes to remove without asking.")
        if input(f"Remove {whole}, for good? [y/N] ").strip().lower() not in ("y", "yes"):
            print("Nothing was removed.")
            return 1
    for run in chosen:
        run_removal.remove(run)
    print(f"Removed {whole}.")
    return 0


def usual_settings(found: Sequence[Run]) -> dict[str, Any]:
    """Return the most frequent value of every setting in which the runs differ."""
    names = dict.fromkeys(name for run in found for name in run.settings if name not in NAMED)
    usual = {}
    for name in names:
        # As text, since there are lists among them. Runs from before there was a setting do not count.
        counts = collections.Counter(json.dumps(run.settings[name]) for run in found if name in run.settings)
        if len(counts) > 1:
            usual[name] = json.loads(counts.most_common(1)[0][0])
    return usual


def in_words(size: int) -> str:
    """Return bytes as kB, MB or GB (powers of 1000)."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1000:.0f} kB"


def _row(run: Run) -> tuple[str, ...]:
    values = [seed.accuracy for seed in run.seeds if seed.accuracy[0] is not None]
    mean = sum(value for value, _ in values if value is not None) / max(1, len(values))
    accuracy = f"{mean:.3f}{' ' if all(apart for _, apart in values) else '*'}" if values else ""
    return run.path.name, _seeds(run.seeds), _state(run), _when(run.changed), accuracy, in_words(run.size)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if i < 4 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cell for cell in cells if cell).rstrip()


def _seeds(seeds: Sequence[Seed]) -> str:
    """Return the numbers of seeds, as in 0-4 or 0, 2."""
    numbers = sorted({int(seed.name) for seed in seeds if seed.name.isdigit()})
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ", ".join(map(str, numbers))


def _state(run: Run) -> str:
    states = [seed.state for seed in run.seeds if seed.state != "set aside"]
    if "training" in states:
        return "training"
    if not run.seeds or not run.settings:
        return "damaged" if run.seeds or run.problem != "no network was trained yet" else "empty"
    done = states.count("finished")
    return "finished" if done == len(states) else f"{done} of {len(states)} done" if done else states[0]


def _details(run: Run, usual: dict[str, Any]) -> Iterator[str]:
    """Yield the lines under a run's: in what its settings differ, and what is to be said of single seeds."""
    other = {name: run.settings[name] for name in usual if run.settings.get(name, usual[name]) != usual[name]}
    if other:
        yield _wrapped(_said(other), "  ")
    if run.problem:
        yield _wrapped(run.problem, "  ")
    for seed in run.seeds:
        if seed.state != "finished":
            yield _wrapped(f"seed {seed.name}: {_progress(run, seed)}", "  ")


def _progress(run: Run, seed: Seed) -> str:
    """Return how far a network is."""
    facts, parts = seed.newest, [seed.state if seed.state != "training" else "being trained now"]
    if "epoch" in facts:
        whole = f" of {run.epochs}" if run.epochs else ""
        parts.append(f"epoch {int(facts['epoch'])}{whole}, step {int(facts['step'])}")
    measured = [name for name in ("loss", "accuracy", "evaluation_accuracy") if facts.get(name) is not None]
    parts += [f"{name.replace('_', ' ')} {facts[name]:.3g}" for name in measured]
    if seed.state == "training" and facts.get("seconds_left") is not None:
        from deform_jax.training.progress import duration

        parts.append(f"{duration(facts['seconds_left'])} left")
    return ", ".join(parts) + (f" ({seed.note})" if seed.note else "")


def _history(seed: Seed) -> Iterator[str]:
    """Yield the lines of a table of epochs: the first ones and the last ones, where there are many."""
    rows = seed.history
    names = [name for name in rows[0] if name not in ("epoch", "step")] if rows else []
    if rows:
        yield "   epoch      step  " + "  ".join(f"{name.replace('_', ' '):>10}" for name in names)
    for i, row in enumerate(rows):
        if len(rows) <= EPOCHS or i < EPOCHS // 4 or i >= len(rows) - EPOCHS * 3 // 4:
            cells = "  ".join(f"{row.get(name, float('nan')):>{max(10, len(name))}.4g}" for name in names)
            yield f"{int(row['epoch']):>8}{int(row['step']):>10}  {cells}"
        elif i == EPOCHS // 4:
            yield f"     ... {len(rows) - EPOCHS} epochs, of which {seed.path.name}/log.jsonl or history.csv tells"


def _when(seconds: float) -> str:
    """Return how long ago something was, or the day."""
    ago = time.time() - seconds
    if 0 <= ago < 100:
        return f"{ago:.0f} s ago"
    if 0 <= ago < 6000:
        return f"{ago / 60:.0f} min ago"
    if 0 <= ago < 36 * 3600:
        return f"{ago / 3600:.0f} h ago"
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d")


def _said(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', '-')}{TIED}{_value(value)}" for name, value in settings.items())


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(map(_value, value)) if isinstance(value, list) else str(value)


def _wrapped(text: str, indent: str = "") -> str:
    wrapper = textwrap.TextWrapper(WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ")
    wrapper.break_on_hyphens = wrapper.break_long_words = False
    return wrapper.fill(text).replace(TIED, " ")


def _write_csv(path: pathlib.Path, found: Sequence[Run]) -> None:
    from experiments.common import tables

    names = dict.fromkeys(name for run in found for name in run.settings)
    rows = [
        {
            "run": run.path.name,
            "seed": seed.name,
            "state": seed.state,
            "note": seed.note,
            **{name: seed.newest.get(name, "") for name in ("epoch", "step", "loss", "accuracy")},
            "evaluation_accuracy": seed.accuracy[0] if seed.accuracy[1] else "",
            "changed": datetime.datetime.fromtimestamp(seed.changed, datetime.UTC).isoformat(timespec="seconds"),
            "bytes": seed.size,
            **{f"settings.{name}": _value(run.settings[name]) if name in run.settings else "" for name in names},
        }
        for run in found
        for seed in run.seeds
    ]
    if not rows:
        raise ValueError(f"there is no network to write about to {path}.")
    tables.write(path, rows)
    print(f"\ntable: {path}")
