"""The notebooks: what their plain sources say, without outputs, and each runs from top to bottom."""

import os
import pathlib
import re

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = sorted((ROOT / "colab").glob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_is_its_source_without_outputs(source):
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    cells, wanted = ([(c.cell_type, c.source) for c in one.cells] for one in (notebook, jupytext.read(source)))
    assert cells == wanted, "Run: jupytext --to ipynb --update colab/*.py"
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]


def test_notebooks_begin_alike_and_say_one_address():
    texts = {path: path.read_text(encoding="utf-8") for path in SOURCES}
    setups = {text.split("# %%\n")[1].split("# %%")[0] for text in texts.values()}
    assert len(setups) == 1
    badges = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "colab/README.md"))
    said = "".join(texts.values()) + badges
    assert len(set(re.findall(r"(?:github\.com|/github)/([\w-]+/deform_jax)", said))) == 1
    for path in SOURCES:
        badge = f"/blob/main/colab/{path.stem}.ipynb"
        assert badge in texts[path]
        assert badges.count(badge) == 2


def executed(name, folder):
    """The outputs of a notebook's cells, run at the tests' sizes in a kernel of its own, away from the repository."""
    notebook = nbformat.read(ROOT / "colab" / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.parametrize(
    ("name", "pictures", "says"),
    [
        ("1_warp_an_image", 5, r"c = 15, δ = 1 px: 0\.\d\d px"),
        ("2_probe_a_network", 6, r"trained {3}block1_conv1 \d\.\d\d"),
        ("3_reproduce_a_figure", 2, r"\*\*(holds|undecided|does not hold)\*\*"),
        ("4_on_a_tpu_or_gpu", 0, r"parameters apart by at most \d\.\de-0[5-9]"),
    ],
)
def test_a_notebook_runs(name, pictures, says, tmp_path, monkeypatch):
    monkeypatch.setenv("DEFORM_JAX_SMOKE", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("MPLBACKEND")  # the kernel's own, inline
    outputs = executed(name, tmp_path)
    shown = [output.data for output in outputs if output.output_type in ("display_data", "execute_result")]
    assert sum("image/png" in data for data in shown) == pictures
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    assert re.search(says, text + "".join(data.get("text/markdown", "") for data in shown))
    assert not [output for output in outputs if output.get("name") == "stderr"], text
