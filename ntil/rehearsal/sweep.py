"""Rehearsal of the runs of a sweep: one of each kind, then the report."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from data.common.errors import UserError
from data.common.files import write_text
from ntil import preflight
from ntil.components import Components
from ntil.config.build import locate
from ntil.config.errors import ConfigError
from ntil.config.schema import RunConfig
from ntil.console import gigabytes
from ntil.launch.plan import plan
from ntil.rehearsal.drawn import with_drawn_rows
from ntil.rehearsal.perform import Outcome, perform, try_loss
from ntil.rehearsal.prepare import longest_rows, packing_remarks, rehearsal_config, rows_needed
from ntil.rehearsal.projection import Counts, Projection, project
from ntil.rehearsal.report import Rehearsed, communication_line, phase_table, sweep_table, verdict, waits_line
from ntil.rehearsal.weights import write_random
from ntil.runs.run import Run
from ntil.train.libraries import set_up_libraries


@dataclass(frozen=True)
class Settings:
    """How to rehearse, see `ntil rehearse --help`."""

    steps: int
    random_weights: bool = False
    drawn_data: bool = False
    picture_size: int = 640
    tokenizer: str | None = None
    all_losses: bool = True
    keep: str | None = None
    report: str | None = None


@dataclass(frozen=True)
class Kind:
    """Runs that differ in loss, seed and learning rate alone; `config` is the first one's, with drawn rows if asked."""

    runs: list[Run]
    config: RunConfig

    @property
    def drawn(self) -> bool:
        """Whether the rows are drawn in place of the run's own."""
        return self.config is not self.runs[0].config

    @property
    def title(self) -> str:
        config = self.config
        ranks = preflight.rank_count(config.engine)
        zero = "torch" if config.engine.zero_stage is None else f"ZeRO-{config.engine.zero_stage}"
        packed = f", packing={config.packing.mode}" if config.packing.on else ""
        return f"{config.model.name} on {config.task.name}, {config.tuning.mode}, {zero} x {ranks}{packed}"


def rehearse(overrides: Sequence[str], settings: Settings) -> int:
    """Rehearse `ntil train <overrides>` and print the report; 1 where the sweep would not go through, else 0.

    Raises:
        UserError, HydraException: a job that can't be composed or run, as `ntil train` refuses it.
    """
    set_up_libraries(None)
    kinds = kinds_of(overrides, settings)
    if not kinds:
        print("every training is done: there is nothing to rehearse")
        return 0
    rehearsals = []
    with _place(settings.keep, Path(kinds[0].config.runs).expanduser()) as place:
        stage = Stage(place, settings)
        for number, kind in enumerate(kinds):
            print(f"rehearsing {kind.title} ({number + 1} of {len(kinds)})", flush=True)
            rehearsals.append(stage.rehearsed(kind))
            if settings.keep is None:
                stage.clear({later.config.model.name for later in kinds[number + 1 :]})
    failures = [f"{one.title}: {one.outcome.failure}" for one in rehearsals if one.outcome.failure is not None]
    failures += disk_problems(rehearsals)
    _report(rehearsals, failures, settings.report, overrides)
    return 1 if failures else 0


def kinds_of(overrides: Sequence[str], settings: Settings) -> list[Kind]:
    """The kinds of trainings that are to do, each checked for this machine.

    Raises:
        UserError, HydraException: see `rehearse`.
    """
    on_this_machine = not settings.drawn_data
    by_kind: dict[str, list[Run]] = {}
    for planned in plan(overrides, on_this_machine):
        if not planned.run.done and locate(planned.run.config.loss.target, "loss").trains:
            by_kind.setdefault(_key(planned.run.config), []).append(planned.run)
    kinds = []
    for runs in by_kind.values():
        config = runs[0].config
        if settings.drawn_data:
            needed = rows_needed(config, settings.steps)
            named = {config.evaluation.split if name == "test" else name: count for name, count in needed.items()}
            config = with_drawn_rows(config, named, settings.picture_size)
            preflight.check(config)
        kinds.append(Kind(runs, config))
    return kinds


def _key(config: RunConfig) -> str:
    """Settings that memory, disk and time depend on, as text."""
    parts = [config.model.to_dict(), config.task.to_dict(), asdict(config.engine), asdict(config.tuning)]
    others = [config.optim.batch_size, asdict(config.evaluation), config.max_length, config.vision_cache_gb]
    others.append(asdict(config.packing))
    return json.dumps([parts, others], sort_keys=True)


