"""ResNet-18 for small images."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from janus_pl.errors import check_integer


class ResNet18(ResNet):
    """torchvision's ResNet-18 with the stem of CIFAR: a 3x3 convolution of stride 1, no pooling.

    He, Zhang, Ren and Sun (2016), Section 4.2, has such a stem; the stages are those of ImageNet.
    The parameters start as torchvision's.

    Args:
        outputs: The number of classes K.
        channels: The channels of the images.
        norm: The normalization, called with the number of channels: `torch.nn.BatchNorm2d` or, as
            a function of your own, one that no other sample enters, such as GroupNorm.

    Raises:
        UsageError: A size is not a positive integer.
    """

    def __init__(
        self,
        outputs: int = 10,
        channels: int = 3,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        check_integer("model.network.outputs", outputs, 1)
        check_integer("model.network.channels", channels, 1)
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=outputs, norm_layer=norm)
        self.conv1 = nn.Conv2d(channels, 64, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()
