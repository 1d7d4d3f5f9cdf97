"""What is made of measurements: tables of ratios and targets, and of where a whole figure's time goes."""

import json
import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent


def test_a_whole_figure_is_timed_from_each_start(tmp_path, monkeypatch):
    import records
    import whole

    from experiments.common import clock

    assert clock.PARTS == whole.PARTS
    seen = []

    def experiments(*arguments, cache):
        if arguments == ("--help",):
            return 0.5
        runs, results = (pathlib.Path(arguments[arguments.index(name) + 1]) for name in ("--runs", "--results"))
        seen.append((cache.exists(), runs.exists()))
        for folder in (cache, runs, results):
            folder.mkdir(exist_ok=True)
        split = {"train": 3.0, "probe": 1.0} if len(seen) % 3 else {"probe": 2.0}
        first = {"seconds_to_first_step": 1.5} if len(seen) % 3 else {}
        facts = {"wall_split": split, "seconds_to_first_probe": 4.0, **first}
        (results / "provenance.json").write_text(json.dumps(facts), encoding="utf-8")
        return 5.0

    monkeypatch.setattr(whole, "experiments", experiments)
    monkeypatch.setattr(sys, "argv", ["whole.py", "--repeats", "2", "--out", str(tmp_path)])
    whole.main()
    # What is there before: programs and networks of no start, programs alone, both; and so in the next round.
    assert seen == [(False, False), (True, False), (True, True)] * 2
    assert len(records.read_csv(tmp_path / "whole.csv")) == 8
    text = (tmp_path / "whole.md").read_text(encoding="utf-8")
    assert "| nothing compiled before | 5 | 0 | 0 | 0 | 75 | 25 | 0 | 0 | 1.5 | 4.0 |" in text
    assert "| trained networks kept too | 5 | 0 | 0 | 0 | 0 | 100 | 0 | 0 | – | 4.0 |" in text
    assert "`python -m experiments --help`: 0.50 s." in text


def test_the_readme_has_the_tables_of_the_committed_results():
    import report

    text = (HERE.parents[1] / "README.md").read_text(encoding="utf-8")
    for name, section in report.SECTIONS.items():
        begin, end = report.marks(name)
        assert text.split(begin)[1].split(end)[0].strip() == section(HERE / "results")


def test_the_readmes_table_has_ratios_of_both_runs(tmp_path):
    import records
    import report

    for folder, rate in (("cpu", 2000.0), ("cpu_again", 3000.0), ("cpu_newest", 1000.0)):
        rows = [
            {"work": "tps_32", "contender": name, "rate": r, "unit": "images/s", "peak_gib": 0.5}
            for name, r in (("deform_jax", 6000.0), ("kornia", rate))
        ]
        records.write_csv(tmp_path / folder / "table.csv", rows)
        target = {
            "work": "tps_32",
            "contender": "deform_jax",
            "asked": "≥ 2 × it",
            "found": 6000 / rate,
            "met": rate < 3000,
        }
        records.write_csv(tmp_path / folder / "targets.csv", [target])
        facts = {"hardware": {"cores": 2, "processor": "p"}, "arguments": {"threads": 2}, "versions": {"jax": "1"}}
        facts["versions_of_ours"] = {"jax": "2"} if folder == "cpu_newest" else None
        (tmp_path / folder / "provenance.json").write_text(json.dumps(facts), encoding="utf-8")
    text = report.side_by_side(tmp_path)
    assert "| ours is so many times as fast | again | ours with jax 2 | peak memory, GiB |" in text
    assert "|  | kornia | 2,000 images/s | 3 | 2 | 6 | 0.50 |" in text
    assert "| ≥ 2 × it | 3.00, met | 2.00, not met | 6.00, met |" in text
    shutil.rmtree(tmp_path / "cpu_newest")
    text = report.side_by_side(tmp_path)
    assert "|  | kornia | 2,000 images/s | 3 | 2 | 0.50 |" in text
    assert "| ≥ 2 × it | 3.00, met | 2.00, not met |" in text
    for name in ("table.csv", "targets.csv"):  # a work that was run once
        first = records.read_csv(tmp_path / "cpu" / name)
        records.write_csv(tmp_path / "cpu" / name, [*first, *({**row, "work": "tps_224"} for row in first)])
    text = report.side_by_side(tmp_path)
    assert "|  | kornia | 2,000 images/s | 3 | – | 0.50 |" in text
    assert "| ≥ 2 × it | 3.00, met | – |" in text
