"""base.yaml's values are for the paper's classes; another class starts from its own defaults."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.cli import LightningArgumentParser

from janus_pl.cli import lightning_cli
from janus_pl.cli.base_values import PAPERS, BaseValuesParser
from janus_pl.cli.config_files import CONFIGS, complete
from janus_pl.cli.lightning_cli import ConfigReader
from janus_pl.cli.main import main
from janus_pl.cli.sweep import Resolver
from janus_pl.data import CIFAR10Pair
from janus_pl.deep.classifier import DeepReLUClassifier
from janus_pl.sweep.file import load, points
from janus_pl.sweep.plan import plan

PAPER = "janus_pl.DeepReLUClassifier"
MODULE = """
from lightning.pytorch import LightningDataModule, LightningModule

from janus_pl import DeepReLUClassifier
from janus_pl.data import DigitsPair


class ForeignNet(LightningModule):
    def __init__(self, learning_rate: float = 0.1, hidden: int = 7, taps: int = 3) -> None:
        super().__init__()


class OtherNet(LightningModule):
    def __init__(self, learning_rate: float = 0.2) -> None:
        super().__init__()


class OwnClassifier(DeepReLUClassifier):
    def __init__(self, learning_rate: float = 0.5, hidden: int = 64, **options) -> None:
        super().__init__(learning_rate=learning_rate, hidden=hidden, **options)


class ForeignData(LightningDataModule):
    def __init__(self, batch_size: int = 32, order: str = "mine") -> None:
        super().__init__()


class OwnDigits(DigitsPair):
    def __init__(self, batch_size: int = 16, **options) -> None:
        super().__init__(batch_size=batch_size, **options)
