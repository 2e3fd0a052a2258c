"""Export finished runs as plain Hugging Face folders with a model card.

    ntil export run=<folder> to=<folder> [merge=true]

    ntil export run=runs/demo/clock/llava_nano/ntil/seed0-1f3a5c7e to=exported   one finished run
    ntil export run=runs/starts 'to=starts/{task}/{model}'                       all below a folder
    ntil export run=runs/demo/... to=exported push=owner/name push_dry_run=true  what would be sent to the hub

run: the run, or a folder of runs. to: a new folder; {task}, {model}, {loss} and {seed} in it are filled in, and must
keep several runs apart. Exports that are there already are left as they are, so that the same command goes on after
more runs; each says in ntil_export.json which run it is of, and one of another run is refused.
merge: fold a LoRA adapter into its base (true), or export the adapter alone. accept_changes=true: also where the base
has other contents than when the adapter was trained.
push: owner/name on the Hugging Face Hub, also with {task} and so on: the folder is sent there. It is private unless
private=false; a repository that is public already gets nothing without it. push_dry_run=true: list what would be sent,
and send nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from data.common.files import replacing
from ntil.commands.model_card import card
from ntil.commands.options import parse_options
from ntil.commands.origin import check_origin, write_origin
from ntil.commands.push import check_repository, push
from ntil.components import Components
from ntil.config.build import locate
from ntil.config.errors import ConfigError
from ntil.config.schema import RunConfig
from ntil.losses import NumberLoss
from ntil.models.saving import BASE, check_saved, load_merged
from ntil.runs.folder import RunFolder, find_runs, read_json
from ntil.runs.inputs import check_start
from ntil.runs.run import build_from_saved

SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja", ".md")  # of what a model, tokenizer, processor saves


@dataclass
class ExportOptions:
    """Options of `ntil export`; `to` may hold {task}, {model}, {loss} and {seed}."""

    run: str = MISSING
    to: str = MISSING
    merge: bool = True
    accept_changes: bool = False
    push: str = ""
    private: bool = True
    push_dry_run: bool = False


def main(arguments: list[str]) -> int:
    """Run `ntil export`; the exit code. Nothing is written unless every run is finished.

    Raises:
        UserError: run= or to= missing, an unfinished run, a target that exists or that two runs would share, an export
            of another run.
    """
    options = parse_options("export", ExportOptions, arguments)
    if options.push_dry_run and not options.push:
        raise ConfigError("push_dry_run=true lists what push=owner/name would send; set push")
    folders = find_runs(options.run) or [RunFolder(options.run)]
    target_of = targets(folders, options.to)
    repository_of = repositories(folders, options.push) if options.push else {}
    for folder in target_of:
        if not folder.done:
            raise ConfigError(_not_finished(folder))
    # Of several targets, existing ones are from an earlier call; so is what is to be pushed.
    takes_existing = len(target_of) > 1 or bool(options.push)
    existing = {folder for folder, target in target_of.items() if takes_existing and target.exists()}
    for folder in existing:
        check_origin(folder, target_of[folder], options.merge, bool(options.push))
    for folder, target in target_of.items():
        if folder in existing:
            print(f"{target}: exists, left as it is")
        else:
            export(folder, target, options.merge, options.accept_changes)
            print(f"{target}: load it with {loading(target)}")
        if folder in repository_of:
            _check_files(target)
            push(target, repository_of[folder], options.private, options.push_dry_run)
    return 0


def targets(folders: Sequence[RunFolder], pattern: str) -> dict[RunFolder, Path]:
    """Target folder of every run, so that conflicts are found before anything is written.

    Raises:
        ConfigError: `pattern` names something else than task, model, loss and seed, or two runs have one target.
    """
    return {folder: Path(name).expanduser() for folder, name in _filled_in(folders, "to", pattern).items()}


def repositories(folders: Sequence[RunFolder], pattern: str) -> dict[RunFolder, str]:
    """Repository on the hub of every run.

    Raises:
        ConfigError: as of `targets`; or no name of a repository with its owner.
    """
    names = _filled_in(folders, "push", pattern)
    for name in names.values():
        check_repository(name)
    return names


def _filled_in(folders: Sequence[RunFolder], key: str, pattern: str) -> dict[RunFolder, str]:
    """The pattern with every run's names in place."""
    filled: dict[RunFolder, str] = {}
    for folder in folders:
        try:
            name = pattern.format(**_names(folder))
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"{key}={pattern}: takes {{task}}, {{model}}, {{loss}} and {{seed}}, not {error}"
            ) from error
        if name in filled.values():
            fields = ("-" if key == "push" else "/").join(("{task}", "{model}", "{loss}", "{seed}"))
            raise ConfigError(
                f"{key}={pattern} is {name} for several of the {len(folders)} runs; write '{key}=.../{fields}'"
            )
        filled[folder] = name
    return filled


def _names(folder: RunFolder) -> dict[str, str]:
    if not folder.config_file.exists():
        return {}
    config = folder.config()
    names = {group: getattr(config, group).name for group in ("task", "model", "loss")}
    return {**names, "seed": str(config.seed)}


def export(folder: RunFolder, target: Path, merge: bool = True, accept_changes: bool = False) -> Path:
    """Write the model, its tokenizer and processor, its origin and README.md, atomically.

    Args:
        merge: fold a LoRA adapter into its base model; else the adapter alone is exported.
        accept_changes: fold it into a base that has changed since.

    Raises:
        ConfigError: an unfinished run, a target that exists, a base that has changed, or what can't be exported.
    """
    if not folder.done:
        raise ConfigError(_not_finished(folder))
    if target.exists():
        raise ConfigError(f"{target} exists; name a new folder")
    check_exportable(folder.config())
    check_saved(folder.model)
    adapter = (folder.model / "adapter_config.json").exists()
    if adapter:
        check_start(folder, folder.config(), accept_changes)
    components = build_from_saved(folder, folder.config(), Components.build)
    with replacing(target) as partial:
        if adapter and merge:
            components.family.save(load_merged(components.family, folder.model), partial)
        else:
            _check_files(folder.model)
            shutil.copytree(folder.model, partial)
        write_origin(folder, partial, merge)
        (partial / "README.md").write_text(card(folder, components, adapter and not merge))
    return target


def loading(target: Path) -> str:
    """The call that loads an exported folder.

    The base of adapters on a model from scratch lies beside them, and no name in adapter_config.json leads there.
    """
    file = target / BASE / "config.json"
    if not file.exists():
        return f"from_pretrained({str(target)!r})"
    kind = read_json(file)["architectures"][0]
    return f"PeftModel.from_pretrained({kind}.from_pretrained({str(file.parent)!r}), {str(target)!r})"


def check_exportable(config: RunConfig) -> None:
    """Check that the exported model alone would answer as the run's does.

    Raises:
        ConfigError: its answers are read, and whoever loads it would have it generate.
    """
    loss: type[NumberLoss] = locate(config.loss.target, "loss")
    if loss.reads_numbers:
        raise ConfigError(
            f"loss={config.loss.name}: its answers are read by a regression head, which nobody who loads the exported "
            "model would do; evaluate it here with ntil eval"
        )


def _check_files(model: Path) -> None:
    """Check that the folder holds weights and settings alone: no pickles, code or links to other files."""
    for path in model.rglob("*"):
        if path.is_symlink() or (path.is_file() and path.suffix not in SUFFIXES):
            raise ConfigError(f"{path}: a run saves no such file beside its weights; remove it to export the rest")


def _not_finished(folder: RunFolder) -> str:
    return f"{folder.path}: the run is not finished; `ntil status {folder.path}` says where it is"
