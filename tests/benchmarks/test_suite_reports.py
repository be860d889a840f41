"""Results files, and what is made of them: the table of targets, README's section, plots."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import suite_results
from typer.testing import CliRunner

pytest.importorskip("triton", reason="triton is there on Linux only")

from benchmarks import plots, providers, report, targets
from benchmarks.cases import core_case
from benchmarks.readme_sections import PERFORMANCE, markers, replace_section
from benchmarks.report import ROOT
from benchmarks.results import ROW_KEYS, Results, case_keys, load, load_folder

BEGIN, END = markers(PERFORMANCE)

KEYS = case_keys("aif", "forward", core_case((2, 16, 32)), "ours")


def invoke(command: Any, *arguments: str) -> Any:
    import typer

    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments))


def test_results_file_keeps_what_it_is_given(tmp_path: Path) -> None:
    results = Results({"gpu": None})
    row = results.add(KEYS, median_us=1.5)
    results.skip(KEYS, "no time left")
    results.save(tmp_path / "deep" / "aif.json")
    assert tuple(row) == ROW_KEYS
    assert row["median_us"] == 1.5
    assert row["launches"] is None
    assert load(tmp_path / "deep" / "aif.json") == results
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["aif.json"]
    with pytest.raises(ValueError, match=r"a row must have the keys suite, pass, shape, .*, got .*, speed"):
        results.add(KEYS, speed=1)


def test_a_results_file_is_whole_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "aif.json"
    Results({"gpu": None}).save(path)
    before = path.read_text()
    broken = Results({"gpu": "Imaginary GPU"})
    broken.add(KEYS, median_us=float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        broken.save(path)
    assert path.read_text() == before
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        Results({"gpu": "Imaginary GPU"}).save(path)
    assert path.read_text() == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"header": {}, "rows": [{"suite": "aif"}], "skipped": []}', "\x00"])
def test_foreign_results_files(text: str, tmp_path: Path) -> None:
    (tmp_path / "aif.json").write_text(text)
    with pytest.raises(ValueError, match=r"aif\.json: must be a results file"):
        load_folder(tmp_path)
    for command in (targets.command, report.command):
        options = (str(tmp_path),) if command is targets.command else ("--results", str(tmp_path.parent))
        result = invoke(command, *options)
        assert result.exit_code == 2
        assert "aif.json: must be a results file" in result.stderr


def verdicts(folder: Path) -> dict[str, tuple[str, str]]:
    table = targets.targets(load_folder(folder), targets.load_traffic(folder))
    return {target.name: (target.cells[2], target.verdict) for target in table}


def test_targets(tmp_path: Path) -> None:
    found = verdicts(suite_results.folder(tmp_path))
    assert len(found) == 15
    assert found["forward, time over floor"] == ("1.40 at 256x128x768, best 1.40", "met")
    assert found["backward, time over floor"] == ("1.40 at 256x128x768, best 1.40", "met, stretch too")
    assert found["forward against best torch.compile"] == ("2.00 at 256x128x768, best 2.00", "met")
    assert found["forward against eager"] == ("4.00 at 256x128x768, best 4.00", "met")
    assert found["32x128x768, CUDA graph, both passes against best torch.compile with graphs"] == (
        "1.50 at 32x128x768", "met, but at 1 of 1 max-autotune was not measured"
    )  # fmt: skip
    assert found["32x128x768, wall clock, no graph, against eager"] == ("2.60 at 32x128x768", "met")
    assert found["32x128x768, wall clock, no graph, against torch.compile"] == ("0.90 at 32x128x768", "not met")
    assert found["DRAM traffic of forward at 256x128x768, tensors"] == ("3.25", "met")
    assert found["saved for backward beyond inputs and output, tensors"][1] == "met"
    assert found["training step of BERT-base, fused AIF over plain head"] == ("1.01", "met")
    assert found["30 % real tokens against 100 %, both passes"] == ("1.80 at 256x128x768", "not met")
    assert found["30 % real tokens, packed, against 100 %"] == ("18.00 at 256x128x768", "met where measured (1 of 3)")
    assert found["token=0 forward over full forward"] == ("0.60 at 256x128x768", "met where measured (1 of 2)")


def test_the_worst_size_counts(tmp_path: Path) -> None:
    results = suite_results.aif()
    for row in results.rows:
        if row["shape"] == [16, 4096, 1024] and row["provider"] == "ours":
            row["median_us"], row["of_floor"] = 2 * row["median_us"], 2 * row["of_floor"]
    results.rows = [row for row in results.rows if row["shape"] != [8, 512, 2560]]
    results.save(tmp_path / "aif.json")
    found = verdicts(tmp_path)
    assert found["forward, time over floor"] == ("2.80 at 16x4096x1024, best 1.40", "not met")
    assert found["forward against eager"] == ("2.00 at 16x4096x1024, best 4.00", "not met")
    assert found["both passes against best torch.compile"][1] == "not met"
    assert found["token=0 forward over full forward"] == ("", "not measured")


@pytest.mark.parametrize(("at_least", "missed"), [(False, 1.51), (True, 1.49)])
def test_a_bound_that_is_reached_is_met(at_least: bool, missed: float) -> None:
    assert targets.Target("target", 1.5, at_least, {"": 1.5}).verdict == "met"
    assert targets.Target("target", 1.5, at_least, {"": missed}).verdict == "not met"


def test_wrong_and_other_rows_do_not_count(tmp_path: Path) -> None:
    results = Results(dict(suite_results.HEADER))
    results.add(case_keys("aif", "forward", core_case((256, 128, 768)), "ours"), max_rel_error=0.5)
    results.save(tmp_path / "aif.json")
    assert {verdict for _, verdict in verdicts(tmp_path).values()} == {"not measured"}


def test_traffic_counts_where_all_of_z_was_seen_written(tmp_path: Path) -> None:
    """What stays in the cache between two kernels under counters, and is put back there, no kernel's counters have."""
    for written, verdict in ((100, "met"), (90, "not measured")):
        total = {"kernel": "forward, total", "dram_read_bytes": 200, "dram_write_bytes": written}
        total["tensors"] = (200 + written) / 100
        (tmp_path / targets.TRAFFIC_FILE).write_text(json.dumps({"rows": [total]}))
        assert verdicts(tmp_path)["DRAM traffic of forward at 256x128x768, tensors"][1] == verdict


