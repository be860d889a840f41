"""Make Triton launch through the stub CUDA driver, for the rest of the process."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("driver.c")
LIBRARY = "libcuda.so.1"
CALLBACK = ctypes.CFUNCTYPE(
    None, ctypes.c_uint64, ctypes.POINTER(ctypes.c_uint), ctypes.c_uint, ctypes.c_uint, ctypes.POINTER(ctypes.c_void_p)
)


@dataclass(frozen=True)
class DriverLaunch:
    """The driver's arguments of a launch; valid only during the launch.

    `function` is the `CompiledKernel.function` of the launched kernel.
    """

    function: int
    grid: tuple[int, int, int]
    threads: int
    shared_bytes: int
    _parameters: ctypes.Array[ctypes.c_void_p]

    def parameters(self, sizes: list[int]) -> list[int]:
        """Return the kernel's parameters, integers of these sizes in bytes."""
        kinds = {4: ctypes.c_int32, 8: ctypes.c_int64}
        return [
            kinds[size].from_address(address).value
            for size, address in zip(sizes, self._parameters[: len(sizes)], strict=True)
            if address is not None
        ]


class HostDriver:
    """The loaded and active stub driver; it counts Triton's calls."""

    def __init__(
        self, library: ctypes.CDLL, capability: tuple[int, int], on_launch: Callable[[DriverLaunch], None] | None
    ) -> None:
        self._library = library
        library.stand_in_launches.restype = library.stand_in_modules.restype = ctypes.c_uint64
        self._callback = CALLBACK()
        if on_launch is not None:
            self._callback = CALLBACK(
                lambda function, grid, *others: on_launch(DriverLaunch(function, (grid[0], grid[1], grid[2]), *others))
            )
        library.stand_in_set(self._callback, *capability)

    @property
    def launches(self) -> int:
        """The number of kernels launched so far."""
        return int(self._library.stand_in_launches())

    @property
    def modules(self) -> int:
        """The number of compiled kernels loaded so far."""
        return int(self._library.stand_in_modules())


def driver_installed() -> bool:
    """Return whether this machine has a real driver, which a process cannot load together with the stub."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def build(folder: Path) -> Path:
    """Compile the stub driver into `folder`.

    Raises:
        RuntimeError: there is no C compiler, or it fails; the message has its output.
    """
    import triton

    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("no C compiler was found: set CC to one, which Triton's launcher needs as well")
    headers = Path(triton.__file__).parent / "backends" / "nvidia" / "include"
    path = folder / LIBRARY
    command = [
        compiler,
        "-O2",
        "-shared",
        "-fPIC",
        f"-I{headers}",
        f"-Wl,-soname,{LIBRARY}",
        "-o",
        str(path),
        str(SOURCE),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{compiler} could not compile {SOURCE.name}: {done.stderr}")
    return path


def activate(folder: Path, architecture: str, on_launch: Callable[[DriverLaunch], None] | None = None) -> HostDriver:
    """Make Triton launch on one device of `architecture` that runs nothing, for the rest of the process.

    Args:
        folder: where the stub is compiled; it must exist as long as the process.
        architecture: such as "sm_90".
        on_launch: called with each launch.

    Raises:
        RuntimeError: an NVIDIA driver is installed; or see `build`.
    """
    if driver_installed():
        raise RuntimeError("an NVIDIA driver is installed, which the stand-in cannot replace; use benchmarks.launch")
    path = build(folder)
    os.environ["TRITON_LIBCUDA_PATH"] = str(folder)
    library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)  # Triton's launcher finds it by name when it is loaded
    major, minor = divmod(int(architecture.removeprefix("sm_")), 10)
    host_driver = HostDriver(library, (major, minor), on_launch)

    from triton.backends.nvidia.driver import CudaDriver
    from triton.runtime import driver

    active = CudaDriver()
    # Triton queries torch, which has no device here
    active.get_current_device = lambda: 0
    active.get_current_stream = lambda device: 0
    active.get_device_capability = lambda device: (major, minor)
    driver.set_active(active)
    return host_driver
