"""Messages of one line for mistakes on the command line or in a config file."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from lightning.pytorch import Trainer

from janus_pl.cli.checks import SEEDS
from janus_pl.errors import EXTRAS, UsageError, how_to_install, nearest

NEEDS_NOTHING = (None, "auto", "cpu", "simple", "advanced", "pytorch")  # values for any machine
# Modules whose classes an option takes, for hints at the nearest name.
PLACES = {
    "model": ("janus_pl",),
    "data": ("janus_pl.data",),
    "callbacks": ("lightning.pytorch.callbacks", "janus_pl.callbacks"),
    "logger": ("lightning.pytorch.loggers",),
    "optimizer": ("torch.optim",),
    "schedule": ("torch.optim.lr_scheduler",),
}
# Classes whose options a user may give without `model.` or `data.`, for hints.
OURS = {
    "model": ("janus_pl.DeepReLUClassifier", "janus_pl.LinearRegressor"),
    "data": (
        "janus_pl.data.DigitsPair",
        "janus_pl.data.ImageFolderPair",
        "janus_pl.data.ImageClasses",
    ),
}
# What people call options elsewhere, and the option that is meant.
NICKNAMES = {
    **dict.fromkeys(("lr", "eta", "rate"), "learning_rate"),
    **dict.fromkeys(("wd", "decay_rate", "l2", "lam", "lambda"), "weight_decay"),
    **dict.fromkeys(("bs", "batch", "minibatch_size"), "batch_size"),
    **dict.fromkeys(("epochs", "num_epochs", "n_epochs"), "max_epochs"),
    **dict.fromkeys(("steps", "num_steps", "n_steps"), "max_steps"),
    **dict.fromkeys(("gpu", "gpus", "num_gpus"), "devices"),
    **dict.fromkeys(("device",), "accelerator"),
    **dict.fromkeys(("output", "output_dir", "out", "outdir", "out_dir"), "run_dir"),
    **dict.fromkeys(("resume", "checkpoint", "ckpt"), "ckpt_path"),
    "momentum": "optimizer.momentum",
}
BARE = r"(?:Expected a dot import path string|Unexpected import path format): (.+)"
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
        or _misread(text)
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


def trainer_mistake(
    error: BaseException, options: Mapping[str, object], model: object = None
) -> UsageError:
    """Return Lightning's complaint about the trainer's options, for the one that it names first.

    Args:
        error: The error that the Trainer raised.
        options: The options that it was given.
        model: The model, if it is made.
    """
    text = " ".join(str(error).split())
    if model is not None and re.match(r"No `\w+\(\)` method defined", text):
        return UsageError("model", type(model).__name__, f"a module that Lightning takes ({text})")
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
    head = match[1].split(".")[0]
    of = f" (of {classes[-1]})"
    if parts := difflib.get_close_matches(head, ("class_path", "init_args"), n=1, cutoff=0.8):
        known = {*parts}
    return f"{field}: unknown key, allowed: {_nearest(head, known) if known else 'no options'}{of}"


def _missing_argument(text: str) -> str | None:
    """Return the message for an argument without default that is not given, or is null."""
    match = re.search(r"the following arguments are required: (?:\w+\.)?(\w+)", text)
    if not match:
        return None
    field = ".".join([*_keys(text[: match.start()]), match[1]])
    if field.endswith("schedulers.optimizer"):  # PyTorch's own wants parts that have it already
        return f"{field}: got None, allowed: parts without it, in class_path: janus_pl.SequentialLR"
    return f"{field}: got None, allowed: a value, for it has no default"


def _nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the key that a name most likely means, as `errors.nearest` does.

    >>> _nearest("lr", ["learning_rate", "loss"])
    'a valid key, the nearest is learning_rate'
    """
    known = {*known}
    meant = NICKNAMES.get(name, "")
    if meant.partition(".")[0] in known:
        return f"a valid key, the nearest is {meant}"
    return nearest(name, known)


def _unknown_key(text: str, options: Iterable[str]) -> str | None:
    match = re.search(r"does not accept option '([^']+)'|unrecognized arguments: (\S+)", text)
    if not match:
        return None
    field = (match[1] or match[2]).lstrip("-").split("=")[0]
    part, _, name = field.partition(".")
    if part == "trainer" and name:
        said = _nearest(name, _of_trainer()).replace("nearest is ", "nearest is trainer.")
        return f"{field}: unknown key, allowed: {said}"
    known = {*options, "help", "print_config"} if options else set()
    if known and not name:
        deeper = _short_names(known)
        meant = NICKNAMES.get(field, field)
        near = [meant] if meant in deeper else difflib.get_close_matches(field, deeper, n=2)
        if near:  # two, as min_epochs and max_epochs, only if none is certain
            keys = dict.fromkeys(deeper[each] for each in near)
            said = f"a valid key, the nearest is {' or '.join(keys)}"
            return f"{field}: unknown key, allowed: {said}"
    return f"{field}: unknown key, allowed: {nearest(field, known)}"


