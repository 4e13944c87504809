"""What a measurement was made on."""

from __future__ import annotations

import datetime
import platform

import torch
import triton


def machine() -> dict[str, str]:
    """Device, versions and date, as text."""
    found = {
        "device": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }
    if torch.cuda.is_available():
        found["device"] = torch.cuda.get_device_name()
        found["cuda"] = str(torch.version.cuda)
        version = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        found["cudnn"] = str(version)
    return found


def one_line(found: dict[str, str]) -> str:
    versions = ", ".join(f"{name} {found[name]}" for name in found if name not in ("device", "date"))
    return f"{found['device']}; {versions}; {found['date']}"


def cuda_goes_on() -> bool:
    """Whether this process can still use the GPU."""
    try:
        torch.cuda.synchronize()
    except Exception:
        return False
    return True
