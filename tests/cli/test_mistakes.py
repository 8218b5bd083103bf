"""Mistakes in configs, options and data: exit code 2, one line that says what, and nothing made."""

from __future__ import annotations

import contextlib
import copy
import math
import shutil
import sys
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from PIL import Image

from janus_pl.cli.config_files import CONFIGS
from janus_pl.cli.main import main
from janus_pl.data import CIFAR10Pair
from janus_pl.errors import UsageError

PLAIN = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
DEEP = ["fit", "--config=sgd.yaml", "--data=janus_pl.data.DigitsPair", *PLAIN]
LINEAR = ["fit", "--config=linear/a2.yaml", *PLAIN]
FOLDER = "--data janus_pl.data.ImageFolderPair --data.batch_size 1 --data.root"
GIVEN = "--data.num_train null --data.dim null --data.outputs null --data.source"

CONFIG_FILES = {
    "unknown": "data:\n  init_args:\n    batchsize: 3\n",
    "top": "modle:\n  loss: square\n",
    "syntax": "model: [1,\n",
    "list": "- a\n- b\n",
    "scalar": "hello\n",
    "empty": "",
    "null": "name: a\0b\n",
    "tab": "model:\n\tloss: square\n",
    "tag": "name: !!python/object/apply:pathlib.Path.touch [pwned]\n",
    "two": "name: a\n---\nname: b\n",
    "long": f"data:\n  init_args:\n    seed: 1{'0' * 5000}\n",
    "number": "1: 2\n",
    "loop": "name: &a [*a]\n",
    "spaces": "class M: pass\n",
    "trainer": "trainer: 3\n",
    "model_null": "model: null\n",
    "run_dir_null": "run_dir: null\n",
    "model_list": "model: []\n",
    "data_number": "data: 5\n",
    "system": "model:\n  class_path: os.system\n",
    "class_number": "model:\n  class_path: 3\n",
    "sibling": "data:\n  class_path: janus_pl.data.DigitsPair\n  init_arg: {}\n",
    "callback_null": "trainer:\n  callbacks: [null]\n",
    "callback_number": "trainer:\n  callbacks:\n    - class_path: 5\n",
    "rate_inf": "model:\n  init_args:\n    learning_rate: .inf\n",
    "decay_nan": "model:\n  init_args:\n    weight_decay: .nan\n",
}
# The arguments after DEEP (NAME=value sets a variable of the environment), the field that the line
# names, and a piece of what it says is allowed.
BAD_DEEP = [
    ("--data.batchsize 3", "data.batchsize", "batch_size"),
    ("--config unknown.yaml", "data.batchsize", "batch_size"),
    ("--config top.yaml", "modle.loss", "model"),
    ("--config syntax.yaml", "--config", "YAML"),
    ("--trainer.max_epoch 3", "trainer.max_epoch", "trainer.max_epochs"),
    ("--model.lerning_rate 3", "model.lerning_rate", "learning_rate"),
    ("--model.optimizer.lr 3", "model.optimizer.lr", "momentum"),
    ("--modle.loss square", "modle.loss", "model"),
    ("--config nowhere.yaml", "--config", "configs/nowhere.yaml"),
    ("--data.batch_size 0", "data.batch_size", '1 to N, or "full"'),
    ("--data.batch_size -3", "data.batch_size", '1 to N, or "full"'),
    ("--data.batch_size 286", "data.batch_size", "285"),
    ("--data.batch_size half", "data.batch_size", "int or 'full'"),
    ("--data.batch_size 1.5", "data.batch_size", "int or 'full'"),
    ("--data.micro_batch_size 129", "data.micro_batch_size", "128"),
    ("--data.micro_batch_size 0", "data.micro_batch_size", "1"),
    ("--data.batch_size full --data.micro_batch_size 286", "data.micro_batch_size", "285"),
    ("--data.order random", "data.order", "with_replacement"),
    ("--data.seed -1", "data.seed", "0"),
    ("--data.num_train 1", "data.num_train", "2"),
    ("--data.num_train 9999", "data.num_train", "279"),
    ("--data.classes [3,3]", "data.classes", "two different digits"),
    ("--data.classes [3,12]", "data.classes", "0 to 9"),
    ("--model.weight_decay -1e-3", "model.weight_decay", "from 0 up"),
    ("--model.weight_decay much", "model.weight_decay", "float"),
    ("--model.learning_rate -0.1", "model.learning_rate", "above 0"),
    ("--model.learning_rate 0", "model.learning_rate", "above 0"),
    ("--model.loss hinge", "model.loss", "square, logistic"),
    ("--model.decay v", "model.decay", "'rho'"),
    ("--model.schedule linear", "model.schedule", "'cosine'"),
    ("--model.strides [3,3,3,3]", "model.strides", "leave a pixel"),
    ("--model.strides [1,2]", "model.strides", "four"),
    ("--model.strides [1,2,0,2]", "model.strides", "at least 1"),
    ("--model.optimizer.momentum -1", "model.optimizer", "momentum"),
    ("--model.optimizer.weight_decay 0.1", "model.optimizer.weight_decay", "model.weight_decay"),
    ("--model.optimizer Adm", "model.optimizer", "Adm"),
    ("--model nowhere.Model", "model", "nowhere"),
    ("--model janus_pl.DeepReLUClasifier", "model", "DeepReLUClassifier"),
    ("--model janus_pl.Classifier", "model.network", "a value"),
    ("--data janus_pl.data.CIFARPair", "data", "CIFAR10Pair"),
    ("--trainer.callbacks janus_pl.callbacks.LayerRnk", "trainer.callbacks", "LayerRank"),
    ("--trainer.max_epochs many", "trainer.max_epochs", "int"),
    (
        '--trainer.callbacks={"class_path":"janus_pl.callbacks.LayerRank","init_args":{"every_n_epochs":-1}}',
        "callbacks.LayerRank.every_n_epochs",
        "0 up",
    ),
    ("--data janus_pl.data.CIFAR10Pair --data.classes [1,1]", "data.classes", "different"),
    ("--data janus_pl.data.CIFAR10Pair --data.classes [1,cow]", "data.classes", "automobile"),
    ("--model.channels [2,3]", "model.channels", "four"),
    ("--model.hidden 0", "model.hidden", "1 up"),
    ("--model.init_scale 0", "model.init_scale", "above 0"),
    ("--model.schedule torch.optim.lr_scheduler.ReduceLROnPlateau", "model.schedule", "no metric"),
    ("--seed_everything -1", "seed_everything", "0"),
    ("--trainer.val_check_interval 0.5", "trainer.val_check_interval", "1.0"),
    ("--trainer.max_epochs -1", "trainer.max_epochs", "trainer.max_steps"),
    (
        "--trainer.accumulate_grad_batches 2",
        "trainer.accumulate_grad_batches",
        "manual optimization",
    ),
    ("--trainer.gradient_clip_val 1.0", "trainer.gradient_clip_val", "manual optimization"),
    ("--ckpt_path none.ckpt", "--ckpt_path", "existing"),
    ("--run_dir syntax.yaml/runs", "--run_dir", "a folder"),
    (
        "--data janus_pl.data.CIFAR10Pair --data.root none --data.download false",
        "data.root",
        "janus_pl.data.ImageFolderPair --data.root",
    ),
    (f"{FOLDER} nowhere", "data.root", "nowhere"),
    (f"{FOLDER} lonely", "data.classes", "two"),
    (f"{FOLDER} empty", "data.root", "empty/train/b"),
    (f"{FOLDER} broken", "data.root", "'train/b/2.jpg' (no image"),
    (f"{FOLDER} good --data.classes [a,c]", "data.classes", "a, b"),
    ("--config list.yaml", "--config", "keys"),
    ("--config scalar.yaml", "--config", "holds str"),
    ("--config empty.yaml", "--config", "holds nothing"),
    ("--config folder.yaml", "--config", "an existing file"),
    ("--config latin.yaml", "--config", "UTF-8"),
    ("--config null.yaml", "--config", "YAML"),
    ("--config tab.yaml", "--config", "YAML"),
    ("--config tag.yaml", "--config", "could not determine a constructor"),
    ("--config two.yaml", "--config", "single document"),
    ("--config long.yaml", "--config", "5001 digits"),
    ("--config number.yaml", "--config", "keys"),
    ("--config spaces.yaml", "--config", "'class M' is no key"),
    ("--config loop.yaml", "name", "str"),
    ("--config trainer.yaml", "trainer", "by name"),
    ("--config run_dir_null.yaml", "--run_dir", "a folder"),
    ("--config model_null.yaml", "model", "a value"),
    ("--config model_list.yaml", "model", "LightningModule"),
    ("--config data_number.yaml", "data", "LightningDataModule"),
    ("--config system.yaml", "model", "LightningModule"),
    ("--config class_number.yaml", "model", "LightningModule"),
    ("--config sibling.yaml", "data", "class_path and init_args"),
    ("--config callback_null.yaml", "trainer.callbacks", "Callback"),
    ("--config callback_number.yaml", "trainer.callbacks", "Callback"),
    ("--config rate_inf.yaml", "model.learning_rate", "above 0"),
    ("--config decay_nan.yaml", "model.weight_decay", "from 0 up"),
    ("--config cut.json", "--config", "YAML"),
    ("--trainer.barebones true", "trainer.barebones", "false"),
    ("--trainer.gradient_clip_val -1", "trainer.gradient_clip_val", "from 0 up"),
    ("--trainer.gradient_clip_algorithm foo", "trainer.gradient_clip_algorithm", "'norm'"),
    ("--trainer.precision 8", "trainer.precision", "64"),
    ("--trainer.devices 0", "trainer.devices", "cpu"),
    ("--trainer.devices -1", "trainer.devices", "> 0"),
    ("--trainer.devices many", "trainer.devices", "int"),
    ("--trainer.devices 2 --trainer.strategy ddp_spawn", "trainer.strategy", "ddp"),
    ("--trainer.accelerator quantum", "trainer.accelerator", "cpu"),
    ("--trainer.accelerator tpu", "trainer.accelerator", "torch_xla"),
    ("--trainer.strategy hope", "trainer.strategy", "ddp"),
    ("--trainer.num_nodes 0", "trainer.num_nodes", "from 1 up"),
    ("--trainer.max_epochs -2", "trainer.max_epochs", "non-negative"),
    ("--trainer.max_epochs 1.5", "trainer.max_epochs", "int"),
    ("--trainer.max_steps -2", "trainer.max_steps", "non-negative"),
    ("--trainer.min_epochs -1", "trainer.min_epochs", "from 0 up"),
    ("--trainer.min_steps -1", "trainer.min_steps", "from 0 up"),
    ("--trainer.max_time soon", "trainer.max_time", "DD:HH:MM:SS"),
    ("--trainer.limit_train_batches -1", "trainer.limit_train_batches", "[0.0, 1.0]"),
    ("--trainer.limit_val_batches 2.5", "trainer.limit_val_batches", "[0.0, 1.0]"),
    ("--trainer.overfit_batches -1", "trainer.overfit_batches", "[0.0, 1.0]"),
    ("--trainer.check_val_every_n_epoch 0", "trainer.check_val_every_n_epoch", "from 1 up"),
    ("--trainer.num_sanity_val_steps -5", "trainer.num_sanity_val_steps", "from -1 up"),
    ("--trainer.log_every_n_steps -1", "trainer.log_every_n_steps", "from 0 up"),
    ("--trainer.fast_dev_run -1", "trainer.fast_dev_run", "0"),
    ("--trainer.profiler foo", "trainer.profiler", "'simple'"),
    ("--trainer.plugins foo", "trainer.plugins", "a class"),
    ("--trainer.logger foo", "trainer.logger", "a class"),
    ("--trainer.enable_checkpointing false", "trainer.enable_checkpointing", "ModelCheckpoint"),
    ("--trainer.deterministic maybe", "trainer.deterministic", "bool"),
    (
        "--trainer.reload_dataloaders_every_n_epochs -1",
        "trainer.reload_dataloaders_every_n_epochs",
        ">= 0",
    ),
    ("--project ../../x", "--project", "one folder"),
    ("--project a/b", "--project", "one folder"),
    ("--project ..", "--project", "one folder"),
    ("--project=", "--project", "one folder"),
    ("--project a:b", "--project", "cannot contain"),
    ('--tags [""]', "--tags", "1 and 64"),
    ("--tags paper", "tags", "list"),
    ("--job_type report", "--job_type", "figures"),
    ("--entity a/b", "--entity", "a user or team"),
    ("--log_model all", "argument", "options by name"),
    ("--trainer.logger false --alerts", "--alerts", "trainer.logger (none)"),
    ("--run_dir=", "--run_dir", "a folder"),
    ("--name=", "--name", "a text, or null"),
    ("--group=", "--group", "a text, or null"),
    ("--notes=", "--notes", "a text, or null"),
    ("--job_type=", "--job_type", "a text, or null"),
    ("--entity=", "--entity", "a user or team"),
    ("--run_dir syntax.yaml", "--run_dir", "a folder"),
    ("WANDB_RUN_ID=../x", "WANDB_RUN_ID", "one folder"),
    ("WANDB_RUN_ID=..", "WANDB_RUN_ID", "one folder"),
    ("WANDB_RUN_ID=a:b", "WANDB_RUN_ID", "cannot contain"),
    ("WANDB_MODE=sometimes", "WANDB_MODE", "'offline'"),
    ("--seed_everything 4294967296", "seed_everything", "4294967295"),
    ("--seed_everything null", "seed_everything", "int"),
    ("--seed_everything x", "seed_everything", "int"),
    ("--ckpt_path good", "--ckpt_path", "existing"),
    ("--ckpt_path best", "--ckpt_path", "checkpoints/best.ckpt"),
    ("--model.strides null", "model.strides", "four"),
    ("--model.channels null", "model.channels", "four"),
    ("--model.hidden null", "model.hidden", "1 up"),
    ("--model.hidden 1e12", "model.hidden", "int"),
    ("--model.hidden 1000000000000", "model", "fits into"),
    ("--model.image_size 0", "model.image_size", "1 up"),
    ("--model.image_size 5", "model.strides", "leave a pixel"),
    ("--model.image_size 100000000", "model", "fits into"),
    ("--model.learning_rate 1e400", "model.learning_rate", "finite"),
    ("--model.learning_rate nan", "model.learning_rate", "a finite number"),
    ("--model.weight_decay inf", "model.weight_decay", "a finite number"),
    ("--model.loss null", "model.loss", "square"),
    ("--model.on_divergence ignore", "model.on_divergence", "'record'"),
    ("--model.normalization batch", "model.normalization", "per_layer, lagrange"),
    ("--model.normalization none --model.decay rho", "model.decay", "all"),
    ("--model.optimizer null", "model.optimizer", "an optimizer"),
    ("--model.schedule null", "model.schedule", "options"),
    ("--model.optimizer torch.optim.LBFGS", "model.optimizer", "no closure"),
    ("--model.optimizer torch.optim.SparseAdam", "model.optimizer", "dense"),
    ("--model.optimizer torch.nn.Linear", "model.optimizer", "Optimizer"),
    ("--model.optimizer os.system", "model.optimizer", "Optimizer"),
    ("--model.schedule torch.optim.lr_scheduler.StepLR", "model.schedule.step_size", "a value"),
    ("--model os.system", "model", "LightningModule"),
    ("--model torch.nn.Linear", "model", "LightningModule"),
    ("--data torch.utils.data.Dataset", "data", "LightningDataModule"),
    ("--data lightning.pytorch.LightningDataModule", "data", "train_dataloader"),
    ("--model null", "model", "a value"),
    ("--data null", "data", "a value"),
    ("--model janus_pl.LinearRegressor", "data", "janus_pl.data.LinearProblem"),
    ("--data.batch_size null", "data.batch_size", "1 to N"),
    ("--data.batch_size true", "data.batch_size", "int"),
    ("--data.num_train 2.5", "data.num_train", "int"),
    ("--data.classes 3", "data.classes", "list in brackets"),
    ("--data.order null", "data.order", "shuffle"),
    ("--data janus_pl.data.CIFAR10Pair --data.root null", "data.root", "a folder"),
    ("--data janus_pl.data.ImageFolderPair", "data.root", "a value"),
    (f"{FOLDER} notest", "data.root", "notest/test"),
    (f"{FOLDER} one_sided", "data.root", "one_sided/test/b"),
    (f"{FOLDER} cut", "data.root", "'train/b/2.png'"),
    (f"{FOLDER} three", "data.classes", "a, b, c"),
    (f"{FOLDER} syntax.yaml", "data.root", "no folder"),
    (f"{FOLDER} good --data.image_size 0", "data.image_size", "1 up"),
    (f"{FOLDER} good --data.image_size 8", "model.image_size", "8, as the data"),
    (f"{FOLDER} good --data.image_size 100000", "data.image_size", "fits into"),
    (f"{FOLDER} good --data.classes [../train/a,b]", "data.classes", "a, b"),
    (
        '--trainer.callbacks={"class_path":"janus_pl.callbacks.MarginHistogram","init_args":{"bins":0}}',
        "callbacks.MarginHistogram.bins",
        "1 to 512",
    ),
    (
        '--trainer.callbacks={"class_path":"janus_pl.callbacks.RankBound"}',
        "model.optimizer.momentum",
        "momentum 0",
    ),
    ("--foo 1", "foo", "trainer"),
]
BAD_LINEAR = [
    ("--data.batch_size 0", "data.batch_size", '1 to N, or "full"'),
    ("--data.batch_size 11", "data.batch_size", "1 to 10"),
    ("--data.num_train 0", "data.num_train", "1 up"),
    ("--data.dim 0", "data.dim", "1 up"),
    ("--data.outputs 0", "data.outputs", "1 up"),
    ("--data.replicas 0", "data.replicas", "1 up"),
    ("--data.empty 11", "data.empty", "from 0 to 10"),
    ("--data.informative 12", "data.informative", "from 1 to 11"),
    ("--data.init given", "data.init", "zero, gaussian"),
    ("--data.order sorted", "data.order", "'online'"),
    ("--data.batchsize 2", "data.batchsize", "batch_size"),
    ("--data.source nowhere.npz", "data.source", "existing"),
    ("--data.source problem.txt", "data.source", ".csv"),
    ("--model.learning_rate -1", "model.learning_rate", "above 0"),
    ("--model.learning_rate fast", "model.learning_rate", "auto"),
    ("--model.learning_rate [0.1,0]", "model.learning_rate", "above 0"),
    ("--model.learning_rate []", "model.learning_rate", "at least one"),
    ("--model.gd_learning_rate 0", "model.gd_learning_rate", "above 0"),
    ("--model.weight_decay -1", "model.weight_decay", "from 0 up"),
    ("--model.weight_decay [0.1,-0.2]", "model.weight_decay", "from 0 up"),
    ("--model.schedule linear", "model.schedule", "'inverse_sqrt'"),
    ("--model.gd_schedule linear", "model.gd_schedule", "'inverse_sqrt'"),
    ("--model.decay_convention mine", "model.decay_convention", "'appendix_a'"),
    ("--model.records_per_decade 0", "model.records_per_decade", "1 to 10000"),
    ("--model.lerning_rate 0.1", "model.lerning_rate", "learning_rate"),
    ("--data.order online", "trainer.max_epochs", "1, for data.order: online"),
    ("--trainer.max_epochs -1", "trainer.max_epochs", "from 1 up"),
    ("--trainer.min_epochs 15", "trainer.min_epochs", "trainer.max_epochs"),
    ("--trainer.min_steps 10", "trainer.min_steps", "trainer.max_epochs"),
    ("--trainer.limit_train_batches 1", "trainer.limit_train_batches", "1.0"),
    ("--trainer.overfit_batches 1", "trainer.overfit_batches", "0.0"),
    ("--trainer.precision bf16-true", "trainer.precision", "float32"),
    ("--model.learning_rate null", "model.learning_rate", "auto"),
    ("--model.weight_decay null", "model.weight_decay", "0 up"),
    ("--model.records_per_decade null", "model.records_per_decade", "int"),
    ("--model.looks_per_decade 0", "model.looks_per_decade", "1 to 10000"),
    ("--data.source null", "data.source", ".npz"),
    ("--data.seed 99999999999999999999999", "data.seed", "0 to"),
    ("--model janus_pl.DeepReLUClassifier --model.schedule constant", "data", "images"),
    ("--trainer.max_steps 100", "trainer.max_steps", "-1"),
    ("--trainer.limit_train_batches 3", "trainer.limit_train_batches", "1.0"),
    ("--trainer.devices 2 --trainer.accelerator cpu", "trainer.devices", "1 process in all"),
    (
        "--trainer.accumulate_grad_batches 2",
        "trainer.accumulate_grad_batches",
        "accumulate_grad_batches",
    ),
    ("--data janus_pl.data.DigitsPair", "data", "janus_pl.data.LinearProblem"),
    ("--data.dim 1000000000", "data", "fits into"),
    ("--data.num_train 10000000000000", "data", "fits into"),
    ("--data.replicas 1000000000", "data", "fits into"),
    ("--data.init_scale 1e300", "data.init_scale", "1e+100"),
    ("--data.init_scale -1", "data.init_scale", "0 to"),
    ("--data.empty null", "data.empty", "0 up"),
    ("--model.records_per_decade 1000000000", "model.records_per_decade", "1 to 10000"),
    ("--model.on_divergence ignore", "model.on_divergence", "'record'"),
    ("--trainer.barebones true", "trainer.barebones", "false"),
    ("--trainer.devices 0", "trainer.devices", "cpu"),
    ("--trainer.gradient_clip_val 1", "trainer.gradient_clip_val", "manual optimization"),
    ("--data.source problem.npy", "data.source", ".npz"),
]
BAD_FILES = [
    ("short.npz", "N differs"),
    ("lacks.npz", "no Y"),
    ("nan.npz", "row 2, column 3"),
    ("start.npz", "W0 is (3, 2)"),
    ("huge.npz", "up to 1e+100"),
    ("object.npz", "allow_pickle=False"),
    ("complex.npz", "real numbers"),
    ("vector.npz", "matrix"),
    ("none.npz", "matrix"),
    ("cut.npz", "zip"),
    ("text.npz", "zip"),
    ("folder.npz", "directory"),
    ("words.csv", "row 2, column y1"),
    ("header.csv", "header"),
    ("swapped.csv", "header"),
    ("ragged.csv", "3 values"),
    ("empty.csv", "header"),
    ("only.csv", "matrix"),
    ("inf.csv", "no finite number"),
    ("binary.csv", "utf-8"),
]
CASES = [(DEEP, *case) for case in BAD_DEEP] + [(LINEAR, *case) for case in BAD_LINEAR]
CASES += [(LINEAR, f"{GIVEN} zero.npz", "model.learning_rate", "X is zero")]
CASES += [(LINEAR, f"{GIVEN} {name}", "data.source", text) for name, text in BAD_FILES]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the table names."""
    folder = tmp_path_factory.mktemp("mistakes") / "here"  # above it nothing may be made either
    folder.mkdir()
    config_files(folder)
    image_folders(folder)
    problems(folder)
    return folder


def config_files(folder: Path) -> None:
    for name, text in CONFIG_FILES.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "latin.yaml").write_bytes("name: caf\xe9\n".encode("latin1"))
    (folder / "cut.json").write_text('{"name": \n')
    (folder / "folder.yaml").mkdir()


def image_folders(folder: Path) -> None:
    kinds = {"good": "ab", "lonely": "a", "empty": "ab", "three": "abc"}
    for kind, classes in kinds.items():
        for split in ("train", "test"):
            for name in classes:
                path = folder / kind / split / name
                path.mkdir(parents=True)
                if (kind, name) != ("empty", "b"):
                    pixels = np.random.default_rng(len([*folder.rglob("*.png")]))
                    Image.fromarray(pixels.integers(0, 256, (32, 32, 3), np.uint8)).save(
                        path / "1.png"
                    )
    for kind in ("broken", "notest", "one_sided", "cut"):
        shutil.copytree(folder / "good", folder / kind)
    (folder / "broken" / "train" / "b" / "2.jpg").write_bytes(b"no image")
    shutil.rmtree(folder / "notest" / "test")
    shutil.rmtree(folder / "one_sided" / "test" / "b")
    png = (folder / "good" / "train" / "b" / "1.png").read_bytes()
    (folder / "cut" / "train" / "b" / "2.png").write_bytes(png[:60])


def problems(folder: Path) -> None:
    x, y = np.ones((3, 4)), np.ones((2, 4))
    nan = x.copy()
    nan[1, 2] = np.nan
    files: dict[str, dict[str, Any]] = {
        "short": {"X": x, "Y": y[:, :3]},
        "lacks": {"X": x},
        "nan": {"X": nan, "Y": y},
        "start": {"X": x, "Y": y, "W0": np.ones((3, 2))},
        "huge": {"X": x * 1e200, "Y": y},
        "zero": {"X": x * 0, "Y": y},
        "object": {"X": np.array([[{}]], dtype=object), "Y": y},
        "complex": {"X": x * 1j, "Y": y},
        "vector": {"X": np.ones(4), "Y": y},
        "none": {"X": x[:, :0], "Y": y[:, :0]},
    }
    for name, arrays in files.items():
        np.savez(folder / f"{name}.npz", **arrays)
    (folder / "cut.npz").write_bytes((folder / "short.npz").read_bytes()[:100])
    (folder / "text.npz").write_text("hello")
    (folder / "folder.npz").mkdir()
    (folder / "words.csv").write_text("x1,y1\n1,2\n3,four\n")
    (folder / "header.csv").write_text("a,b\n1,2\n")
    (folder / "swapped.csv").write_text("y2,x1\n1,2\n")
    (folder / "ragged.csv").write_text("x1,y1\n1,2,3\n")
    (folder / "empty.csv").write_text("")
    (folder / "only.csv").write_text("x1,y1\n")
    (folder / "inf.csv").write_text("x1,y1\ninf,2\n")
    (folder / "binary.csv").write_bytes(bytes(range(256)))


@pytest.fixture(autouse=True)
def no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["janus_pl"])


def test_the_table_is_long_enough() -> None:
    assert len({(line[1], args) for line, args, *_ in CASES}) == len(CASES) >= 60


@pytest.mark.parametrize(
    ("line", "args", "field", "allowed"), CASES, ids=[f"{c[0][1][9:]} {c[1]}" for c in CASES]
)
def test_a_mistake_gets_one_line_and_nothing_is_made(
    line: list[str],
    args: str,
    field: str,
    allowed: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(place)
    options = args.split()
    while options[0].startswith("WANDB_"):
        monkeypatch.setenv(*options.pop(0).split("="))
        options = options or ["--name=a"]
    before = {*place.parent.rglob("*")}
    assert main([*line, *options]) == 2
    (said,) = filter(str.strip, capsys.readouterr().err.splitlines())
    assert said.startswith(f"error: {field}: got ") or f"{field}: unknown key" in said
    assert ", allowed: " in said
    assert allowed in said
    assert {*place.parent.rglob("*")} == before


# Random edits of the shipped configs


def merged(base: Any, difference: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(difference, dict)):
        return difference
    return {
        k: merged(base.get(k), difference[k]) if k in difference else base[k]
        for k in {**base, **difference}
    }


def shipped() -> dict[str, Any]:
    """Every config as a whole, on small data."""
    small = {
        "model": {"init_args": {"strides": [2] * 4, "channels": [2, 3, 4, 4], "hidden": 8}},
        "data": {
            "class_path": "janus_pl.data.DigitsPair",
            "init_args": {"num_train": 64, "batch_size": 16},
        },
    }
    found = {}
    for folder, change in ((CONFIGS, small), (CONFIGS / "linear", {})):
        base = yaml.safe_load((folder / "base.yaml").read_text())
        for file in sorted(folder.glob("*.yaml")):
            config = merged(base, yaml.safe_load(file.read_text()))
            if more := config["trainer"].pop("callbacks+", None):
                config["trainer"]["callbacks"] = config["trainer"]["callbacks"] + more
            found[file.stem if folder == CONFIGS else f"linear/{file.stem}"] = merged(
                config, change
            )
    found["linear/online"]["data"]["init_args"]["num_train"] = 100
    return found


SHIPPED = shipped()
ODD: list[Any] = [None, -1, 0, math.inf, math.nan, "", "nan", [], {}, True, 10**30, "string"]
ODD += ["1e400", "../x", 1e-320, 1e20, -0.5, 1.5, [1], [None], {"a": 1}, "full", "1e20", 2**31]
ODD += [{"class_path": "os.system"}, {"class_path": "janus_pl.callbacks.LayerRank"}]


def places(config: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key and every element of a list, as the path that leads to it."""
    if isinstance(config, dict | list):
        keys = [*config] if isinstance(config, dict) else range(len(config))
        return [p for k in keys for p in ((*path, k), *places(config[k], (*path, k)))]
    return []


