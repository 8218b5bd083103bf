"""The description of a recorded run, also of a record that is older than descriptions.

Options have a documented meaning in our own two classes alone. The description of such an old
record is derived from them. An old record of any other class says nothing of its dynamics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from janus_pl.run.description import CHANGES, KEY, Description, Kind, MarginKind

UNKNOWN = "unknown"  # the optimizer of a run that nobody described


def described(config: Mapping[str, Any]) -> Description:
    """Return the description in a recorded config; if there is none, derive it.

    A description that cannot be read makes a `module` by an unknown optimizer, so that nothing is
    said about the run.

    Args:
        config: The resolved config, nested.
    """
    model, data = _part(config, "model"), _part(config, "data")
    task, seed = str(model.get("class_path") or ""), config.get("seed_everything")
    unknown = Description(task, "module", "none", UNKNOWN, False, (), seed=seed)
    if KEY in config:
        try:
            return _sound(config[KEY])
        except ValueError:
            return unknown
    derive = OURS.get(task)
    if derive is None:
        return unknown
    return derive(task, seed, _part(model, "init_args"), _part(data, "init_args"))


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
        **_shared(seed, model, data),
    )


def _linear(task: str, seed: Any, model: Mapping[str, Any], data: Mapping[str, Any]) -> Description:
    shared = _shared(seed, model, data)
    return Description(task, kind="linear", margin="normalized", optimizer="SGD", **shared)


OURS: Mapping[str, Callable[[str, Any, Mapping[str, Any], Mapping[str, Any]], Description]] = {
    "janus_pl.DeepReLUClassifier": _network,
    "janus_pl.LinearRegressor": _linear,
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


def _sound(plain: Any) -> Description:
    """Return the description in plain values.

    Raises:
        ValueError: It is not a mapping, lacks a field, or has a value of another kind.
    """
    if not isinstance(plain, Mapping) or not isinstance(plain.get("layers"), list | tuple):
        raise ValueError(f"not a description of a run: {plain}")
    found = Description.of(plain)
    sound = (
        found.kind in get_args(Kind)
        and found.margin in get_args(MarginKind)
        and isinstance(found.whole, bool)
        and all(isinstance(text, str) for text in (found.task, found.optimizer, *found.layers))
        and all(
            isinstance(text, str | None) for text in (found.loss, found.normalization, found.decay)
        )
        and all(isinstance(size, int | None) for size in (found.num_train, found.batch_size))
        and isinstance(found.weight_decay, int | float | list | None)
        and isinstance(found.decays, Mapping)
        and _is_of_data(found.data)
        and all(isinstance(facts, Mapping) for facts in found.decays.values())
    )
    if not sound:
        raise ValueError(f"not a description of a run: {plain}")
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
