"""The table of `restoring_table.py` for `janus_pl.Classifier`, its networks and `ImageClasses`."""

from __future__ import annotations

from torch import nn
from training.restoring_table import Row, group, of_loader, of_module, rates

NETWORK = "model.network.init_args."
# The checkpoint is of epoch 1 of 2, where the cosine is at half of the rate.
MODEL = [
    Row("model.network", "torch.nn.Flatten"),
    Row("model.loss", "square"),
    Row("model.learning_rate", "0.01", rates, [0.005] * 2),
    Row("model.weight_decay", "0.5", group("weight_decay"), [0.5] * 2),
    Row("model.decay", "rho", group("weight_decay"), [0.0, 0.008]),
    Row("model.schedule", "constant", rates, [0.03] * 2),
    Row("model.schedule", "inverse_sqrt", rates, [0.03 / 2**0.5] * 2),
    Row("model.schedule", "torch.optim.lr_scheduler.ConstantLR", rates, [0.01] * 2),
    Row("model.schedule", "growing"),
    Row("model.schedule_interval", "step"),
    Row("model.optimizer", "torch.optim.Adam"),
    Row("model.optimizer.init_args.momentum", "0.5", group("momentum"), [0.5] * 2),
    Row("model.optimizer.init_args.nesterov", "true", group("nesterov"), [True] * 2),
    Row("model.normalization", "none"),
    Row("model.on_divergence", "record", of_module("on_divergence"), "record"),
    Row("model.compile", "true", of_module("compiled"), True),
]
MLP = [
    Row(f"{NETWORK}inputs", "3071", says="model.network"),
    Row(f"{NETWORK}outputs", "11", says="model.network"),
    Row(f"{NETWORK}depth", "4", says="model.network"),
    Row(f"{NETWORK}width", "9", says="model.network"),
    Row(f"{NETWORK}batch_norm", "true", says="model.network"),
    Row(f"{NETWORK}bias", "true", says="model.network"),
    Row(
        f"{NETWORK}activation",
        "torch.nn.Tanh",
        says="model.network.activation1: got 'Tanh()', allowed: 'ReLU()', as in the checkpoint",
    ),
    Row(f"{NETWORK}init_scale", "0.5", says="got 'MLP(init_scale=0.5)', allowed: 'MLP(init_scale="),
]
DATA = [
    Row("data.batch_size", "50", of_loader("batch_size"), 50),
    Row("data.batch_size", "full", of_loader("whole"), True),
    Row("data.micro_batch_size", "7", of_loader("micro_batch_size"), 7),
    Row("data.num_train", "60", of_loader("num_samples"), 60, other_data=True),
    Row("data.label_noise", "0.1", says="data: got"),
    Row("data.classes", "[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]"),
    Row("data.source", "FashionMNIST", says="data"),
    Row("data.root", "elsewhere"),
    Row("data.download", "true"),
    Row("data.image_size", "16"),
]
# A gradient of each sample alone would have statistics of its own.
BATCH_NORM = [
    Row("data.micro_batch_size", "7"),
    Row("data.batch_size", "full", of_loader("whole"), True),
    Row("model.decay", "rho"),
    Row("model.normalization", "weight_norm"),
    Row(f"{NETWORK}batch_norm", "false", says="model.network"),
    Row("model.weight_decay", "0.5", group("weight_decay"), [0.5] * 2),
    Row("model.learning_rate", "0.01", rates, [0.005] * 2),
]
RESNET = [
    Row(f"{NETWORK}norm", "training.classifier_table.group_norm", says="model.network.bn1: got"),
    Row(f"{NETWORK}outputs", "3", says="model.network"),
    Row(f"{NETWORK}channels", "1", says="model.network"),
]


def group_norm(channels: int) -> nn.Module:
    """A norm of as many parameters as batch normalization has."""
    return nn.GroupNorm(4, channels)
