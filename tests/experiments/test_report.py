"""The report: every figure on a page that needs nothing else, and what it says where results are missing or damaged."""

import html.parser
import json
import re
import subprocess
import urllib.parse

import numpy as np
import pytest
from PIL import Image

from experiments.__main__ import figures
from experiments.__main__ import main as run
from experiments.common import tables
from experiments.common.report import command, contents, files, pages

VOID = {"meta", "link", "img", "br", "hr", "input"}
FIG3 = "fig3_layer_sensitivity"
CLAIM = {
    "claim": "pooling",
    "kind": "claim",
    "place": "3.10",
    "sentence": "Pooling <matters> | a lot",
    "statistic": "ratio",
    "holds_if": "> 1",
    "interval": "over seeds",
    "value": 1.5,
    "low": 1.25,
    "high": 1.75,
    "verdict": "holds",
    "figure": FIG3,
    "scale": "demo-<b>bold",
    "data": "images",
    "images_trained_on": 10,
    "networks_per_group": 3,
}


class Page(html.parser.HTMLParser):
    """Elements in order, (tag, attributes); the text; and whether every element was closed where it must be."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def values(self, name):
        return [attributes[name] for _, attributes in self.elements if name in attributes]

    def words(self):
        return " ".join(self.text.split())


def check(text):
    """What every page must be: self-contained, with links that lead somewhere, and readable without seeing it."""
    page = Page(text)
    ids = page.values("id")
    assert len(set(ids)) == len(ids)
    for address in [*page.values("href"), *page.values("src")]:
        inside = address.startswith("#") and address[1:] in ids
        assert inside or address.startswith("data:") or address in contents.LINKS.values(), address
    assert not {"script", "iframe", "object", "base", "form"} & {tag for tag, _ in page.elements}
    assert not re.search(r"url\(|@import", text)
    assert all(image["src"].startswith("data:image/") and len(image["alt"]) > 10 for image in page.all("img"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert max(np.diff(levels)) <= 1
    assert levels.count(1) == 1
    assert page.all("html") == [{"lang": "en"}]
    assert all("scope" in cell for cell in page.all("th"))
    assert all(one in ids for labels in page.values("aria-labelledby") for one in labels.split())
    return page


def made_up(folder, *, tag, record=None):
    """A results folder of Fig. 3 with a tiny picture, a summary and a long table."""
    folder = folder / FIG3 / f"demo{tag}"
    folder.mkdir(parents=True)
    settings = {"networks": {"seeds": 7, "training": {"width": 0.25, "gone": [1, 2]}}}
    known = {
        "command": f"python -m experiments {FIG3} --tag '{tag}'",
        "scale": "demo",
        "settings": settings,
        "device": {"platform": "cpu", "kind": "cpu", "count": 2},
        "cores": 2,
        "commit": "abc123",
        "wall_seconds": 12.5,
        "wall_split": {"train": 10.04, "plot": 0.01},
    }
    (folder / "provenance.json").write_text(json.dumps(known) if record is None else record)
    tables.write(folder / "summary.csv", [{"statistic": "<script>alert(1)</script>", "value": 0.123456, "low": "nan"}])
    tables.write(folder / "table.csv", [{"layer": f"layer{n}", "value": n} for n in range(files.LISTED_ROWS + 1)])
    tables.write(folder / "accuracy.csv", [{"network": f"network{n}"} for n in range(files.SHOWN_ROWS + 2)])
    Image.new("RGB", (40, 20), "red").save(folder / f"{FIG3}.png", dpi=(200, 200))
    return folder


def report(tmp_path, *arguments):
    """Run the command on made-up results; return the page, and the Markdown."""
    given = ["report", *arguments, "--results", str(tmp_path / "made"), "--output", str(tmp_path / "out")]
    assert run(given) == 0
    text, markdown = ((tmp_path / "out" / f"report.{kind}").read_text() for kind in ("html", "md"))
    return check(text), markdown


@pytest.fixture(scope="module")
def chapters():
    """All of the results that are there, without encoding their pictures, which takes ten seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "picture", lambda path: files.Picture(path, "data:image/webp;base64,", 720, 290))
        return contents.gather(contents.Wanted(tuple(figures()), ("smoke", "demo", "paper", "imagenet"), None))


def test_every_figure_is_on_the_page_of_the_committed_results(chapters):
    assert not list(contents.problems(chapters))
    page = check(pages.html(chapters, commit="unknown"))
    assert set(figures()) <= {attributes.get("id") for tag, attributes in page.elements if tag == "h3"}
    found = [figure for chapter in chapters for figure in chapter.figures]
    assert sum(len(figure.results) for figure in found) > 40
    for figure in found:
        folder = contents.listing.ROOT / figures()[figure.name][0] / "results" / figure.name
        assert {one.name for one in figure.results} == {path.parent.name for path in folder.glob("*/provenance.json")}
        assert figure.results or f"python -m experiments {figure.name} --scale demo" in page.text
    markdown = pages.markdown(chapters, command.FOLDER)
    for address in re.findall(r"\]\((?!http|#)([^)]+)\)", markdown):
        assert (command.FOLDER / urllib.parse.unquote(address)).is_file()


