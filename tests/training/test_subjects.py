"""One contract, seven subjects: what each answers to callbacks, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from janus_pl import LinearRegressor
from janus_pl.callbacks._observer import Observer
from janus_pl.data import LinearProblem
from janus_pl.deep import PARAMETRIZATIONS
from janus_pl.training.samples import drawn
from janus_pl.training.subject import NotOffered, Subject
from janus_pl.training.subjects import prepare, subject_of

NETWORKS = list(PARAMETRIZATIONS)
FOREIGN = ["foreign MLP", "foreign conv net"]
SUBJECTS = [*NETWORKS, "regressor", *FOREIGN]
SAMPLES = {**dict.fromkeys(NETWORKS, 20), "regressor": 7, **dict.fromkeys(FOREIGN, 12)}
EPOCHS = 2

# What a subject does not answer; all else it answers.
OF_FOREIGN = {"running_loss", "full_velocity_norms", "equilibrium"}
OF_REGRESSOR = {
    "running_loss",
    "velocities_of",
    "features",
    "forwards",
    "equilibrium",
    "split_layers",
    "step",
    "bounded",
}
NOT_OFFERED = {
    **{name: set() for name in NETWORKS},
    "regressor": OF_REGRESSOR | {"kept"},
    **dict.fromkeys(FOREIGN, OF_FOREIGN),
}


def plain_sgd(parameters: Any, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr)


class Foreign(LightningModule):
    """Cross entropy and plain SGD; it knows nothing of callbacks' questions."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.05, weight_decay=0.01)


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(48, 9), nn.Tanh(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 10)
    )


def conv_net() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(24, 10)),
    )


