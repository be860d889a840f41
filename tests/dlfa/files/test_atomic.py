"""Files are written as a whole or not at all."""

import json
import math
import os

import pytest

from dlfa.files import atomic


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_no_number_that_is_none_is_written(tmp_path, bad):
    path = tmp_path / "results.json"
    atomic.write_json(path, {"average": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(path, {"average": bad})
    assert json.loads(path.read_text()) == {"average": 0.5}


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *values, name=name, real=real: (done.append(name), real(*values)))
    atomic.write_text(tmp_path / "file", "new")
    assert done == ["fsync", "replace"]
    assert (tmp_path / "file").read_text() == "new"


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "sub" / "file"
    atomic.write_text(path, "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic.write_text(path, "new")
    assert path.read_text() == "old"
    assert [item.name for item in path.parent.iterdir()] == ["file"]


def test_an_error_amid_the_parts_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    atomic.write_parts(path, iter([b"old", b"er"]))
    assert path.read_bytes() == b"older"

    def parts():
        yield b"new"
        raise FloatingPointError("NaN")

    with pytest.raises(FloatingPointError):
        atomic.write_parts(path, parts())
    assert path.read_bytes() == b"older"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
