"""The command `python -m experiments report`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import get_args

import tqdm

from experiments import __main__ as listing
from experiments.common import cli, tables
from experiments.common import settings as common
from experiments.common.report import contents, pages

FOLDER = listing.ROOT / "results" / "report"


def main(arguments: Sequence[str]) -> int:
    """Put all figures that have results on one page, with the papers' claims, their verdicts, settings and costs."""
    wanted, folder = _parse(arguments)
    try:
        tables.check_writable("output", folder)
    except ValueError as error:
        sys.exit(f"error: {error}")
    chapters = contents.gather(wanted, progress=lambda names: tqdm.tqdm(names, desc="figures", unit="figure"))
    written = {
        "report.html": pages.html(chapters, commit=common.commit()),
        "report.md": pages.markdown(chapters, folder),
    }
    for name, text in written.items():
        with tables.atomic(folder / name) as file:
            file.write(text)
        print(f"{folder / name}: {len(text.encode()) / 1e6:.1f} MB")
    figures = [figure for chapter in chapters for figure in chapter.figures]
    print(f"{sum(bool(figure.results) for figure in figures)} of {len(figures)} figures have results.")
    for place, problem in contents.problems(chapters):
        print(f"{place}: {problem}", file=sys.stderr)
    return 0


def _parse(arguments: Sequence[str]) -> tuple[contents.Wanted, pathlib.Path]:
    parser = argparse.ArgumentParser(
        prog="python -m experiments report",
        description=f"{main.__doc__} Writes report.html, one file that opens anywhere without a network, and "
        "report.md, which links to the pictures. Nothing is trained or measured.",
    )
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help="which figures, by name (default: all)")
    parser.add_argument(
        "--papers", nargs="+", choices=listing.PAPERS, default=list(listing.PAPERS), help="whose figures (default: all)"
    )
    scales = list(get_args(cli.Scale))
    parser.add_argument("--scales", nargs="+", choices=scales, default=scales, help="results of which (default: all)")
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        help="folder of results, FIGURE/SCALE, and claims.csv; default: each paper's, in experiments/",
    )
    parser.add_argument(
        "--output", type=pathlib.Path, default=FOLDER, help="folder for both files; default: experiments/results/report"
    )
    given = parser.parse_args(arguments)
    known = listing.figures()
    unknown = [name for name in given.figures if name not in known]
    if unknown:
        parser.error(f"there is no figure {', '.join(unknown)}. `python -m experiments` lists them.")
    figures = [name for name in known if name in (given.figures or known) and known[name][0] in given.papers]
    if not figures:
        parser.error(f"these figures are not of {', '.join(given.papers)}.")
    if given.results is not None and not given.results.is_dir():
        parser.error(f"--results must be a folder, but there is none at {given.results}.")
    return contents.Wanted(tuple(figures), tuple(given.scales), given.results), given.output
