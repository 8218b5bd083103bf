"""The default name of a run, such as `sgd-B128-lam0.001-seed0`, and its tags."""

from __future__ import annotations

from janus_pl.run.description import Description

# Facts of the paper's runs; a name leaves them out.
USUAL = {"loss": "square", "normalization": "weight_norm", "decay": "all"}
# The same of a classifier of any network.
RATE = 0.1
COMMON = {"loss": "cross_entropy", "normalization": "none", "decay": "all"}


def run_name(description: Description) -> str:
    """Return a name that tells a sweep's runs apart; it leaves out facts that are not known.

    >>> sgd = Description(
    ...     *("janus_pl.DeepReLUClassifier", "network", "normalized", "SGD", False, ()),
    ...     **{"weight_decay": 0.001, "batch_size": 128, "seed": 0, "data_seed": 0},
    ... )
    >>> run_name(sgd)
    'sgd-B128-lam0.001-seed0'
    >>> decays = {"net.0": {"acts": "decoupled", "value": 0.01}}
    >>> run_name(
    ...     Description("a.Mine", "module", "raw", "AdamW", False, (), decays=decays, batch_size=32)
    ... )
    'Mine-adamw-B32-wd0.01'
    """
    subject: list[str] = {
        "network": [],
        "linear": ["linear"],
        "classifier": [str(description.network)],
        "module": [description.task.rpartition(".")[2]],
    }[description.kind]
    parts = [*subject, description.dynamics.lower().replace(" ", "-")]
    if not description.whole and description.batch_size is not None:
        parts.append(f"B{description.batch_size}")
    parts += _decay(description)
    if description.kind in ("network", "classifier"):
        usual = USUAL if description.kind == "network" else COMMON
        found = {key: getattr(description, key) for key in usual}
        parts += [f"{found[key]}" for key in usual if found[key] not in (None, usual[key])]
        parts += _controls(description)
    if description.kind != "module" and description.learning_rate not in (None, RATE):
        parts.append(f"eta{_shown(description.learning_rate)}")
    return "-".join(part for part in [*parts, *_seeds(description)] if part)


def run_tags(description: Description) -> list[str]:
    """Return the tags: `linear` if it is, the dynamics, the loss, the normalization, the controls.

    >>> run_tags(Description("a.Mine", "module", "raw", "AdamW", True, ()))
    ['full-batch AdamW']
    """
    if description.kind == "linear":
        return ["linear", description.dynamics]
    options = (description.loss, description.normalization)
    known = [given for given in options if given is not None]
    return [description.dynamics, *known, *_controls(description)]


def _controls(description: Description) -> list[str]:
    """Return a word for each control that is on, such as `growing` or `hold0.5`."""
    held = description.controls.get("hold_norms")
    grows = ["growing"] if "schedule" in description.controls else []
    return [*grows, *([] if held is None else [f"hold{_shown(held)}"])]


def _decay(description: Description) -> list[str]:
    """Return lambda; of a module, the PyTorch weight decay if all its layers share one above 0."""
    if description.kind != "module":
        given = description.weight_decay
        return [] if given is None else [f"lam{_shown(given)}"]
    by_layer = [
        [value for value in facts.values() if isinstance(value, int | float)]
        for facts in description.decays.values()
    ]
    shared = {tuple(values) for values in by_layer}
    if len(shared) != 1 or not any(found := shared.pop()):
        return []
    return [f"wd{_shown(list(found))}"]


def _seeds(description: Description) -> list[str]:
    weights, samples = description.seed, description.data_seed
    if description.kind == "linear" and samples is not None:
        return [f"seed{samples}"]  # one seed decides a linear problem and its W0
    found = [] if weights is None else [f"seed{weights}"]
    return found if samples in (None, weights) else [*found, f"order{samples}"]


def _shown(value: float | list[float]) -> str:
    """Return a number in six digits or fewer; several for replicas, joined by `+`."""
    numbers = value if isinstance(value, list) else [value]
    return "+".join(f"{n:g}" if isinstance(n, int | float) else str(n) for n in numbers)
