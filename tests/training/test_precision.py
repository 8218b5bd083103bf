"""IEEE float32 unless a run asks for TF32: the settings of PyTorch, the option, and the record."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from lightning.pytorch import Callback

from janus_pl.cli import checks
from janus_pl.cli.main import main
from janus_pl.errors import UsageError
from janus_pl.records.read import read
from janus_pl.run.folder import changes, differences, identity
from janus_pl.training import describe
from janus_pl.training.precision import (
    check_numerics,
    full_precision,
    kept_numerics,
    numerics_of,
    prefer_ieee,
    use_numerics,
)

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
B: Any = torch.backends
OF_CUDA = (B.cudnn.conv, B.cuda.matmul, B.cudnn.rnn)
OF_CPU = (B.mkldnn.conv, B.mkldnn.matmul, B.mkldnn.rnn)
BY_ITSELF = "convolutions tf32, products ieee"  # PyTorch on CUDA


@pytest.fixture(autouse=True)
def pytorch_as_it_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """PyTorch's own settings, whatever an earlier test left; put back afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    with kept_numerics():
        torch.set_float32_matmul_precision("highest")
        B.fp32_precision = "none"
        for part in (B.cudnn, B.mkldnn, *OF_CUDA, *OF_CPU):
            part.fp32_precision = "none"
        B.cudnn.allow_tf32 = True
        for part in (B.cudnn.conv, B.cudnn.rnn):
            part.fp32_precision = "tf32"
        yield


def settings() -> list[str]:
    return [part.fp32_precision for part in (B, *OF_CUDA, *OF_CPU)]


# The settings


@pytest.mark.parametrize("first", ["ieee", "tf32"])
@pytest.mark.parametrize("numerics", ["ieee", "tf32"])
def test_old_and_new_settings_of_pytorch_agree(numerics: Any, first: Any) -> None:
    """PyTorch raises an error, in Lightning as well, where they do not."""
    use_numerics(first)
    use_numerics(numerics)
    assert {part.fp32_precision for part in OF_CUDA} == {numerics}
    assert {part.fp32_precision for part in (B, *OF_CPU)} == {"ieee"}
    allowed = numerics == "tf32"
    assert (B.cudnn.allow_tf32, B.cuda.matmul.allow_tf32) == (allowed, allowed)
    assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")
    assert (numerics_of(CUDA), numerics_of(CPU), numerics_of(MPS)) == (numerics, "ieee", "ieee")


def test_the_new_settings_alone_would_contradict_the_old_ones() -> None:
    """The negative control: Lightning asks for this one at the start of a run on CUDA."""
    for part in OF_CUDA:
        part.fp32_precision = "tf32"
    with pytest.raises(RuntimeError, match="mix of the legacy and new APIs"):
        torch.get_float32_matmul_precision()


def test_pytorch_by_itself_convolves_in_tf32() -> None:
    assert numerics_of(CUDA) == BY_ITSELF
    assert numerics_of(CPU) == "ieee"


def test_another_word_is_refused_and_nothing_is_set() -> None:
    before = settings()
    with pytest.raises(UsageError, match="numerics: got 'bf16', allowed: ieee, tf32"):
        use_numerics("bf16")
    assert settings() == before


