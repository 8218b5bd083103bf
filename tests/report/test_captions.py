"""What stands under figures, and how their axes, numbers and colours look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.colors import to_hex
from report.drawn import picture, pictures
from report.generic import network, regression, zero_function

from janus_pl.records.run import Run
from janus_pl.report.figures import draw, style
from janus_pl.report.figures.caption import Again, bands, caption, command, report_command
from janus_pl.report.figures.series import family, seeds
from janus_pl.report.figures.sheet import shown_lambdas

AGAIN = "python -m janus_pl report RUNS --out OUT"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # configs of runs without a folder are written


def said(runs: Sequence[Run], left_out: Sequence[Run] = ()) -> list[str]:
    return caption("Title", "Text.", runs, left_out, ["A note."], Again(AGAIN, Path("out"))).split(
        "\n"
    )


def test_a_caption_names_its_runs_by_dynamics_batch_size_and_lambda() -> None:
    runs = [network(0.0, seed=s) for s in (0, 1)] + [network(5e-5), network(0.02, "full")]
    title, named, note, uneven, again, figure = said(runs)
    assert (title, note) == ("Title. Text.", "A note.")
    assert named == (
        "Runs: SGD, B = 32, lambda = 0: square-B32-lam0-seed0 (id-square-B32-lam0-seed0),"
        " square-B32-lam0-seed1 (id-square-B32-lam0-seed1), seeds 0, 1;"
        " SGD, B = 32, lambda = 5e-5: square-B32-lam5e-05-seed0 (id-square-B32-lam5e-05-seed0),"
        " seed 0; GD, B = N, lambda = 2e-2: square-Bfull-lam0.02-seed0"
        " (id-square-Bfull-lam0.02-seed0), seed 0."
    )
    assert uneven == (
        "Fewer seeds than the 2 of the others: SGD at lambda = 5e-5 (1), GD at lambda = 2e-2 (1)."
    )
    path = "out/configs/id-square-B32-lam0-seed0.yaml"
    assert again == f"The first of these runs again: python -m janus_pl fit --config {path}"
    assert figure == f"This figure again: {AGAIN}"


def test_a_caption_says_nothing_of_seeds_that_are_even() -> None:
    runs = [network(lam, seed=s) for lam in (0.0, 1e-3) for s in (0, 1)]
    assert not [line for line in said(runs) if "Fewer seeds" in line]
    # Two runs of one seed are one seed.
    twice = [network(0.0), replace(network(0.0), id="b"), network(1e-3)]
    assert not [line for line in said(twice) if "Fewer seeds" in line]


def test_a_caption_names_the_first_twelve_that_are_left_out() -> None:
    others = [network(0.0, seed=s) for s in range(15)]
    for count, more in ((1, ""), (12, ""), (13, " and 1 more"), (15, " and 3 more")):
        (line,) = [one for one in said([network()], others[:count]) if one.startswith("Left out")]
        named = ", ".join(f"{run.name} ({run.id})" for run in others[: min(count, 12)])
        assert line.endswith(f"they lack what is shown: {named}{more}.")


def test_a_caption_says_how_far_a_run_got_that_has_not_finished() -> None:
    runs = [network(), replace(network(seed=1), exit_code=None), replace(network(), exit_code=5)]
    (line,) = [one for one in said(runs) if one.startswith("Not finished")]
    assert line == f"Not finished, shown as far as they got: {runs[1].name} (epoch 9)."


@pytest.mark.parametrize(
    ("x", "told"), [("epoch", "epoch"), ("trainer/global_step", "step"), ("eta_t", "eta_t")]
)
def test_a_caption_gives_the_command_of_its_clock(x: str, told: str) -> None:
    runs = [network(), network(seed=1), replace(network(), path=network(seed=1).path)]
    given = f"{runs[0].path} {runs[1].path}"
    assert report_command(runs, Path("o"), x) == (
        f"python -m janus_pl report {given} --out o --x {told}"
    )


def test_the_command_is_of_the_run_s_own_folder_as_it_was_read() -> None:
    folder = Path("some where/p/an-id")
    folder.mkdir(parents=True)
    config = {**network().config, "run_dir": "elsewhere", "project": "q"}
    run = replace(network(), config=config, path=folder / "rows.jsonl")
    written = f"python -m janus_pl fit --config out/configs/{run.id}.yaml"
    assert command(run, Path("out")) == written, "there is no config in it"
    (folder / "config.yaml").touch()
    path = "'some where/p/an-id/config.yaml'"  # to be pasted into a shell
    assert command(run, Path("out")) == f"python -m janus_pl fit --config {path}"
    shown = report_command([run], Path("out"), "epoch")
    assert shown == "python -m janus_pl report 'some where/p/an-id' --out out --x epoch"


def test_the_config_of_a_run_without_a_folder_is_its_options_alone() -> None:
    options = {**network(data={"root": "pictures"}).config, "weights_only": None}
    config = {**options, "description": {}, "history": [], "claims": {}, "_wandb": {"t": 1}}
    run = replace(network(), config=config, path=Path("runs.jsonl.xz"))
    line = command(run, Path("out"))
    assert line.endswith(f"{run.id}.yaml (with --data.root DIR if the data are not in pictures)")
    (path,) = Path("out/configs").iterdir()
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == options


def test_an_id_that_is_a_path_leads_nowhere_else() -> None:
    run = replace(network(), id="../../up")
    command(run, Path("a/b/out"))
    (path,) = Path("a/b/out").rglob("*.yaml")
    assert path.parent == Path("a/b/out/configs")
    assert sorted(Path().rglob("*.yaml")) == [path]
    command(replace(network(), id="______up"), Path("a/b/out"))
    assert len(list(Path("a/b/out/configs").iterdir())) == 2, "another id has another file"


def test_a_run_that_ended_as_f_0_is_named() -> None:
    sound, ended = network(0.0), zero_function(network(1e-2))
    (line,) = [one for one in said([sound, ended]) if "f = 0" in one]
    assert line.endswith(f"no mean over seeds for it: {ended.name} ({ended.id}).")
    (line,) = [one for one in said([sound], [ended]) if "f = 0" in one]
    assert (
        line
        == f"Left out, since they ended as f = 0 or lack what is shown: {ended.name} ({ended.id})."
    )
    assert not [one for one in said([sound]) if "f = 0" in one], "no sound run is"


def test_bands_are_told_as_what_they_are() -> None:
    one, two = [network()], [network(), network(seed=1)]
    mixed = [network(0.0), *two]
    assert bands(one) == bands([network(0.0), network(1e-3)]) == "One seed each."
    ends = "over seeds, bands reach from the smallest to the largest seed."
    assert bands(two) == bands(mixed) == f"Lines are geometric means {ends}"
    assert bands(two, logarithmic=False) == f"Lines are means {ends}"
    assert bands(two, False, "bars reach").endswith("bars reach from the smallest to the"
                                                    " largest seed.")  # fmt: skip
    many = [regression(data={"replicas": 9})]
    assert bands(many) == (
        "Lines are medians over seeds, bands reach from the 5% to the 95% quantile."
    )
    assert bands([regression(data={"replicas": 1})]) == "One seed each."


def test_captions_of_figures_say_which_mean_their_axis_has(tmp_path: Path) -> None:
    runs = [network(0.0, seed=s) for s in (0, 1)]
    found = pictures(runs, tmp_path, ("fig3", "fig4a", "fig4b"))
    assert "against epochs; one panel a layer. Lines are geometric means over seeds, bands" in (
        found["fig3"].caption
    )
    assert "last epoch. Lines are geometric means over seeds, bars reach" in found["fig4a"].caption
    assert "last of each run. Lines are means over seeds, bars reach" in found["fig4b"].caption
    assert "against epochs. Lines are means over seeds, bands reach" in found["fig4b"].caption


def test_the_files_of_a_figure_hold_its_caption_and_its_numbers(tmp_path: Path) -> None:
    found = picture([network(0.0)], tmp_path, "fig4a")
    assert (tmp_path / "fig4a.txt").read_text(encoding="utf-8") == found.caption + "\n"
    assert found.caption.startswith("Figure 4a: SGD noise by layer at the end. Norm of the")
    head = (tmp_path / "fig4a.csv").read_text(encoding="utf-8").split("\n")[0]
    assert head == (
        "panel,kind,run,id,dynamics,loss,lambda,seed,data_seed,layer,key,x_name,x,x_end,value,low,"
        "high,seeds"
    )


def test_files_of_a_figure_that_is_now_missing_are_removed(tmp_path: Path) -> None:
    ours = [tmp_path / f"fig4a.{suffix}" for suffix in ("png", "svg", "csv", "txt")]
    other = tmp_path / "fig4a.other"
    for file in [*ours, other]:
        file.touch()
    draw([], tmp_path)
    assert list(tmp_path.iterdir()) == [other]


def test_seeds_come_by_number_and_once() -> None:
    pairs = [(10, None), (2, None), (2, 2), (1, 7), (1, 12)]
    runs = [network(seed=w, data_seed=s) for w, s in pairs]
    assert seeds(runs) == ["1/7", "1/12", "2", "10"]
    without = network()
    data = {"init_args": {"batch_size": 32}}
    assert seeds([replace(without, config={**without.config, "data": data})]) == ["0"]


@pytest.mark.parametrize(("size", "told"), [("full", "B = N"), (32, "B = 32")])
def test_a_family_says_its_batch_size(size: int | str, told: str) -> None:
    assert family([network(batch=size)]).batch == told


# Looks


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1e-6, "1e-6"),
        (5e-5, "5e-5"),
        (0.02, "2e-2"),
        (1.5e-2, "1.5e-2"),
        (1.25, "1.25e0"),
    ],
)
def test_a_lambda_is_printed_as_in_the_paper(value: float, text: str) -> None:
    assert style.number(value) == text


def test_lambdas_are_those_of_all_runs_once_and_zero_is_one() -> None:
    runs = [network(1e-3), network(0.0), network(1e-3), regression(lam=0.02)]
    runs.append(network(model={"weight_decay": [1, 2]}))
    assert shown_lambdas(runs) == [0.0, 1e-3, 0.02]
    assert to_hex(style.colours([5.0])[5.0]) == to_hex(style.colours([5.0, 7.0])[5.0]) == "#2b0a3d"


def numbers(low: float, high: float, **options: Any) -> Any:
    figure = style.canvas(3, 2)
    axes = figure.subplots()
    axes.plot([0, 1], [low, high])
    return axes


PLAIN = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


@pytest.mark.parametrize(
    ("high", "places"), [(8.0, {1.0, 2.0, 5.0, 10.0}), (1e4, {1.0, 10.0, 1e2, 1e3, 1e4})]
)
def test_a_logarithmic_axis_has_labels_at_powers_of_ten_or_between_if_it_is_short(
    high: float, places: set[float]
) -> None:
    axes = numbers(1.0, high)
    style.logarithmic(axes)
    low, top = axes.get_ylim()
    ticks = {float(t) for t in axes.yaxis.get_majorticklocs() if low <= t <= top}
    assert ticks == {place for place in places if low <= place <= top}
    labels = axes.yaxis.get_major_formatter().format_ticks(sorted(ticks))
    read = {
        float(label.replace("×10", "e").replace("10", "1e", 1).translate(PLAIN)) for label in labels
    }
    assert read == ticks, "every place has its label"
    assert not len(axes.yaxis.get_minorticklocs())


def test_plain_ticks_are_few_round_and_have_nothing_subtracted() -> None:
    axes = numbers(8.26e-8, 8.27e-8)
    style.plain_ticks(axes, x=4, y=5)
    assert len(axes.xaxis.get_majorticklocs()) <= 6
    axes.yaxis.get_major_formatter().set_locs(axes.yaxis.get_majorticklocs())
    formatter = axes.yaxis.get_major_formatter()
    assert not formatter.get_useOffset()
    assert float(formatter.get_offset().replace("\N{MINUS SIGN}", "-")) == 1e-8
    steps = np.diff(axes.xaxis.get_majorticklocs())
    assert np.allclose(steps, steps[0])


def test_a_panel_with_something_is_not_called_empty() -> None:
    lines, patches, empty = numbers(1.0, 2.0), *(style.canvas(3, 2).subplots() for _ in range(2))
    patches.stairs([1, 2], [0, 1, 2])
    for axes in (lines, patches, empty):
        style.tell_empty(axes, "thing")
    assert not lines.texts
    assert not patches.texts
    assert [text.get_text() for text in empty.texts] == ["no thing to show"]
    assert len(empty.get_xticks()) == 0
