"""The parser of a subcommand: base.yaml's values for the paper's classes, and for them alone."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from pydoc import locate
from typing import Any, ClassVar

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from janus_pl.cli.help import PROGRAM, with_the_used_first
from janus_pl.data import ImagePair
from janus_pl.deep.classifier import DeepReLUClassifier

PRINTS = re.compile(r"-h$|--(.+\.)?help\b|--print_")  # options that print, and end the command
FEW = 8  # defaults that are kept
# The classes that base.yaml's `init_args` are for; subclasses have them too.
PAPERS = {"model": DeepReLUClassifier, "data": ImagePair}


class BaseValuesParser(LightningArgumentParser):
    """A parser whose default config holds values for the paper's classes, and for them alone.

    jsonargparse alone keeps the values that another class happens to accept, and so runs a class
    that says lr 0.1 with the paper's 0.03. Values that the user gives stay.
    """

    _kept: Mapping[str, Sequence[str]] = {}
    _dumped: tuple[str, str] | None = None  # what was dumped last, and its text
    _known: ClassVar[dict[str, Namespace]] = {}  # by what they depend on
    kept_before: ClassVar[Mapping[str, Sequence[str]]] = {}  # of the line that was parsed last

    def parse_args(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        namespace: Namespace | None = None,
        *more: Any,
        **options: Any,
    ) -> Namespace:
        """Parse, see which classes are chosen, and parse again if they are not base.yaml's.

        The first time finds the mistakes and prints the help. It is left out if the classes are
        those of the line before, as in a sweep, and the line has no mistake.
        """
        parse = partial(super().parse_args, args, namespace, *more, **options)
        self._kept = {}
        if not self.default_config_files:  # the parser of the program, or of one class
            return parse()
        base = Path(self.default_config_files[0])
        if namespace is None and (found := self._parsed_as_before(parse, base, args)) is not None:
            return found
        self._kept = {}
        config = parse()
        self._kept = BaseValuesParser.kept_before = _values_to_keep(config, base)
        return parse() if self._kept else config

    def _parsed_as_before(
        self, parse: Callable[[], Namespace], base: Path, args: Sequence[str] | None
    ) -> Namespace | None:
        """Return the config if the classes are those of the line before; None if they are not.

        It is None, too, if there is a mistake, or if nothing is parsed twice.
        """
        self._kept = self.kept_before
        if not self._kept or args is None or any(PRINTS.match(each) for each in args):
            return None
        try:
            config = parse()
        except Exception:  # told by the line that is parsed without a guess
            return None
        return config if _values_to_keep(config, base) == self._kept else None

    def dump(self, namespace: Namespace, *more: Any, **options: Any) -> str:
        """Return a config as text; the same one again takes no time.

        A run needs the text of its config three times: to find the run to go on with, for the
        hyperparameters and for its folder. To make it is a tenth of what a short run takes.
        """
        # The representation tells 1 from 1.0 and from True, which are equal.
        asked = repr((namespace.clone(with_meta=False), more, sorted(options.items())))
        if self._dumped is None or self._dumped[0] != asked:
            self._dumped = asked, str(super().dump(namespace, *more, **options))
        return self._dumped[1]

    def format_help(self, *more: Any, **options: Any) -> str:
        """Return the help; that of `fit` begins with the options that people use."""
        text = super().format_help(*more, **options)
        fit = (self.usage or "").startswith(f"{PROGRAM} fit ")
        return with_the_used_first(text) if fit else text

    def get_defaults(self, *more: Any, **options: Any) -> Namespace:
        """Return the defaults; of a part with another class, only the values that this one keeps.

        The class of base.yaml stays, because its options may be given before another class is.
        Each parse of a line asks twice, and those of another run have the same answer.
        """
        if not self.default_config_files:
            return super().get_defaults(*more, **options)
        texts = [Path(each).read_text(encoding="utf-8") for each in self.default_config_files]
        dests = [action.dest for action in self._actions]
        asked = repr((texts, dests, self._kept, more, sorted(options.items())))
        if asked not in self._known:
            if len(self._known) >= FEW:
                self._known.clear()
            self._known[asked] = self._new_defaults(*more, **options)
        return self._known[asked].clone()

    def _new_defaults(self, *more: Any, **options: Any) -> Namespace:
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
    values = _content(base.read_text(encoding="utf-8"))
    for part, paper in PAPERS.items():
        class_path = getattr(config.get(part), "class_path", None)
        if class_path not in (None, values[part]["class_path"]):  # None is a mistake, named later
            named = locate(str(class_path))
            applies = isinstance(named, type) and issubclass(named, paper)
            kept[part] = list(values[part]["init_args"]) if applies else []
    return kept


def plain(text: str) -> Any:
    """Return the values of a YAML text; those of the same text again are a copy."""
    return copy.deepcopy(_content(text))


@lru_cache(maxsize=4)
def _content(text: str) -> Any:
    """Return the values of a text, which nobody changes."""
    return yaml.safe_load(text)
