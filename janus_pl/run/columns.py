"""The columns of W&B's table of runs: short, flat keys of the config, the same for every run.

They are the facts by which runs are grouped, filtered and compared, as measured. The nested config
and the whole description lie beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from janus_pl.run.description import KEY, SHOWN, Description

LAMBDA, DYNAMICS, LOSS, NORMALIZATION = "lambda", "dynamics", "loss", "normalization"
COLUMNS = (
    *(LAMBDA, "B", "N", "eta", DYNAMICS, LOSS, NORMALIZATION),
    *("network", "decay", "schedule", "seed", "fingerprint", "code"),
)


def columns(description: Description) -> dict[str, Any]:
    """Return the columns of a run, `COLUMNS`; None of a fact that is not known.

    `fingerprint` is that of the data without what the seed decides, in a few digits; `data` are
    their options in W&B's config.
    `network` is the class of the network, or of the module. `code` is the git commit, or the
    version of this package.

    >>> sgd = Description(
    ...     *("janus_pl.DeepReLUClassifier", "network", "normalized", "SGD", False, ()),
    ...     **{"weight_decay": 0.001, "batch_size": 128, "num_train": 10000, "eta": 0.03},
    ...     **{"loss": "square", "normalization": "weight_norm", "seed": 0},
    ... )
    >>> {key: value for key, value in columns(sgd).items() if value is not None}
    {'lambda': 0.001, 'B': 128, 'N': 10000, 'eta': 0.03, 'dynamics': 'SGD', 'loss': 'square', \
'normalization': 'weight_norm', 'network': 'DeepReLUClassifier', 'seed': 0}
    """
    pool = description.pool  # joined by + if the data changed
    linear = description.kind == "linear"  # one seed decides its problem and W0
    found = {
        LAMBDA: description.lam,
        "B": description.batch_size,
        "N": description.num_train,
        "eta": description.eta,
        DYNAMICS: description.dynamics,
        LOSS: description.loss,
        NORMALIZATION: description.normalization,
        "network": description.network or description.task.rpartition(".")[2],
        "decay": description.decay,
        "schedule": description.schedule,
        "seed": description.data_seed if linear else description.seed,
        "fingerprint": "+".join(each[:SHOWN] for each in pool.split("+")) if pool else None,
        "code": description.versions.get("commit") or description.versions.get("janus_pl"),
    }
    assert tuple(found) == COLUMNS
    return found


def described(description: Description, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description and its columns for W&B's config, without keys that are somebody else's.

    Args:
        description: The description of now.
        config: W&B's config before; a resumed run has its old description and columns in it.
    """
    own = _own_columns(config)
    given = {k: v for k, v in columns(description).items() if k not in config or k in own}
    return {KEY: description.to_plain(), **given}


def without_columns(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return W&B's config without the columns, which say nothing that the description does not.

    >>> without_columns({"lambda": 0.1, "seed_everything": 0})  # of no description of ours
    {'lambda': 0.1, 'seed_everything': 0}
    """
    own = _own_columns(config)
    return {key: value for key, value in config.items() if key not in own}


def _own_columns(config: Mapping[str, Any]) -> set[str]:
    """Return the keys of a config that are columns of the description in it."""
    try:
        made = columns(Description.of(config[KEY]))
    except (KeyError, ValueError, TypeError, AttributeError):  # none, or none of ours
        return set()
    return {key for key, value in made.items() if key in config and config[key] == value}
