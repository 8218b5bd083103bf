"""The weights of any module as matrices, found by parameter and not by the class of a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from janus_pl.errors import UsageError

GATES = {nn.LSTM: "ifgo", nn.LSTMCell: "ifgo", nn.GRU: "rzn", nn.GRUCell: "rzn"}
SCALES = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU, _NormBase)
NAMED = 6  # parameters that are skipped for one reason
Read = Callable[[Tensor], Tensor]
Pieces = dict[str, Read]


@dataclass(frozen=True)
class Weight:
    """One matrix of a module.

    Attributes:
        name: The layer's name: the module's, with underscores for dots.
        place: The tensor's own name in the module, with dots.
        owner: The module that holds the tensor.
        key: The attribute of the owner: `weight`, `in_proj_weight`.
        read: Takes a tensor of the attribute's shape to the matrix (out, rest); linear.
    """

    name: str
    place: str
    owner: nn.Module
    key: str
    read: Read

    @property
    def parametrized(self) -> bool:
        """Whether the tensor is computed from other parameters (`torch.nn.utils.parametrize`)."""
        return parametrize.is_parametrized(self.owner, self.key)

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter that holds a weight without parametrization."""
        return self.owner.get_parameter(self.key)

    @property
    def computed(self) -> nn.Module:
        """The parametrization, which computes the tensor."""
        return _computed(self.owner, self.key)

    def matrix(self) -> Tensor:
        """Return the weight (out, rest) as it is now, detached."""
        return self.read(_tensor(self.owner, self.key))


def weights_of(module: nn.Module) -> tuple[dict[str, Weight], dict[str, str]]:
    """Return the weights by name, in the order of registration, and the parameters left out.

    A tensor of two axes or more is a weight: (out, rest), an embedding as (entries, size). The
    packed projection of `nn.MultiheadAttention` NAME is NAME_q, NAME_k and NAME_v. The gates of an
    LSTM are NAME_ih_l0_i and so on, and a convolution in G groups is NAME_group0 and so on. A
    weight with a parametrization is the tensor that it computes.

    Returns:
        The weights, and by the names of the other parameters why they are left out.

    Raises:
        UsageError: Two weights have one name.
    """
    found: dict[str, Weight] = {}
    skipped: dict[str, str] = {}
    first: dict[int, str] = {}
    for place, owner, key, tensor in _tensors(module):
        whole = _name(place, key)
        if id(tensor) in first:
            skipped[whole] = f"is {first[id(tensor)]}"
            continue
        first[id(tensor)] = whole
        pieces = _pieces(owner, key, tensor)
        if isinstance(pieces, str):
            skipped[whole] = pieces
            continue
        for suffix, read in pieces.items():
            name = _piece_name(place, owner, key, suffix) or "weight"
            if name in found:
                places = f"{found[name].place}, {_dotted(place, key)}"
                allowed = f"one layer of each name, with underscores for dots ({places})"
                raise UsageError("model", f"two layers named {name}", allowed)
            found[name] = Weight(name, _dotted(place, key), owner, key, read)
    return found, skipped


def in_order(
    weights: Mapping[str, Weight], calls: Sequence[nn.Module], module: nn.Module
) -> dict[str, Weight]:
    """Return weights in the order in which a forward pass first calls the modules around them.

    Args:
        weights: The weights in the order of registration.
        calls: The modules in the order of their first calls. A module that was not called stands
            where the module around it does, as in `nn.MultiheadAttention`; without one it is last.
        module: The whole, which counts for its own parameters alone.
    """
    first = {id(called): number for number, called in reversed([*enumerate(calls)])}
    names = {name: id(part) for name, part in module.named_modules()}

    def place(weight: Weight) -> int:
        name = weight.place.rpartition(".")[0]
        while name and names[name] not in first:
            name = name.rpartition(".")[0]
        around = names[name]
        own = bool(name) or around == id(weight.owner)
        return first.get(around, len(calls)) if own else len(calls)

    return dict(sorted(weights.items(), key=lambda item: place(item[1])))


def told_of(kind: str, read: Iterable[str], skipped: Mapping[str, str]) -> str:
    """Say which layers of a module callbacks read, and which they skip and why.

    Of more than `NAMED` that are skipped for one reason, the first is named and the others are
    counted.
    """
    reasons: dict[str, list[str]] = {}
    for name, why in skipped.items():
        reasons.setdefault(why, []).append(name)
    left = [
        *(f"{name} ({why})" for name, why in skipped.items() if len(reasons[why]) <= NAMED),
        *(f"{n[0]} and {len(n) - 1} more ({why})" for why, n in reasons.items() if len(n) > NAMED),
    ]
    layers = ", ".join(read) or "no layer"
    return f"Layers of {kind} that callbacks read: {layers}; skipped: {', '.join(left) or 'none'}"


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch a module to evaluation within the block; each part's mode is put back."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _tensors(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Yield place, owner, attribute and tensor of all parameters and parametrized tensors."""
    for place, owner in module.named_modules(remove_duplicate=True):
        if "parametrizations" in place.split("."):
            continue
        own: dict[str, Tensor] = dict(owner.named_parameters(recurse=False, remove_duplicate=False))
        if parametrize.is_parametrized(owner):
            computed: Iterable[str] = owner.parametrizations
            own |= {key: _tensor(owner, key) for key in computed}
        for key, tensor in own.items():
            yield place, owner, key, tensor


