"""One command line for every figure: a scale gives the defaults, any setting can be overridden."""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro

from deform_jax import training
from experiments.common import clock, hosts, run_folders, tables
from experiments.common import settings as common

S = TypeVar("S")
Scale = Literal["smoke", "demo", "paper", "imagenet"]
FIRST = ("step", "probe")
"""What the provenance says how long it took to: the first training step, and the first row of measurements."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What does not change a result: where things are and what to do."""

    scale: Scale = "demo"
    """Set of defaults: smoke (seconds, CPU), demo (minutes, two cores, real images), paper (the published
    sizes), imagenet (LS's sizes for ImageNet; not every figure has it)."""
    plot_only: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Redraw the figure from its table; train and measure nothing."""
    runs: pathlib.Path = run_folders.RUNS
    """Folder for trained networks; the same settings find them again."""
    results: pathlib.Path | None = None
    """Folder for table, provenance and figure. Default: beside the script, results/FIGURE/SCALE, with the tag or the
    settings' hash appended where settings differ from the scale's."""
    data_axis: int | None = None
    """Devices over which each batch is split. Default: those left when seeds stand side by side."""
    data_folder: pathlib.Path | None = None
    """Folder of downloaded archives, or TFDS's data_dir. Default: $DEFORM_JAX_DATA, or the user's cache; TFDS's own."""
    workers: int = 0
    """Processes that decode streamed photographs, 0 for threads of this one."""
    checkpoint_steps: int | None = None
    """Steps between checkpoints besides the one after every epoch, to go on from after an interruption."""
    tensorboard: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """While training, also write scalars for TensorBoard (tensorboard --logdir RUNS) beside each network."""
    tag: str = ""
    """Name for results whose settings differ from the scale's."""
    coordinator: str | None = None
    """Several processes: HOST:PORT of process 0, with --processes and --process. Default: the variables
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; on a Cloud TPU, under Slurm's srun and Open MPI 4's
    mpirun, what these say."""
    processes: int | None = None
    """Several processes: how many."""
    process: int | None = None
    """Several processes: the number of this one, from 0; process 0 writes the results."""
    peer_timeout: int = 60
    """Several processes: seconds after which one that no longer answers is taken for dead, and the others end."""


@dataclasses.dataclass(frozen=True)
class Command(Generic[S]):
    """A parsed command line."""

    settings: S
    options: Options
    results: pathlib.Path
    """Folder for table, provenance and figure."""
    line: str
    """The command line, without the folders and processes, which are this machine's own."""


def parse(scales: Mapping[str, S], *, script: str, description: str, arguments: list[str] | None = None) -> Command[S]:
    """Return settings and options from the command line (``sys.argv`` by default); join other processes, if any.

    Args:
      scales: default settings of each scale.
      script: the script's ``__file__``; it names the figure and the results' place.
      description: shown by ``--help``, with the settings of the scale that was asked for as defaults.
      arguments: instead of ``sys.argv[1:]``.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--scale", default="demo")
    scale = early.parse_known_args(arguments)[0].scale
    defaults = scales.get(scale, scales["demo"])  # tyro refuses an unknown scale below, and lists the choices
    name = pathlib.Path(script).stem
    shape = dataclasses.make_dataclass("Arguments", [("figure", type(defaults)), ("command", Options)])  # in --help
    try:
        parsed = tyro.cli(
            shape,
            prog=f"python -m experiments {name}",
            description=description,
            args=arguments,
            default=shape(defaults, Options(scale=scale if scale in scales else "demo")),
            config=(tyro.conf.OmitArgPrefixes,),
        )
    except (ValueError, TypeError) as error:  # a setting's own check
        sys.exit(f"error: {error}")
    options: Options = parsed.command
    if options.scale not in scales:
        sys.exit(f"error: {name} has the scales {', '.join(scales)}, but --scale {options.scale} was given.")
    hosts.start(options.coordinator, options.processes, options.process, options.peer_timeout)
    if options.plot_only:
        hosts.leave_rest_to_writer()
    clock.COMMAND.turn("other")
    return Command(
        settings=parsed.figure,
        options=options,
        results=_results(parsed.figure, defaults, options, pathlib.Path(script)),
        line=_line(name, arguments),
    )


def prefixed(prefix: str, kind: type) -> Any:
    """Return what annotates a field of frozen settings whose flags are to be ``--PREFIX.NAME``.

    All other flags go without a prefix, so that no two settings of a figure may have one name.
    """
    fields = [
        (
            one.name,
            Annotated[one.type, tyro.conf.arg(name=f"{prefix}.{one.name}")],
            dataclasses.field(default=one.default),
        )
        for one in dataclasses.fields(kind)
    ]
    return tyro.conf.arg(constructor=dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), frozen=True))


def write_provenance(command: Command, **facts: Any) -> None:
    """Write ``provenance.json``, with any further facts, into the results folder; to be called when all is measured.

    Of several processes, only the first one returns: the others have done their part.
    """
    hosts.leave_rest_to_writer()
    record = common.provenance(command.settings, command=command.line, scale=command.options.scale, **facts)
    clock.COMMAND.record = command.results / "provenance.json"
    tables.write_json(clock.COMMAND.record, record)


def script(main: Callable[[list[str] | None], None]) -> Callable[..., None]:
    """Decorate a figure's ``main(arguments=None)``: errors that tell the user what to do end it without a traceback.

    Several processes end it together. At its end it says where its time went, beside its results too.
    """

    @functools.wraps(main)
    def wrapped(arguments: list[str] | None = None) -> None:
        clock.COMMAND.start(clock.process_age() if main.__module__ == "__main__" else 0.0)
        with hosts.together():
            _plainly(main, arguments)

    return wrapped


def _account(spent: clock.Clock) -> None:
    """Print the seconds of each part of the command, and add them to its provenance, if it wrote one."""
    split = spent.split()
    print(clock.line(split))
    if spent.record is not None:
        record = json.loads(spent.record.read_text(encoding="utf-8"))
        first = {f"seconds_to_first_{what}": round(spent.first[what], 2) for what in FIRST if what in spent.first}
        record |= {"wall_split": {part: round(seconds, 2) for part, seconds in split.items()}} | first
        tables.write_json(spent.record, record)


def _plainly(main: Callable[[list[str] | None], None], arguments: list[str] | None) -> None:
    try:
        main(arguments)
        _account(clock.COMMAND)
    except training.Interrupted as error:
        print(error, file=sys.stderr)
        sys.exit(128 + error.signal)  # as a shell reports a process that the signal ended
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # of a reader that has seen enough, such as `head`; what is left is for nobody
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (OSError, FloatingPointError, training.CorruptCheckpointError) as error:
        sys.exit(f"error: {error}")
    except (ValueError, TypeError) as error:
        if not str(error).startswith("Argument `"):
            raise
        sys.exit(f"error: {error}")
    except ImportError as error:
        if "pip install" not in str(error):
            raise
        sys.exit(f"error: {error}")


def _line(name: str, arguments: Sequence[str]) -> str:
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("runs", "results", "data-folder", "coordinator", "processes", "process", "peer-timeout"):
        early.add_argument(f"--{flag}")
    return " ".join(["python -m experiments", name, *early.parse_known_args(arguments)[1]])


def _results(settings: Any, defaults: Any, options: Options, script: pathlib.Path) -> pathlib.Path:
    if options.results is not None:
        return options.results
    changed = common.differences(settings, defaults)
    suffix = f"-{options.tag or common.digest(settings)}" if changed or options.tag else ""
    return script.parent / "results" / script.stem / f"{options.scale}{suffix}"
