"""The runs of a sweep: resolved configs, ids, labels and folders."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janus_pl.errors import UsageError
from janus_pl.run.description import SHOWN, pool_of
from janus_pl.run.folder import identity, without_places
from janus_pl.sweep.clock import length_of, options_of
from janus_pl.sweep.file import SweepFile
from janus_pl.sweep.macros import arguments

WIDTH = 24  # characters of a value in a label


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
        id: The id of the run; runs that compute the same numbers share it. It ends in the first
            digits of the data's fingerprint, if that is known.
        label: The values that tell it from the other runs of the sweep.
        values: The values of the parameters.
        config: The resolved config.
        args: The command line, `fit` first.
        folder: RUN_DIR/PROJECT/ID.
        values_file: The file with the values, which the run reads.
        log: The file of its output.
        data: The fingerprint of its data without what the seed decides; None if it is not known.
    """

    id: str
    label: str
    values: Mapping[str, Any]
    config: Mapping[str, Any]
    args: Sequence[str]
    folder: Path
    values_file: Path
    log: Path
    data: str | None = None

    @property
    def max_epochs(self) -> int | None:
        """The length of the run in epochs; None if it is not given in epochs."""
        epochs = self.config["trainer"]["max_epochs"]
        return epochs if isinstance(epochs, int) and epochs > 0 else None


def plan(
    sweep: SweepFile,
    points: Sequence[Mapping[str, Any]],
    more: Sequence[str],
    resolve: Callable[[Sequence[str]], Mapping[str, Any]],
    data_of: Callable[[Mapping[str, Any]], str | None] = lambda config: None,
    samples_of: Callable[[Mapping[str, Any]], int | None] = lambda config: None,
) -> list[PlannedRun]:
    """Plan the runs of all points; if points compute the same numbers, plan the first.

    Nothing is started, and nothing is written outside a temporary folder.

    Args:
        sweep: The file.
        points: The values of each run.
        more: Options of `fit` for every run, which win over the file.
        resolve: Returns the resolved config of a command line, `fit` first.
        data_of: Returns the fingerprint of the data of the config that was resolved last, without
            what the seed decides; None if it is not known.
        samples_of: Returns the number of training samples of the config that was resolved last;
            None if it is not known.

    Raises:
        UsageError: A run's config is wrong; the errors of `resolve` and `data_of` too.
    """
    labels = labels_of(points)
    planned: dict[str, PlannedRun] = {}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "values.json"

        def resolved(values: Mapping[str, Any], *lengths: str) -> Mapping[str, Any]:
            file.write_text(json.dumps(values))
            return resolve([*arguments(sweep.command, values, file), *more, *lengths])

        length = None
        if sweep.clock is not None:
            shared = {k: v for k, v in points[0].items() if k not in sweep.varied}
            length = length_of(sweep.clock, resolved(shared), samples_of)
        for values, label in zip(points, labels, strict=True):
            config, options = resolved(values), {}
            if length is not None:
                options = options_of(length, config, samples_of)
                config = resolved(values, *_given(options))
            # The length is of the command line, where it wins over the options for every run.
            added = [*more, *_given(options)]
            run = _planned(sweep, {**values, **options}, label, config, added, data_of(config))
            planned.setdefault(run.id, run)
    return list(planned.values())


def _given(options: Mapping[str, int]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def _planned(
    sweep: SweepFile,
    values: Mapping[str, Any],
    label: str,
    config: Mapping[str, Any],
    more: Sequence[str],
    data: str | None,
) -> PlannedRun:
    if config["ckpt_path"] is not None:
        allowed = "null, for a run of a sweep goes on with its own checkpoint"
        raise UsageError("ckpt_path", config["ckpt_path"], allowed)
    if config["trainer"]["logger"] not in (None, True):
        allowed = "null, for a sweep knows its runs by the folders that they make then"
        raise UsageError("trainer.logger", config["trainer"]["logger"], allowed)
    project = Path(config["run_dir"]) / config["project"]
    run_id = identity(config)
    if data is not None:
        run_id = f"{identity(without_places(config))}-{data[:SHOWN]}"
    files = project / "sweeps" / sweep.name
    values_file = files / f"{run_id}.json"
    args = [*arguments(sweep.command, values, values_file), *more, "--ckpt_path", "last"]
    log = files / f"{run_id}.log"
    folder = project / run_id
    return PlannedRun(run_id, label, values, config, args, folder, values_file, log, data)


def check_data(runs: Sequence[PlannedRun], allowed: bool) -> None:
    """Refuse runs that were begun on other data; they would be trained again beside the old ones.

    Args:
        runs: The runs.
        allowed: Whether runs may be trained again on other data, each in a folder of its own.

    Raises:
        UsageError: A run of the same options has other data.
    """
    for run in runs:
        if run.data is None:
            continue
        options = run.id.rpartition("-")[0]
        beside = [] if allowed else sorted(run.folder.parent.glob(f"{options}-*"))
        for folder in (run.folder, *beside):
            seen = pool_of(folder)
            if seen not in (None, run.data):
                given = f"sha256 {run.data[:SHOWN]}"
                other = "" if folder == run.folder else ", or --allow_data_change to train anew"
                told = f"those of {folder}, sha256 {seen[:SHOWN]}{other}"
                raise UsageError("data", given, told)


def labels_of(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return short labels that tell each run from the others.

    >>> labels_of([{"data.batch_size": 1, "name": "a"}, {"data.batch_size": "full", "name": "a"}])
    ['batch_size=1', 'batch_size=full']
    """
    varied = varied_names(points)
    last = [name.rsplit(".", 1)[-1] for name in varied]
    pairs = zip(varied, last, strict=True)
    short = {name: end if last.count(end) == 1 else name for name, end in pairs}
    return [" ".join(f"{short[n]}={shown(p[n])}" for n in varied) for p in points]


def varied_names(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the parameters that have more than one value; all of them if none has."""
    names = list(points[0])
    return [name for name in names if len({repr(p[name]) for p in points}) > 1] or names


def shown(value: Any) -> str:
    """Return a value as tables and labels show it.

    >>> shown(0.00012345678), shown(None), shown("full")
    ('0.000123457', 'null', 'full')
    """
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
