"""DRAM traffic by NVIDIA's counters: ncu's log, and a run of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", reason="triton is there on Linux only")

from fake_tools import program

from benchmarks import ncu
from benchmarks.cases import BASE_SHAPE, core_case

FLUSH = "void at::native::reduce_kernel<(int)512, (int)1, at::native::ReduceOp<float, ...>>(T3)"
COLUMNS = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size","Device",'
    '"CC","Section Name","Metric Name","Metric Unit","Metric Value"'
)


def ncu_log(kernels: list[tuple[str, str, str]], unit: str = "byte") -> str:
    """What ncu writes for kernels with these bytes read and written."""
    lines = ["==PROF== Connected to process 7 (/usr/bin/python3.12)", '==PROF== Profiling "k" - 0: 0%....100% - 1 pass']
    lines += ["==PROF== Disconnected from process 7", COLUMNS]
    for index, (name, *values) in enumerate(kernels):
        for metric, value in zip((ncu.READ_METRIC, ncu.WRITE_METRIC), values, strict=True):
            cells = (index, 7, "python3.12", "127.0.0.1", name, 1, 7, "(256, 1, 1)", "(512, 1, 1)", 0, "9.0",
                     "Command line profiler metrics", metric, unit, value)  # fmt: skip
            lines.append(",".join(f'"{cell}"' for cell in cells))
    return "\n".join(lines) + "\n"


KERNELS = [
    ("squeeze_kernel", "100,663,296", "1,048,576"),
    ("expand_kernel", "2,097,152", "40,000,000"),
    (FLUSH, "250,000,000", "10,331,648"),
    ("reduce_kernel", "150,994,944", "0"),
    (FLUSH, "250,000,000", "50,331,648"),
]


def test_counters_are_read_from_the_log() -> None:
    kernels = ncu.parse(ncu_log(KERNELS))
    assert [kernel["kernel"] for kernel in kernels] == [name for name, *_ in KERNELS]
    assert kernels[0] == {"kernel": "squeeze_kernel", "dram_read_bytes": 100663296, "dram_write_bytes": 1048576}
    tensor = 256 * 128 * 768 * 2
    rows = {row.pop("kernel"): row for row in ncu.traffic_rows(kernels, tensor)}
    assert list(rows) == [
        "forward, squeeze_kernel", "forward, expand_kernel", "forward, written back", "forward, total",
        "backward, reduce_kernel", "backward, written back", "backward, total",
    ]  # fmt: skip
    total = rows["forward, total"]
    assert total["dram_read_bytes"] == 100663296 + 2097152
    assert total["dram_write_bytes"] == 1048576 + 40000000 + 10331648
    assert total["tensors"] == pytest.approx((total["dram_read_bytes"] + total["dram_write_bytes"]) / tensor, abs=1e-4)
    assert rows["backward, total"]["tensors"] == pytest.approx(4.0)
    assert rows["backward, written back"]["dram_read_bytes"] == 0


def test_units_of_counters() -> None:
    (kernel,) = ncu.parse(ncu_log([("k", "1.5", "2")], unit="Mbyte"))
    assert (kernel["dram_read_bytes"], kernel["dram_write_bytes"]) == (1_500_000, 2_000_000)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("==ERROR== ERR_NVGPUCTRPERM\n", "ncu gave no table; its last line: ==ERROR== ERR_NVGPUCTRPERM"),
        ("", "ncu gave no table; its last line: nothing"),
        (ncu_log([("k", "1", "2")], unit="inch"), "ncu's unit must be one of byte, .*, got 'inch'"),
        (ncu_log([("k", "n/a", "2")]), r"ncu's value of dram__bytes_read.sum of k must be a number, got 'n/a'"),
        (ncu_log([("k", "1", "2")]).rsplit("\n", 2)[0], "ncu gave no dram__bytes_write.sum of k"),
    ],
)
def test_logs_without_counters(log: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ncu.parse(log)


@pytest.mark.parametrize("kernels", [KERNELS[:3], KERNELS[:4], [*KERNELS, KERNELS[0]], [*KERNELS, KERNELS[2]], []])
def test_passes_must_be_whole(kernels: list[tuple[str, str, str]]) -> None:
    given = [{"kernel": name, "dram_read_bytes": 1, "dram_write_bytes": 1} for name, *_ in kernels]
    with pytest.raises(ValueError, match="ncu must see kernels of 2 passes"):
        ncu.traffic_rows(given, 1)


def test_counters_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = ncu_log(KERNELS)
    program(
        tmp_path, "ncu", f"open(sys.argv[sys.argv.index('--log-file') + 1], 'w').write({log!r})", monkeypatch
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Imaginary GPU")
    rows = ncu.measure(tmp_path, 30)
    content = json.loads((tmp_path / "ncu.json").read_text())
    assert content["rows"] == rows
    assert content["header"]["replays"] == 1
    assert content["header"]["shape"] == list(BASE_SHAPE)
    assert all(row.keys() == {"kernel", "dram_read_bytes", "dram_write_bytes", "tensors"} for row in rows)
    ncu.measure(tmp_path, 30, 0.5)
    assert json.loads((tmp_path / "ncu-l2-50.json").read_text())["header"]["command"].endswith("ncu --l2-share 0.5")
    program(tmp_path, "ncu", "print('==ERROR== no permission')\nsys.exit(9)", monkeypatch)
    with pytest.raises(ValueError, match="ncu ended with status 9; its last line: ==ERROR== no permission"):
        ncu.measure(tmp_path, 30)


def test_the_third_calls_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first compiles and the second keeps; all later ones are replays."""
    order: list[str] = []
    monkeypatch.setattr(ncu, "choose_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(ncu, "core_case", lambda shape: core_case((2, 5, 32)))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(L2_cache_size=1024))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    for name in ("start", "stop"):
        monkeypatch.setattr(torch.cuda.profiler, name, lambda name=name: order.append(name))
    for name in ("forward", "backward"):
        monkeypatch.setattr(f"benchmarks.calls.run_{name}", lambda *given, name=name: order.append(name))
    ncu.launch_passes(None)
    warm_up = ["forward", "backward"] * 2
    assert order == [*warm_up, "start", "forward", "stop", "start", "backward", "stop"]