"""


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_parts.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)


def write(name: str, **content: Any) -> str:
    Path(name).write_text(json.dumps(content))
    return name


def printed(capsys: pytest.CaptureFixture, *args: str) -> dict[str, Any]:
    assert main([*args, "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert isinstance(config, dict)
    return config


def values(capsys: pytest.CaptureFixture, *args: str, part: str = "model") -> dict[str, Any]:
    found = printed(capsys, "fit", *args)[part]["init_args"]
    assert isinstance(found, dict)
    return found


def test_another_class_starts_from_its_own_defaults(capsys: pytest.CaptureFixture) -> None:
    own = {"learning_rate": 0.1, "hidden": 7, "taps": 3}
    mapping = write("mapping.json", model={"class_path": "own_parts.ForeignNet"})
    text = write("text.json", model="own_parts.ForeignNet")
    ways = [["--model", "own_parts.ForeignNet"], ["--model=own_parts.ForeignNet"]]
    ways += [["--model.class_path", "own_parts.ForeignNet"], ["--config", mapping]]
    ways += [["-c", text], ["--model", '{"class_path": "own_parts.ForeignNet"}']]
    ways += [["--model", "own_parts.OtherNet", "--model", "own_parts.ForeignNet"]]
    ways += [["--model", "ForeignNet"]]  # a class that is imported by now
    for way in ways:
        assert values(capsys, *way) == own, way
    data = values(capsys, "--data", "own_parts.ForeignData", part="data")
    assert data == {"batch_size": 32, "order": "mine"}


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
def test_for_every_subcommand_model_and_data_apart(
    subcommand: str, capsys: pytest.CaptureFixture
) -> None:
    config = printed(capsys, subcommand, "--model", "own_parts.ForeignNet")
    assert config["model"]["init_args"]["learning_rate"] == 0.1
    assert config["data"]["init_args"]["batch_size"] == 128
    assert config["trainer"]["max_epochs"] == 2000
    config = printed(capsys, subcommand, "--data", "own_parts.ForeignData")
    assert config["model"]["init_args"]["learning_rate"] == 0.03
    assert config["data"]["init_args"]["batch_size"] == 32


def test_a_value_of_the_users_stays(capsys: pytest.CaptureFixture) -> None:
    net = ["--model", "own_parts.ForeignNet"]
    rate = ["--model.learning_rate", "0.7"]
    file = ["--config", write("rate.json", model={"init_args": {"learning_rate": 0.7}})]
    paper = ["--model.learning_rate", "0.03"]  # the paper's, but given
    for given, told in ((rate, 0.7), (file, 0.7), (paper, 0.03)):
        for args in ([*net, *given], [*given, *net]):
            assert values(capsys, *args) == {"learning_rate": told, "hidden": 7, "taps": 3}
    nested = ["--model.optimizer.momentum", "0.5", "--model.strides", "[1, 1, 1, 1]"]
    assert values(capsys, *nested, *net) == {"learning_rate": 0.1, "hidden": 7, "taps": 3}
    batch = ["--data.batch_size", "9", "--data", "own_parts.ForeignData"]
    assert values(capsys, *batch, part="data") == {"batch_size": 9, "order": "mine"}


def test_a_subclass_of_the_papers_class_keeps_base_yaml_alone(
    capsys: pytest.CaptureFixture,
) -> None:
    found = values(capsys, "--model", "own_parts.OwnClassifier")
    assert found["learning_rate"] == 0.03  # of base.yaml
    assert found["hidden"] == 64  # its own, of which base.yaml says nothing
    found = values(capsys, "--model", "own_parts.OwnClassifier", "--model.optimizer.momentum", "0")
    optimizer = found["optimizer"]["init_args"]
    assert (optimizer["momentum"], optimizer["fused"]) == (0, True)
    assert values(capsys, "--data", "own_parts.OwnDigits", part="data")["batch_size"] == 128


def test_there_and_back_by_two_configs(capsys: pytest.CaptureFixture) -> None:
    there = ["--config", write("there.json", model="own_parts.ForeignNet", data="ForeignData")]
    back = write("back.json", model=PAPER, data={"class_path": "janus_pl.data.CIFAR10Pair"})
    plain = printed(capsys, "fit", "--model.hidden", "9")
    given = ["--model.hidden", "9"]
    assert values(capsys, *there) == {"learning_rate": 0.1, "hidden": 7, "taps": 3}
    assert printed(capsys, "fit", *there, *given, "--config", back) == plain
    assert printed(capsys, "fit", *there, "--config", back, *given) == plain
    assert values(capsys, "--config", back, *there)["learning_rate"] == 0.1


def test_base_yaml_says_of_its_own_classes_what_they_say_themselves(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values of base.yaml that a class between did not take come back as the class's defaults."""
    plain = printed(capsys, "fit")
    classes = {part: {"class_path": plain[part]["class_path"], "init_args": {}} for part in PAPERS}
    write("base.yaml", **classes)
    monkeypatch.setattr(lightning_cli, "base", lambda: Path("base.yaml"))
    own = printed(capsys, "fit")
    assert [own[part] for part in PAPERS] == [plain[part] for part in PAPERS]
    assert own["trainer"] != plain["trainer"]  # base.yaml was not read


def test_the_classes_of_base_yaml_are_the_papers() -> None:
    base = yaml.safe_load((CONFIGS / "base.yaml").read_text())
    assert base["model"]["class_path"] == PAPER
    assert base["data"]["class_path"] == "janus_pl.data.CIFAR10Pair"
    assert issubclass(DeepReLUClassifier, PAPERS["model"])
    assert issubclass(CIFAR10Pair, PAPERS["data"])


def test_a_sweep_over_classes_has_each_ones_own_values() -> None:
    """One parser for all; the classes stand in the values' file, which is a config."""
    classes = [PAPER, "janus_pl.LinearRegressor", PAPER]
    data = {PAPER: "janus_pl.data.DigitsPair"}
    resolve = Resolver()
    found = []
    for name in classes:
        part = {"class_path": data.get(name, "janus_pl.data.LinearProblem")}
        sizes = {} if name == PAPER else {"init_args": {"num_train": 4, "dim": 3, "outputs": 2}}
        file = write("values.json", model={"class_path": name}, data={**part, **sizes})
        config = resolve(["fit", "--config", file])
        found.append((config["model"]["init_args"], config["data"]["init_args"]["order"]))
    assert [model["learning_rate"] for model, _ in found] == [0.03, "auto", 0.03]
    assert [model["schedule"] for model, _ in found] == ["cosine", "inverse_sqrt", "cosine"]
    assert [order for _, order in found] == ["shuffle", "sequential", "shuffle"]


