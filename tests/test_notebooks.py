"""The notebooks: what their plain sources say, without outputs, and each runs from top to bottom."""

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
    setups = {text.split("# %%\n")[1].split("# %%")[0].strip() for text in texts.values()}
    assert len(setups) == 1
    badges = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "colab/README.md"))
    said = "".join(texts.values()) + badges
    assert len(set(re.findall(r"(?:github\.com|/github)/([\w-]+/deform_jax)", said))) == 1
    for path in SOURCES:
        badge = f"/blob/main/colab/{path.stem}.ipynb"
        assert badge in texts[path]
        assert badges.count(badge) == 2


RUN = {  # how many pictures, and what must be said
    "1_warp_an_image": (5, r"c = 15, δ = 1 px: 0\.\d\d px"),
    "2_probe_a_network": (7, r"trained {2}block1_conv1 \d\.\d\d"),
    "3_reproduce_a_figure": (2, r"\| 3\.1 \| At initialisation, pooling .*\*\*holds\*\*"),
    "4_on_a_tpu_or_gpu": (0, r"seed 1: parameters apart by at most \d\.\de-0[5-9]"),
}


def test_notebooks_run(tmp_path, monkeypatch):
    """Each from top to bottom, at the tests' sizes and away from the repository.

    In one kernel, to import jax once; between them it forgets all names.
    """
    monkeypatch.setenv("DEFORM_JAX_SMOKE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MPLBACKEND")  # the kernel's own, inline
    books = {path.stem: nbformat.read(path.with_suffix(".ipynb"), as_version=4) for path in SOURCES}
    for book in books.values():
        book.cells.append(nbformat.v4.new_code_cell("%reset -f"))
    together = nbformat.v4.new_notebook(cells=[cell for book in books.values() for cell in book.cells])
    NotebookClient(together, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert set(books) == set(RUN)
    for name, book in books.items():
        outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
        shown = [output.data for output in outputs if output.output_type in ("display_data", "execute_result")]
        said = "".join(output.text for output in outputs if output.output_type == "stream")
        said += "".join(data.get("text/markdown", "") for data in shown)
        pictures, words = RUN[name]
        assert sum("image/png" in data for data in shown) == pictures, name
        assert re.search(words, said), (name, said)
        assert not [output.text for output in outputs if output.get("name") == "stderr"], name
