"""A process of the campaign: runs one table of cases and writes one line of JSON for each; it may die of one."""

import faulthandler
import importlib
import json
import pathlib
import resource
import sys
import time

PAGE = resource.getpagesize()


def main(place: str, module: str, first: str, settings: str, *only: str) -> None:
    """Run the cases from number ``first`` on; ``place`` is the file that names the call in progress."""
    cases = importlib.import_module(module).CASES
    from campaign import MEMORY
    from campaign_runner import run

    chosen = json.loads(settings)
    at = pathlib.Path(place)

    def before(call: str) -> None:
        at.write_text(f"{case.name}\n{call}", errors="backslashreplace")
        faulthandler.dump_traceback_later(chosen["limit"], exit=True)
        used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * PAGE
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))

    wanted = [case for case in cases if not only or case.public.split(".")[-1] in only]
    for case in wanted[int(first) :]:
        began = time.monotonic()
        count = run(case, chosen["examples"], chosen["seed"], seconds=chosen["seconds"], before=before)
        faulthandler.cancel_dump_traceback_later()
        row = {"package": "", "function": case.name, "examples": count.examples, "worked": count.worked}
        row |= {
            "beyond_float32": count.overflowed,
            "traced": count.traced,
            "refused": count.refused,
            "seconds": time.monotonic() - began,
        }
        row["failed"] = [{"kind": kind, "call": call} for kind, call in count.failures]
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
