"""The parser of a subcommand: base.yaml's values for the paper's classes, and for them alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from janus_pl.cli.help import PROGRAM, with_the_used_first
from janus_pl.data import ImagePair
from janus_pl.deep.classifier import DeepReLUClassifier

# The classes that base.yaml's `init_args` are for; subclasses have them too.
PAPERS = {"model": DeepReLUClassifier, "data": ImagePair}


class BaseValuesParser(LightningArgumentParser):
    """A parser whose default config holds values for the paper's classes, and for them alone.

    jsonargparse alone keeps the values that another class happens to accept, and so runs a class
    that says lr 0.1 with the paper's 0.03. Values that the user gives stay.
    """

    _kept: Mapping[str, Sequence[str]] = {}

    def parse_args(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        namespace: Namespace | None = None,
        *more: Any,
        **options: Any,
    ) -> Namespace:
        """Parse, see which classes are chosen, and parse again if they are not base.yaml's.

        The first time finds the mistakes and prints the help.
        """
        self._kept = {}
        config = super().parse_args(args, namespace, *more, **options)
        if self.default_config_files:  # else the parser of the program, or of one class
            self._kept = _values_to_keep(config, Path(self.default_config_files[0]))
        return super().parse_args(args, namespace, *more, **options) if self._kept else config

    def format_help(self, *more: Any, **options: Any) -> str:
        """Return the help; that of `fit` begins with the options that people use."""
        text = super().format_help(*more, **options)
        fit = (self.usage or "").startswith(f"{PROGRAM} fit ")
        return with_the_used_first(text) if fit else text

    def get_defaults(self, *more: Any, **options: Any) -> Namespace:
        """Return the defaults; of a part with another class, only the values that this one keeps.

        The class of base.yaml stays, because its options may be given before another class is.
        """
        defaults = super().get_defaults(*more, **options)
        for part, names in self._kept.items():
            values = vars(defaults[part].init_args)
            defaults[part].init_args = Namespace(**{name: values[name] for name in names})
        return defaults


def _values_to_keep(config: Namespace, base: Path) -> dict[str, list[str]]:
    """Return the names of the base's values that apply, for each part with a class of its own.

    Args:
        config: A parsed config.
        base: The file of the values.
    """
    kept: dict[str, list[str]] = {}
    values = yaml.safe_load(base.read_text(encoding="utf-8"))
    for part, paper in PAPERS.items():
        class_path = getattr(config.get(part), "class_path", None)
        if class_path not in (None, values[part]["class_path"]):  # None is a mistake, named later
            named = locate(str(class_path))
            applies = isinstance(named, type) and issubclass(named, paper)
            kept[part] = list(values[part]["init_args"]) if applies else []
    return kept
