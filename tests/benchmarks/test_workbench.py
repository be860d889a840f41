"""The workbench's own timing, at a size that takes seconds."""

import json

import pytest
from typer.testing import CliRunner

from benchmarks import workbench


@pytest.fixture
def command():
    """The command, as a function of its arguments, at a small size."""
    app = workbench.typer.Typer()
    app.command()(workbench.main)
    return lambda *arguments: CliRunner().invoke(app, ["--layers", "2", "--width", "32", *arguments])


def test_every_regime_and_model_has_its_seconds(command, tmp_path):
    output = tmp_path / "rows.json"
    result = command("--sentences", "16", "--repeats", "1", "--output", str(output))
    assert result.exit_code == 0, result.output
    rows = json.loads(output.read_text())
    measured = {(row["encoder"], row["model"]): row for row in rows}
    assert set(measured) == {
        ("trained", "last"), ("trained", "aif"), ("frozen", "last"), ("frozen", "aif"), ("frozen", "hidden states")
    }  # fmt: skip
    assert measured["frozen", "hidden states"]["once"] > 0
    for key, row in measured.items():
        if key[1] != "hidden states":
            assert row["train"] > 0
            assert row["evaluate"] > 0
            assert row["environment"]["device"]
    assert "seconds per 1,000 sentences" in result.stdout
    assert "frozen" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fusion-layer", "2"), "fusion_layer must be in 0..1"),
        (("--repeats", "0"), "--repeats must be at least 1, got 0"),
        (("--model", "somewhere"), "--model and --data-dir must be given together"),
    ],
)
def test_bad_arguments_are_named(command, arguments, message):
    result = command("--sentences", "2", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
