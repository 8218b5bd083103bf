"""The classifier against explicit loops in float64, and what may never reach its weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils._python_dispatch import TorchDispatchMode

from janus_pl import DeepReLUClassifier
from janus_pl.callbacks import LayerRank, LayerVelocity, MarginHistogram
from janus_pl.deep.losses import LOSSES
from janus_pl.errors import DivergenceError, UsageError


def weights(task: DeepReLUClassifier) -> list[torch.Tensor]:
    return [p.detach().clone() for p in task.parameters()]


def plain_loop(
    task: DeepReLUClassifier, loader: Any, epochs: int, lam_v: float, lam_rho: float
) -> list[torch.Tensor]:
    """SGD with momentum 0.9 written out: buffer = 0.9 buffer + g + lambda w; w -= eta buffer."""
    network = copy.deepcopy(task.network)
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
    buffers = {n: torch.zeros_like(p) for n, p in trained.items()}
    for epoch in range(epochs):
        for index in torch.split(loader.indices(epoch), loader.batch_size):
            loss = LOSSES[task.loss_name](network(loader.x[index]), loader.y[index]).mean()
            gradients = torch.autograd.grad(loss, list(trained.values()))
            with torch.no_grad():
                for (name, p), gradient in zip(trained.items(), gradients, strict=True):
                    lam = lam_rho if name == "rho" else lam_v
                    buffers[name] = 0.9 * buffers[name] + gradient + lam * p
                    p.sub_(task.learning_rate * buffers[name])
    return [p.detach() for p in network.parameters()]


@pytest.mark.parametrize("loss", ["square", "cross_entropy", "logistic"])
@pytest.mark.parametrize(("decay", "lam_v", "lam_rho"), [("all", 0.1, 0.1), ("rho", 0.0, 0.2)])
def test_training_is_the_plain_loop(
    small_task: Any,
    small_loader: Any,
    fit: Any,
    loss: str,
    decay: str,
    lam_v: float,
    lam_rho: float,
) -> None:
    task = small_task(loss=loss, decay=decay, weight_decay=0.1).double()
    loader = small_loader(dtype=torch.float64)
    expected = plain_loop(task, loader, 3, lam_v, lam_rho)
    other = plain_loop(task, loader, 3, lam_rho, lam_v)
    fit(task, loader, epochs=3)
    for actual, right, wrong in zip(weights(task), expected, other, strict=True):
        torch.testing.assert_close(actual, right, rtol=1e-12, atol=1e-15)
        if decay == "rho" and right.dim() > 1:
            assert not torch.allclose(actual, wrong, rtol=1e-6)


@pytest.mark.parametrize("micro", [1, 7, 20, None])
def test_micro_batches_give_the_gradient_of_the_full_batch(
    small_task: Any, small_loader: Any, fit: Any, micro: int | None
) -> None:
    task = small_task(weight_decay=0.0).double()
    loader = small_loader(batch_size="full", micro_batch_size=micro, dtype=torch.float64)
    expected = plain_loop(task, loader, 2, 0.0, 0.0)
    trainer = fit(task, loader, epochs=2)
    assert trainer.global_step == 2
    for actual, right in zip(weights(task), expected, strict=True):
        torch.testing.assert_close(actual, right, rtol=1e-12, atol=1e-15)


def test_gd_is_sgd_with_b_equal_n(small_task: Any, small_loader: Any, fit: Any) -> None:
    ends = []
    for batch_size in ("full", 20):
        task = small_task()
        fit(task, small_loader(batch_size=batch_size), epochs=3)
        ends.append(weights(task))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_callbacks_leave_the_trajectory_bitwise_unchanged(
    small_task: Any, small_loader: Any, fit: Any
) -> None:
    looking = [
        MarginHistogram(every_n_epochs=1),
        LayerVelocity(full_every_n_epochs=1),
        LayerRank(every_n_epochs=1),
    ]
    ends = []
    for callbacks in ([], looking):
        task = small_task()
        fit(task, small_loader(), epochs=3, callbacks=callbacks)
        ends.append([*weights(task), torch.random.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


class Touch(Callback):
    """The negative control of the test above: a callback that is not innocent."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.network.rho.data += 1e-6


def test_a_callback_that_touches_is_noticed(small_task: Any, small_loader: Any, fit: Any) -> None:
    ends = []
    for callbacks in ([], [Touch()]):
        task = small_task()
        fit(task, small_loader(), epochs=2, callbacks=callbacks)
        ends.append(weights(task))
    assert not all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


class CountWaits(TorchDispatchMode):
    """Counts what makes the host wait for a device: scalars read, and `cpu` and `tolist` called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.scalars = self.transfers = 0
        for name in ("cpu", "tolist"):
            monkeypatch.setattr(torch.Tensor, name, self._counted(getattr(torch.Tensor, name)))

    def _counted(self, method: Any) -> Any:
        def call(tensor: torch.Tensor, *args: Any) -> Any:
            self.transfers += 1
            return method(tensor, *args)

        return call

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.scalars += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


class Impatient(Callback):
    """The negative control: reads a number at every step."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        float(pl_module.network.rho.detach())


