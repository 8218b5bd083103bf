"""The description of a run: facts that are measured at the start of its fit, in plain values.

`janus_pl.training.describe` measures them from the trainer, the module, the optimizer and the data
loader. They lie in the run's folder, in W&B's config and in each checkpoint. Names, tags, figures
and verdicts say what the description says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from janus_pl.run.files import write_atomically

FILE = "description.json"
KEY = "description"  # in W&B's config and in checkpoints
CHANGES = "changes"  # in the data: each change within a run, with its step and fingerprints
# `data/fingerprint.py` has these two as well: neither folder may import the other.
UNKNOWN = "unknown"  # the fingerprint of data that nobody has hashed
SHOWN = 8  # hex digits of a fingerprint in a line

Kind = Literal["network", "linear", "module", "classifier"]
MarginKind = Literal["normalized", "raw", "none"]
FULL_BATCH = "full-batch"


@dataclass(frozen=True)
class Description:
    """What a run measurably is.

    Attributes:
        task: The class path of the module.
        kind: `network`: the paper's homogeneous network with a parametrization; `linear`: linear
            regression; `classifier`: any network on K classes (`janus_pl.Classifier`); `module`:
            somebody else's LightningModule.
        classes: The sign of each class (two classes) or its index, by name; None if not known.
        margin: `normalized`: y_n f_W(x_n)/rho; `raw`: in the units of the outputs; `none`.
        network: The class of a `classifier`'s network, such as `MLP`; None of others.
        loss: The loss, by its name; None if it is the module's own.
        normalization: The parametrization, by its name; None if there is none.
        weight_decay: The paper's lambda, or a list of them (replicas); None for a `module`.
        decay: The parameters that lambda acts on, `all` or `rho`; None for a `module`.
        schedule: The learning-rate schedule of a `network` or `classifier`: its name, or the
            scheduler's class.
        learning_rate: The learning rate of a `classifier` at the start; of a `module` that of all
            its layers, None if they differ; None of others.
        hold_norms: The factor of the norms ||v_k|| that are put back after every step; None if none
            are.
        optimizer: The class of the optimizer, such as `SGD` or `AdamW`; several are joined by `+`.
        momentum: The momentum of SGD or RMSprop, or the first beta of Adam's family; None if the
            optimizer has none by these names.
        decays: By layer, how PyTorch's `weight_decay` of its optimizer group acts (`coupled`,
            `decoupled` or `none`), and its value (a list for replicas).
        whole: Whether each batch is the whole training set, every sample once.
        num_train: The number N of training samples; None if it is not known, as for a stream.
        batch_size: The number B of samples in a full batch, of all processes; None if not known.
        steps_per_epoch: The optimizer steps of an epoch; None if not known.
        layers: The layers that callbacks can read, in the order of the forward pass.
        skipped: By name, the parameters that callbacks do not read, and why.
        seed: The seed of the weights (`seed_everything`); None if none was set.
        data_seed: The seed of the samples and their order; None if not known.
        data: The facts of the data (`janus_pl.data.DataFacts`), in plain values: its fingerprint,
            counts and source. `changes` lists the changes of data that a user allowed in mid-run.
        precision: The trainer's precision, such as `32-true`.
        observed: The dtype that margins, ranks and all other looks at the weights are computed in,
            without TF32; None in records of before.
        numerics: How the device computes float32: `ieee`, `tf32`, or both by operation; None in
            records of before.
        device: The device, such as `cpu` or `NVIDIA H200`.
        processes: The number of processes.
        versions: The versions of the packages behind the numbers; on a GPU those of CUDA and cuDNN
            as well.
        claims: The SHA-256 of each claims file that was there, by its name (`janus_pl.run.claims`).
    """

    task: str
    kind: Kind
    margin: MarginKind
    optimizer: str
    whole: bool
    layers: tuple[str, ...]
    classes: Mapping[str, int] | None = None
    network: str | None = None
    loss: str | None = None
    normalization: str | None = None
    weight_decay: float | list[float] | None = None
    decay: str | None = None
    schedule: str | None = None
    learning_rate: float | None = None
    hold_norms: float | None = None
    momentum: float | None = None
    decays: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    num_train: int | None = None
    batch_size: int | None = None
    steps_per_epoch: int | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    data_seed: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "32-true"
    observed: str | None = None
    numerics: str | None = None
    device: str = "cpu"
    processes: int = 1
    versions: Mapping[str, str] = field(default_factory=dict)
    claims: Mapping[str, str] = field(default_factory=dict)

    @property
    def dynamics(self) -> str:
        """`GD`: SGD on the whole set in each step; `SGD`; else the optimizer's name.

        >>> full = Description("a.B", "module", "raw", "AdamW", True, ())
        >>> full.dynamics
        'full-batch AdamW'
        """
        if self.optimizer == "SGD":
            return "GD" if self.whole else "SGD"
        return f"{FULL_BATCH} {self.optimizer}" if self.whole else self.optimizer

    @property
    def is_network(self) -> bool:
        """Whether it is a classifier of ours: the paper's network, or any other.

        >>> Description("a.B", "module", "raw", "SGD", True, ()).is_network
        False
        """
        return self.kind in ("network", "classifier")

    @property
    def lam(self) -> float | list[float] | None:
        """The paper's lambda; of a `module`, PyTorch's weight decay if its layers share one.

        >>> decays = {name: {"kind": "coupled", "weight_decay": 0.1} for name in ("0", "2")}
        >>> Description("a.B", "module", "raw", "SGD", True, (), decays=decays).lam
        0.1
        """
        if self.kind != "module":
            return self.weight_decay
        shared = {(each.get("kind"), each.get("weight_decay")) for each in self.decays.values()}
        return shared.pop()[1] if len(shared) == 1 else None

    @property
    def controls(self) -> dict[str, Any]:
        """The controls that tell a run from an ordinary one of its weight decay, by option.

        >>> Description("a.B", "network", "none", "SGD", True, (), schedule="growing").controls
        {'schedule': 'growing'}
        """
        grows = {"schedule": self.schedule} if self.schedule == "growing" else {}
        return grows if self.hold_norms is None else {**grows, "hold_norms": self.hold_norms}

    @property
    def pool(self) -> str | None:
        """The fingerprint of the data without what the seed decides; None if it is not known.

        If the data changed within the run, the fingerprints before that are a part of it.
        """
        pool = self.data.get("pool", UNKNOWN)
        before = [str(change["from"]) for change in self.data.get(CHANGES, ())]
        return None if pool == UNKNOWN else "+".join([*before, pool])

    def to_plain(self) -> dict[str, Any]:
        """Return the fields and the dynamics in plain values."""
        return json.loads(json.dumps(asdict(self) | {"dynamics": self.dynamics}))

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Description:
        """Return the description that `to_plain` made plain.

        Raises:
            ValueError: A field is missing.
        """
        names = {each.name for each in fields(cls)}
        known = {key: value for key, value in plain.items() if key in names}
        try:
            return cls(**known | {"layers": tuple(known.get("layers", ()))})
        except TypeError as error:
            raise ValueError(f"not a description of a run ({error})") from error


def seed_in_force() -> int | None:
    """Return the seed that Lightning's `seed_everything` was last called with; None if it was not.

    Lightning keeps it in an environment variable, which its processes share.
    """
    given = os.environ.get("PL_GLOBAL_SEED", "")
    return int(given) if given.isdecimal() else None


def task_of(module: object) -> str:
    """Return the class path of a module."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def write_description(folder: Path, description: Description, **known_as: str | None) -> None:
    """Write the description to a run's folder, with the `id`, `name` and `group` of the run."""
    text = json.dumps({**known_as, **description.to_plain()}, indent=2) + "\n"
    write_atomically(folder / FILE, lambda file: file.write(text.encode()))


def read_description(folder: Path) -> dict[str, Any]:
    """Return the description in a run's folder, in plain values; empty if none can be read."""
    try:
        plain = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return plain if isinstance(plain, dict) else {}


def pool_of(folder: Path) -> str | None:
    """Return the fingerprint of a run's data without what the seed decides; None if unknown."""
    try:
        return Description.of(read_description(folder)).pool
    except (ValueError, TypeError, KeyError, AttributeError):  # written by something else
        return None
