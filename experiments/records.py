"""Keep finished runs without their weights in one small file, from which their tables can be made again.

    ntil records runs=<folder> to=<file>.tar.xz

    ntil records runs=runs/demo to=demo.tar.xz
    tar -xf demo.tar.xz -C runs            on another machine; then `ntil report runs=runs/demo`, or the sweep with one
                                           more loss: what is done is not run again

The file holds what a run's folder holds but weights, checkpoints, logs and what a failure left: configuration, history,
predictions, metrics, digits, packages, the contents of data and weights as hashes; and evaluations of `ntil eval`. A
run takes some kilobytes. Predictions hold the rows' true answers: of data that may not be passed on, neither may they.
Of a benchmark it has the frozen protocol, and that a trial diverged. Other runs that aren't finished are left out and
counted. Folders of this machine that the configurations name are listed: who gets the records reads them.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from data.common.counts import counted
from data.common.files import replacing
from experiments.benchmark.protocol import FROZEN
from ntil.commands.options import parse_options
from ntil.config.errors import ConfigError
from ntil.runs.folder import RunFolder, find_runs

ENDING = ".tar.xz"
SUFFIXES = (".json", ".jsonl", ".yaml")  # of the files that a run's tables are made from
NOT_RESULTS = ("tracking.json",)  # belongs to a tracker's account


@dataclass
class RecordOptions:
    """Options of `ntil records`."""

    runs: str = MISSING
    to: str = MISSING


def main(arguments: list[str]) -> int:
    """Run `ntil records`; the exit code.

    Raises:
        ConfigError: no finished run there, or a file of another kind.
    """
    options = parse_options("records", RecordOptions, arguments)
    root, file = Path(options.runs).expanduser(), Path(options.to).expanduser()
    if not file.name.endswith(ENDING):
        raise ConfigError(f"to={file}: name a file that ends in {ENDING}")
    runs = find_runs(root)
    finished = [run for run in runs if run.done]
    if not finished:
        raise ConfigError(f"{root}: no finished run there")
    diverged = [run for run in runs if not run.done and run.diverged]
    named = absolute_paths([*finished, *diverged])
    write_records(root, finished, diverged, file)
    left = len(runs) - len(finished) - len(diverged)
    of_diverged = f"; and that {counted(len(diverged), 'run')} diverged" if diverged else ""
    remark = f"; {counted(left, 'run')} not finished, left out" if left else ""
    print(f"{file}: {counted(len(finished), 'run')}, {file.stat().st_size / 1000:,.0f} kB{of_diverged}{remark}")
    if named:
        print("the records name paths of this machine: " + ", ".join(f"{key}={path}" for key, path in named.items()))
    return 0


def absolute_paths(runs: Sequence[RunFolder]) -> dict[str, str]:
    """Map a key of the runs' configurations to the absolute path that it holds, the first where there are several."""
    named: dict[str, str] = {}
    for run in runs:
        for key, value in _leaves(run.config().to_dict(), ()):
            if isinstance(value, str) and "\n" not in value and Path(value).is_absolute():
                named.setdefault(key, value)
    return named


def _leaves(config: Any, keys: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(config, dict):
        for key, value in config.items():
            yield from _leaves(value, (*keys, key))
    elif isinstance(config, list):
        for value in config:
            yield from _leaves(value, keys)
    else:
        yield ".".join(keys), config


def write_records(root: Path, runs: Sequence[RunFolder], diverged: Sequence[RunFolder], file: Path) -> None:
    """Write the results of runs below `root` to a tar file compressed by xz, under the name of `root`.

    Of runs that diverged it has the configuration and the line that says so; a traceback names paths of a machine.
    """
    name = root.resolve().name
    protocols = [path for path in (root / FROZEN,) if path.is_file() and not path.is_symlink()]
    with replacing(file) as partial, tarfile.open(partial, "w:xz") as archive:
        for path in [
            *protocols,
            *(path for run in runs for path in results(run)),
            *(run.config_file for run in diverged),
        ]:
            archive.add(path, Path(name, path.relative_to(root)), recursive=False, filter=_anonymous)
        for run in diverged:
            text = f"{run.divergence}\n".encode()
            member = tarfile.TarInfo(str(Path(name, run.error.relative_to(root))))
            member.size, member.mtime = len(text), int(run.error.stat().st_mtime)
            archive.addfile(_anonymous(member), io.BytesIO(text))


def results(run: RunFolder) -> Iterator[Path]:
    """The files of a run and of its finished evaluations that results are in."""
    for folder in (run, *run.finished_evaluations()):
        for path in sorted(folder.path.iterdir()):
            regular = path.is_file() and not path.is_symlink()
            if regular and path.suffix in SUFFIXES and path.name not in NOT_RESULTS:
                yield path


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the name and number of who ran it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member
