"""The reference has every public name, docstrings say what they must, and the tour runs."""

import ast
import inspect
import itertools
import pathlib
import re

import pytest

import deform_jax
from deform_jax import typing as vocabulary

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ROOT / "colab" / "reference"
MODULES = {part: getattr(deform_jax, part) for part in deform_jax.__all__}
PUBLIC = {f"{part}.{name}": getattr(module, name) for part, module in MODULES.items() for name in module.__all__}
FUNCTIONS = [name for name, value in PUBLIC.items() if inspect.isfunction(value)]
RECORDS = [name for name, value in PUBLIC.items() if inspect.isclass(value) and hasattr(value, "__annotations__")]
SOURCE = re.compile(r"\b(LS|SI|RS|[Oo]urs?|et al)\b")
"""What names a source, or says that there is none."""


def page(name):
    return (PAGES / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("part", MODULES)
def test_every_public_name_is_on_its_part_s_page_once(part):
    shown = re.findall(r"^\.\. auto(?:function|class|data|exception):: (\w+)$", page(f"{part}.rst"), re.MULTILINE)
    assert sorted(shown) == sorted(MODULES[part].__all__)
    assert f"\n{part}\n" in page("index.md")


def test_types_are_those_of_the_source():
    shown = dict(re.findall(r"^\.\. py:type:: (\w+)\n   :canonical: (.+)$", page("typing.rst"), re.MULTILINE))
    tree = ast.parse(inspect.getsource(vocabulary))
    defined = {node.target.id: ast.unparse(node.value) for node in tree.body if isinstance(node, ast.AnnAssign)}
    assert {name: ast.unparse(ast.parse(value)) for name, value in shown.items()} == defined


def described(text, section):
    """The names that a section of a docstring describes."""
    body = re.search(rf"^{section}:\n((?:  .*\n|\n(?=  ))*)", f"{text}\n", re.MULTILINE)
    entries = re.findall(r"^  (\S[^:]*?):", body[1], re.MULTILINE) if body else []
    return [name.strip("* ") for entry in entries for name in entry.split(",")]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_describe_each_argument_the_result_and_the_source(name):
    function, text = PUBLIC[name], inspect.getdoc(PUBLIC[name])
    signature = inspect.signature(function)
    assert described(text, "Args") == list(signature.parameters)
    said = "Returns:" in text or re.search(r"\b([Rr]eturn|Yield)\b", text.splitlines()[0])
    assert said or signature.return_annotation in (float, None), "its result"
    assert SOURCE.search(text) or name.startswith(("data.", "models.", "training.")), "its source"


@pytest.mark.parametrize("name", RECORDS)
def test_docstrings_describe_each_field(name):
    """In sections, those of a zoo network's base included, or below the field."""
    found = set()
    for cls in PUBLIC[name].__mro__:
        if cls.__module__.startswith("deform_jax"):
            text, body = inspect.getdoc(cls), ast.parse(inspect.getsource(cls)).body[0].body
            found |= {*described(text, "Args"), *described(text, "Attributes")}
            pairs = itertools.pairwise(body)
            found |= {a.target.id for a, b in pairs if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr)}
    fields = getattr(PUBLIC[name], "_fields", None) or PUBLIC[name].__annotations__
    assert set(fields) - {"parent", "name"} <= found


def test_ci_builds_the_reference_as_contributors_are_told_to():
    told = re.search(
        r"^python -m sphinx [^#\n]*[^ #\n]", (ROOT / ".github" / "CONTRIBUTING.md").read_text("utf-8"), re.M
    )
    assert told[0] in (ROOT / ".ci" / "run").read_text("utf-8")


def test_the_tour_runs(capsys):
    """Block by block, as a reader would type it, on fewer images."""
    namespace, printed = {}, []
    for block in re.findall(r"^```python\n(.*?)^```", page("tour.md"), re.MULTILINE | re.DOTALL):
        exec(block.replace("[:2048]", "[:64]").replace("[:64].as", "[:16].as"), namespace)
        printed.append(capsys.readouterr().out)
    taps = ["input", "block1_conv1", "block1_down", "block2_conv1", "block2_down", "output"]
    assert list(namespace["sensitivity"]) == taps
    assert all(f"'{tap}': (16, " in "".join(printed) for tap in taps)
    assert len(printed[-1].splitlines()) == 2 * len(taps)
    assert float(namespace["relative"].ratio["input"]) == pytest.approx(1, abs=1e-5)
    assert namespace["warped"].shape == (32, 32, 1)