def images_of_ten_classes() -> DataLoader:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(12, 3, 4, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(10, (12,), generator=generator)
    return DataLoader(TensorDataset(x, y), 5, shuffle=True)


@pytest.fixture
def fit_subject(fit: Any, small_task: Any, small_loader: Any) -> Callable[..., LightningModule]:
    """A fit of a subject in float64, by its name; returns the module."""

    def run(name: str, callbacks: list[Callback]) -> LightningModule:
        torch.manual_seed(1)
        module: LightningModule
        if name in NETWORKS:
            rate = 1e-4 if name == "lagrange" else 1e-3
            options = {"normalization": name, "learning_rate": rate, "optimizer": plain_sgd}
            task = small_task(**options).double()
            task.parametrization.after_step()  # of unit norm in float64, too
            module = task
            data: Any = small_loader(dtype=torch.float64)
        elif name == "regressor":
            module = LinearRegressor(learning_rate=0.05, schedule="constant", weight_decay=0.01)
            data = LinearProblem(num_train=7, dim=9, outputs=3, batch_size=2)
        else:
            module = Foreign(mlp() if name == "foreign MLP" else conv_net()).double()
            data = images_of_ten_classes()
        fit(module, data, EPOCHS, callbacks)
        return module

    return run


class Ask(Callback):
    """Puts a check to the subject before each step, or at the end of epochs where none is seen."""

    def __init__(self, check: Callable[[Subject, Any], None]) -> None:
        self.check = check
        self.asked = 0

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        prepare(trainer, pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        subject_of(trainer, pl_module).start()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.asked += 1
        self.check(subject_of(trainer, pl_module), optimizer)


class AskAtTheEnd(Ask):
    """The same where the trainer's loader is to be passed over, or no optimizer steps."""

    def on_before_optimizer_step(self, *_: Any) -> None:
        return

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        super().on_before_optimizer_step(trainer, pl_module, None)


def ask(name: str, check: Callable[[Subject, Any], None]) -> Ask:
    return AskAtTheEnd(check) if name == "regressor" else Ask(check)


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_answer_has_the_same_layers_in_the_same_order(name: str, fit_subject: Any) -> None:
    seen = []

    def check(subject: Subject, optimizer: Any) -> None:
        layers = list(subject.layers())
        assert len(layers) == len(set(layers)) > 0
        assert list(subject.directions()) == layers
        assert list(subject.velocities()) == layers
        assert subject.velocity_norms().shape == (len(layers),)
        assert list(subject.description.layers) == layers
        assert not set(subject.skipped()) & set(layers)
        missing = NOT_OFFERED[name]
        if "full_velocity_norms" not in missing:
            assert subject.full_velocity_norms().shape == (len(layers),)
        if "step" not in missing:
            assert list(subject.split_layers()) == layers
            assert list(subject.step(optimizer, {})) == layers
            assert subject.step_shares(optimizer, {}).shape == (3, len(layers))
        if "bounded" not in missing:
            bounded = list(subject.bounded())
            assert bounded == [layer for layer in layers if layer in bounded]
            assert subject.kept(optimizer).shape == (len(bounded),)
        seen.append(layers)

    asks = ask(name, check)
    fit_subject(name, [asks])
    assert asks.asked >= EPOCHS
    assert all(layers == seen[0] for layers in seen)


@pytest.mark.parametrize("name", SUBJECTS)
def test_directions_are_of_unit_norm_and_velocities_are_tangent(
    name: str, fit_subject: Any
) -> None:
    def check(subject: Subject, optimizer: Any) -> None:
        at = subject.directions()
        if name == "regressor":  # its velocity is of the weights before the last step
            before = subject.replicas.watch.before[0]  # type: ignore[attr-defined]
            at = {"fc1": before / before.norm()}
        velocities = subject.velocities()
        for layer, direction in subject.directions().items():
            velocity = velocities[layer]
            assert direction.dtype == torch.float64
            assert not direction.requires_grad
            assert direction.ndim == 2
            assert direction.shape == velocity.shape
            assert float(direction.norm()) == pytest.approx(1, abs=1e-12)
            assert velocity.norm() > 0
            assert abs(float((at[layer] * velocity).sum() / velocity.norm())) < 1e-10
        if name != "regressor":  # its norms are means over the steps since the last row
            norms = torch.stack([velocity.norm() for velocity in velocities.values()])
            assert subject.velocity_norms().tolist() == pytest.approx(norms.tolist(), rel=1e-12)

    asks = ask(name, check)
    fit_subject(name, [asks])
    assert asks.asked >= EPOCHS


@pytest.mark.parametrize("name", NETWORKS)
def test_the_velocity_of_the_whole_set_is_that_of_its_samples_as_a_batch(
    name: str, fit_subject: Any, small_loader: Any
) -> None:
    loader = small_loader(dtype=torch.float64)

    def check(subject: Subject, optimizer: Any) -> None:
        left = {layer: v.clone() for layer, v in subject.velocities().items()}
        of_all = subject.velocities_of((loader.x, loader.y))
        expected = [float(velocity.norm()) for velocity in of_all.values()]
        assert subject.full_velocity_norms().tolist() == pytest.approx(expected, rel=1e-10)
        for layer, velocity in subject.velocities().items():
            assert torch.equal(velocity, left[layer]), "of the last minibatch, as before"

    asks = ask(name, check)
    fit_subject(name, [asks])
    assert asks.asked >= EPOCHS


class One(Observer):
    """Puts a number of its own."""

    def __init__(self, key: str) -> None:
        super().__init__(every_n_epochs=1)
        self.key = key

    def observe(self, trainer: Any, subject: Subject) -> Mapping[str, Any]:
        return {self.key: float(subject.completed())}


@pytest.mark.parametrize("name", SUBJECTS)
def test_what_callbacks_put_is_on_one_row_of_an_epoch(
    name: str, fit_subject: Any, rows: Any
) -> None:
    fit_subject(name, [One("own/one"), One("own/two")])
    assert [row["epoch"] for row in rows] == list(range(EPOCHS + 1))
    for row in rows:
        assert row["own/one"] == row["own/two"] == row["epoch"]
        assert {"trainer/global_step", "eta_t"} <= row.keys()


@pytest.mark.parametrize("name", SUBJECTS)
def test_there_is_one_margin_a_sample_of_the_kind_that_is_said(name: str, fit_subject: Any) -> None:
    def check(subject: Subject, optimizer: Any) -> None:
        margins = subject.margins()
        assert margins.shape == (SAMPLES[name],)
        assert bool(margins.isfinite().all())
        assert subject.margin == subject.description.margin
        assert subject.margin == ("raw" if name in FOREIGN else "normalized")

    asks = AskAtTheEnd(check)
    fit_subject(name, [asks])
    assert asks.asked >= EPOCHS


@pytest.mark.parametrize("name", SUBJECTS)
def test_margins_of_a_sample_are_some_of_all_and_the_sample_is_fixed(
    name: str, fit_subject: Any
) -> None:
    def check(subject: Subject, optimizer: Any) -> None:
        every, (some,) = subject.margins(), subject.sample(5)
        taken = drawn(SAMPLES[name], 5)
        assert len(taken) == len(set(taken.tolist())) == 5
        assert torch.allclose(subject.margins_of(some), every[taken], rtol=1e-10, atol=0)
        assert all(torch.equal(a, b) for a, b in zip(some, *subject.sample(5), strict=True))
        whole = torch.cat([subject.margins_of(batch) for batch in subject.sample(999)])
        assert torch.allclose(whole, every, rtol=1e-10, atol=0)

    asks = AskAtTheEnd(check)
    fit_subject(name, [asks])
    assert asks.asked >= EPOCHS


QUESTIONS: dict[str, Callable[[Subject, Any], object]] = {
    "full_velocity_norms": lambda subject, _: subject.full_velocity_norms(),
    "velocities_of": lambda subject, _: subject.velocities_of(_batch_of(subject)),
    "matrices": lambda subject, _: subject.matrices(),
    "learning_rates": lambda subject, _: subject.learning_rates(),
    "running_loss": lambda subject, _: subject.running_loss(),
    "check_curvature": lambda subject, _: subject.check_curvature(),
    "descended": lambda subject, _: subject.descended(),
    "margins": lambda subject, _: subject.margins(),
    "sample": lambda subject, _: subject.sample(5),
    "margins_of": lambda subject, _: subject.margins_of(_batch_of(subject)),
    "steps_per_unit": lambda subject, _: subject.steps_per_unit(),
    "features": lambda subject, _: subject.features(),
    "forwards": lambda subject, _: [*subject.forwards([*subject.parts()][-1:])],
    "equilibrium": lambda subject, _: subject.equilibrium(),
    "split_layers": lambda subject, _: subject.split_layers(),
    "step": lambda subject, optimizer: subject.step(optimizer, {}),
    "bounded": lambda subject, _: subject.bounded(),
    "kept": lambda subject, optimizer: subject.kept(optimizer),
}


def _batch_of(subject: Any) -> Any:
    if isinstance(subject, LinearRegressor):
        return subject.sample(5)[0]
    return next(iter(subject.trainer.train_dataloader))


def _asked_of_nothing(question: str, subject: Any, _: Any) -> object:
    return getattr(subject, question)(())


class Question(Observer):
    """An observer that asks one question and records that there was an answer."""

    def __init__(self, question: str) -> None:
        super().__init__(every_n_epochs=1)
        self.question = question

    def observe(self, trainer: Any, subject: Subject) -> Mapping[str, Any]:
        if subject.completed() == 0:  # there is no gradient yet
            return {}
        QUESTIONS[self.question](subject, trainer.optimizers[0])
        return {f"own/{self.question}": 1.0}


@pytest.mark.parametrize("name", SUBJECTS)
def test_what_is_not_offered_is_said_once_with_the_reason_and_the_rest_is_answered(
    name: str, fit_subject: Any, rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    module = fit_subject(name, [Question(question) for question in QUESTIONS])
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Question ")]
    missing = NOT_OFFERED[name]
    assert len(said) == len(missing)
    for line in said:
        head, _, reason = line.partition(": ")
        assert head == f"Question records nothing of {type(module).__name__}"
        assert reason
        assert "\n" not in line
    answered = {key.removeprefix("own/") for key in rows[-1] if key.startswith("own/")}
    assert answered == QUESTIONS.keys() - missing


def test_a_question_without_an_answer_has_one_reason_whoever_asks(
    fit_subject: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Again(Question):
        """The same question from another callback."""

    fit_subject("foreign MLP", [Question("equilibrium"), Again("equilibrium")])
    said = [r.getMessage().partition(": ") for r in caplog.records if "records" in r.getMessage()]
    assert [head.split()[0] for head, _, _ in said] == ["Question", "Again"]
    assert len({reason for _, _, reason in said}) == 1


def test_the_questions_here_are_all_that_a_subject_may_leave_open() -> None:
    class Silent(LinearRegressor):
        """Has no answers of its own."""

    for question in QUESTIONS:
        setattr(Silent, question, getattr(Subject, question))
    subject = Silent()
    open_ones = set()
    for question, asks in QUESTIONS.items():
        if question in ("velocities_of", "margins_of"):
            asks = partial(_asked_of_nothing, question)
        with pytest.raises(NotOffered):
            asks(subject, None)
        open_ones.add(question)
    public = {name for name in vars(Subject) if not name.startswith("_")}
    answered = {"start", "layers", "skipped", "directions", "velocities", "velocity_norms"}
    answered |= {"completed", "put", "facts", "step_shares", "minibatch", "follow", "parts"}
    answered |= {"noisy"}
    plain = {"margin", "shares_samples", "without_margin", "planned", "keys"}
    assert public - answered - plain == open_ones