def test_the_committed_markdown_is_that_of_the_committed_results(chapters):
    root = contents.listing.ROOT
    folders = (str(path) for path in (root / "results", *root.glob("*/results")))
    asked = ["git", "-C", str(root), "status", "--porcelain", "--", *folders]
    try:
        changed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git repository, so that results made here cannot be told from the committed ones")
    if any("/report/" not in line for line in changed):
        pytest.skip("results were made anew here: commit them with the report of python -m experiments report")
    committed = (command.FOLDER / "report.md").read_text(encoding="utf-8")
    assert committed == pages.markdown(chapters, command.FOLDER), "Write it again: python -m experiments report"


def test_results_are_shown_with_their_claims_settings_and_costs(tmp_path, capsys):
    made_up(tmp_path / "made", tag="-<b>bold")
    tables.write(tmp_path / "made" / "claims.csv", [CLAIM])
    page, markdown = report(tmp_path, FIG3, "fig4_smoothed_initialisation")
    printed = capsys.readouterr()
    assert "1 of 2 figures have results" in printed.out
    assert [(image["width"], image["height"]) for image in page.all("img")] == [("20", "10")]
    for text in (page.words(), markdown):
        assert "python -m experiments fig4_smoothed_initialisation --scale demo" in text
        assert "1.5 (1.25 to 1.75)" in text
        assert "3.10" in text
        assert re.search(r"networks\.seeds`? 7 \(3\)", text)
        assert re.search(r"networks\.training\.gone`? 1, 2 \(no such setting any more\)", text)
        assert "networks.training.width" not in text
        assert "cpu: 2 devices, 2 CPU cores" in text
        assert "12.5 s" in text
        assert "train 10.0 s" in text
        assert "plot" not in text.split("train 10.0 s")[1].split("Commit")[0]
        assert "abc123" in text
        assert "0.1235" in text
        assert str(tmp_path) not in text
    assert "layer0" not in page.text
    assert f"table.csv, {files.LISTED_ROWS + 1} rows: layer, value" in page.words()
    assert f"network{files.SHOWN_ROWS - 1}" in page.text
    assert f"network{files.SHOWN_ROWS}" not in page.text
    # Names and cells are text, whatever they look like.
    assert "demo-<b>bold" in page.text
    assert "<script>alert(1)</script>" in page.text
    assert not page.all("b") or all("demo" not in str(one) for one in page.all("b"))
    assert "Pooling &lt;matters&gt; \\| a lot" in markdown
    assert "&lt;script&gt;" in markdown
    assert "%3Cb%3E" in markdown


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("provenance.json", b"{", "provenance.json cannot be read: Expecting property name"),
        ("provenance.json", b"\xff", "provenance.json cannot be read"),
        ("provenance.json", b"[]", "provenance.json is damaged: it does not say command, settings, scale."),
        ("provenance.json", None, "provenance.json cannot be read: there is none"),
        ("summary.csv", b"", "summary.csv cannot be read as a table"),
        ("summary.csv", b"a,b\n1\n", "summary.csv is damaged: line 2 has 1 cells, its header 2."),
        (f"{FIG3}.png", b"\x89PNG\r\n\x1a\n", f"{FIG3}.png cannot be read as a picture"),
        (f"{FIG3}.png", None, "There is no picture."),
        ("../../claims.csv", b"claim,verdict\npooling,holds\n", "claims.csv is damaged, or of another version."),
        ("../../claims.csv", None, "Run `python -m experiments claims learned_stability`"),
    ],
)
def test_what_cannot_be_read_is_said_on_the_page(name, content, message, tmp_path, capsys):
    folder = made_up(tmp_path / "made", tag="")
    tables.write(tmp_path / "made" / "claims.csv", [CLAIM | {"scale": "demo"}])
    path = folder / name
    path.unlink() if content is None else path.write_bytes(content)
    page, markdown = report(tmp_path, FIG3)
    assert message in page.words()
    assert "**Problem:**" in markdown
    assert message in capsys.readouterr().err
    assert f"python -m experiments {FIG3}" in page.text  # what makes them again
    assert ("0.1235" in page.text) == (name != "summary.csv")


def test_only_what_is_asked_for_is_on_the_page(tmp_path):
    for tag in ("", "-other"):
        made_up(tmp_path / "made", tag=tag)
    page, _ = report(tmp_path, "--papers", "learned_stability", "--scales", "demo")
    assert {f"{FIG3}.demo", f"{FIG3}.demo-other"} <= set(page.values("id"))
    assert "fig2_pooling" not in page.values("id")
    page, _ = report(tmp_path, "--scales", "paper")
    assert f"{FIG3}.demo" not in page.values("id")
    assert f"python -m experiments {FIG3} --scale paper" in page.text
    assert "python -m experiments pose_sensitivity --scale paper" in page.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fig99"], "there is no figure fig99"),
        ([FIG3, "--papers", "spatial_information"], "are not of spatial_information"),
        (["--scales", "huge"], "invalid choice: 'huge'"),
        (["--results", "nowhere"], "--results must be a folder, but there is none at nowhere"),
    ],
)
def test_impossible_reports_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run(["report", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_an_output_that_is_no_folder_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="`output` must be a folder to write to"):
        run(["report", "--output", str(tmp_path / "file" / "out")])