SWEEPS = {
    file.stem: yaml.safe_load(file.read_text()) for file in (CONFIGS / "sweeps").glob("*.yaml")
}


@st.composite
def edited(draw: st.DrawFn, files: dict[str, Any] = SHIPPED) -> tuple[str, dict[str, Any]]:
    """One to three edits of a shipped file: a key dropped or renamed, a value made odd."""
    config = copy.deepcopy(files[draw(st.sampled_from(sorted(files)))])
    edits = []
    for _ in range(draw(st.integers(1, 3))):
        if not (paths := places(config)):
            break
        *way, key = draw(st.sampled_from(paths))
        inner = config
        for step in way:
            inner = inner[step]
        kind = draw(st.sampled_from(["drop", "rename", "odd", "odd"]))
        if kind == "rename" and isinstance(inner, dict):
            inner[f"{key}x"] = inner.pop(key)
        elif kind == "odd":
            inner[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
        else:
            del inner[key]
        edits.append(f"{kind} {'.'.join(map(str, (*way, key)))}")
    return "; ".join(edits), config


def outcome(config: dict[str, Any], *args: str) -> tuple[int, list[str], set[str]]:
    """Exit code, lines on stderr, and what was made, of a command in an empty folder.

    Args:
        config: what `edited.yaml` holds there.
        args: the command line, or options of `fit --config=edited.yaml`.
    """
    if args[0].startswith("-"):
        args = ("fit", "--config=edited.yaml", *args, *PLAIN)
    error = StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("edited.yaml").write_text(yaml.safe_dump(config))
        with redirect_stderr(error), redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = main([*args])
        made = {path.name for path in Path().iterdir()} - {"edited.yaml", "wandb"}
    return code, [line for line in error.getvalue().splitlines() if line.strip()], made


def check_edit(edit: tuple[str, dict[str, Any]], *args: str) -> None:
    """It trains (0), or it was absurd, though valid, and diverged (3), or is refused in one line.

    An edit may leave what base.yaml says, and so may be no mistake at all: which of the three it is
    is not the point here, but that it is one of them, and never a traceback.
    """
    what, config = edit
    code, lines, made = outcome(config, *args)
    note(f"{what}: exit code {code}")
    assert code in (0, 2, 3), (what, lines)
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == (code != 0), (what, lines)
    if code == 2:
        assert lines == errors, what
        assert not made, what


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit may lead to CIFAR-10, which is not here."""

    def refuse(data: CIFAR10Pair) -> None:
        raise UsageError("data.root", data.root, "a folder with CIFAR-10, in this test")

    monkeypatch.setattr(CIFAR10Pair, "prepare_data", refuse)


FEW = settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FEW
@given(edit=edited())
def test_a_random_edit_trains_two_steps_or_is_refused(
    edit: tuple[str, dict[str, Any]], no_download: None
) -> None:
    check_edit(edit, "--trainer.fast_dev_run=2")


@pytest.mark.soak
@settings(FEW, max_examples=400)
@given(edit=edited())
def test_many_random_edits(edit: tuple[str, dict[str, Any]], no_download: None) -> None:
    check_edit(edit, "--trainer.fast_dev_run=2")


@pytest.mark.soak
@FEW
@given(edit=edited())
def test_random_edits_of_runs_with_a_record(
    edit: tuple[str, dict[str, Any]], no_download: None
) -> None:
    check_edit(edit, "--trainer.max_epochs=2")


@pytest.mark.soak
@FEW
@given(edit=edited(SWEEPS))
def test_random_edits_of_sweeps(edit: tuple[str, dict[str, Any]], no_download: None) -> None:
    """Either it says what it would run, or what is wrong; nothing is made."""
    check_edit(edit, "sweep", "edited.yaml", "--dry-run")


@pytest.mark.soak
def test_an_unedited_sweep_says_what_it_would_run(no_download: None) -> None:
    """The control."""
    assert outcome(SWEEPS["linear_a1"], "sweep", "edited.yaml", "--dry-run") == (0, [], set())


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_unedited_every_config_trains(name: str, no_download: None) -> None:
    """The control: what is edited is sound."""
    assert outcome(SHIPPED[name], "--trainer.fast_dev_run=2")[0] == 0
