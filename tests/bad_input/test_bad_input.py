"""Every public function against a few hostile arguments, and that the campaign sees what goes wrong.

``python tests/bad_input/campaign.py`` tries many more.
"""

import importlib

import campaign
import campaign_runner
import pytest

CASES = [case for module in campaign.MODULES for case in importlib.import_module(module).CASES]
CHEAP = [case for case in CASES if not case.dear]
EXAMPLES = 6


@pytest.mark.parametrize("case", CHEAP, ids=[case.name for case in CHEAP])
def test_hostile_arguments_are_refused_by_our_error_or_do_no_harm(case):
    count = campaign_runner.run(case, EXAMPLES, seed=0, seconds=0)
    assert not count.failures, "\n".join(f"{kind}: {call}" for kind, call in count.failures)


@pytest.mark.parametrize("case", [case for case in CASES if case.traced], ids=[c.name for c in CASES if c.traced])
def test_traced_arguments_pass_unexamined(case):
    campaign_runner.trace(case)


@pytest.mark.parametrize("module", campaign.MODULES)
def test_every_public_name_is_in_the_campaign(module):
    package = importlib.import_module(f"deform_jax.{module.removeprefix('cases_')}")
    table = importlib.import_module(module)
    tried = {case.public.split(".")[1] for case in table.CASES}
    exempt = {name.split(".")[1] for name in table.EXEMPT}
    public = {name for name in package.__all__ if callable(getattr(package, name))}
    assert public - tried - exempt == set()
    assert not (tried | exempt) - public
    assert not tried & exempt


def test_the_campaign_counts_what_goes_wrong():
    """Crash, hang and hunger included, each by the call that it came of; and goes on after them."""
    found = {row["function"]: row for row in campaign.rows("planted_cases", campaign.Settings(20, 0, limit=3))}
    kinds = {name: [f["kind"].split(":")[0] for f in row["failed"]] for name, row in found.items()}
    assert kinds.pop("planted.refuses") == []
    assert found["planted.refuses"]["refused"] > 0
    assert kinds.pop("planted.crashes") == ["crash (exit -11"]
    expected = {"planted.foreign": ["KeyError"], "planted.silent": ["silent NaN"], "planted.hangs": ["hang"]}
    assert kinds == {**expected, "planted.hungry": ["MemoryError"]}
    calls = {name: row["failed"][0]["call"] for name, row in found.items() if row["failed"]}
    for name, value in {"foreign": -3, "silent": 2, "crashes": 7, "hangs": -3, "hungry": 2}.items():
        assert calls[f"planted.{name}"].startswith(f"planted.{name}(value={value})")