def test_a_sweep_file_over_classes() -> None:
    content: dict[str, Any] = {"name": "some", "method": "grid"}
    content["command"] = ["python", "-m", "janus_pl", "fit", "--config", "${args_json_file}"]
    names = ["own_parts.ForeignNet", PAPER, "own_parts.OtherNet"]
    parameters = {"model": {"values": names}, "data": {"value": "janus_pl.data.DigitsPair"}}
    Path("some.yaml").write_text(yaml.safe_dump({**content, "parameters": parameters}))
    sweep = load("some.yaml")
    runs = plan(sweep, points(sweep), [], Resolver())
    rates = [run.config["model"]["init_args"]["learning_rate"] for run in runs]
    assert rates == [0.1, 0.03, 0.2]


@pytest.mark.parametrize(
    "config", sorted((CONFIGS / "linear").glob("*.yaml")), ids=lambda p: p.stem
)
def test_a_linear_config_has_nothing_of_base_yaml(config: Path) -> None:
    """Each resolves as it does by jsonargparse alone, which leaks: linear/base.yaml says it all."""
    args = ["fit", "--config", str(config)]
    ours = ConfigReader(args)._resolved()
    assert ours == _leaky(args)._resolved()


def test_jsonargparse_alone_would_leak() -> None:
    """The negative control of this file."""
    config = _leaky(["fit", "--model", "own_parts.ForeignNet"])._resolved()
    assert config["model"]["init_args"] == {"learning_rate": 0.03, "hidden": 1024, "taps": 3}


# A line whose classes are those of the line before is parsed once.
LINES: dict[str, tuple[str, ...]] = {
    "linear": ("--config", "linear/a2.yaml"),
    "linear, another value": ("--config", "linear/a2.yaml", "--model.weight_decay", "0.5"),
    "linear, a value before its class": (
        "--model.weight_decay",
        "0.5",
        "--config",
        "linear/a2.yaml",
    ),
    "foreign": ("--model", "own_parts.ForeignNet", "--data", "own_parts.ForeignData"),
    "foreign, a value that both have": ("--model", "own_parts.ForeignNet", "--model.hidden", "3"),
    "the paper's subclass": ("--model", "own_parts.OwnClassifier"),
    "the paper's": ("--config", "sgd.yaml"),
    "its data alone": ("--config", "sgd.yaml", "--data", "janus_pl.data.LinearProblem"),
}


