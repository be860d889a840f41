"""Made-up results files, so that what is made of results can be tested where nothing was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from suite_cases import CEILINGS

from benchmarks import providers
from benchmarks.cases import SHAPES, Case, core_case
from benchmarks.floors import PASSES, floor_us
from benchmarks.ncu import TRAFFIC_FILE
from benchmarks.results import Results, case_keys
from dlfa.files.atomic import write_text

HEADER: dict[str, Any] = {
    "gpu": "Imaginary GPU", "capability": "0.0", "torch": "2.0", "triton": "3.0", "commit": "abc",
    "command": "python -m benchmarks.aif", "copy_tb_s": 4.0, "matmul_tflop_s": 800.0,
    "date": "2001-02-03T04:05:06+00:00",
}  # fmt: skip

# Times over the floor, by provider.
TIMES_OVER_FLOOR = {providers.OURS: 1.4, providers.EAGER: 5.6, providers.COMPILE: 3.5, providers.COMPILE_TUNED: 2.8}


def add(results: Results, suite: str, pass_: str, case: Case, provider: str, median_us: float, **measured: Any) -> None:
    """Append a row."""
    floor = floor_us(case, pass_, CEILINGS) if pass_ in PASSES else None
    over = {} if floor is None else {"floor_us": floor, "of_floor": median_us / floor}
    results.add(case_keys(suite, pass_, case, provider), median_us=median_us, **over, **measured)


def aif(times_over_floor: dict[str, float] = TIMES_OVER_FLOOR) -> Results:
    """Every core size and pass, at the given multiples of the floor."""
    results = Results(dict(HEADER))
    for shape in SHAPES:
        case = core_case(shape)
        for pass_ in PASSES:
            for provider, times in times_over_floor.items():
                add(results, "aif", pass_, case, provider, times * floor_us(case, pass_, CEILINGS))
    return results


def folder(path: Path) -> Path:
    """A folder with results of every suite."""
    small, case = core_case(SHAPES[0]), core_case(SHAPES[1])
    aif().save(path / "aif.json")
    launch = Results(dict(HEADER))
    for provider, median in {
        "ours": 100.0, "eager": 260.0, "compile": 90.0, "ours+graph": 20.0, "compile+graph": 30.0,
        "compile-reduce-overhead": 40.0,
    }.items():  # fmt: skip
        add(launch, "launch", "both", small, provider, median)
    launch.save(path / "launch.json")
    step = Results(dict(HEADER))
    for provider, median in {providers.PLAIN_HEAD: 10000.0, "eager": 11000.0, "ours": 10100.0}.items():
        add(step, "step", "step", small, provider, median)
    step.save(path / "step.json")
    memory = Results(dict(HEADER))
    for shape in SHAPES:
        core = core_case(shape)
        keys = case_keys("memory", "both", core, "ours")
        memory.add(keys, saved_bytes=core.tensor_bytes // 4)
    memory.save(path / "memory.json")
    padding = Results(dict(HEADER))
    for fill, median in {1.0: 90.0, 0.3: 50.0}.items():
        add(padding, "padding", "both", replace(case, fill=fill), "ours", median)
        add(padding, "padding", "both", replace(case, fill=fill, packed=True), "ours", median / 10)
    padding.save(path / "padding.json")
    token = Results(dict(HEADER))
    add(token, "token", "forward", case, "ours", 40.0)
    token.add(case_keys("token", "forward", replace(case, token=0), "ours"), median_us=24.0)
    add(token, "token", "forward", small, "ours", 10.0)  # no target at this size
    token.add(case_keys("token", "forward", replace(small, token=0), "ours"), median_us=9.0)
    token.save(path / "token.json")
    total = {"kernel": "forward, total", "dram_read_bytes": 225, "dram_write_bytes": 100, "tensors": 3.25}
    write_text(path / TRAFFIC_FILE, json.dumps({"rows": [total]}))
    return path
