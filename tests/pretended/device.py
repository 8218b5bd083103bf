"""The pretended device in a process of its own: PyTorch's name for it, and Lightning's parts.

What is done here cannot be undone: PyTorch renames its backend once in a process. So only processes
of `pretended.runs` load the device.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry
from lightning.pytorch.strategies import SingleDeviceStrategy, StrategyRegistry

NAME = "pretended"
_Listener = ctypes.CFUNCTYPE(None, ctypes.c_char_p)


class Device:
    """The loaded device.

    Args:
        library: The library that `pretended.library` has built.
    """

    def __init__(self, library: Path) -> None:
        torch.ops.load_library(str(library))
        self._library = ctypes.CDLL(str(library))
        self._library.pretended_operations.restype = ctypes.c_char_p
        self._library.pretended_float64.argtypes = [ctypes.c_bool]
        self._heard: Any = None
        torch.utils.rename_privateuse1_backend(NAME)
        torch._register_device_module(NAME, Backend())
        torch.utils.generate_methods_for_privateuse1_backend()
        # A module that moves to CUDA keeps its Parameter objects. PyTorch would make new ones here.
        torch.__future__.set_swap_module_params_on_conversion(True)
        AcceleratorRegistry.register(NAME, Pretended, description="The pretended device")
        StrategyRegistry.register(NAME, OnPretended, description="The pretended device")

    def listen(self, to: Callable[[str], None]) -> None:
        """Tell a function of every wait of the host, as it comes and in its thread."""
        self._heard = _Listener(lambda why: to(why.decode()))
        self._library.pretended_listen(self._heard)

    def has_float64(self, has: bool) -> None:
        """Let the device have float64, or not, as Apple's GPUs have not."""
        self._library.pretended_float64(has)

    def operations(self) -> Counter[str]:
        """Return how often each operation came so far, by name; views are none."""
        lines = self._library.pretended_operations().decode().splitlines()
        return Counter({name: int(count) for name, count in map(str.split, lines)})


class Backend:
    """What PyTorch and Lightning ask the module `torch.pretended`."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def set_device(self, device: Any) -> None:
        """There is one."""

    def synchronize(self, device: Any = None) -> None:
        """Every operation is done when it returns."""

    def manual_seed(self, seed: int) -> None:
        """Its generator is the host's."""

    manual_seed_all = manual_seed

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        """Its generator is the host's, whose state is set anyway."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def _is_in_bad_fork(self) -> bool:
        return False

    def _lazy_init(self) -> None:
        """Nothing is to be started."""


class Pretended(Accelerator):
    """Lightning's accelerator of the pretended device."""

    def setup_device(self, device: torch.device) -> None:
        """Nothing is to be set up."""

    def teardown(self) -> None:
        """Nothing is held."""

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> int:
        return 1

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device(NAME, 0)]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return NAME


class OnPretended(SingleDeviceStrategy):
    """Lightning's strategy of one pretended device."""

    def __init__(self, **options: Any) -> None:
        options.pop("device", None)
        super().__init__(device=torch.device(NAME, 0), accelerator=Pretended(), **options)
