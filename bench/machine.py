"""The machine that a benchmark ran on, for the report."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from deploy.embedded.java import DEFAULT_JARS

PACKAGES = ("faust-streaming", "aiokafka", "msgspec", "uvloop", "numpy", "chdb")


def describe_machine() -> dict[str, Any]:
    """Hardware, kernel, versions, and the load before anything of ours runs."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "kafka": _kafka_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _kafka_version() -> str:
    """As the embedded broker's own jar is named."""
    for jar in DEFAULT_JARS.glob("kafka-clients-*.jar"):
        return jar.stem.removeprefix("kafka-clients-")
    return "unknown"