class Stage:
    """Where rehearsals take place, and what earlier ones of the same sweep have left there."""

    def __init__(self, place: Path, settings: Settings) -> None:
        self.place, self.settings = place, settings
        self._tried: set[str] = set()

    def rehearsed(self, kind: Kind) -> Rehearsed:
        """Rehearse the first run of a kind, and project all of them."""
        remarks: list[str] = []
        try:
            config = self._with_weights(kind.config, remarks)
            outcome = self._performed(config, kind)
            projections = [] if outcome.failure else [projected(run, outcome, kind.drawn) for run in kind.runs]
        except UserError as error:
            outcome, projections = Outcome(failure=str(error)), []
        if "train" in outcome.rows:
            remarks += packing_remarks(kind.config, outcome.rows["train"])
        if self.settings.drawn_data and "train" in outcome.rows:
            remarks += _remarks_on_drawn_rows(kind, outcome)
        outcome.remarks += remarks
        return Rehearsed(kind.title, kind.runs[0], kind.config, outcome, projections)

    def _with_weights(self, config: RunConfig, remarks: list[str]) -> RunConfig:
        """The config with random weights of its model, where they are asked for."""
        checkpoint = config.model.options.get("checkpoint")
        if not self.settings.random_weights or checkpoint is None:
            return config
        folder = self.place / "weights" / config.model.name
        if not folder.exists():
            remarks += write_random(config.model, folder, self.settings.tokenizer)
        model = replace(config.model, options={**config.model.options, "checkpoint": str(folder)})
        return replace(config, model=model)

    def _performed(self, config: RunConfig, kind: Kind) -> Outcome:
        """The rehearsal, and a step of every other loss of the kind that its model hasn't been tried with."""
        steps, random = self.settings.steps, self.settings.random_weights
        rows = longest_rows(config, Components.build(config), steps)
        shortened = rehearsal_config(config, self.place / "runs", steps, cache_features=not random)
        outcome = perform(shortened, rows, self.place)
        self._tried.add(_loss_key(kind.runs[0].config))
        for run in kind.runs if self.settings.all_losses and outcome.failure is None else ():
            key = _loss_key(run.config)
            if key not in self._tried and outcome.failure is None:
                self._tried.add(key)
                failure = try_loss(replace(shortened, loss=run.config.loss), rows)
                outcome.failure = f"loss={run.loss}: {failure}" if failure else None
        return outcome

    def clear(self, models: set[str]) -> None:
        """Remove what the rehearsals have written, but not the weights of these models."""
        for name in ("runs", "exported"):
            shutil.rmtree(self.place / name, ignore_errors=True)
        for folder in (self.place / "weights").glob("*"):
            if folder.name not in models:
                shutil.rmtree(folder)


def _loss_key(config: RunConfig) -> str:
    """What decides whether a loss can be computed: itself, the model and its training, and the kind of answers."""
    parts = [config.model.to_dict(), asdict(config.engine), asdict(config.tuning), config.task.target]
    return json.dumps([*parts, config.loss.to_dict()], sort_keys=True)


def projected(run: Run, outcome: Outcome, drawn: bool) -> Projection:
    """What the run will take, on its own number of rows as far as that is known where others were drawn."""
    rows = {name: split.rows for name, split in outcome.rows.items()}
    if drawn:
        expected = run.built_task.expected_rows
        rows["train"] = expected("train") or rows["train"]
        rows["validation"] = min(run.config.evaluation.validation_rows, expected("validation") or sys.maxsize)
        rows["test"] = expected(run.config.evaluation.split) or rows["test"]
    return project(run.config, outcome, Counts(rows["train"], rows.get("validation", 0), rows["test"]))


def _remarks_on_drawn_rows(kind: Kind, outcome: Outcome) -> list[str]:
    if not kind.drawn:
        return []
    longest = max(split.answer for split in outcome.rows.values())
    limit = kind.runs[0].built_task.max_new_tokens
    return [
        f"the rows are drawn: {outcome.rows['train'].longest} tokens at most, answers of {longest}, while generation "
        f"goes to its limit of {limit}; a training on longer answers takes more memory and time",
        *(
            f"how many rows the split {split} has isn't known: as many as were drawn are counted"
            for split in ("train", kind.config.evaluation.split)
            if kind.runs[0].built_task.expected_rows(split) is None
        ),
    ]


def disk_problems(rehearsals: Sequence[Rehearsed]) -> list[str]:
    """One line if the disk of the runs can't take what the sweep writes."""
    projections = [projection for one in rehearsals for projection in one.projections]
    if not projections:
        return []
    needed = sum(p.disk for p in projections) + max(p.disk_peak - p.disk for p in projections)
    runs = _existing(Path(rehearsals[0].config.runs).expanduser())
    free = shutil.disk_usage(runs).free
    if needed <= free:
        return []
    return [
        f"the sweep writes {gigabytes(needed)} GB and {gigabytes(free)} GB are free at {runs}: free space, set runs= "
        "to another disk, or save less (save_every, keep_checkpoints, tuning=lora)"
    ]


@contextmanager
def _place(keep: str | None, runs: Path) -> Iterator[Path]:
    """A folder on the disk of the runs, which is removed in the end, or the one to keep.

    Raises:
        ConfigError: the folder to keep is there already.
    """
    if keep is not None:
        stays = Path(keep).expanduser().absolute()
        if stays.exists():
            raise ConfigError(f"keep={keep}: exists; name a new folder")
        stays.mkdir(parents=True)
        yield stays
        return
    with tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=_existing(runs), ignore_cleanup_errors=True) as folder:
        yield Path(folder).absolute()


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())


def _report(
    rehearsals: Sequence[Rehearsed], failures: Sequence[str], file: str | None, overrides: Sequence[str]
) -> None:
    """Print the report, and write it to `file` in Markdown."""
    text = [f"`ntil rehearse {' '.join(overrides)}`"]
    for one in rehearsals:
        tables = [phase_table(one)] if one.outcome.measures else []
        lines = [line for line in (waits_line(one.outcome), communication_line(one.outcome)) if line]
        for table in tables:
            table.print()
            text += [f"## {table.title}", table.markdown()]
        for line in [*lines, *one.outcome.remarks]:
            print(line)
            text.append(line)
    table = sweep_table(rehearsals)
    table.print()
    text += ["## The sweep", table.markdown(), *failures, verdict(rehearsals, failures)]
    for line in failures:
        print(f"ntil: {line}", file=sys.stderr)
    print(verdict(rehearsals, failures))
    if file is not None:
        write_text(Path(file).expanduser(), "\n\n".join(text) + "\n")