def test_a_met_target_says_where_max_autotune_was_not_measured(tmp_path: Path) -> None:
    results = suite_results.aif()
    slow = [row for row in results.rows if row["shape"] == [16, 4096, 1024] and providers.is_tuned(row["provider"])]
    assert slow
    results.rows = [row for row in results.rows if row not in slow]
    results.save(tmp_path / "aif.json")
    name = "forward against best torch.compile"
    assert verdicts(tmp_path)[name][1] == "met, but at 1 of 5 max-autotune was not measured"


def test_targets_command(tmp_path: Path) -> None:
    result = invoke(targets.command, str(suite_results.folder(tmp_path)))
    assert result.exit_code == 0
    assert "Imaginary GPU" in result.stdout
    assert result.stdout.count("not met") == 2
    assert invoke(targets.command, str(tmp_path / "none")).stderr.startswith("dlfa: error: DIR must be a folder")
    header = {**suite_results.HEADER, "gpu": None}
    Results(header).save(tmp_path / "cpu" / "aif.json")
    result = invoke(targets.command, str(tmp_path / "cpu"))
    assert (result.exit_code, "measured on a CPU" in result.stderr) == (2, True)
    (tmp_path / targets.TRAFFIC_FILE).write_text("{}")
    assert "ncu.json: " in invoke(targets.command, str(tmp_path)).stderr