def _of_trainer() -> set[str]:
    """Return the names of the Trainer's options."""
    return {*inspect.signature(Trainer.__init__).parameters} - {"self"}


def _short_names(known: Iterable[str]) -> dict[str, str]:
    """Return names that a user may give without `model.`, `data.` or `trainer.`, and their options.

    Of two options with the same name the top-level one is meant, for which its first word stands,
    too: `seed` is `seed_everything` and not `data.seed`.

    Args:
        known: The top-level options.
    """
    found = {name: f"trainer.{name}" for name in _of_trainer()}
    for part, class_paths in OURS.items():
        arguments = set().union(*map(_arguments, class_paths))
        found |= {name: f"{part}.{name}" for name in arguments - {"options"}}
    found["optimizer.momentum"] = "model.optimizer.momentum"
    first_words = {name.partition("_")[0]: name for name in sorted(known, reverse=True)}
    return found | first_words | {name: name for name in known}


def _misread(text: str) -> str | None:
    """Return the message for what the parser itself takes otherwise than it was meant."""
    if match := re.search(r"Invalid option \"(.*)\" for --print_config", text):
        return f"--print_config: got {match[1]!r}, allowed: skip_default, skip_null"
    if match := re.search(r"argument (--\w+): ignored explicit argument '(.*)'", text):
        return f"{match[1]}: got {match[2]!r}, allowed: no value, for the option alone sets it"
    if match := re.search(r"Parser key \"([^\"]+)\":\s+Unable to load config\s+'(.*?)'", text):
        return f"{match[1]}: got {match[2]!r}, allowed: options by name, or a YAML file of them"
    if match := re.search(r"expected \"subcommand\" to be one of \{(.*)\}", text):
        return f"subcommand: got None, allowed: one of {match[1].replace(',', ', ')}"
    return None


def _not_importable(text: str) -> str | None:
    """Return the message for a class path that leads nowhere."""
    if bare := re.search(BARE, text):
        names = [f"{choices}, or " for choices in re.findall(r"typing\.Literal\[(.*?)\]", text)]
        field = ".".join(_keys(text)) or "".join(re.findall(r"--[\w.]+", text)[:1])
        allowed = "".join(dict.fromkeys(names)) + f"a class as module.Name{_near(bare[1], field)}"
        return f"{field}: got {bare[1]!r}, allowed: {allowed}"
    way = r"(?:class_path '([^']+)':|expects a function or a callable class:)\s+"
    why = r"(module '([^']+)' has no attribute '([^']+)'|No module named '[^']+')"
    got = r"(?:\. Got value: .*?([\w.]+)'?\)?$)?"
    if not (reason := re.search(way + why + got, text, re.MULTILINE)):
        return None
    field = ".".join(_keys(text[: reason.start()]))
    path = reason[1] or reason[5] or f"{reason[3]}.{reason[4]}"
    if (package := re.fullmatch(r"No module named '(\w+).*'", reason[2])) and package[1] in EXTRAS:
        return f"{field}: got {path!r}, allowed: with {how_to_install(package[1])}"
    allowed = f"a class that can be imported ({reason[2]}{_near(path, field)})"
    return f"{field}: got {path!r}, allowed: {allowed}"


def _near(path: str, field: str) -> str:
    """Return a hint at the class that is nearest to a path that leads nowhere; empty if none is.

    Args:
        path: The path, or a bare name.
        field: The option that takes the class.
    """
    module, _, name = path.rpartition(".")
    if close := difflib.get_close_matches(name, _classes_of(module), n=1, cutoff=0.5):
        return f"; the nearest is {module}.{close[0]}"
    if close := difflib.get_close_matches(module, _modules_here(), n=1, cutoff=0.6):
        return f"; the nearest is {close[0]}.{name}"
    known: dict[str, str] = {}
    for place in (*PLACES.get(field.rsplit(".", 1)[-1], ()), module):
        if all(map(str.isidentifier, place.split("."))):
            with suppress(Exception):  # somebody's module may raise anything; this is but a hint
                names = getattr(import_module(place), "__all__", ())
                known |= {each: f"{place}.{each}" for each in names}
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; the nearest is {known[close[0]]}" if close else ""