def test_the_host_never_waits_within_an_epoch(
    small_task: Any, small_loader: Any, fit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(epochs: int, steps: int, extra: Any = ()) -> tuple[int, int]:
        looking = [MarginHistogram(1), LayerVelocity(), LayerRank(1), *extra]
        with monkeypatch.context() as patch, CountWaits(patch) as counter:
            fit(small_task(), small_loader(n=4 * steps, batch_size=4), epochs, looking)
        return counter.scalars, counter.transfers

    few = waits(epochs=3, steps=5)
    assert few == waits(epochs=3, steps=20)
    scalars, transfers = (b - a for a, b in zip(few, waits(epochs=13, steps=5), strict=True))
    assert scalars == 10, "one of a look: whether the weights are those of the last pass"
    assert transfers <= 10 * 8, "five of a device: row, sums, velocities, margins, ranks"
    assert waits(3, 5, [Impatient()])[0] == few[0] + 3 * 5


class Poison(Callback):
    """Writes a value into an image just before a step."""

    def __init__(self, step: int, value: float) -> None:
        self.step, self.value = step, value
        self.before: list[torch.Tensor] = []

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            self.before = weights(pl_module)
            batch.x[0, 0, 0, 0] = self.value


@pytest.mark.parametrize("optimizer", ["fused", "foreach", "adam"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_never_reaches_the_weights(
    small_task: Any, small_loader: Any, fit: Any, optimizer: str, value: float
) -> None:
    makers = {
        "fused": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, fused=True),
        "foreach": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, foreach=True),
        "adam": lambda p, lr: torch.optim.Adam(p, lr, foreach=True),
    }
    task = small_task(optimizer=makers[optimizer], weight_decay=0.25)
    poison = Poison(step=4, value=value)
    with pytest.raises(DivergenceError) as caught:
        fit(task, small_loader(), epochs=5, callbacks=[poison])
    assert all(torch.equal(a, b) for a, b in zip(weights(task), poison.before, strict=True))
    message = str(caught.value)
    assert "\n" not in message
    for part in ("epoch 2", "step 5", "learning rate 0.03", "lambda 0.25"):
        assert part in message


def test_sound_steps_do_move_the_weights(small_task: Any, small_loader: Any, fit: Any) -> None:
    task = small_task()
    start = weights(task)
    fit(task, small_loader(), epochs=1)
    moved = [not torch.equal(a, b) for a, b in zip(start, weights(task), strict=True)]
    trained = [p.requires_grad for p in task.parameters()]
    assert moved == trained


BAD = [
    ({"learning_rate": 0.0}, "model.learning_rate"),
    ({"learning_rate": -0.1}, "model.learning_rate"),
    ({"learning_rate": float("nan")}, "model.learning_rate"),
    ({"weight_decay": -1e-3}, "model.weight_decay"),
    ({"weight_decay": float("inf")}, "model.weight_decay"),
    ({"init_scale": 0.0}, "model.init_scale"),
    ({"loss": "hinge"}, "model.loss"),
    ({"decay": "none"}, "model.decay"),
    ({"strides": (2, 2, 2, 2)}, "model.strides"),
    ({"strides": (1, 2)}, "model.strides"),
    ({"optimizer": lambda p, lr: torch.optim.SGD(p, lr, momentum=-1)}, "model.optimizer"),
    (
        {"optimizer": lambda p, lr: torch.optim.SGD(p, lr, weight_decay=0.1)},
        "model.optimizer.weight_decay",
    ),
]


@pytest.mark.parametrize(("options", "field"), BAD)
def test_bad_options_are_one_line(small_task: Any, options: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError) as caught:
        small_task(**options)
    assert str(caught.value).startswith(f"{field}: ")
    assert "\n" not in str(caught.value)


def test_schedules(small_task: Any, small_loader: Any, fit: Any) -> None:
    class Rates(Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    def rates(schedule: Any) -> list[float]:
        callback = Rates()
        fit(small_task(schedule=schedule, learning_rate=0.4), small_loader(), 4, [callback])
        return callback.seen

    assert rates("constant") == [0.4] * 4
    assert rates("cosine") == pytest.approx([0.4, 0.34142135623731, 0.2, 0.05857864376269])
    assert rates("inverse_sqrt") == pytest.approx([0.4, 0.28284271247462, 0.23094010767585, 0.2])
    halve = lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)  # noqa: E731
    assert rates(halve) == [0.4, 0.2, 0.1, 0.05]


def test_the_contract_agrees_with_itself(small_task: Any, small_loader: Any) -> None:
    """Unit directions, tangent velocities, and their norms formed in the two ways."""
    task, loader = small_task().double(), small_loader(dtype=torch.float64)
    task.losses(task(loader.x), loader.y).mean().backward()
    directions, velocities = task.directions(), task.velocities()
    assert list(directions) == list(velocities) == list(task.network.weight_layers())
    for norm, v, dot in zip(
        task.velocity_norms(), directions.values(), velocities.values(), strict=True
    ):
        assert v.shape == dot.shape
        assert float(v.norm()) == pytest.approx(1, rel=1e-12)
        assert float(dot.norm()) == pytest.approx(float(norm), rel=1e-12)
        assert abs(float((v * dot).sum())) < 1e-12 * float(norm)


def test_a_resumed_run_goes_on_with_weights_and_eta_t(
    small_task: Any, small_loader: Any, fit: Any, tmp_path: Any
) -> None:
    straight, half, resumed = small_task(), small_task(), small_task()
    fit(straight, small_loader(), 4)
    fit(half, small_loader(), 2).save_checkpoint(tmp_path / "half.ckpt")
    fit(resumed, small_loader(), 4, ckpt_path=tmp_path / "half.ckpt")
    assert resumed._epoch.eta_t == pytest.approx(straight._epoch.eta_t, rel=1e-12)
    assert half._epoch.eta_t == pytest.approx(straight._epoch.eta_t / 2, rel=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(straight), strict=True))
