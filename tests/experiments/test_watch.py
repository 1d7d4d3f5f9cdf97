"""Bars and lines of long loops."""

import sys
import time

from deform_jax.training import processes
from experiments.common import watch


def test_in_a_file_a_line_now_and_then(capsys, monkeypatch):
    assert list(watch.each("abc", "probing")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")  # which did not take long
    monkeypatch.setattr(watch, "LINES", 0)
    assert list(watch.each(range(3), "probing", unit="draw")) == [0, 1, 2]
    assert capsys.readouterr().err == "probing: 1 of 3 draws, 0 s left\nprobing: 2 of 3 draws, 0 s left\n"


def test_in_a_terminal_a_bar_that_goes_away(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(watch, "DELAY", 1e-9)
    found = []
    for one in watch.each(iter("ab"), "probing"):
        found.append(one)
        time.sleep(0.12)  # tqdm draws ten times a second
    assert found == ["a", "b"]
    text = capsys.readouterr().err
    assert "probing:  50%" in text
    assert "\n" not in text
    monkeypatch.setattr(processes, "is_writer", lambda: False)
    assert list(watch.each("ab", "probing")) == ["a", "b"]
    assert capsys.readouterr().err == ""