def _classes_of(module: str) -> list[str]:
    """Return the public classes of a module; none of one that cannot be imported."""
    if not all(map(str.isidentifier, module.split("."))):
        return []
    with suppress(Exception):  # somebody's module may raise anything; this is but a hint
        named = vars(import_module(module))
        return [name for name, each in named.items() if isinstance(each, type) and name[0] != "_"]
    return []


def _modules_here() -> list[str]:
    """Return the modules of the working directory."""
    return sorted(file.stem for file in Path().glob("*.py"))


def _raised(path: str) -> str:
    """Return what the module of a class path raises on import; empty if nothing."""
    module = path.rpartition(".")[0]
    if module and all(map(str.isidentifier, module.split("."))):
        try:
            import_module(module)
        except ImportError:  # told by `_not_importable`, if a module is meant at all
            return ""
        except Exception as error:  # the user's module may raise anything; it is what is told
            return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""


def _wrong_value(text: str) -> str | None:
    keys = _keys(text)
    given = re.search(r"(?:Got|Given) value: (.*?)(?:\. Got value:.*)?$", text, re.MULTILINE)
    if not keys or not given:
        return None
    inner = text[: given.start()]
    inner = inner[inner.rfind("Parser key") :]
    kind = r"<class '[^']+'>|typing\.Literal\[[^\]]+\]|(?!a path but|path but|dot import|')[^.\n]+"
    expected = re.findall(f"Expected (?:an? )?({kind})", inner)
    bases = re.findall(r"(?:subclass of|that returns) (?:<class ')?(?:\w+\.)*(\w+)", inner)
    if not bases and {_readable(kind) for kind in expected} <= {"null"}:
        bases = re.findall(r"Subtypes: \[.*?<class '(?:\w+\.)*(\w+)'>", inner)
    bases = bases or re.findall(r"but (?:\w+\.)*(\w+) is abstract", inner)[:1]
    allowed = dict.fromkeys(_readable(kind) for kind in expected)
    allowed |= dict.fromkeys(f"the class_path of {_article(base)}" for base in bases)
    if bases and keys in (["model"], ["data"]):
        allowed.pop("null", None)  # of the parser; a run has both
    if raised := _raised(given[1]):
        allowed = {f"a class that can be imported ({raised})": None}
    if keys[-1] == "seed_everything":  # its type is LightningCLI's, its range ours
        allowed = {SEEDS: None}
    elif "str" in allowed and re.fullmatch(r"True|False|None|-?[\d.]+(e[-+]?\d+)?", given[1]):
        del allowed["str"]
        allowed = {"text in quotes": None} | allowed
    elif "float" in allowed and given[1].lstrip("+-").lower() in ("nan", "inf", "infinity"):
        allowed = {"a finite number": None}  # to Python it is a float, to the parser text
    if nested := re.fullmatch(r"NestedArg\(key='(.*?)', val=.*\)", given[1]):
        options = f"options of a {bases[0]} that is given" if bases else "no options"
        return f"{'.'.join(keys)}.{nested[1]}: unknown key, allowed: {options}"
    value = given[1] if len(given[1]) <= WIDTH else f"{given[1][:WIDTH]} ..."
    return f"{'.'.join(keys)}: got {value!r}, allowed: {' or '.join(allowed) or 'see --help'}"


def _keys(text: str) -> list[str]:
    """Return the keys down to the value that the end of a text is about, by their indentation."""
    found: list[tuple[int, str]] = []
    for match in re.finditer(r'^(.*?)Parser key "([^"]+)"', text, re.MULTILINE):
        found = [each for each in found if each[0] < len(match[1])] + [(len(match[1]), match[2])]
    return [key for _, key in found]


def _readable(kind: str) -> str:
    """Return the name of a type as a user would say it.

    >>> _readable("<class 'int'>"), _readable("typing.Literal['a', 'b']")
    ('int', "'a', 'b'")
    """
    kind = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", kind)
    kind = re.sub(r"typing\.Literal\[(.*)\]", r"\1", kind)
    lists = dict.fromkeys(("Sequence", "Iterable", "list", "tuple"), "list in brackets, as [A, B]")
    return {"NoneType": "null", **lists}.get(kind.split(".")[-1], kind)


def _article(name: str) -> str:
    return f"an {name}" if name[0] in "AEIOU" else f"a {name}"


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
    return names - {"self", "params", "defaults"}  # of optimizers, which get them from us