def test_report_without_results(tmp_path: Path) -> None:
    assert report.section(tmp_path, tmp_path / "README.md").startswith("Not measured yet on any GPU.")
    Results({**suite_results.HEADER, "gpu": None}).save(tmp_path / "cpu" / "aif.json")
    assert report.section(tmp_path, tmp_path / "README.md").startswith("Not measured yet on any GPU.")


def test_report_of_results(tmp_path: Path) -> None:
    folder = suite_results.folder(tmp_path / "benchmarks" / "results" / "imaginary-gpu")
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nrest\n")
    options = ("--results", str(folder.parent), "--readme", str(readme), "--write", "--plots")
    result = invoke(report.command, *options)
    assert result.exit_code == 0, result.stderr
    section = result.stdout
    assert readme.read_text() == f"# Title\n\n{BEGIN}\n{section}{END}\n\nrest\n"
    assert section.startswith("### Imaginary GPU\n\n- `python -m benchmarks.aif`")
    assert "2001-02-03, commit abc, torch 2.0, triton 3.0; copy 4.0 TB/s" in section
    (row,) = [line for line in section.splitlines() if line.startswith("| 256x128x768, forward ")]
    ours = 1.4 * 3 * 256 * 128 * 768 * 2 / 4e12 * 1e6
    assert row == f"| 256x128x768, forward | {ours:.1f} | 1.40 | 4.00x | 2.50x | 2.00x (max-autotune-no-cudagraphs) |"
    assert "| forward, time over floor | <= 1.5 (stretch 1.2) | 1.40 at 256x128x768, best 1.40 | met |" in section
    assert providers.GRAPHS_NOTE in section  # launch has a row of reduce-overhead
    for name in ("roofline", "memory"):
        assert f"](benchmarks/results/imaginary-gpu/{name}.png)" in section
    assert {path.name for path in folder.glob("*.png")} == {
        "aif.png", "roofline.png", "launch.png", "step.png", "memory.png", "padding.png", "token.png"
    }  # fmt: skip
    assert invoke(report.command, *options[:-2]).stdout == section


@pytest.mark.parametrize("text", ["", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{BEGIN}\n{END}\n"])
def test_a_readme_without_a_place_for_the_section(text: str, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    result = invoke(report.command, "--results", str(tmp_path), "--readme", str(readme), "--write")
    assert result.exit_code == 2
    assert f"README.md: must have the line {BEGIN} once" in result.stderr
    assert readme.read_text() == text


def test_readme_is_what_the_report_prints() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if BEGIN not in text or f"{BEGIN}\n{END}" in text:
        pytest.skip("README.md's performance section is not filled in: python -m benchmarks.report --write")
    assert replace_section(text, PERFORMANCE, report.section(report.RESULTS, readme)) == text


def test_committed_results_name_their_gpu_and_versions() -> None:
    for path in report.RESULTS.glob("*/*.json"):
        header = json.loads(path.read_text(encoding="utf-8"))["header"]
        assert header["gpu"], path
        assert header["commit"] not in ("", "unknown"), path


def test_roofline_points_lie_where_they_should() -> None:
    figure = plots.roofline(suite_results.aif({"ours": 2.0}))
    (axes,) = figure.axes
    points = [tuple(map(float, collection.get_offsets()[0])) for collection in axes.collections]
    assert len(points) == 12
    for intensity, rate in points:
        assert rate == pytest.approx(min(800.0, 4.0 * intensity) / 2)


def test_bars_are_as_long_as_what_they_show() -> None:
    results = suite_results.aif({"ours": 2.0, "eager": 6.0})
    figure = plots.grouped_bars(plots.Bars(lambda row: row["of_floor"], plots.size, "times"), results)
    widths = sorted({round(bar.get_width(), 6) for bar in figure.axes[0].patches})
    assert widths == [2.0, 6.0]
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"ours", "eager"}
