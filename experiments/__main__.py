"""List every figure, or run one: `python -m experiments [FIGURE [ARGUMENTS]]`."""

import ast
import functools
import importlib
import pathlib
import re
import runpy
import sys

ROOT = pathlib.Path(__file__).parent
PAPERS = {
    "learned_stability": "LS: Ruderman et al. 2018, Learned deformation stability in CNNs",
    "spatial_information": "SI: Tomasini et al. 2022, How deep CNNs lose spatial information with training",
}
COMMANDS = {"claims": "claims", "costs": "costs", "report": "report", "runs": "run_list"}
"""Commands that are no figures → their modules in experiments/common."""


@functools.cache
def figures() -> dict[str, tuple[str, str]]:
    """Return {figure: (paper's folder, first line of its docstring)}, read without importing the scripts."""
    found = {}
    for paper in PAPERS:
        for path in sorted((ROOT / paper).glob("*.py"), key=_by_number):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            named = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
            if any(isinstance(target, ast.Name) and target.id == "SCALES" for target in named):
                found[path.stem] = (paper, (ast.get_docstring(tree) or "").splitlines()[0])
    return found


def _by_number(path: pathlib.Path) -> tuple[float, str]:
    number = re.match(r"fig(\d+)", path.stem)
    return float(number[1]) if number else float("inf"), path.stem


def main(arguments: list[str]) -> int:
    known = figures()
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m experiments FIGURE [--scale smoke|demo|paper|imagenet] [--plot-only] [--help] ...\n")
        for paper, title in PAPERS.items():
            lines = [f"  {name:<28} {line}" for name, (folder, line) in known.items() if folder == paper]
            print("\n".join([title, *lines, ""] if lines else []), end="\n" if lines else "")
        print("Each figure has its own --help, with every setting, its unit and its default.")
        print("python -m experiments claims PAPER tests the paper's claims on the results that are there.")
        print("python -m experiments costs estimates what every figure costs to train.")
        print("python -m experiments report puts all results on one page, as HTML and Markdown.")
        print("python -m experiments runs lists the networks that were trained; runs show and runs remove say --help.")
        return 0
    name, *rest = arguments
    if name in COMMANDS:
        return importlib.import_module(f"experiments.common.{COMMANDS[name]}").main(rest)
    if name not in known:
        print(f"There is no figure {name!r}. Known: {', '.join(known)}.", file=sys.stderr)
        return 2
    module = f"experiments.{known[name][0]}.{name}"
    sys.argv = [f"python -m experiments {name}", *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)  # `--help` reads the settings' source in `__main__`
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
