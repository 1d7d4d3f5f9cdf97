"""Fixtures of the training tests; the task they share is in training_toys.py."""

import gc
import logging
import sys

import pytest


@pytest.fixture
def abandoned_reads(monkeypatch):
    """Contain what orbax leaves behind when one of several reads fails.

    It abandons the others: their callbacks find its event loop closed, and asyncio logs their errors when they are
    collected. Inside pytest, that formats tracebacks in the middle of anything, even of parsing code (which CPython
    3.11 does not survive: "AST constructor recursion depth mismatch").
    """
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    monkeypatch.setattr(logging.getLogger("asyncio"), "disabled", True)
    yield
    gc.collect()
