"""Checks of a command line and of config files that the parser would misread or take in silence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from janus_pl.errors import UsageError
from janus_pl.run.nested import RepeatedKey, load_yaml, read_mapping

RUN_OPTIONS = ("project", "name", "group", "tags", "run_dir")
EXTRA_TEXTS = ("entity", "notes", "job_type")
EXTRA_FLAGS = ("log_model", "save_code", "alerts")
FLAGS = ("allow_config_change", "allow_data_change", *EXTRA_FLAGS)
OPTIONS = (
    *("model", "data", "trainer", "config", "seed_everything", "ckpt_path", "numerics"),
    *FLAGS,
    *RUN_OPTIONS,
    *EXTRA_TEXTS,
)
ENDINGS = (".yaml", ".yml", ".json")  # of files that a value may name


def check_arguments(args: Sequence[str]) -> None:
    """Refuse arguments without a name or without a value, which the parser would lay elsewhere.

    Options that do not exist are left to the parser.

    Args:
        args: The command line from its subcommand on.

    Raises:
        UsageError: An argument has no name, an option has no value, or its value has a key twice.
    """
    rest = [*args[1:]]
    while rest:
        option = rest.pop(0)
        name, equals, value = option.partition("=")
        if not _is_option(option) or not name.strip("-"):
            raise UsageError("argument", option, _named(option))
        if re.match(r"-\w{2}", option):
            raise UsageError("argument", option, "options with two dashes, as --config FILE")
        alone = not rest or _is_option(rest[0])
        if not equals and alone and _takes_value(name):
            raise UsageError(name, None, f"a value, as {name} {_example(name)}")
        if not equals and not alone and name.lstrip("-") not in FLAGS:
            value = rest.pop(0)
        if name.endswith(".help") and rest:
            raise UsageError("argument", rest[0], f"nothing after {name} CLASS")
        if name not in ("--config", "-c"):  # files of configs are checked where they are found
            _check_value(name, value)


def check_config(name: str, path: Path) -> None:
    """Refuse a config file that is not a mapping in YAML; a tag in it constructs no object.

    Args:
        name: The name that was given.
        path: The file.

    Raises:
        UsageError: The file, or one that it names, cannot be used.
    """
    wanted = "a YAML file that holds keys as model: and trainer:"
    content = read_mapping("--config", name, path, wanted)
    if not all(isinstance(key, str) for key in content):
        raise UsageError("--config", name, f"{wanted}; it holds dict")
    if wrong := [key for key in content if not re.fullmatch(r"[\w.]+\+?", key)]:
        raise UsageError("--config", name, f"{wanted}; {wrong[0]!r} is no key")
    if {"method", "parameters"} <= content.keys():
        raise UsageError("--config", name, f"a config; a sweep file is run by `sweep {name}`")
    _check_files(content, path.parent, "--config", {path.absolute()})


def _is_option(argument: str) -> bool:
    return re.match(r"--|-[a-zA-Z]", argument) is not None


def _takes_value(name: str) -> bool:
    """Tell whether an option that exists needs a value."""
    key = name.lstrip("-").rstrip("+")
    known = (re.fullmatch(r"[\w.]+", key) and key.split(".")[0] in OPTIONS) or name == "-c"
    return bool(known) and key not in FLAGS and key not in ("model.help", "data.help")


def _named(argument: str) -> str:
    """Return what is allowed in place of an argument without a name."""
    if argument.endswith(ENDINGS):
        return f"options by name, as --config {argument}"
    if argument.endswith(".ckpt"):
        return f"options by name, as --ckpt_path {argument}"
    return "options by name, as --NAME VALUE; a list is one value, as '[3, 8]'"


def _example(name: str) -> str:
    return "quickstart.yaml" if name in ("--config", "-c") else "VALUE"


def _check_value(option: str, value: str) -> None:
    """Refuse a value that is YAML, or names a file of YAML, with a key twice."""
    if "{" in value or "\n" in value:
        try:
            load_yaml(value)
        except RepeatedKey as error:
            raise UsageError(option, value, f"each key once ({error})") from error
        except ValueError:
            return  # text, or the parser's to refuse
    _check_files(value, Path(), option, set())


def _check_files(content: Any, folder: Path, option: str, seen: set[Path]) -> None:
    """Refuse files with a key twice among those that the values of a config name."""
    for text in _texts(content):
        path = folder / text
        if not text.endswith(ENDINGS) or path.absolute() in seen:
            continue
        seen.add(path.absolute())
        try:
            inner = load_yaml(path.read_text(encoding="utf-8"))
        except RepeatedKey as error:
            raise UsageError(option, text, f"a YAML file with each key once ({error})") from error
        except (OSError, ValueError):
            continue  # no file, or the parser's to refuse if it is to be read at all
        _check_files(inner, path.parent, option, seen)


def _texts(content: Any) -> Iterator[str]:
    """Yield every text among nested values, of which one may hold itself."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value
