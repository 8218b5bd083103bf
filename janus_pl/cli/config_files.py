"""Command lines made ready for the parser: config files found and checked, numbers joined."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from janus_pl.cli.config_checks import check_arguments, check_config
from janus_pl.cli.spelled import spell
from janus_pl.errors import UsageError, nearest_file
from janus_pl.run.account import begun_values
from janus_pl.run.shipped import CONFIGS

HELPED = {
    "--model.help": "janus_pl.DeepReLUClassifier",
    "--data.help": "janus_pl.data.CIFAR10Pair",
}


def complete(args: Sequence[str]) -> list[str]:
    """Return a command line in the form that the parser takes.

    Raises:
        UsageError: An argument has no name or no value, or a config file cannot be used.
    """
    args = spell(name_helped_classes(join_negative_numbers(args)))
    check_arguments(args)
    return find_configs(args)


def find_configs(args: Sequence[str]) -> list[str]:
    """Return the arguments with the path of a file for each `--config NAME`.

    NAME is looked up in the working directory, then among the shipped configs. If the file's folder
    has a base.yaml, the config is a difference from it: base.yaml is read just before it. The
    parser itself reads configs/base.yaml first.

    Raises:
        UsageError: A config file does not exist (the error names the places), or cannot be used.
    """
    found: list[str] = []
    given = iter(args)
    for arg in given:
        option, equals, name = arg.partition("=")
        if option in ("--config", "-c"):
            config = _find_config(name if equals else next(given, ""))
            base = config.with_name("base.yaml")
            if base.is_file() and base != config and base.parent.resolve() != CONFIGS:
                check_config(str(base), base)
                found += ["--config", str(base)]
            found += ["--config", str(config)]
        else:
            found.append(arg)
    return found


def adds_to(option: str, args: Sequence[str]) -> bool:
    """Tell whether a list is only added to (`--OPTION+=`, or `KEY+` in a config), never given.

    Args:
        option: The option's dotted name.
        args: The command line, as `complete` returns it.
    """
    *above, key = option.split(".")
    added = False
    given = iter(args)
    for arg in given:
        name, equals, value = arg.partition("=")
        if name in (f"--{option}", f"--{option}+"):
            added = name.endswith("+")
            if not added:
                return False
        elif name in ("--config", "-c"):
            path = Path(value if equals else next(given, ""))
            found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
            for part in above:
                found = found.get(part) if isinstance(found, dict) else None
            if isinstance(found, dict):
                if found.get(key) not in (None, True):
                    return False
                added = added or f"{key}+" in found
    return added


@contextmanager
def begun_config() -> Iterator[list[str]]:
    """Yield arguments for the options in the config of the run that has begun in this process.

    In a function of `wandb.agent` these are the values of the sweep: `model.weight_decay` and the
    like. Other names in the config of the run are the function's own.
    """
    values = {k: v for k, v in begun_values().items() if _is_option(k)}
    if not values:
        yield []
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "wandb.yaml"
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        yield ["--config", str(file)]


def _is_option(key: str) -> bool:
    return key == "seed_everything" or key.startswith(("model.", "data.", "trainer."))


def join_negative_numbers(args: Sequence[str]) -> list[str]:
    """Join `--key -1e-3` to `--key=-1e-3`: argparse would take -1e-3 for an option.

    >>> join_negative_numbers(["fit", "--model.weight_decay", "-1e-3"])
    ['fit', '--model.weight_decay=-1e-3']
    """
    joined: list[str] = []
    for arg in args:
        if re.fullmatch(r"-[\d.]+e[-+]?\d+", arg) and joined and joined[-1].startswith("--"):
            joined[-1] += f"={arg}"
        else:
            joined.append(arg)
    return joined


def name_helped_classes(args: Sequence[str]) -> list[str]:
    """Complete a bare `--model.help` or `--data.help` with the class that base.yaml names.

    >>> name_helped_classes(["fit", "--model.help"])
    ['fit', '--model.help', 'janus_pl.DeepReLUClassifier']
    """
    named = list(args)
    if named and named[-1] in HELPED:
        named.append(HELPED[named[-1]])
    return named


def _find_config(name: str) -> Path:
    if not name.strip():
        raise UsageError("--config", name, "a file, as quickstart.yaml")
    places = [Path(name), CONFIGS / name]
    for place in places:
        if place.is_file():
            check_config(name, place)
            return place
    looked = " or ".join(dict.fromkeys(str(place.absolute()) for place in places))
    allowed = f"an existing file, looked for as {looked}"
    if other := next((place for place in places if place.exists()), None):
        allowed = f"an existing file; {other} is {'a folder' if other.is_dir() else 'none'}"
    raise UsageError("--config", name, allowed + nearest_file(name, _configs()))


def _configs() -> Iterator[Path]:
    """Yield the YAML files of the working directory and the shipped ones, as a user names them."""
    yield from (file for file in sorted(Path().glob("*.yaml")) if file.is_file())
    yield from (file.relative_to(CONFIGS) for file in sorted(CONFIGS.rglob("*.yaml")))
