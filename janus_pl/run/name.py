"""The default name of a run, such as `sgd-B128-lam0.001-seed0`, and its tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Options of the paper's runs; a name leaves them out.
USUAL = {"loss": "square", "normalization": "weight_norm", "decay": "all"}


def run_name(config: Mapping[str, Any]) -> str | None:
    """Return a name that tells a sweep's runs apart; None without weight decay or batch size.

    Args:
        config: The resolved config, nested.

    >>> data = {"init_args": {"batch_size": 128, "seed": 0}}
    >>> model = {"class_path": "janus_pl.DeepReLUClassifier", "init_args": {"weight_decay": 0.001}}
    >>> run_name({"seed_everything": 0, "model": model, "data": data})
    'sgd-B128-lam0.001-seed0'
    """
    model, data = _options(config, "model"), _options(config, "data")
    if "weight_decay" not in model or "batch_size" not in data:
        return None
    batch, seed = data["batch_size"], data.get("seed")
    parts = ["linear"] * _is_linear(config)
    parts += ["gd"] if batch == "full" else ["sgd", f"B{batch}"]
    parts.append(f"lam{_shown(model['weight_decay'])}")
    parts += [f"{model[key]}" for key, usual in USUAL.items() if model.get(key, usual) != usual]
    initial = config.get("seed_everything")
    own = _is_linear(config) or seed == initial  # one seed decides a linear problem and its W0
    parts.append(f"seed{seed}" if own else f"seed{initial}-order{seed}")
    return "-".join(parts)


def run_tags(config: Mapping[str, Any]) -> list[str]:
    """Return the tags: `linear` if it is, SGD or GD, the loss, the normalization of weights.

    >>> run_tags({"data": {"init_args": {"batch_size": "full"}}, "model": {}})
    ['GD']
    """
    model, data = _options(config, "model"), _options(config, "data")
    tags = ["linear"] * _is_linear(config)
    if "batch_size" in data:
        tags.append("GD" if data["batch_size"] == "full" else "SGD")
    return tags + [str(model[key]) for key in ("loss", "normalization") if key in model]


def _options(config: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    return (config.get(part) or {}).get("init_args") or {}


def _is_linear(config: Mapping[str, Any]) -> bool:
    return str((config.get("model") or {}).get("class_path")).endswith("LinearRegressor")


def _shown(value: object) -> str:
    """Return a number in six digits or fewer; several for replicas, joined by `+`."""
    numbers = value if isinstance(value, list) else [value]
    return "+".join(f"{n:g}" if isinstance(n, int | float) else str(n) for n in numbers)
