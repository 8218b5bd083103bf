"""Every singular value at every look of LayerRank, against numpy's SVD of the weights in files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from training.test_epoch_rows import Other, loader

from janus_pl import LinearRegressor
from janus_pl.callbacks import LayerRank, LossEvents, MarginHistogram
from janus_pl.data import LinearProblem
from janus_pl.records.archive import write_archive
from janus_pl.records.parts import Part
from janus_pl.records.read import read, read_parts
from janus_pl.records.run import Run
from janus_pl.report.figures.events import Spikes, lost_of, spikes_of

EPOCHS, LOOKS = 5, [0, 1, 2, 4, 5]
LONG, THRESHOLD = 8, 0.85  # of the network: the loss is below after epoch 4, and not after 5
Array = np.ndarray[Any, Any]


def only(folder: Path) -> Run:
    (run,), skipped = read([folder])
    assert not skipped and run.notes == ()
    return run


def spectrum(weight: torch.Tensor) -> Array:
    """Of the matrix of a weight with unit Frobenius norm, by numpy."""
    matrix = weight.double().numpy().reshape(len(weight), -1)
    return np.linalg.svd(matrix / np.linalg.norm(matrix), compute_uv=False)


def saved(folder: Path) -> dict[int, dict[str, torch.Tensor]]:
    """The weights of each checkpoint by its step."""
    found = (torch.load(path, weights_only=True) for path in folder.rglob("*.ckpt"))
    return {state["global_step"]: state["state_dict"] for state in found}


def of_the_network(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    end = ".parametrizations.weight.original1"
    return {k.split(".")[-4]: v for k, v in state.items() if k.endswith(end)}


def of_the_other(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removesuffix(".weight").replace(".", "_"): v for k, v in state.items() if v.ndim > 1}


def check(run: Run, folder: Path, weights: Callable[..., Any], looks: Sequence[int]) -> None:
    """Every look has all values of all layers, and they are those of the weights in its file."""
    assert [look.epoch for look in run.spectra] == [*looks]
    files = saved(folder)
    for look in run.spectra:
        row = run.rows[run.rows["epoch"] == look.epoch].iloc[0]
        assert (look.step, look.eta_t) == (row["trainer/global_step"], row["eta_t"])
        for layer, sigma in look.sigma.items():
            assert row[f"rank/{layer}"] == (sigma > 1e-3).sum(), "as LayerRank counts"
            assert row[f"rank_relative_1e-01/{layer}"] == (sigma > 0.1 * sigma[0]).sum()
            p = sigma / sigma.sum()
            entropy = -(p * np.log(p)).sum()
            assert row[f"effective_rank/{layer}"] == pytest.approx(np.exp(entropy), rel=1e-5)
        if look.epoch:
            expected = {k: spectrum(w) for k, w in weights(files[int(look.step)]).items()}
            assert look.sigma.keys() == expected.keys()
            for layer, sigma in look.sigma.items():
                np.testing.assert_allclose(sigma, expected[layer], rtol=1e-5, atol=1e-7)


def keep(folder: Path) -> ModelCheckpoint:
    """All weights of each epoch, beside the record."""
    return ModelCheckpoint(folder / "kept", save_top_k=-1, every_n_epochs=1)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the network by a script, with files of its weights; its folder."""
    from lightning.pytorch import Trainer

    from janus_pl import DeepReLUClassifier
    from janus_pl.data import DigitsPair

    folder = tmp_path_factory.mktemp("network")
    torch.manual_seed(0)
    small: Any = {"strides": (2, 2, 2, 2), "channels": (16, 32, 32, 32), "hidden": 128}
    task = DeepReLUClassifier(weight_decay=2e-3, learning_rate=0.2, schedule="constant", **small)
    looks = [LayerRank(1), LossEvents(1, THRESHOLD), MarginHistogram(), keep(folder)]
    Trainer(
        max_epochs=LONG,
        accelerator="cpu",
        logger=CSVLogger(folder),
        callbacks=looks,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    ).fit(task, DigitsPair(batch_size=16, num_train=128))
    return folder


def test_of_the_network_in_a_script(network: Path) -> None:
    run = only(network)
    check(run, network, of_the_network, range(LONG + 1))
    (file,) = network.rglob("spectra.jsonl")
    values = [v for line in file.read_text().splitlines() for v in json.loads(line)["sigma"]["fc1"]]
    assert all(float(str(np.float32(value))) == value for value in values), "digits of float32"
    assert "spectra" not in (file.parent / "rows.jsonl").read_text()
    metrics = (file.parent / "metrics.csv").read_text()
    assert "rank/fc1" in metrics and "spectra" not in metrics and "sigma" not in metrics