@pytest.mark.parametrize("numerics", ["ieee", "tf32"])
def test_settings_are_put_back(numerics: Any) -> None:
    before = settings()
    with kept_numerics():
        use_numerics(numerics)
        assert settings() != before
    assert settings() == before
    assert (B.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == (True, "highest")


def test_settings_that_contradict_each_other_are_put_back_too() -> None:
    B.fp32_precision = "tf32"
    B.mkldnn.matmul.fp32_precision = "bf16"
    before = settings()
    with pytest.raises(RuntimeError), kept_numerics():
        use_numerics("ieee")
        raise RuntimeError
    assert settings() == before


def test_a_look_is_by_ieee_and_training_goes_on_as_it_was() -> None:
    use_numerics("tf32")
    before = settings()
    with torch.autocast("cpu", torch.bfloat16), full_precision(CUDA):
        assert numerics_of(CUDA) == "ieee"
        assert not B.cudnn.allow_tf32
    assert settings() == before
    with torch.autocast("cpu", torch.bfloat16):
        with full_precision(CPU):
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_enabled("cpu")


# A script


def say_nothing() -> None: ...


def say_tf32() -> None:
    use_numerics("tf32")


def say_by_pytorch() -> None:
    B.fp32_precision = "tf32"


def say_of_products() -> None:
    torch.set_float32_matmul_precision("high")


@pytest.mark.parametrize(
    ("say", "numerics"),
    [
        (say_nothing, "ieee"),
        (say_tf32, "tf32"),
        (say_by_pytorch, "tf32"),
        (say_of_products, "tf32"),
    ],
)
def test_a_script_is_by_ieee_unless_it_says_otherwise(
    say: Callable[[], None],
    numerics: str,
    small_task: Any,
    small_loader: Any,
    fit: Any,
) -> None:
    say()
    before = settings()
    seen = []

    class Probe(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            seen.append(numerics_of(CUDA))

    fit(small_task(), small_loader(8), epochs=1, callbacks=[Probe()])
    assert seen == [numerics]
    if numerics == "tf32":
        assert settings() == before
        prefer_ieee()
        assert settings() == before


# The option


@pytest.mark.parametrize(
    ("device", "can", "wide", "says"),
    [
        (CUDA, True, False, None),
        (CUDA, False, False, "ieee: the device cuda has no TF32"),
        (CPU, True, False, "ieee: the device cpu has no TF32"),
        (MPS, True, False, "ieee: the device mps has no TF32"),
        (CUDA, True, True, "ieee, for a run in float64"),
    ],
)
def test_tf32_where_it_would_change_nothing_is_refused(
    device: torch.device,
    can: bool,
    wide: bool,
    says: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda: can)
    check_numerics("ieee", device, wide)
    if says is None:
        check_numerics("tf32", device, wide)
        return
    with pytest.raises(UsageError) as error:
        check_numerics("tf32", device, wide)
    assert str(error.value) == f"numerics: got 'tf32', allowed: {says}"


FIT = [
    *("fit", "--config=quickstart.yaml", "--data.num_train=40", "--model.hidden=8"),
    *("--model.channels=[2,3,4,4]", "--trainer.max_epochs=2", "--trainer.limit_val_batches=0"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    *("--data.batch_size=32", "--trainer.accelerator=cpu"),
    f'--trainer.callbacks=["callbacks.RunCheckpoint", "{__name__}.Sees"]',
]
TF32 = "--numerics=tf32"


class Sees(Callback):
    """The numerics in force at each step, as CUDA would have them."""

    seen: list[str] = []  # noqa: RUF012

    def on_train_batch_start(self, *_: Any) -> None:
        self.seen.append(numerics_of(CUDA))


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A CPU that passes for a CUDA device with TF32; the numerics at each step."""
    Sees.seen.clear()
    monkeypatch.setattr(checks, "check_numerics", lambda *_: None)
    monkeypatch.setattr(describe, "numerics_of", lambda device: numerics_of(CUDA))
    return Sees.seen


def run_folder() -> Path:
    (folder,) = Path("runs/janus_pl").iterdir()
    return folder


def held(folder: Path, key: str) -> Any:
    return json.loads((folder / "description.json").read_text())[key]


@pytest.mark.parametrize("given", [["--numerics=high"], ["--numerics", "null"]])
def test_another_word_is_refused_in_one_line(given: list[str], capsys: Any) -> None:
    assert main([*FIT, *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: numerics: got ") and line.endswith("'ieee', 'tf32'")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (FIT, "ieee: the device cpu has no TF32"),
        (["fit", "--config=linear/a2.yaml"], "ieee, for a run in float64"),
    ],
)
def test_tf32_on_a_cpu_is_refused_before_a_run_is_made(
    given: list[str], says: str, capsys: Any
) -> None:
    assert main([*given, TF32]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f"error: numerics: got 'tf32', allowed: {says}"
    assert not Path("runs").exists()


def test_the_option_is_in_force_in_the_record_and_gone_afterwards(on_cuda: list[str]) -> None:
    before = settings()
    for number, (args, numerics) in enumerate([([], "ieee"), ([TF32], "tf32")]):
        assert main([*FIT, *args, f"--run_dir={number}"]) == 0
        wandb.finish()
        assert settings() == before
        assert {*on_cuda} == {numerics}
        on_cuda.clear()
        (folder,) = Path(str(number), "janus_pl").iterdir()
        assert held(folder, "numerics") == numerics
        assert f"\nnumerics: {numerics}\n" in (folder / "config.yaml").read_text()
        checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert checkpoint["description"]["numerics"] == numerics
        assert checkpoint["config"]["numerics"] == numerics
        (run,) = read([folder]).runs
        assert (run.description.numerics, run.config["numerics"]) == (numerics, numerics)
        assert run.config["trainer"]["devices"] == 1


def test_at_a_checkpoint_the_config_decides_and_the_change_is_recorded(
    on_cuda: list[str], capsys: Any
) -> None:
    longer = ["--ckpt_path=last", "--trainer.max_epochs=3"]
    assert main([*FIT, TF32]) == 0
    wandb.finish()
    folder = run_folder()
    (folder / "outcome.json").unlink()
    on_cuda.clear()
    assert main([*FIT, "--ckpt_path=last"]) == 2
    said = f"error: --ckpt_path: got 'last', allowed: the config of {folder}, or "
    said += "--allow_config_change; changed: numerics: tf32 in the run, now ieee"
    assert capsys.readouterr().err.splitlines()[-1] == said
    assert main([*FIT, *longer, "--allow_config_change"]) == 0
    assert on_cuda == ["ieee", "ieee"]
    assert run_folder() == folder
    assert held(folder, "numerics") == "ieee"
    (line,) = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    assert line["changed"]["numerics"] == ["tf32", "ieee"]


# Records of before


def config(**options: Any) -> dict[str, Any]:
    more = {key: value for key, value in options.items() if key != "devices"}
    trainer = {"max_epochs": 2, "devices": options.get("devices", "auto")}
    return {"model": {"lr": 0.1}, "trainer": trainer, **more}


def test_a_run_with_the_new_defaults_is_a_run_of_before() -> None:
    """An id that changed would train every run of a sweep once more."""
    now, before = config(numerics="ieee", devices=1), config()
    assert identity(now) == identity(before) == identity(config(devices="1")) == "370a7600e3c7"
    assert changes(before, now) == changes(now, before) == {}
    others = config(numerics="tf32", devices=1), config(devices=2), config(devices=[1])
    assert len({identity(each) for each in (now, *others)}) == 4
    assert differences(before, others[0]) == ["numerics: ieee in the run, now tf32"]
    assert differences(others[0], before) == ["numerics: tf32 in the run, now ieee"]
    assert differences(others[1], now) == ["trainer.devices: 2 in the run, now 1"]
