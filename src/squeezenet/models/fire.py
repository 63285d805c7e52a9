"""The Fire module, which can be used in any network, and its layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..spec import BatchNorm, Bypass, FireSpec, Op, fire_ops

__all__ = ["Fire", "NormConv2d", "activation_of", "conv_of"]


class NormConv2d(nn.Conv2d):
    """Convolution without bias, followed by its batch norm: the training form of a convolution.

    The norm is a part of the convolution (`features.0.norm.weight`), so the convolution keeps its own name.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve, then normalise."""
        output: Tensor = self.norm(self._conv_forward(input, self.weight, self.bias))
        return output


class Fire(nn.Module):
    """A Fire module: squeeze, expand in two branches, concatenate, and add the bypass if there is one.

    Positional arguments are those of torchvision; all others are keyword-only. There is no ReLU after the addition of
    the bypass, because both of its inputs already had one.

    Args:
        in_channels: Channels of the input.
        squeeze_channels: Filters of the 1x1 convolution that both branches read.
        expand1x1_channels: Filters of the first branch.
        expand3x3_channels: Filters of the second branch.
        bypass: `simple` adds the input if it has as many channels as the output; otherwise, `complex` adds a 1x1
            convolution of the input.
        squeeze_relu: ReLU after the squeeze convolution.
        batch_norm: Batch norm after every convolution, or only after the squeeze convolution (`squeeze`).

    Raises:
        SpecError: If a width is out of range or `bypass` is not one of the three.

    Example:
        >>> fire = Fire(96, 16, 64, 64)
        >>> fire(torch.zeros(1, 96, 55, 55)).shape, fire.out_channels
        (torch.Size([1, 128, 55, 55]), 128)

    Source: Iandola et al. 2016, sections 3.1 and 6.
    """

    def __init__(
        self,
        in_channels: int,
        squeeze_channels: int,
        expand1x1_channels: int,
        expand3x3_channels: int,
        *,
        bypass: Bypass = "none",
        squeeze_relu: bool = True,
        batch_norm: BatchNorm = False,
    ) -> None:
        super().__init__()
        fire = FireSpec(
            squeeze_channels=squeeze_channels, expand1x1_channels=expand1x1_channels,
            expand3x3_channels=expand3x3_channels,
        )  # fmt: skip
        listed = fire_ops(fire, in_channels=in_channels, bypass=bypass, squeeze_relu=squeeze_relu)
        ops = {op.name.partition(".")[2]: op for op in listed}
        self.out_channels = fire.out_channels
        self.squeeze = conv_of(ops["squeeze"], batch_norm=batch_norm is not False)
        self.squeeze_activation = activation_of(ops["squeeze"])
        self.expand1x1 = conv_of(ops["expand1x1"], batch_norm=batch_norm is True)
        self.expand1x1_activation = activation_of(ops["expand1x1"])
        self.expand3x3 = conv_of(ops["expand3x3"], batch_norm=batch_norm is True)
        self.expand3x3_activation = activation_of(ops["expand3x3"])
        self.bypass: nn.Module | None = None
        if "bypass" in ops:
            self.bypass = conv_of(ops["bypass"], batch_norm=batch_norm is True)
        elif "add" in ops:
            self.bypass = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, expand1x1_channels + expand3x3_channels, H, W)."""
        squeezed = self.squeeze_activation(self.squeeze(x))
        left = self.expand1x1_activation(self.expand1x1(squeezed))
        right = self.expand3x3_activation(self.expand3x3(squeezed))
        expanded = torch.cat([left, right], dim=1)
        return expanded if self.bypass is None else expanded + self.bypass(x)


def conv_of(op: Op, *, batch_norm: bool = False) -> nn.Conv2d:
    """Build the layer of a convolution, with batch norm in place of its bias if asked for."""
    conv = NormConv2d if batch_norm else nn.Conv2d
    return conv(op.in_channels, op.out_channels, op.kernel, op.stride, op.padding)


def activation_of(op: Op) -> nn.Module:
    """Build what follows a convolution: a ReLU, or nothing."""
    return nn.ReLU(inplace=True) if op.relu else nn.Identity()
