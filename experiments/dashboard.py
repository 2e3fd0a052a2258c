"""Build a W&B workspace and report for an experiment's runs.

    ntil dashboard experiment=<name> [runs=runs entity=... publish=true]

Panels: the task's metrics by loss, every loss component with its share of the gradient, parse failures, the drawn
predictions, and parallel coordinates over the hyper-parameters.

experiment: its name. runs: the folder of all runs. entity: of W&B, needed to publish. publish: send it; without, the
built spec is written to <runs>/<name>/dashboard.json and nothing is sent. Needs the extra `ntil[dashboard]`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb
from omegaconf import MISSING

from data.common.files import write_text
from ntil.commands.options import parse_options
from ntil.config.errors import ConfigError
from ntil.runs.run import Run, read_runs

HYPER_PARAMETERS = ("loss.lam", "loss.sigma", "loss.alpha", "loss.beta", "optim.lr", "seed")


@dataclass(frozen=True)
class Dashboard:
    """Content of an experiment's dashboard.

    metrics: task metrics as they are logged under `test/` and `validation/`. components: logged under `loss/`.
    """

    entity: str
    project: str
    experiment: str
    groups: tuple[str, ...]
    metrics: tuple[str, ...]
    components: tuple[str, ...]

    def workspace(self) -> Any:
        """The `wandb_workspaces` workspace, not saved."""
        import wandb_workspaces.workspaces as ws

        sections = [ws.Section(name=name, panels=panels, is_open=True) for name, panels in self._panels().items()]
        runs = ws.RunsetSettings(
            filters=[ws.Metric("Group").isin(list(self.groups))],
            groupby=[ws.Config("task.name"), ws.Config("model.name"), ws.Config("loss.name")],
        )
        return ws.Workspace(
            entity=self.entity,
            project=self.project,
            name=f"{self.experiment}: losses",
            sections=sections,
            runset_settings=runs,
        )

    def report(self) -> Any:
        """The `wandb_workspaces` report, not saved: one panel grid per task and model."""
        import wandb_workspaces.reports.v2 as wr

        blocks: list[Any] = [
            wr.H1(f"{self.experiment}: losses compared"),
            wr.P("Runs that differ in loss and seed only. Intervals, tests and the paper's figures: `ntil report`."),
            wr.TableOfContents(),
        ]
        for group in self.groups:
            runset = wr.Runset(
                entity=self.entity,
                project=self.project,
                name=group,
                filters=f"Group == '{group}'",
                groupby=["config.loss.name"],
            )
            panels = [panel for section in self._panels().values() for panel in section]
            blocks += [wr.H2(group), wr.PanelGrid(runsets=[runset], panels=panels)]
        return wr.Report(entity=self.entity, project=self.project, title=f"{self.experiment}: losses", blocks=blocks)

    def _panels(self) -> dict[str, list[Any]]:
        import wandb_workspaces.reports.v2 as wr

        def line(title: str, key: str) -> Any:
            return wr.LinePlot(title=title, x="Step", y=[key], groupby="config.loss.name", groupby_rangefunc="minmax")

        def bar(title: str, key: str) -> Any:
            return wr.BarPlot(title=title, metrics=[key], groupby="config.loss.name", groupby_rangefunc="stddev")

        columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(key)) for key in HYPER_PARAMETERS]
        columns.append(wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(f"test/{self.metrics[0]}")))
        components = [line(f"loss/{name}", f"loss/{name}") for name in self.components]
        shares = [line(f"gradient share of {name}", f"gradient_share/{name}") for name in self.components]
        failures = [bar("parse failures (test)", "test/parse_failure_rate")]
        failures.append(line("parse failures (validation)", "validation/parse_failure_rate"))
        return {
            "metrics by loss": [
                *(bar(f"{m} (test)", f"test/{m}") for m in self.metrics),
                *(line(f"{m} (validation)", f"validation/{m}") for m in self.metrics),
            ],
            "loss components": [*components, *shares],
            "parse failures": failures,
            "predictions": [wr.WeavePanelSummaryTable(table_name="test/predictions")],
            "hyper-parameters": [wr.ParallelCoordinatesPlot(columns=columns)],
        }


@dataclass
class DashboardOptions:
    """Options of `ntil dashboard`; `entity` is a W&B user or team, needed for `publish`."""

    experiment: str = MISSING
    runs: str = "runs"
    entity: str = ""
    publish: bool = False


def main(arguments: list[str]) -> int:
    """Run `ntil dashboard`; the exit code.

    Raises:
        ConfigError: no experiment= given, no run of it, the extra not installed, or entity= missing when publishing.
    """
    options = parse_options("dashboard", DashboardOptions, arguments)
    folder = Path(options.runs, options.experiment)
    runs = read_runs(str(folder)) if folder.exists() else []
    if not runs:
        raise ConfigError(f"{folder}: no run lies there")
    if options.publish and not options.entity:
        raise ConfigError("publishing needs entity=<your W&B user or team>")
    try:
        # With an entity the library queries W&B; the spec alone needs none.
        dashboard = build_dashboard(runs, options.experiment, options.entity if options.publish else "")
        workspace, report = dashboard.workspace(), dashboard.report()
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed; pip install 'ntil[dashboard]'") from error
    except wandb.Error as error:  # with an entity the library asks the server, which needs a key
        raise ConfigError(f"W&B: {error}; `wandb login`, or leave publish=true out to write the spec alone") from error
    if options.publish:
        try:
            workspace.save()
            report.save()
        except wandb.Error as error:
            raise ConfigError(f"W&B took no dashboard: {error}; check entity={options.entity} and the key") from error
        print(f"workspace: {workspace.url}\nreport: {report.url}")
        return 0
    file = folder / "dashboard.json"
    write_text(file, json.dumps(spec(workspace, report), indent=1))
    entity = options.entity or "<your W&B user or team>"
    print(f"{file}: the built workspace and report; nothing was sent. To publish, after `wandb sync` of offline runs:")
    print(f"  ntil dashboard experiment={options.experiment} runs={options.runs} entity={entity} publish=true")
    return 0


def build_dashboard(runs: Sequence[Run], name: str, entity: str) -> Dashboard:
    """The dashboard of these runs: their groups, headline metrics and loss components as they were logged."""
    groups = tuple(dict.fromkeys(f"{name}/{run.task}/{run.model}" for run in runs))
    metrics = tuple(dict.fromkeys(run.built_task.metric for run in runs))
    logged = [key for run in runs for record in run.folder.read_history() for key in record]
    components = tuple(dict.fromkeys(key.removeprefix("loss/") for key in logged if key.startswith("loss/")))
    return Dashboard(entity, runs[0].config.tracker.project, name, groups, metrics, components)


def spec(workspace: Any, report: Any) -> dict[str, Any]:
    """Workspace and report as the JSON that is sent when publishing."""
    return {
        "workspace": json.loads(workspace._to_model().model_dump_json(by_alias=True, exclude_none=True)),
        "report": json.loads(report._to_model().model_dump_json(by_alias=True, exclude_none=True)),
    }
