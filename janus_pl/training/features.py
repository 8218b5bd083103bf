"""What parts of a network give for the training set of K classes: features, labels, outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from janus_pl.observables.collapse import difference
from janus_pl.training.ranks import Ranks
from janus_pl.training.samples import training_samples
from janus_pl.training.subject import Features, Forward, NotOffered
from janus_pl.training.weights import evaluating


@torch.no_grad()
def features_of(
    trainer: Trainer, module: LightningModule, layer: nn.Linear, ranks: Ranks
) -> Features:
    """Return the features before a layer, with labels and outputs; a pass over the training set.

    Args:
        trainer: The trainer of the fit.
        module: The module, called as `module(x)`.
        layer: The last dense layer.
        ranks: The processes that share the samples; `Ranks()` if each looks by itself.

    Raises:
        NotOffered: The labels are no classes, or the module has not as many outputs (of two
            classes also one), or it does not use the layer once for each sample.
    """
    seen: list[tuple[Tensor, Tensor]] = []
    pieces: list[tuple[Tensor, ...]] = []
    with ExitStack() as stack:
        stack.enter_context(evaluating(module))
        hook = layer.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
        stack.callback(hook.remove)
        for batch in training_samples(trainer):
            x, y = _pair(batch)
            seen.clear()
            outputs = module(ranks.own(x))
            if len(seen) != 1:
                raise NotOffered("its last nn.Linear is not used once in a forward pass")
            h, raw = seen[0]
            if h.dim() != 2 or ranks.own(y).numel() != len(h):
                raise NotOffered("it has no feature vector and label for every sample")
            outputs, raw = _outputs(outputs, len(h)), _outputs(raw, len(h))
            if outputs.shape != raw.shape and {outputs.shape[1], raw.shape[1]} != {1, 2}:
                raise NotOffered("its last nn.Linear has not as many outputs as the module")
            h, outputs, raw = (ranks.gather(part, len(y)) for part in (h, outputs, raw))
            pieces.append((h, y.flatten(), outputs, raw))
    features, y, outputs, raw = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    labels, classes = _classes(y.cpu(), outputs)  # one wait; the host has to know the classes
    scores, own = _scores(outputs), _scores(raw)
    sign = torch.dot(scores.flatten(), own.flatten().to(scores)).sign()
    return Features(features, labels, classes, outputs, sign * layer.weight.detach())


@torch.no_grad()
def forwards_of(
    trainer: Trainer, module: LightningModule, parts: Mapping[str, nn.Module], ranks: Ranks
) -> Iterator[Forward]:
    """Yield forward passes over the training set, in evaluation, with the outputs of parts.

    Args:
        trainer: The trainer of the fit.
        module: The module, called as `module(x)`.
        parts: Parts of the module by name.
        ranks: The processes that share the samples; `Ranks()` if each looks by itself.

    Raises:
        NotOffered: The labels are no classes, or the module has not as many outputs, or it does not
            use a part once for each sample.
    """
    seen: dict[str, list[object]] = {name: [] for name in parts}
    with ExitStack() as stack:
        stack.enter_context(evaluating(module))
        for name, part in parts.items():
            add = seen[name].append
            hook = part.register_forward_hook(lambda _, inputs, out, add=add: add(out))
            stack.callback(hook.remove)
        for batch in training_samples(trainer):
            x, y = _pair(batch)
            for outs in seen.values():
                outs.clear()
            outputs = module(ranks.own(x))
            count = len(ranks.own(x))
            if y.numel() != len(x):
                raise NotOffered("it has no label for every sample")
            found = {name: _features(name, outs, count) for name, outs in seen.items()}
            features = {name: ranks.gather(h, len(y)) for name, h in found.items()}
            outputs = ranks.gather(_outputs(outputs, count), len(y))
            yield Forward(features, *_classes(y.flatten(), outputs), outputs)


def named_parts(module: nn.Module) -> dict[str, nn.Module]:
    """Return the parts of a module by name, with underscores for dots."""
    return {name.replace(".", "_"): part for name, part in module.named_modules() if name}


def last_dense(module: nn.Module) -> nn.Linear:
    """Return the last `nn.Linear` of a module, in the order of registration.

    Raises:
        NotOffered: The module has no `nn.Linear`.
    """
    dense = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if not dense:
        raise NotOffered("it has no nn.Linear")
    return dense[-1]


def _pair(batch: object) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise NotOffered("its batches are not pairs (x, y)")
    x, y = batch[:2]
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        raise NotOffered("its samples or labels are no tensors")
    return x, y


def _features(name: str, outs: list[object], count: int) -> Tensor:
    if len(outs) != 1:
        raise NotOffered(f"{name} is used {len(outs)} times in a forward pass, not once")
    (h,) = outs
    if not isinstance(h, Tensor) or h.dim() < 2 or len(h) != count:
        raise NotOffered(f"the output of {name} is no tensor with a row for every sample")
    return h.flatten(1)


def _outputs(outputs: object, count: int) -> Tensor:
    if isinstance(outputs, Tensor) and outputs.dim() == 1:
        outputs = outputs[:, None]
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or len(outputs) != count:
        raise NotOffered("it has no row of outputs for every sample")
    return outputs


def _classes(y: Tensor, outputs: Tensor) -> tuple[Tensor, int]:
    """Return the classes of labels (N,), 0 to K - 1, and K."""
    classes = max(outputs.shape[1], 2)
    found = set(y.unique().tolist())
    if classes == 2:
        if not (found <= {-1, 1} or found <= {0, 1}):
            raise NotOffered("its labels are not those of two classes, +1 and -1 or 1 and 0")
        return (y > 0).long(), classes
    if y.is_floating_point() or not found <= {*range(classes)}:
        raise NotOffered(f"its labels are not classes from 0 to {classes - 1}, as its outputs are")
    return y.long(), classes


def _scores(outputs: Tensor) -> Tensor:
    """Return f_1 - f_0 of two classes, (N,); else the outputs without their mean, (N, K)."""
    return difference(outputs) if outputs.shape[1] < 3 else outputs - outputs.mean(1, keepdim=True)
