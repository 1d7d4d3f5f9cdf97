"""The package as a whole: who imports whom, what loads when, public names and their docstrings, the README."""

import ast
import csv
import importlib.metadata
import importlib.resources
import inspect
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deform_jax
from deform_jax import checks

ROOT = pathlib.Path(__file__).parents[1]
PARTS = ("warps", "data", "models", "training", "probes")
HEAVY = {"flax", "optax", "orbax", "tensorflow", "tensorflow_datasets", "matplotlib", "pooch", "tqdm", "PIL", "torch"}
HEAVY |= {"scipy", "skimage", "safetensors", "huggingface_hub", "equinox"}
RESULTS = ROOT / "experiments" / "learned_stability" / "results"


def imported(path):
    """Return the absolute names a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("part", PARTS)
def test_imports_run_one_way(part):
    allowed = {part, "typing", "checks"} | ({"warps"} if part == "data" else set())
    for path in (ROOT / "deform_jax" / part).rglob("*.py"):
        names = {name.split(".")[1] for name in imported(path) if name.startswith("deform_jax.")}
        assert names <= allowed, path
        assert not [name for name in imported(path) if name.split(".")[0] == "experiments"], path
        if "warps" in names and part == "data":
            assert path.name == "deformed_templates.py", path


@pytest.fixture(scope="module")
def loaded():
    """The modules that one process holds after each of these in turn."""
    statements = ["import deform_jax", *(f"deform_jax.{part}" for part in ("probes", "warps", "data", "models"))]
    script = "import sys\n" + "".join(f"{line}\nprint(*sys.modules)\n" for line in statements)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    names = [set(line.split()) for line in ended.stdout.splitlines()]
    return dict(zip(("deform_jax", "probes", "warps", "data", "models"), names, strict=True))


def test_probes_warps_and_data_load_nothing_heavy_nor_one_another(loaded):
    assert not loaded["data"] & HEAVY
    assert not loaded["probes"] & {f"deform_jax.{part}" for part in PARTS if part != "probes"}
    assert not loaded["warps"] & {f"deform_jax.{part}" for part in PARTS if part not in ("probes", "warps")}
    assert "jax" in loaded["probes"]


def test_the_package_itself_loads_nothing_and_parts_load_on_access(loaded):
    assert not loaded["deform_jax"] & {"jax", "numpy", *HEAVY}
    assert all(f"deform_jax.{part}" in loaded[part] for part in ("probes", "warps", "data", "models"))
    assert "flax" in loaded["models"]
    assert set(PARTS) <= set(dir(deform_jax))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        deform_jax.nothing  # noqa: B018


@pytest.mark.parametrize("part", PARTS)
def test_every_public_name_is_documented(part):
    module = getattr(deform_jax, part)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        value = getattr(module, name)
        if callable(value):
            assert len(inspect.getdoc(value) or "") > 40, f"{part}.{name}"


def test_distribution_is_typed_licensed_and_versioned():
    files = importlib.resources.files("deform_jax")
    assert (files / "py.typed").is_file()
    assert (files / "data" / "embedded" / "LICENSE.fashion_mnist.txt").is_file()
    metadata = importlib.metadata.metadata("deform_jax")
    assert metadata["License-Expression"] == "Apache-2.0"
    assert f"version: {metadata['Version']}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def blocks(language, section=None):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    if section is not None:
        text = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def executed(section):
    """All snippets of a section in one namespace, as a reader would type them, but for fewer images and small networks.

    The namespace, and how many snippets there are.
    """
    namespace, found = {}, blocks("python", section)
    smaller = {"[:128]": "[:32]", "block_vgg_cifar10": "block_vgg_tiny", "block4_down": "block2_down"}
    for block in found:
        for given, instead in smaller.items():
            block = block.replace(given, instead)
        exec(block, namespace)
    return namespace, len(found)


@pytest.mark.parametrize("name", ["faults/results/faults", "bad_input/results/counts", "versions/results/versions"])
def test_readme_s_tables_are_those_that_campaigns_wrote(name):
    text = (ROOT / "tests" / f"{name}.md").read_text(encoding="utf-8")
    table = re.search(r"(^\|.*\n)+", text, re.MULTILINE)[0]  # the first one
    assert table in (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_quotes_the_measured_numerics():
    """Its bounds, of the largest errors in the table that `tests/numerics/report.py` wrote."""
    with (ROOT / "tests/numerics/results/numerics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    quoted = re.search(
        r"given in float32, their error is at most ([\d.e-]+), however small the perturbation from 0\.1 to 0\.0001; "
        r"in bfloat16, whose own rounding costs at most ([\d.e-]+) at 0\.1, no digit is left of some at ([\d.]+)\. "
        r"Through a small VGG, .*? it is at most ([\d.e-]+) at 0\.1 and ([\d.e-]+) at 0\.0001",
        text,
    )
    assert quoted is not None
    distances = ("cosine_distance", "squared_distance", "euclidean_distance")
    probes = ("sensitivity", "sensitivity_parts", "relative_sensitivity", "streamed_relative_sensitivity", *distances)
    chosen = [row for row in rows if row["probe"] in probes]
    given = [row for row in chosen if "VGG" not in row["options"]]
    through = [row for row in chosen if "VGG" in row["options"]]

    def largest(rows, dtype, perturbation=None, field="error"):
        wanted = [row for row in rows if row["dtype"] == dtype and perturbation in (None, row["perturbation"])]
        assert wanted
        return max(float(row[field]) for row in wanted)

    assert float(quoted[1]) >= largest(given, "float32") > float(quoted[1]) / 2
    rounding = largest(
        [row for row in given if row["probe"] != "sensitivity_parts"], "bfloat16", "0.1", "with_rounding"
    )
    assert float(quoted[2]) >= rounding > float(quoted[2]) / 2
    assert largest(given, "bfloat16", quoted[3], "with_rounding") > 1
    assert float(quoted[4]) >= largest(through, "float32", "0.1") > float(quoted[4]) / 2
    assert float(quoted[5]) >= largest(through, "float32", "0.0001") > float(quoted[5]) / 2


def test_readme_s_first_two_bash_blocks_run_the_main_job_and_the_tests():
    main, tests = blocks("bash")[:2]
    assert "python -m experiments fig3_layer_sensitivity --scale demo" in main
    assert "python -m pytest" in tests


def test_readme_s_python_runs(capsys):
    namespace, _ = executed("Use the parts")
    assert namespace["deformed"].shape == (32, 32, 32, 1)
    assert len(capsys.readouterr().out.splitlines()) == len(namespace["sensitivity"]) == 5
    assert len(namespace["smoothness"]) == 2
    smoother = deform_jax.probes.filter_statistics(namespace["smoother"], deform_jax.probes.total_variation, size=3)
    assert all(smoother[layer] < value for layer, value in namespace["smoothness"].items())
    assert namespace["worst"].distances["block2_down"].shape == (8,)
    assert list(namespace["relative"].ratio) == [*namespace["sensitivity"], "output"]
    assert all(value.shape == (9,) for value in namespace["power"].values())
    assert list(namespace["moved"]) == ["input", "layers_0", "layers_2", "output"]
    assert round(namespace["theory"].noise[-1], 4) == 2.9570
    assert list(namespace["widths"]) == ["input", *(f"conv{k:02d}" for k in range(1, 13))]


def test_readme_answers_how(tmp_path, monkeypatch, capsys):
    """With a folder of photographs, one of them damaged, and one of two classes, where the reader would have them."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 24, 30, 3), np.uint8)
    for place, image in {"photos/a.png": pixels[0, 0], "photos/b.jpg": pixels[0, 0, :20]}.items():
        deform_jax.data.write_photograph(place, image)
    pathlib.Path("photos/cut.jpg").write_bytes(b"none")
    for (label, index), image in ((at, pixels[at]) for at in np.ndindex(2, 40)):
        deform_jax.data.write_photograph(f"my_images/{'ab'[label]}/{index:02d}.png", image // (1 + label))
    with pytest.warns(UserWarning, match=r"Left out: .*cut\.jpg"):
        namespace, count = executed("How do I …")
    assert count + len(blocks("python", "Use the parts")) == len(blocks("python"))
    for name in ("a.png", "b.jpg"):
        before, after = (deform_jax.data.read_photograph(f"{place}/{name}") for place in ("photos", "deformed"))
        assert before.shape == after.shape
        assert abs(before - after).max() > 0.1
    assert sorted(path.name for path in pathlib.Path("deformed").iterdir()) == ["a.png", "b.jpg"]
    assert pathlib.Path("sensitivity.png").stat().st_size > 5000
    assert list(namespace["represent"](namespace["images"][:2, ..., :1])) == [
        "input",
        "Conv_0",
        "Conv_1",
        "Dense_0",
        "output",
    ]
    assert list(namespace["sensitivity"])[-1] == "block2_down"
    assert [namespace["run"].seed, *(run.seed for run in namespace["runs"])] == [0, 0, 1]
    assert pathlib.Path("runs/mine/states/final").is_dir()


@pytest.mark.parametrize(
    ("figure", "folder"),
    [
        ("fig3_layer_sensitivity", "demo"),
        ("fig3_layer_sensitivity", "demo-full_fashion_mnist"),
        ("fig6_filter_smoothness", "demo-full_fashion_mnist"),
    ],
)
def test_readme_quotes_what_the_committed_tables_say(figure, folder):
    module = importlib.import_module(f"experiments.learned_stability.{figure}")
    from experiments.common import tables

    rows = tables.read(RESULTS / figure / folder / "table.csv")
    text = module.show(rows, module.summarise(rows))
    said = " ".join(text.split("\n\n")[-1].split())
    quoted = (ROOT / "README.md").read_text(encoding="utf-8").replace("\n> ", " ")
    assert said in " ".join(quoted.split())
    with (RESULTS / figure / folder / "summary.csv").open(newline="", encoding="utf-8") as file:
        committed = {row["statistic"]: float(row["value"]) for row in csv.DictReader(file)}
    assert committed == pytest.approx({row["statistic"]: row["value"] for row in module.summarise(rows)})


def test_array_check_takes_what_users_pass_and_names_what_is_wrong():
    assert checks.array("x", [[1.0, 2.0]], "h w").shape == (1, 2)
    assert checks.array("x", np.zeros((2, 3, 4)), "... c").shape == (2, 3, 4)
    for value, dims, kind, error, message in [
        ("text", "h w", "float", TypeError, r"`x` must be an array of shape \(h, w\), but 'text'"),
        ([[1.0], [1.0, 2.0]], "h w", "float", TypeError, "must be an array"),
        (np.zeros((2, 2), int), "h w", "float", TypeError, "must hold floating-point numbers, but its dtype is int64"),
        (np.zeros((2, 2)), "h w", "integer", TypeError, "must hold integer numbers"),
        (np.zeros((2, 2), bool), "h w", "real", TypeError, "must hold real numbers"),
        (np.zeros(2), "h w", "float", ValueError, r"must have shape \(h, w\), but its shape is \(2,\)"),
        (np.zeros((2, 3)), "h 2", "float", ValueError, r"must have shape \(h, 2\), but its shape is \(2, 3\)"),
        (np.zeros((0, 3)), "h w", "float", ValueError, "must not be empty"),
        (np.array([[1, np.nan]]), "h w", "float", ValueError, r"must be finite, but it holds 1 .* at index \(0, 1\)"),
    ]:
        with pytest.raises(error, match=message):
            checks.array("x", value, dims, kind=kind, finite=True)


def test_value_checks_look_at_concrete_arrays_only():
    bad = jnp.array([jnp.nan])
    checked = jax.jit(lambda x: checks.array("x", x, "n", finite=True))
    assert np.isnan(checked(bad)).all()  # traced: not known in Python
    with pytest.raises(ValueError, match="must be finite"):
        jax.jit(lambda x: x + checks.array("bad", bad, "n", finite=True))(jnp.ones(1))  # closed over: known


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: checks.integer("k", 1.5), TypeError, r"`k` must be an integer, but 1.5 \(float\)"),
        (lambda: checks.integer("k", True), TypeError, "must be an integer"),
        (lambda: checks.integer("k", 0, minimum=1, maximum=9), ValueError, "must be an integer ≥ 1 and ≤ 9, but 0"),
        (lambda: jax.jit(lambda k: checks.integer("k", k))(1), TypeError, "a traced array was given. Mark it static"),
        (lambda: checks.number("s", float("inf")), ValueError, "must be a finite number, but inf"),
        (lambda: checks.number("s", 0, minimum=0, exclusive=True), ValueError, "> 0, but 0"),
        (lambda: checks.number("s", "1"), TypeError, r"but '1' \(str\) was given"),
        (lambda: jax.jit(lambda s: checks.number("s", s))(jnp.ones(2)), TypeError, r"an array of shape \(2,\)"),
        (lambda: checks.option("o", "b", ("a", "c")), ValueError, "must be one of 'a', 'c', but 'b'"),
        (lambda: checks.option("o", 3, ("a",)), TypeError, "must be one of 'a'"),
        (lambda: checks.size_pair("p", (1, 2, 3)), TypeError, "must be a pair of integers"),
        (lambda: checks.size_pair("p", (1, 2.0)), TypeError, "must be a pair of integers"),
        (lambda: checks.size_pair("p", (1, 1), minimum=2), ValueError, r"each ≥ 2, but \(1, 1\)"),
        (lambda: jax.jit(lambda p: checks.size_pair("p", p))(jnp.ones(2)), TypeError, "a traced array was given"),
        (lambda: checks.same_shape("a", jnp.ones(2), "b", jnp.ones(3)), ValueError, r"the shape of `b`, \(3,\)"),
    ],
)
def test_every_other_check_says_what_must_hold_and_what_was_given(call, error, message):
    with pytest.raises(error, match=message):
        call()
