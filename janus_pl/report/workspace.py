"""A workspace and a report of the W&B UI whose panels are the paper's figures.

In a panel each line is a group of runs whose columns are equal, all but the seed and the code. So
SGD and GD, two lambdas or two networks are never averaged. In the report SGD and GD are run sets of
their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from janus_pl.report.figures import FIGURES
from janus_pl.run.columns import COLUMNS, DYNAMICS, LAMBDA, LOSS, NORMALIZATION

ALIKE = ("seed", "code")  # columns in which the runs of a line may differ
FIRST = (DYNAMICS, "network", LOSS, NORMALIZATION)
GROUPED = (*FIRST, *(key for key in COLUMNS if key not in (*FIRST, *ALIKE)))
RUN_SETS = ("SGD", "GD")  # by their dynamics; those of all others are one more
OTHERS = "Other dynamics"
FIGURES_JOB = "report"  # the job type of the runs with figures
MOST_RUNS = 1000  # in a panel, where W&B shows ten
NUMBERS = ("train/loss", "val/error", "margin/mean", "margin/std", "velocity", "effective_rank")
PINNED = (
    *(f"config:{key}.value" for key in (DYNAMICS, LAMBDA, "B", "eta", LOSS, NORMALIZATION)),
    *("config:network.value", "config:seed.value"),
    *(f"summary:{key}" for key in ("epoch", *NUMBERS)),
)
AXES = {"by step": "trainer/global_step", "by eta t": "eta_t"}


class Views:
    """The panels, built with the classes of wandb-workspaces.

    Args:
        workspaces: The module `wandb_workspaces.workspaces`.
        panels: The module `wandb_workspaces.reports.v2`.
        fixed: The values of columns to which all panels are limited, as `{"loss": "square"}`.
    """

    def __init__(self, workspaces: Any, panels: Any, fixed: Mapping[str, str]) -> None:
        self._workspaces, self._panels = workspaces, panels
        self._fixed = dict(fixed)

    def workspace(self, entity: str, project: str, name: str) -> Any:
        """Build the workspace: a section for each kind of figure, x axis the epoch, all runs."""
        sections = {
            **self.sections(),
            "Runs side by side": [self._parallel(), self._panels.RunComparer(diff_only="split")],
            "Report": [self._media()],
        }
        make = self._workspaces
        return make.Workspace(
            entity=entity,
            project=project,
            name=name,
            sections=[
                make.Section(name=title, panels=held, is_open=True)
                for title, held in sections.items()
            ],
            settings=make.WorkspaceSettings(x_axis="epoch", max_runs=MOST_RUNS),
            runset_settings=make.RunsetSettings(
                filters=self._shown(),
                groupby=[make.Config(key) for key in self._levels()],
                pinned_columns=list(PINNED),
            ),
        )

    def report(self, entity: str, project: str, name: str, verdicts: Sequence[Any]) -> Any:
        """Build the report: the verdicts, and each section with its run sets.

        Args:
            entity: The user or team.
            project: The project; it has to exist if the entity is given.
            name: The title.
            verdicts: The lines of `verify --json`; empty if nobody has asked.
        """
        panels = self._panels
        blocks = [
            panels.H1("Verdicts"),
            panels.MarkdownBlock(markdown(verdicts)),
            panels.H1("Figures"),
            panels.PanelGrid(
                runsets=[self._run_set(entity, project, "Figures", self._is_figure())],
                panels=[self._media()],
            ),
        ]
        for title, held in {**self.sections(), "Runs side by side": [self._parallel()]}.items():
            sets = self._run_sets(entity, project)
            blocks += [panels.H1(title), panels.PanelGrid(runsets=sets, panels=held)]
        return panels.Report(
            entity=entity, project=project, title=name, blocks=blocks, width="fluid"
        )

    def sections(self) -> dict[str, list[Any]]:
        """Return the panels of lines by the title of their section."""
        line = self._line
        return {
            "Margins by lambda (Figs. 1, 2, 5)": [
                line("Margins, mean", ["margin/mean"]),
                line("Margins, standard deviation", ["margin/std"], log_y=True),
                line("Margins, histogram", ["margin/hist"]),
                line("rho", ["rho"], log_y=True),
            ],
            "Raw margins, in units of the outputs": [
                line("Raw margins, mean", ["margin_raw/mean"]),
                line("Raw margins, standard deviation", ["margin_raw/std"]),
                line("Raw margins, histogram", ["margin_raw/hist"]),
            ],
            "Noise by layer (Figs. 3, 4a)": [
                self._layers("‖V dot‖ by layer", "velocity", log_y=True),
                self._layers("‖V dot‖ of the whole set by layer", "velocity_full", log_y=True),
            ],
            "Rank by layer (Fig. 4b)": [
                self._layers("Effective rank by layer", "effective_rank"),
                self._layers("Stable rank by layer", "stable_rank"),
                self._layers("Rank by layer", "rank"),
            ],
            "SGD and GD": [
                line("Training loss", ["train/loss"], log_y=True),
                line("Error on the test split", ["val/error"]),
                *(
                    line(f"{title}, {how}", [key], x=axis)
                    for how, axis in AXES.items()
                    for title, key in (("Margins, mean", "margin/mean"), ("Loss", "train/loss"))
                ),
            ],
            "Linear regression (Figs. A.1 to A.7)": [
                line(
                    "Null space, and its closed form", ["null/norm", "null/predicted"], log_y=True
                ),
                line("Smallest singular value", ["sigma_min"], log_y=True),
                line("Distance to the solution", ["solution/relative_distance"], log_y=True),
                line("Gradient norm", ["gradient_norm"], log_y=True),
            ],
        }

    def _line(self, title: str, keys: Sequence[str], x: str = "epoch", **options: Any) -> Any:
        return self._panels.LinePlot(
            title=title,
            x=x,
            y=list(keys),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            max_runs_to_show=MOST_RUNS,
            **options,
        )

    def _layers(self, title: str, kind: str, **options: Any) -> Any:
        """Return a panel of all layers that a network has."""
        return self._line(title, [], metric_regex=f"^{kind}/.+", **options)

    def _parallel(self) -> Any:
        make = self._panels
        config = [make.Config(key) for key in (LAMBDA, "B", "eta", DYNAMICS)]
        columns = [*config, *(make.SummaryMetric(key) for key in NUMBERS)]
        return make.ParallelCoordinatesPlot(
            title="Options and numbers of all runs",
            columns=[make.ParallelCoordinatesPlotColumn(metric=column) for column in columns],
        )

    def _media(self) -> Any:
        return self._panels.MediaBrowser(media_keys=[f"figures/{key}" for key, *_ in FIGURES])

    # Runs

    def _levels(self) -> list[str]:
        """Return the columns to group by; one that is fixed is no level of its own."""
        return [key for key in GROUPED if key not in self._fixed]

    def _column(self, key: str) -> Any:
        return self._workspaces.Config(f"{key}.value")  # as W&B's UI names a column

    def _is_figure(self) -> list[Any]:
        return [self._workspaces.Metric("JobType").isin([FIGURES_JOB])]

    def _limits(self) -> list[Any]:
        """Return the filters of the fixed columns."""
        return [self._column(key).isin([value]) for key, value in self._fixed.items()]

    def _shown(self) -> Any:
        """Return the filter of the workspace, which the runs with figures pass, too."""
        limits = self._limits()
        make = self._workspaces
        return make.Or(make.And(*limits), *self._is_figure()) if limits else []

    def _run_sets(self, entity: str, project: str) -> list[Any]:
        column = self._column(DYNAMICS)
        runs = self._workspaces.Metric("JobType").notin([FIGURES_JOB])
        chosen = {name: column.isin([name]) for name in RUN_SETS}
        chosen[OTHERS] = column.notin(list(RUN_SETS))
        levels = self._levels()
        return [
            self._run_set(
                *(entity, project, name),
                [which, runs, *self._limits()],
                [level for level in levels if level != DYNAMICS or name == OTHERS],
            )
            for name, which in chosen.items()
        ]

    def _run_set(
        self,
        entity: str,
        project: str,
        name: str,
        filters: Sequence[Any],
        levels: Sequence[str] = (),
    ) -> Any:
        return self._panels.Runset(
            entity=entity,
            project=project,
            name=name,
            filters=self._workspaces.And(*filters),
            groupby=[f"config.{key}" for key in levels],
            pinned_columns=list(PINNED),
        )


def markdown(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Return the verdicts as a table in markdown.

    >>> print(markdown([{"answer": "undecided", "source": "Fig. 1", "sentence": "Too few."}]))
    | answer | source | in words |
    |---|---|---|
    | undecided | Fig. 1 | Too few. |
    """
    if not verdicts:
        return "No runs were given: `python -m janus_pl workspace --report RUN...` has verdicts."
    rows = [[each[key] for key in ("answer", "source", "sentence")] for each in verdicts]
    cells = [[str(cell).replace("|", r"\|") for cell in row] for row in rows]
    head = ["| answer | source | in words |", "|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in cells)])


def as_json(view: Any) -> Mapping[str, Any]:
    """Return the JSON that would be sent to W&B."""
    model: Mapping[str, Any] = view._to_model().model_dump(mode="json", by_alias=True)
    return model
