"""The description of a recorded run, also of a record that is older than descriptions.

Options have a documented meaning in our own classes alone. The description of such an old
record is derived from them. An old record of any other class says nothing of its dynamics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_args

from janus_pl.errors import is_number
from janus_pl.run.description import CHANGES, KEY, Description, Kind, MarginKind

UNKNOWN = "unknown"  # the optimizer of a run that nobody described


def described(config: Mapping[str, Any]) -> Description:
    """Return the description in a recorded config; without one, derive it from the options.

    A description that cannot be read makes a `module` by an unknown optimizer, so that nothing is
    said about the run.

    Args:
        config: The resolved config, nested.
    """
    model, data = _part(config, "model"), _part(config, "data")
    task, seed = str(model.get("class_path") or ""), config.get("seed_everything")
    seed = seed if isinstance(seed, int) else None
    unknown = Description(task, "module", "none", UNKNOWN, False, (), seed=seed)
    derive = OURS.get(task)
    if KEY not in config and derive is None:
        return unknown
    try:
        if KEY in config:
            return _sound(_described(config[KEY]))
        assert derive is not None
        return _sound(derive(task, seed, _part(model, "init_args"), _part(data, "init_args")))
    except ValueError:
        return unknown


def _network(
    task: str, seed: Any, model: Mapping[str, Any], data: Mapping[str, Any]
) -> Description:
    given, optimizer = model.get("optimizer"), _part(model, "optimizer")
    path = given if isinstance(given, str) else optimizer.get("class_path")
    return Description(
        task,
        kind="network",
        margin="normalized",
        optimizer=str(path or "SGD").rpartition(".")[2],
        momentum=_part(optimizer, "init_args").get("momentum"),
        loss=model.get("loss"),
        normalization=model.get("normalization"),
        decay=model.get("decay"),
        hold_norms=model.get("hold_norms"),
        schedule=schedule if isinstance(schedule := model.get("schedule"), str) else None,
        **_shared(seed, model, data),
    )


def _classifier(
    task: str, seed: Any, model: Mapping[str, Any], data: Mapping[str, Any]
) -> Description:
    """Return what the options of a classifier of any network say; its margins are not known."""
    given = model.get("network")
    path = given if isinstance(given, str) else _part(model, "network").get("class_path")
    return replace(
        _network(task, seed, model, data),
        kind="classifier",
        margin="none",
        network=str(path or "").rpartition(".")[2],
        learning_rate=model.get("learning_rate"),
    )


def _linear(task: str, seed: Any, model: Mapping[str, Any], data: Mapping[str, Any]) -> Description:
    shared = _shared(seed, model, data)
    return Description(task, kind="linear", margin="normalized", optimizer="SGD", **shared)


OURS: Mapping[str, Callable[[str, Any, Mapping[str, Any], Mapping[str, Any]], Description]] = {
    "janus_pl.DeepReLUClassifier": _network,
    "janus_pl.LinearRegressor": _linear,
    "janus_pl.Classifier": _classifier,
}


def _shared(seed: Any, model: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    whole, batch = data.get("batch_size") == "full", data.get("batch_size")
    return {
        "whole": whole,
        "layers": (),
        "weight_decay": model.get("weight_decay"),
        "num_train": data.get("num_train"),
        "batch_size": data.get("num_train") if whole else batch,
        "seed": seed,
        "data_seed": data.get("seed"),
    }


def _described(plain: Any) -> Description:
    """Return the description in plain values.

    Raises:
        ValueError: It is not a mapping, or lacks a field.
    """
    if not isinstance(plain, Mapping) or not isinstance(plain.get("layers"), list | tuple):
        raise ValueError(f"not a description of a run: {plain}")
    return Description.of(plain)


def _sound(found: Description) -> Description:
    """Return a description whose values are of their kinds.

    Raises:
        ValueError: A value is of another kind.
    """
    decay = found.weight_decay
    sound = (
        found.kind in get_args(Kind)
        and found.margin in get_args(MarginKind)
        and isinstance(found.whole, bool)
        and all(isinstance(text, str) for text in (found.task, found.optimizer, *found.layers))
        and all(
            isinstance(text, str | None)
            for text in (found.loss, found.normalization, found.decay, found.schedule)
        )
        and (found.hold_norms is None or is_number(found.hold_norms))
        and all(isinstance(size, int | None) for size in (found.num_train, found.batch_size))
        and all(isinstance(seed, int | None) for seed in (found.seed, found.data_seed))
        and (decay is None or all(map(is_number, decay if isinstance(decay, list) else [decay])))
        and isinstance(found.decays, Mapping)
        and _is_of_data(found.data)
        and all(isinstance(facts, Mapping) for facts in found.decays.values())
        and isinstance(found.claims, Mapping)
    )
    if not sound:
        raise ValueError(f"not a description of a run: {found}")
    return found


def _is_of_data(data: Any) -> bool:
    """Tell whether the facts of the data are readable as far as readers use them."""
    if not isinstance(data, Mapping) or not isinstance(data.get(CHANGES, ()), list | tuple):
        return False
    texts = [data.get("pool", ""), data.get("sha256", "")]
    changes = data.get(CHANGES, ())
    return all(isinstance(text, str) for text in texts) and all(
        isinstance(change, Mapping) and "from" in change for change in changes
    )


def _part(held: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = held.get(key)
    return found if isinstance(found, Mapping) else {}
