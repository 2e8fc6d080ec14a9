"""The processor, as the operating system tells it."""

import os
import platform


def name() -> str:
    return _told("model name") or platform.processor() or platform.machine()


def vendor() -> str:
    """Who made it: GenuineIntel, AuthenticAMD; empty where Linux does not tell."""
    return _told("vendor_id")


def features() -> set[str]:
    """The names that Linux has for the extensions of its instruction set: avx2, amx_bf16, ..."""
    return set((_told("flags") or _told("Features")).split())


def cores() -> set[int]:
    """The cores that this process may run on."""
    return os.sched_getaffinity(0)


def _told(key: str) -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
    except OSError:
        return ""
