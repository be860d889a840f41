"""Count the kernels that a pass launches: ours by recorded launches, others' by torch's profiler, after all timings.

After the profiler has used the GPU its hooks stay in the driver, and slow down every later launch of the process, which
would distort later timings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from dlfa_kernels.overrides import record_launches

from . import providers
from .problems import Problem, make_problem
from .results import case_keys
from .suite import Session, Task
from .timing import synchronise

# Calls before the profiled ones: torch.compile compiles in them, and its modes with CUDA graphs record.
CALLS_BEFORE = 3
# Entries of the profiler that are not kernels.
NOT_KERNELS = ("Memcpy", "Memset", "Activity Buffer", "Lazy Function Loading", "ProfilerStep")

Count = Callable[[Callable[[], object]], int | None]


def count_recorded(call: Callable[[], object]) -> int:
    """Count the kernels that we launch in a call, without torch's copies of operands: the local weights at k > 1."""
    with record_launches() as recorded:
        call()
    return len(recorded)


def count_profiled(call: Callable[[], object]) -> int | None:
    """Count all kernels of a call on the current GPU; None if the profiler records none.

    It profiles two calls and counts the second, because it may still be starting in the first.
    """
    device = torch.device("cuda")
    for _ in range(CALLS_BEFORE):
        call()
    synchronise(device)
    try:
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CUDA],
            schedule=torch.profiler.schedule(wait=0, warmup=1, active=1, repeat=1),
        ) as profile:
            call()
            synchronise(device)
            profile.step()
            call()
            synchronise(device)
        events = profile.events()
    except RuntimeError:  # machines without permission to profile the GPU; the call itself has run
        return None
    kernels = [
        event
        for event in events
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.name.startswith(NOT_KERNELS)
    ]
    return len(kernels) or None


def count_pass(pass_: str, call: providers.Call, problem: Problem, count: Count) -> int | None:
    """Return the kernels of a pass by `count`; "backward" is "both" minus the forward that it starts from."""
    if pass_ == "forward":
        return count(lambda: providers.inference(call))
    both = count(lambda: providers.gradients(call(), problem))
    if pass_ != "backward" or both is None:
        return both
    forward = count(call)
    return None if forward is None else both - forward


def can_profile(device: torch.device) -> bool:
    """Return whether there is a GPU to profile."""
    return device.type == "cuda"


def count_others(session: Session, tasks: Iterable[Task]) -> None:
    """Fill in missing `launches` of rows with a time, while time is left; call it after all timings.

    By then torch.compile's code is discarded and must be compiled again from its caches, so eager comes first. Its
    modes with CUDA graphs come last, because profilers have trouble with them.

    Args:
        session: the session with the rows.
        tasks: the tasks of the suite.
    """
    if not can_profile(session.device):
        return
    session.save()
    uncounted = [row for row in session.results.rows if row["median_us"] is not None and row["launches"] is None]
    pairs = [(task, name) for task in tasks for name in session.wanted(task.providers)]
    pairs.sort(key=lambda pair: (pair[1].startswith(providers.COMPILE), pair[1] in providers.WITH_GRAPHS))
    for task, name in pairs:
        keys = {pass_: case_keys(session.suite, pass_, task.case, name) for pass_ in task.passes}
        rows = {pass_: row for pass_ in keys for row in uncounted if keys[pass_].items() <= row.items()}
        if rows:
            with session.attempt(name, []) as go:
                if go:
                    problem = make_problem(task.case, session.device)
                    call = providers.build(name, problem)
                    for pass_, row in rows.items():
                        row["launches"] = count_pass(pass_, call, problem, count_profiled)
