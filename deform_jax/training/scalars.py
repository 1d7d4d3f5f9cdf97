"""Scalars of a run for TensorBoard, in event files that tensorboardX encodes.

Written when they come: tensorboardX's ``SummaryWriter`` queues them for a thread, for which it waits without end once
that has failed, as on a full disk.
"""

import contextlib
import importlib
import pathlib
import time
from collections.abc import Mapping
from types import ModuleType

FOLDER = "tensorboard"
"""Where a run's folder has its event files."""
TAGS = {
    "loss": "train/loss",
    "accuracy": "train/accuracy",
    "evaluation_loss": "evaluation/loss",
    "evaluation_accuracy": "evaluation/accuracy",
    "images_per_second": "speed/images_per_second",
}


class Scalars:
    """An event file of its own for each time that a run is begun or goes on; TensorBoard joins them."""

    def __init__(self, folder: pathlib.Path, *, resumed_at: int | None = None):
        """``resumed_at`` is the step from which all that earlier files say is void."""
        folder.mkdir(parents=True, exist_ok=True)
        self._events = needed("proto.event_pb2")
        # By default the name tells only files of different seconds apart.
        writer = needed("event_file_writer").EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        self._writer = writer
        if resumed_at is not None:
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._write(step=resumed_at, session_log=start)

    def add(self, values: Mapping[str, float | None], step: int) -> None:
        """Write those of the values that have a tag.

        Raises:
          OSError: they could not be written; nothing more can be.
        """
        summary = needed("proto.summary_pb2").Summary(
            value=[
                {"tag": tag, "simple_value": values[name]} for name, tag in TAGS.items() if values.get(name) is not None
            ]
        )
        self._write(step=step, summary=summary)

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._writer.close()

    def _write(self, **content: object) -> None:
        self._writer.write_event(self._events.Event(wall_time=time.time(), **content))
        self._writer.flush()


def needed(module: str) -> ModuleType:
    """Import a module of tensorboardX, or say how to install it."""
    try:
        return importlib.import_module(f"tensorboardX.{module}")
    except ImportError as error:
        raise ImportError(
            "TensorBoard's scalars need tensorboardX, which is not installed. "
            "Run: pip install 'deform_jax[tensorboard]'"
        ) from error