def _computed(owner: nn.Module, key: str) -> nn.Module:
    lists = owner.parametrizations
    assert isinstance(lists, nn.ModuleDict)
    return lists[key]


def _tensor(owner: nn.Module, key: str) -> Tensor:
    """Return a parameter or the tensor that a parametrization computes, detached.

    In training mode some parametrizations change at each look, such as `spectral_norm`.
    """
    if not parametrize.is_parametrized(owner, key):
        return owner.get_parameter(key).detach()
    with torch.no_grad(), evaluating(_computed(owner, key)):
        return getattr(owner, key).detach()


def _pieces(owner: nn.Module, key: str, tensor: Tensor) -> Pieces | str:
    """Return how to read the matrices in a tensor, or why there is none."""
    if reason := _unreadable(owner, key, tensor):
        return reason
    for kinds, pieces in READERS:
        if isinstance(owner, kinds):
            return pieces(owner, key)
    if sum(size > 1 for size in tensor.shape) < 2:
        return "a vector"
    return {"": _without_leading}


def _unreadable(owner: nn.Module, key: str, tensor: Tensor) -> str | None:
    if is_lazy(tensor):
        return "has no shape yet"
    if not tensor.is_floating_point():
        return f"its entries are {str(tensor.dtype).removeprefix('torch.')}"
    if key.endswith("_v") and f"{key.removesuffix('_v')}_g" in dict(owner.named_parameters()):
        return "of torch.nn.utils.weight_norm; use that of torch.nn.utils.parametrizations"
    if tensor.dim() < 2:
        return "a vector" if tensor.dim() else "a scalar"
    return "scales each feature by itself" if isinstance(owner, SCALES) else None


def _flat(tensor: Tensor) -> Tensor:
    return tensor.flatten(1)


def _attention(owner: nn.Module, key: str) -> Pieces | str:
    if key == "in_proj_weight":
        return {name: _chunk(k, 3) for k, name in enumerate("qkv")}
    if key in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
        return {key[0]: _flat}
    return "a vector"  # bias_k and bias_v, of three axes


def _recurrent(owner: nn.Module, key: str) -> Pieces | str:
    gates = "" if key.startswith("weight_hr") else GATES.get(type(owner), "")
    return {gate: _chunk(k, len(gates)) for k, gate in enumerate(gates)} or {"": _flat}


def _convolution(owner: nn.Module, key: str) -> Pieces | str:
    assert isinstance(owner, _ConvNd)
    groups, turned = owner.groups, owner.transposed
    if groups > 1 and owner.out_channels == groups:
        return "each group is a vector"
    if groups == 1:
        return {"": _turned if turned else _flat}
    inner = _turned if turned else _flat
    return {f"group{k}": _chunk(k, groups, inner) for k in range(groups)}


def _whole(owner: nn.Module, key: str) -> Pieces | str:
    return {"": _flat}


READERS: tuple[tuple[Any, Callable[[nn.Module, str], Pieces | str]], ...] = (
    (nn.MultiheadAttention, _attention),
    (nn.RNNBase | nn.RNNCellBase, _recurrent),
    (_ConvNd, _convolution),
    (nn.Linear | nn.Embedding | nn.EmbeddingBag | nn.Bilinear, _whole),
)


def _turned(tensor: Tensor) -> Tensor:
    """Read a transposed convolution, (in, out, ...)."""
    return tensor.transpose(0, 1).flatten(1)


def _without_leading(tensor: Tensor) -> Tensor:
    while tensor.shape[0] == 1:
        tensor = tensor[0]
    return tensor.flatten(1)


def _chunk(number: int, of: int, inner: Read = _flat) -> Read:
    return lambda tensor: inner(tensor.chunk(of)[number])


def _dotted(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _name(place: str, key: str) -> str:
    """Return the name of a whole parameter: that of its module, and the attribute's behind it."""
    own = "" if key == "weight" else key
    return "_".join(part for part in (place.replace(".", "_"), own) if part) or "weight"


def _piece_name(place: str, owner: nn.Module, key: str, suffix: str) -> str:
    attention = isinstance(owner, nn.MultiheadAttention)
    own = "" if key == "weight" or attention else key
    if isinstance(owner, nn.RNNBase | nn.RNNCellBase):
        own = key.removeprefix("weight_")
    return "_".join(part for part in (place.replace(".", "_"), own, suffix) if part)
