"""What tests of the suites share."""

import pytest


@pytest.fixture
def known_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a session take `CEILINGS` for the machine's, and measure none."""
    from suite_cases import CEILINGS

    monkeypatch.setattr("benchmarks.suite.measure_ceilings", lambda *_: CEILINGS)
