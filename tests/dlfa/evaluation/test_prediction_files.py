"""Prediction files that are damaged."""

from pathlib import Path

import pytest

from dlfa.data.examples import Question
from dlfa.evaluation.prediction_files import read_predictions
from dlfa.tasks import TASKS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id1": "a', "cannot be read as JSON"),
        (b"\xff", "cannot be read as JSON"),
        (b"3", "needed a JSON object, got int"),
        (b'"id1"', "needed a JSON object, got str"),
        (b"{}", "has no answer to question id1"),
        (b'{"id1": 3}', "the answer to question id1 must be a text, got 3"),
    ],
)
def test_damaged_answers_name_the_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "test-de.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"test-de\.json:? {message}"):
        read_predictions(TASKS["xquad"], path, [Question("id1", "who?", "Ann", (("Ann", 0),))])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for task in ("xquad", "udpos"):
        with pytest.raises(ValueError, match=r"test-de:? cannot be read"):
            read_predictions(TASKS[task], tmp_path / "test-de", [])
