"""What an impatient user types: exit code 2, one line that names the right field, nothing made."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from janus_pl.cli.main import main
from janus_pl.version import __version__

FIT = "fit --config quickstart.yaml"
IMAGES = "fit --data janus_pl.data.ImageFolderPair --data.root images --data.batch_size 1"
SWEEP = """
method: grid
command: [python, -m, janus_pl, fit, --config, quickstart.yaml, "${args}"]
parameters:
"""
PART = "model:\n  init_args:\n    %s\n"
CALLBACK = "trainer:\n  callbacks:\n    - class_path: %s\n"
FILES = {
    "twice": "trainer:\n  max_epochs: 1\nname: a\ntrainer:\n  max_steps: 3\n",
    "inner": PART % "loss: square\n    hidden: 3\n    loss: logistic",
    "names": "model: part.yaml\n",
    "part": "class_path: janus_pl.DeepReLUClassifier\ninit_args:\n  loss: a\n  loss: b\n",
    "lists": "trainer:\n  callbacks:\n    - look.yaml\n",
    "look": "class_path: janus_pl.callbacks.LayerRank\n"
    "init_args:\n  layers: [a]\n  'layers': [b]\n",
    "tabs": "model:\n\tclass_path: a\n",
    "option": PART % "lerning_rate: 3",
    "optimizer": PART % "optimizer:\n      class_path: torch.optim.SDG",
    "momentum": PART % "optimizer:\n      class_path: torch.optim.SGD\n"
    "      init_args: {momentm: 1}",
    "schedule": PART % "schedule:\n      class_path: torch.optim.lr_scheduler.StepRL",
    "class": CALLBACK % "janus_pl.callbacks.LayerRnk",
    "bare": CALLBACK % "LayerRnk",
    "module": CALLBACK % "callback.LayerRank",
    "callback": CALLBACK % "janus_pl.callbacks.LayerRank\n      init_args: {every_n_epoch: 1}",
    "init_arg": CALLBACK % "janus_pl.callbacks.LayerRank\n      init_arg: {every_n_epochs: 1}",
    "seed": "seed_everything: false\n",
    "sweep": SWEEP + "  model.loss: {values: [square]}\n",
    "sweep_twice": SWEEP + "  a: {value: 1}\n  b: {value: 2}\n  a: {value: 3}\n",
    "sweep_name": SWEEP + "  model.wieght_decay: {value: 1}\n",
    "sweep_deep": SWEEP + "  model.optimizer.momentm: {value: 1}\n",
    "sweep_config": SWEEP.replace("quickstart", "quikstart") + "  model.loss: {value: square}\n",
    "sweep_key": SWEEP + "  model.loss: {value: square}\nmethd: grid\n",
    "sweep_tab": "method:\tgrid\n\tname: a\n",
    "sweep_list": "- 1\n",
    "sweep_empty": "",
}
MODULES = {
    "own": "from lightning.pytorch import Callback\n"
    "from janus_pl import DeepReLUClassifier\n\n\n"
    "class Classifier(DeepReLUClassifier): ...\n\n\nclass Tail(Callback): ...\n",
    "raising": "raise RuntimeError('no such thing')\n",
    "unread": "def f(:\n",
}
# A command line, the field that its line names, and a piece of what the line says is allowed.
CASES = [
    ("fit quickstart.yaml", "argument", "--config quickstart.yaml"),
    ("test quickstart.yaml", "argument", "--config quickstart.yaml"),
    (f"{FIT} --data.classes 3 8", "argument", "'[3, 8]'"),
    (f"{FIT} trainer.max_epochs=3", "argument", "--NAME VALUE"),
    (f"{FIT} --allow_data_change true", "argument", "--NAME VALUE"),
    *(
        (f"{FIT} --{name}=no", f"--{name}", "no value, for the option alone sets it")
        for name in ("log_model", "save_code", "alerts", "allow_data_change", "allow_config_change")
    ),
    # Words and flags that mean nothing there
    *(
        (
            f"{name} --config quickstart.yaml --ckpt_path last",
            "--ckpt_path",
            "checkpoints/last.ckpt",
        )
        for name in ("validate", "test", "predict")
    ),
    (f"{FIT} --allow_data_change", "--allow_data_change", "beside --ckpt_path alone"),
    (f"{FIT} --allow_config_change", "--allow_config_change", "beside --ckpt_path last of fit"),
    (
        f"{FIT} --ckpt_path a.ckpt --allow_config_change",
        "--allow_config_change",
        "beside --ckpt_path last of fit",
    ),
    (
        "validate --config quickstart.yaml --allow_config_change",
        "--allow_config_change",
        "beside --ckpt_path last of fit",
    ),
    (
        f"{FIT} --trainer.num_nodes 2 --trainer.accelerator cpu",
        "trainer.num_nodes",
        "MASTER_ADDR and NODE_RANK on each machine",
    ),
    ("report folder --log --project a/b", "--project", "one folder"),
    ("report folder --log --run_dir tabs.yaml", "--run_dir", "is none to write to"),
    ("report folder --out tabs.yaml", "--out", "is none to write to"),
    ("report folder --project p", "--project", "with --log alone"),
    ("report folder --run_dir r", "--run_dir", "with --log alone"),
    ("workspace --json --project a/b", "--project", "one folder"),
    ("workspace --json --project=", "--project", "one folder"),
    ("workspace --json --entity a/b", "--entity", "a user or team"),
    ("workspace --json --name=", "--name", "the title"),
    ("workspace", "--entity", "a user or team of W&B, or --json"),
    ("fit -config quickstart.yaml", "argument", "two dashes"),
    ("fit -cquickstart.yaml", "argument", "two dashes"),
    ("fit --model.help janus_pl.LinearRegressor --name a", "argument", "nothing after"),
    ("fit --model.help Foo", "--model.help", "module.Name"),
    ("predict a.ckpt", "argument", "--ckpt_path a.ckpt"),
    (f"{FIT} --", "argument", "--NAME VALUE"),
    (f"{FIT} --hlep", "hlep", "the nearest is help"),
    (f"{FIT} --print_config=x", "--print_config", "skip_null"),
    (f"{FIT} --trainer 3", "trainer", "options by name"),
    (f"{FIT} --trainer.max_epochs.x 3", "trainer.max_epochs.x", "no options"),
    (f"{FIT} --trainer.logger.project x", "trainer.logger.project", "a Logger that is given"),
    (f"{FIT} --model.optimizer.momentum 1,5", "model.optimizer.momentum", "float"),
    (f"{FIT} --trainer.callbacks 'LayerRank()'", "trainer.callbacks", "callbacks.LayerRank"),
    (f"{FIT} --model lightning.LightningModule", "model", "training_step"),
    ("report folder --x foo --out o", "--x", "'eta_t'"),
    # Before it is said that the folder has no runs
    ("report folder --by batchsize", "--by", "the nearest is batch_size"),
    ("report folder --by width --by width", "--by", "two that differ"),
    # Options without their value
    *(
        (f"{FIT} --{name}{more}", f"--{name}", f"a value, as --{name} VALUE")
        for name in (
            *("model.weight_decay", "model.optimizer.momentum", "model", "data", "trainer"),
            *("data.batch_size", "trainer.max_epochs", "trainer.callbacks", "trainer.callbacks+"),
            *("seed_everything", "ckpt_path", "name", "tags", "run_dir"),
            *("entity", "notes", "job_type"),
        )
        for more in ("", " --group a")
    ),
    ("fit --config", "--config", "as --config quickstart.yaml"),
    ("fit --config --name a", "--config", "as --config quickstart.yaml"),
    ("fit --config=", "--config", "as quickstart.yaml"),
    # Names, and lists of them
    (f"{IMAGES} --data.classes 3,8", "data.classes", "list in brackets, as [A, B]"),
    (f"{IMAGES} --data.classes true", "data.classes", "list in brackets, as [A, B]"),
    (f"{IMAGES} --data.classes [true,false]", "data.classes", "text in quotes"),
    (f"{IMAGES} --data.classes [3.0,8]", "data.classes", "text in quotes"),
    (f"{IMAGES} --data.classes [3,9]", "data.classes", "(3, 8)"),
    (f"{IMAGES} --data.classes '[3,\"3\"]'", "data.classes", "two different"),
    (f"{FIT} --tags a,b", "tags", "list in brackets"),
    (
        f"{FIT} --trainer.callbacks callbacks.LayerRank --trainer.callbacks.layers conv1",
        "trainer.callbacks.layers",
        "list in brackets",
    ),
    # Files
    ("fit --config quikstart.yaml", "--config", "the nearest is quickstart.yaml"),
    ("fit --config quickstart", "--config", "the nearest is quickstart.yaml"),
    ("fit --config a22.yaml", "--config", "the nearest is linear/a2.yaml"),
    ("fit --config tvice.yaml", "--config", "the nearest is twice.yaml"),
    ("fit --config folder", "--config", "folder is a folder"),
    ("fit --config sweep.yaml", "--config", "`sweep sweep.yaml`"),
    ("fit --config tabs.yaml", "--config", "line 2; there is a tab"),
    ("sweep fig1 --dry-run", "sweep", "the nearest is fig1.yaml"),
    ("fit --config /dev/null", "--config", "/dev/null is none"),
    ("fit --config ''", "--config", "as quickstart.yaml"),
    ("sweep sweeps/fig1", "sweep", "the nearest is fig1.yaml"),
    ("sweep folder", "sweep", "folder is a folder"),
    ("sweep quickstart.yaml", "sweep", "`fit --config quickstart.yaml`"),
    ("sweep sweep_tab.yaml", "sweep", "line 2; there is a tab"),
    ("sweep sweep_list.yaml", "sweep", "it holds list"),
    ("sweep sweep_empty.yaml", "sweep", "it holds nothing"),
    ("sweep latin.yaml", "sweep", "UTF-8"),
    # Keys that are there twice
    ("fit --config twice.yaml", "--config", "trainer is there twice, in lines 1 and 4"),
    (
        "fit --config inner.yaml",
        "--config",
        "init_args.loss is there twice, in lines 3 and 5",
    ),
    ("fit --config names.yaml", "--config", "init_args.loss is there twice, in lines 3 and 4"),
    ("fit --config lists.yaml", "--config", "init_args.layers is there twice, in lines 3 and 4"),
    ("fit --config deep/own.yaml", "--config", "name is there twice, in lines 1 and 2"),
    ("fit --model part.yaml", "--model", "init_args.loss is there twice"),
    (f"{FIT} --model '{{loss: a, loss: b}}'", "--model", "loss is there twice, in line 1"),
    ("sweep sweep_twice.yaml", "sweep", "parameters.a is there twice, in lines 5 and 7"),
    # Names at any depth
    ("fit --config option.yaml", "model.lerning_rate", "the nearest is learning_rate"),
    ("fit --config optimizer.yaml", "model.optimizer", "the nearest is torch.optim.SGD"),
    ("fit --config momentum.yaml", "model.optimizer.momentm", "the nearest is momentum"),
    (
        "fit --config schedule.yaml",
        "model.schedule",
        "is torch.optim.lr_scheduler.StepLR",
    ),
    ("fit --config class.yaml", "trainer.callbacks", "the nearest is janus_pl.callbacks.LayerRank"),
    ("fit --config bare.yaml", "trainer.callbacks", "the nearest is janus_pl.callbacks.LayerRank"),
    (
        "fit --config module.yaml",
        "trainer.callbacks",
        "the nearest is janus_pl.callbacks.LayerRank",
    ),
    ("fit --config callback.yaml", "trainer.callbacks.every_n_epoch", "is every_n_epochs"),
    ("fit --config init_arg.yaml", "trainer.callbacks.init_arg.every_n_epochs", "is init_args"),
    (f"{FIT} --model.optimizer torch.optim.SDG", "model.optimizer", "is torch.optim.SGD"),
    (f"{FIT} --model.optimizer torch.optm.SGD", "model.optimizer", "is torch.optim.SGD"),
    (f"{FIT} --data DigitPair", "data", "the nearest is janus_pl.data.DigitsPair"),
    (f"{FIT} --model janus.DeepReLUClassifier", "model", "is janus_pl.DeepReLUClassifier"),
    (f"{FIT} --trainer.logger CSVLoger", "trainer.logger", "loggers.CSVLogger"),
    (f"{FIT} --trainer.callbacks+=EarlyStoping", "trainer.callbacks", "callbacks.EarlyStopping"),
    # Classes of one's own
    (f"{FIT} --model own.Clasifier", "model", "the nearest is own.Classifier"),
    (f"{FIT} --model onw.Classifier", "model", "the nearest is own.Classifier"),
    (f"{FIT} --trainer.callbacks+ own.Tial", "trainer.callbacks", "the nearest is own.Tail"),
    (f"{FIT} --data own.Tail", "data", "the class_path of a LightningDataModule"),
    (f"{FIT} --model raising.Thing", "model", "be imported (RuntimeError: no such thing)"),
    (f"{FIT} --data raising.Thing", "data", "be imported (RuntimeError: no such thing)"),
    (f"{FIT} --trainer.callbacks raising.A", "trainer.callbacks", "(RuntimeError: no such thing)"),
    (f"{FIT} --model unread.Thing", "model", "be imported (SyntaxError: "),
    (f"{FIT} --learning_rate 1", "learning_rate", "the nearest is model.learning_rate"),
    (f"{FIT} --max_epochs 1", "max_epochs", "the nearest is trainer.max_epochs"),
    (f"{FIT} --batch_size 1", "batch_size", "the nearest is data.batch_size"),
    # The option that is meant, by the name that it has elsewhere
    (f"{FIT} --sed 3", "sed", "the nearest is seed_everything"),
    (f"{FIT} --seed 3", "seed", "the nearest is seed_everything"),
    (f"{FIT} --data.sed 3", "data.sed", "the nearest is seed (of janus_pl.data.DigitsPair)"),
    (f"{FIT} --lr 1", "lr", "the nearest is model.learning_rate"),
    (f"{FIT} --model.lr 1", "model.lr", "the nearest is learning_rate"),
    (f"{FIT} --lambda 1", "lambda", "the nearest is model.weight_decay"),
    (f"{FIT} --momentum 0", "momentum", "the nearest is model.optimizer.momentum"),
    (f"{FIT} --model.momentum 0", "model.momentum", "the nearest is optimizer.momentum"),
    (f"{FIT} --bs 1", "bs", "the nearest is data.batch_size"),
    (f"{FIT} --epochs 1", "epochs", "the nearest is trainer.max_epochs"),
    (f"{FIT} --trainer.epochs 1", "trainer.epochs", "the nearest is trainer.max_epochs"),
    (f"{FIT} --gpus 1", "gpus", "the nearest is trainer.devices"),
    (f"{FIT} --trainer.gpus 1", "trainer.gpus", "the nearest is trainer.devices"),
    (f"{FIT} --trainer.max_epoch 1", "trainer.max_epoch", "the nearest is trainer.max_epochs"),
    (f"{FIT} --output_dir a", "output_dir", "the nearest is run_dir"),
    (f"{FIT} --data.root a", "data.root", "seed (of janus_pl.data.DigitsPair)"),
    (f"{FIT} --foo 1", "foo", "one of alerts, "),
    (f"{FIT} --model.lerning_rate 1 --print_config", "model.lerning_rate", "learning_rate"),
    (f"{FIT} --print_config --modle.loss a", "modle.loss", "model"),
    ("sweep sweep_name.yaml", "model.wieght_decay", "the nearest is weight_decay"),
    ("sweep sweep_deep.yaml", "model.optimizer.momentm", "the nearest is momentum"),
    ("sweep sweep_config.yaml", "--config", "the nearest is quickstart.yaml"),
    ("sweep sweep_key.yaml", "methd", "the nearest is method"),
    ("sweep sweep.yaml --jbs 2", "sweep", "the nearest is --jobs"),
    ("sweep sweep.yaml --model.loss square", "sweep", "`sweep FILE -- --model.loss ...`"),
    ("sweep sweep.yaml --seed_everything 1", "sweep", "behind --"),
    ("sweep sweep.yaml --run_dir latin.yaml", "--run_dir", "latin.yaml' is none to write to"),
    ("sweep sweep.yaml -- --run_dir latin.yaml/a", "--run_dir", "is none to write to"),
    ("sweep sweep.yaml --seed 3", "--seed", "with method: random alone"),
    ("sweep sweep.yaml --jobs x", "--jobs", "an integer"),
    ("sweep sweep.yaml --jobs", "--jobs", "a value"),
    ("sweep sweep.yaml --dry-run -- --model.loss", "--model.loss", "a value"),
    ("verify --jsn x folder", "verify", "the nearest is --json"),
    ("--config quickstart.yaml", "subcommand", "fit"),
    ("-x", "subcommand", "fit"),
    # Seeds
    ("fit --config seed.yaml", "seed_everything", "an integer from 0 to 4294967295"),
    *(
        (f"{FIT} --seed_everything {seed}", "seed_everything", "an integer from 0 to 4294967295")
        for seed in ("false", "true", "-1", "1.5", "abc", "null", "''", "[1]", 2**40)
    ),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the table names."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("messages")
    for name, text in FILES.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "latin.yaml").write_bytes("method: caf\xe9\n".encode("latin1"))
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "folder").mkdir()
    (folder / "deep").mkdir()
    (folder / "deep" / "base.yaml").write_text("name: a\nname: b\n")
    (folder / "deep" / "own.yaml").write_text("group: a\n")
    for number, kind in enumerate(("train/3", "train/8", "test/3", "test/8")):
        (folder / "images" / kind).mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / kind / "1.png")
    return folder


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.mark.parametrize(("line", "field", "allowed"), CASES, ids=[case[0] for case in CASES])
def test_a_wrong_command_line_gets_one_line(
    line: str, field: str, allowed: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {*place.rglob("*")}
    assert main(shlex.split(line)) == 2
    output, errors = capsys.readouterr()
    assert not output
    (said,) = filter(str.strip, errors.splitlines())
    assert said.startswith((f"error: {field}: got ", f"error: {field}: unknown key"))
    assert allowed in said.partition(", allowed: ")[2]
    assert {*place.rglob("*")} == before


SOUND = [
    f"{FIT} --trainer.max_epochs=3 --model.weight_decay -1e-3 --data.classes [3,8]",
    f"{FIT} --name=007 --tags [2026] --trainer.callbacks+=janus_pl.callbacks.LayerRank",
    "fit -c quickstart.yaml --allow_data_change --seed_everything 4294967295",
    f"{IMAGES} --data.classes [3,8]",
]


@pytest.mark.parametrize("line", SOUND)
def test_a_sound_command_line_is_taken(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The control: what the parser takes is not refused."""
    assert main([*shlex.split(line), "--print_config"]) == 0
    output, errors = capsys.readouterr()
    assert "class_path" in output
    assert not errors


def test_numbers_are_names_of_folders(caplog: pytest.LogCaptureFixture) -> None:
    options = "--trainer.fast_dev_run=1 --model.strides=[2,2,2,2] --data.classes [8,3]"
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        assert main(shlex.split(f"{IMAGES} {options}")) == 0
    assert "8 (-1), 3 (+1)" in caplog.text


@pytest.mark.parametrize("first", ["--version", "--version fit"])
def test_the_version_is_said(first: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(first.split()) == 0
    assert capsys.readouterr().out == f"janus_pl {__version__}\n"


@pytest.mark.parametrize("asked", ["--version", "--help", "fit --help", "fit --print_config"])
def test_a_reader_that_leaves_changes_nothing(asked: str) -> None:
    """As in `--help | head`."""
    command = [sys.executable, "-m", "janus_pl", *asked.split()]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, "")
