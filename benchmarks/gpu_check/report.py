"""The one Markdown file of all checks."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import torch

from benchmarks.gpu_check.check import Result

PACKAGES = ("torch", "transformers", "deepspeed", "accelerate", "peft", "trl", "flash-attn")


def markdown(results: Sequence[Result], device: str, command: str) -> str:
    """The report: machine and versions, what passed, then every check with its tables."""
    parts = ["# On a GPU", f"Written by `{command}` on {machine(device)}; {versions()}."]
    rows = [f"| {result.title} | {verdict(result)} |" for result in results]
    parts.append("\n".join(["| check | |", "| --- | --- |", *rows]))
    for result in results:
        parts += [f"## {result.title}", *result.lines, *(table.markdown().rstrip() for table in result.tables)]
    return "\n\n".join(parts) + "\n"


def verdict(result: Result) -> str:
    """`passed`, `FAILED`, or `measured` where there is nothing to pass."""
    return "measured" if result.passed is None else "passed" if result.passed else "FAILED"


def machine(device: str) -> str:
    """The device in words."""
    if device == "cpu":
        return f"the CPU ({platform.machine()})"
    name, count = torch.cuda.get_device_name(), torch.cuda.device_count()
    gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{count} x {name} of {gib:.0f} GiB"


def versions() -> str:
    """Versions of the packages that matter."""
    return ", ".join(f"{name} {_version(name)}" for name in PACKAGES)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
