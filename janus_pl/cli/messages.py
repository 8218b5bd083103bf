"""Messages of one line for mistakes on the command line or in a config file."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from importlib import import_module

from lightning.pytorch import Trainer

from janus_pl.errors import UsageError, nearest

NEEDS_NOTHING = (None, "auto", "cpu", "simple", "advanced", "pytorch")  # values for any machine
WIDTH = 120  # characters of a value in a message; a value may be a whole list of callbacks


def explain(error: BaseException, options: Iterable[str] = ()) -> str:
    """Shorten a parser's message of twenty lines to field, value and allowed values.

    Args:
        error: The error of the parser or of the construction of a class.
        options: The top-level options of the command line, for a hint at the nearest one.
    """
    if usage := usage_message(error):
        return usage
    text = str(error)
    return (
        _unknown_option(text)
        or _missing_argument(text)
        or _unknown_key(text, options)
        or _not_importable(text)
        or _wrong_value(text)
        or " ".join(text.split())
    )


def usage_message(error: BaseException) -> str | None:
    """Return the text of the UsageError that jsonargparse wraps in an error; None without one."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, UsageError):
            return str(link)
        link = link.__cause__ or link.__context__
    # If several types were tried, only the UsageError's text is left, as a line among theirs.
    quoted = re.search(r"^\s*(?:- )?(\S+: got .*, allowed: .*)$", str(error), re.MULTILINE)
    return quoted[1] if quoted else None


def trainer_mistake(error: BaseException, options: Mapping[str, object]) -> UsageError:
    """Return Lightning's complaint about the trainer's options, for the one that it names first.

    Args:
        error: The error that the Trainer raised.
        options: The options that it was given.
    """
    text = " ".join(str(error).split())
    words = re.findall(r"\w+", text)
    named = [word for word in words if word in options]
    named += [name for name, value in options.items() if isinstance(value, str) and value in words]
    # Lightning names no option if a package or a device is missing.
    parts = ("profiler", "accelerator", "strategy")
    named += [name for name in parts if options.get(name) not in NEEDS_NOTHING]
    if not named:
        return UsageError("trainer", "options", f"what Lightning's Trainer takes ({text})")
    name = named[0]
    return UsageError(f"trainer.{name}", options[name], f"what Lightning's Trainer takes ({text})")


def _unknown_option(text: str) -> str | None:
    """Return the message for a key that a class does not take."""
    if not (match := re.search(r"Option '([^']+)' is not accepted", text)):
        return None
    before_and_line = text[: text.find("\n", match.end())]
    classes = re.findall(r"class_path(?: |=)'([^']+)'", before_and_line)
    if match[1] == "class_path":  # the parser reads it as an argument if there are other keys
        given = re.findall(r"Given value: (.*)$", text, re.MULTILINE)
        keys = ".".join(_keys(before_and_line))
        return f"{keys}: got {given[-1]}, allowed: no keys but class_path and init_args"
    field = ".".join([*_keys(before_and_line), match[1]])
    known = _arguments(classes[-1]) - {match[1]}  # the program may set an argument of this name
    return f"{field}: unknown key, allowed: {nearest(match[1], known)}"


def _missing_argument(text: str) -> str | None:
    """Return the message for an argument without default that is not given, or is null."""
    match = re.search(r"the following arguments are required: (?:\w+\.)?(\w+)", text)
    if not match:
        return None
    field = ".".join([*_keys(text[: match.start()]), match[1]])
    if field.endswith("schedulers.optimizer"):  # PyTorch's own wants parts that have it already
        return f"{field}: got None, allowed: parts without it, in class_path: janus_pl.SequentialLR"
    return f"{field}: got None, allowed: a value, for it has no default"


def _unknown_key(text: str, options: Iterable[str]) -> str | None:
    match = re.search(r"does not accept option '([^']+)'|unrecognized arguments: (\S+)", text)
    if not match:
        return None
    field = (match[1] or match[2]).lstrip("-").split("=")[0]
    known = set(options)
    if field.startswith("trainer."):
        known = {f"trainer.{name}" for name in inspect.signature(Trainer.__init__).parameters}
    return f"{field}: unknown key, allowed: {nearest(field, known - {'trainer.self'})}"


def _not_importable(text: str) -> str | None:
    reason = re.search(
        r"class_path '([^']+)':\s+((?:module '([^']+)' has no attribute|No module named).*)", text
    )
    if bare := re.search(r"Expected a dot import path string: (\S+)", text):
        names = [f"{choices}, or " for choices in re.findall(r"typing\.Literal\[(.*?)\]", text)]
        allowed = "".join(dict.fromkeys(names)) + "a class as module.Name"
        return f"{'.'.join(_keys(text))}: got {bare[1]!r}, allowed: {allowed}"
    if not reason:
        return None
    field = ".".join(_keys(text[: reason.start()]))
    hint = ""
    if reason[3]:
        name = reason[1].rsplit(".", 1)[-1]
        hint = f"; {nearest(name, getattr(import_module(reason[3]), '__all__', []))}"
    return f"{field}: got {reason[1]!r}, allowed: a class that can be imported ({reason[2]}{hint})"


def _wrong_value(text: str) -> str | None:
    keys = _keys(text)
    given = re.search(r"(?:Got|Given) value: (.*?)(?:\. Got value:.*)?$", text, re.MULTILINE)
    if not keys or not given:
        return None
    inner = text[: given.start()]
    kind = r"<class '[^']+'>|typing\.Literal\[[^\]]+\]|(?!a path but|path but|')[^.\n]+"
    expected = re.findall(f"Expected (?:an? )?({kind})", inner)
    bases = re.findall(r"(?:subclass of|that returns) (?:<class ')?(?:\w+\.)*(\w+)", inner)
    if not bases and {_readable(kind) for kind in expected} <= {"null"}:
        bases = re.findall(r"Subtypes: \[.*?<class '(?:\w+\.)*(\w+)'>", inner)
    allowed = dict.fromkeys(_readable(kind) for kind in expected)
    allowed |= dict.fromkeys(f"the class_path of a {base}" for base in bases)
    value = given[1] if len(given[1]) <= WIDTH else f"{given[1][:WIDTH]} ..."
    return f"{'.'.join(keys)}: got {value!r}, allowed: {' or '.join(allowed) or 'see --help'}"


def _keys(text: str) -> list[str]:
    return re.findall(r'Parser key "([^"]+)"', text)


def _readable(kind: str) -> str:
    """Return the name of a type as a user would say it.

    >>> _readable("<class 'int'>"), _readable("typing.Literal['a', 'b']")
    ('int', "'a', 'b'")
    """
    kind = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", kind)
    kind = re.sub(r"typing\.Literal\[(.*)\]", r"\1", kind)
    return {"NoneType": "null", "Sequence": "list"}.get(kind, kind)


def _arguments(class_path: str) -> set[str]:
    """Return the names of arguments that a class and its bases take on construction."""
    module, name = class_path.rsplit(".", 1)
    bases = inspect.getmro(getattr(import_module(module), name))
    names = {
        parameter.name
        for base in bases
        if "__init__" in vars(base)
        for parameter in inspect.signature(vars(base)["__init__"]).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    return names - {"self"}