def test_a_line_resolves_as_without_the_line_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever that one was; `test_one_parse_is_enough` counts."""
    reader = ConfigReader(["fit"])

    def resolved(name: str, before: Any) -> tuple[dict[str, Any], Any]:
        monkeypatch.setattr(BaseValuesParser, "kept_before", before)
        reader.config = reader.parser.parse_args(complete(["fit", *LINES[name]]))
        return reader._resolved(), BaseValuesParser.kept_before

    alone = {name: resolved(name, {}) for name in LINES}
    lines_before = [*{str(kept): kept for _, kept in alone.values()}.values()]
    assert len(lines_before) == 5
    for kept in lines_before:
        for name, expected in alone.items():
            assert resolved(name, kept) == expected, (kept, name)


def test_one_parse_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    parse_args = LightningArgumentParser.parse_args

    def count(self: Any, *args: Any, **options: Any) -> Any:
        parsed.append(bool(self.default_config_files))
        return parse_args(self, *args, **options)

    monkeypatch.setattr(LightningArgumentParser, "parse_args", count)
    monkeypatch.setattr(BaseValuesParser, "kept_before", {})
    counts = []
    for name in ("linear", "linear, another value", "the paper's", "the paper's", "linear"):
        ConfigReader(["fit", *LINES[name]])
        counts.append(sum(parsed))
        parsed.clear()
    assert counts == [2, 1, 2, 1, 2], "a wrong guess costs as much as none"


def defaults_of(parser: Any, kept: Any) -> Any:
    parser._kept = kept
    return parser.get_defaults(skip_validation=True)


def test_defaults_are_read_once_and_are_those_that_are_read_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By another parser of the same options, too, as the runs of a sweep have."""
    monkeypatch.setattr(BaseValuesParser, "_known", {})
    made: list[Any] = []
    get_defaults = LightningArgumentParser.get_defaults

    def counted(self: Any, *args: Any, **options: Any) -> Any:
        if self.default_config_files:
            made.append(self)
        return get_defaults(self, *args, **options)

    monkeypatch.setattr(LightningArgumentParser, "get_defaults", counted)
    one, two = (ConfigReader(["fit"])._parser("fit") for _ in range(2))
    validate = ConfigReader(["validate"])._parser("validate")
    cases: list[dict[str, list[str]]] = [{}, {"model": []}, {"data": ["seed"]}]
    for kept in cases:
        made.clear()
        BaseValuesParser._known.clear()
        found = defaults_of(one, kept)
        assert len(made) == 1
        again = defaults_of(two, kept)
        assert len(made) == 1 and again == found
        again["model"].init_args["strides"] = found["trainer"].callbacks = None
        found["data"].init_args.seed = "changed"
        anew = defaults_of(two, kept)
        assert len(made) == 1 and anew not in (found, again)
        BaseValuesParser._known.clear()
        assert anew == defaults_of(one, kept)
        made.clear()
        assert defaults_of(validate, kept) != anew and len(made) == 1, "it has other options"
    base = tmp_path / "base.yaml"
    base.write_text("seed_everything: 5\n")
    one.default_config_files = [str(base)]
    assert defaults_of(one, {})["seed_everything"] == 5
    base.write_text("seed_everything: 6\n")
    assert defaults_of(one, {})["seed_everything"] == 6


MISTAKES = (
    "--model.taps x",
    "--model.tap 1",
    "--model.hidden [",
    "--model own_parts.Nowhere",
    "--data.order 1.5 --data.batch_size x",
    "--trainer.max_epochs x",
    "--nothing 1",
)


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_said_as_without_the_line_before(
    line: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BaseValuesParser, "kept_before", {})
    args = ["fit", *LINES["foreign"], *line.split()]
    assert main(args) == 2
    expected = capsys.readouterr()
    ConfigReader(["fit", *LINES["foreign"]])
    assert set(BaseValuesParser.kept_before) == {"model", "data"}
    assert main(args) == 2
    assert capsys.readouterr() == expected


@pytest.mark.parametrize("asks", ["--help", "-h", "--print_config", "--model.help"])
def test_what_is_printed_is_printed_once(
    asks: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BaseValuesParser, "kept_before", {})
    args = ["fit", *LINES["foreign"], asks]
    assert main(args) == 0
    expected = capsys.readouterr().out
    ConfigReader(["fit", *LINES["foreign"]])
    assert main(args) == 0
    assert capsys.readouterr().out == expected != ""


def _leaky(args: list[str]) -> ConfigReader:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightning_cli, "BaseValuesParser", LightningArgumentParser)
        return ConfigReader(args)


def test_mistakes_and_help_name_no_other_file(capsys: pytest.CaptureFixture) -> None:
    wrong = {
        "--model.taps x": "model.taps: got 'x', allowed: int",
        "--model.tap 1": "model.tap: unknown key, allowed: a valid key, the nearest is taps",
        "--model own_parts.Nowhere": "model: got 'own_parts.Nowhere', allowed: a class that can",
        "--model Nowhere": "model: got 'Nowhere', allowed: a class as module.Name",
    }
    for line_of_args, said in wrong.items():
        assert main(["fit", "--model", "own_parts.ForeignNet", *line_of_args.split()]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {said}")
    helps: list[list[str]] = []
    for args in ([], ["--model", "own_parts.ForeignNet"]):
        assert main(["fit", *args, "--help"]) == 0
        helps.append(capsys.readouterr().out.split("\n\n"))
    (notes, others) = ([x for x in text if "base.yaml" in x] for text in helps)
    assert notes == others != []