def test_weights_of_another_epoch_are_found_out(network: Path, tmp_path: Path) -> None:
    """The control of the test above."""
    run = only(network)
    shutil.copytree(network, tmp_path / "copy")
    files = sorted((tmp_path / "copy" / "kept").glob("*.ckpt"))
    state = torch.load(files[0], weights_only=True)
    later = torch.load(files[-1], weights_only=True)
    torch.save({**state, "state_dict": later["state_dict"]}, files[0])
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check(run, tmp_path / "copy", of_the_network, range(LONG + 1))


def test_an_archive_has_them_too(network: Path, tmp_path: Path) -> None:
    parts = [part for part in read_parts([network]) if isinstance(part, Part)]
    write_archive(tmp_path / "one.jsonl.xz", parts)
    check(only(tmp_path / "one.jsonl.xz"), network, of_the_network, range(LONG + 1))


def test_spikes_and_lost_ranks_computed_from_rows_are_those_recorded(network: Path) -> None:
    """`LossEvents` saw the run; the figure of a run without it computes them."""
    run = only(network)
    assert "trainer.callbacks" not in run.options, "the config of a script has none"
    own = [key for key in run.rows if key.startswith("event/")]
    look = {"class_path": "janus_pl.callbacks.LossEvents", "init_args": {"threshold": THRESHOLD}}
    config = {**run.config, "trainer": {"callbacks": [look]}}
    bare = replace(run, rows=run.rows.drop(columns=own), config=config)
    ended = [spike for spike in spikes_of(bare).events if spike.end is not None]
    assert spikes_of(run).events == ended != []
    recorded, computed = lost_of(run, spikes_of(run)), lost_of(bare, spikes_of(bare))
    for one, other in zip(recorded, computed, strict=True):
        assert one.keys() == other.keys() and len(other) == 6
        for layer, lost in one.items():
            assert other[layer] == pytest.approx(lost, rel=1e-6, abs=1e-9)
    without = lost_of(bare, Spikes([], None))
    assert computed != without and not without.within, "control: the spikes matter"


def test_of_somebody_elses_module(fit: Any, tmp_path: Path) -> None:
    torch.manual_seed(7)
    looks = [LayerRank(4), keep(tmp_path)]
    logger = CSVLogger(tmp_path)
    fit(Other(), loader(True), EPOCHS, looks, logger=logger, enable_checkpointing=True)
    check(only(tmp_path), tmp_path, of_the_other, LOOKS)


def test_of_linear_regression_in_all_digits(fit: Any, tmp_path: Path) -> None:
    task = LinearRegressor(weight_decay=0.02, learning_rate=0.01, schedule="constant")
    data = LinearProblem(num_train=6, dim=4, outputs=3, batch_size=2, seed=1)
    fit(task, data, EPOCHS, [LayerRank(4)], logger=CSVLogger(tmp_path))
    looks = only(tmp_path).spectra
    assert (looks[0].epoch, looks[-1].epoch) == (0, EPOCHS)
    (file,) = tmp_path.rglob("final.npz")
    expected = spectrum(torch.from_numpy(np.load(file)["W"]))
    np.testing.assert_allclose(looks[-1].sigma["fc1"], expected, rtol=1e-12, atol=1e-9)


def test_without_layer_rank_there_is_no_such_file(
    fit: Any, small_task: Any, small_loader: Any, tmp_path: Path
) -> None:
    for name, every in (("never", 0), ("seen", 1)):
        folder = tmp_path / name
        looks = [LayerRank(every), MarginHistogram()]
        fit(small_task(), small_loader(), 2, looks, logger=CSVLogger(folder))
        assert bool([*folder.rglob("spectra.jsonl")]) == (every > 0)
        assert len([*folder.rglob("rows.jsonl")]) == 1


def test_layers_are_chosen_as_ranks_are(
    fit: Any, small_task: Any, small_loader: Any, tmp_path: Path
) -> None:
    look = LayerRank(1, layers=["fc*"])
    fit(small_task(), small_loader(), 1, [look], logger=CSVLogger(tmp_path))
    assert [[*look.sigma] for look in only(tmp_path).spectra] == [["fc1", "fc2"]] * 2


def test_a_layer_that_is_not_finite_is_left_out(
    fit: Any, small_task: Any, small_loader: Any, tmp_path: Path
) -> None:
    task = small_task()
    observe = LayerRank.observe

    class Poisoned(LayerRank):
        def observe(self, trainer: Any, subject: Any) -> Any:
            whole = subject.directions()
            whole["conv2"][0, 0] = torch.nan
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(subject), "directions", lambda self: whole)
                return observe(self, trainer, subject)

    fit(task, small_loader(), 1, [Poisoned(1)], logger=CSVLogger(tmp_path))
    for look in only(tmp_path).spectra:
        assert "conv2" not in look.sigma and len(look.sigma) == 5
