"""How a result was made, in words, from its provenance."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.common import claim_scale
from experiments.common import settings as common


def changed(record: Mapping[str, Any], scales: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the settings that differ from those of the result's scale: name, value, and the scale's value."""
    if record["scale"] not in scales:
        return []
    ours, theirs = common.flat(record["settings"]), common.flat(common.as_dict(scales[record["scale"]]))
    return [
        (name, _value(value), _value(theirs[name]) if name in theirs else "no such setting any more")
        for name, value in ours.items()
        if name not in theirs or value != theirs[name]
    ]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return value if isinstance(value, str) else json.dumps(value)


def facts(folder: pathlib.Path, record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return how a result was made, in words; "not recorded" where its record does not say it."""
    unknown = "not recorded"
    scale = ", ".join(filter(None, [record["scale"], _data(folder, record)]))
    seconds, split = record.get("wall_seconds"), record.get("wall_split")
    spent = unknown
    if isinstance(split, dict) and all(isinstance(value, (int, float)) for value in split.values()):
        spent = ", ".join(f"{part} {value:,.1f} s" for part, value in split.items() if value >= 0.05)
    versions = record.get("versions")
    named = versions.items() if isinstance(versions, dict) else ()
    return [
        ("Scale", scale),
        ("Hardware", _hardware(record) or unknown),
        ("Wall time of training and measuring", f"{seconds:,.1f} s" if isinstance(seconds, (int, float)) else unknown),
        ("Wall time of the command, by part", spent),
        ("Commit", str(record.get("commit", unknown))),
        ("Date", str(record.get("date", unknown))),
        ("Versions", ", ".join(f"{name} {version}" for name, version in named) or unknown),
    ]


def _data(folder: pathlib.Path, record: Mapping[str, Any]) -> str:
    """Return on what and how far networks were trained, where the folder tells."""
    if "tested_on" not in record and not (folder / "accuracy.csv").is_file():
        return ""
    try:
        return str(claim_scale.describe(folder, record, where={})["data"])
    except (KeyError, IndexError, TypeError, ValueError, OSError, SystemExit):  # of an earlier version, or damaged
        return ""


def _hardware(record: Mapping[str, Any]) -> str:
    device, parts = record.get("device"), []
    if isinstance(device, dict):
        kind = "/".join(dict.fromkeys(str(device[name]) for name in ("platform", "kind") if name in device))
        count = device.get("count", 1)
        parts.append(f"{kind}: {count} device{'' if count == 1 else 's'}")
    counted = {"cores": "CPU cores", "processes": "processes"}
    parts += [f"{record[name]} {words}" for name, words in counted.items() if isinstance(record.get(name), int)]
    return ", ".join([*parts, *([str(record["machine"])] if "machine" in record else [])])
