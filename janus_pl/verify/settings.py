"""What tells the settings of a claim apart, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from janus_pl.records.families import digest_of, numerics_of
from janus_pl.records.run import Run

TOLD_OF_TRAINER = ("trainer.max_epochs", "trainer.precision")
DECAY = "model.weight_decay"
NUMERICS = "numerics"
NOT_TOLD = ("", "seed", "root", "download", "micro_batch_size", "on_divergence")


def differences(settings: Sequence[Sequence[Run]], leave: Sequence[str] = (DECAY,)) -> list[str]:
    """Name the options in which the runs of a setting differ from the others', for each setting.

    Seeds are left out, and so are options that differ within a setting.

    Args:
        settings: The runs of each setting.
        leave: Options that are not named; most claims name lambda themselves.
    """
    shared = []
    for runs in settings:
        first, *others = ({**run.options, **_measured(run)} for run in runs)
        kept = {k: v for k, v in first.items() if all(o.get(k) == v for o in others)}
        shared.append({k: v for k, v in kept.items() if _tells(k) and k not in leave})
    keys = dict.fromkeys(key for options in shared for key in options)
    apart = [k for k in keys if len({_same(options.get(k)) for options in shared}) > 1]
    return [", ".join(f"{k.rpartition('.')[2]} {o[k]}" for k in apart if k in o) for o in shared]


def _same(value: Any) -> str:
    """Return what equal values have in common: 0 and 0.0 are one number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return repr(float(value) if number else value)


def _measured(run: Run) -> dict[str, Any]:
    """Return what no option says: the fingerprint of the data, and the numerics."""
    digest = digest_of(run)
    found = {} if digest is None else {"data.sha256": digest}
    return {**found, NUMERICS: numerics_of(run)}


def _tells(key: str) -> bool:
    part, _, name = key.partition(".")
    return key in (*TOLD_OF_TRAINER, NUMERICS) or (
        part in ("model", "data") and name not in NOT_TOLD
    )
