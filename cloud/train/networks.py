"""Reference networks that gain from int8: dense 3x3 convolutions, ReLU, additions.

Depthwise convolutions, HardSwish and SiLU lose their speed in int8 (they fuse badly or are
memory bound), so none is used. A 4x4 stride-4 patch stem stands in for the usual 3-channel
3x3 stem: with three input channels an int8 kernel runs nearly empty, and the patch stem costs
a fraction of it. Upsampling is nearest-neighbour, which int8 kernels support without leaving
the quantised domain.

Both families come in two widths. The forward pass gives raw maps; the decoding that a device
needs (ArgMax, boxes, non-maximum suppression) is folded into the exported graph by
`syncline.cloud.models.fold`, never trained through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

DETECTOR_STRIDES = (8, 16, 32)

# exp(4) * stride 32 is 1747 px: larger than any input, small enough never to overflow.
MAX_LOG_DISTANCE = 4.0


class ConvUnit(nn.Module):  # type: ignore[misc]
    """Convolution, batch norm, optional ReLU; the batch norm folds away on export."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, relu: bool) -> None:
        super().__init__()
        # a kernel as large as its stride is a patch: it needs no padding
        padding = 0 if kernel == stride else kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn: Any = nn.BatchNorm2d(outputs)
        self.act: Any = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        return self.act(self.bn(self.conv(x)))

    def fuse(self) -> None:
        """Fold the batch norm into the convolution; only valid in eval mode."""
        self.conv = fuse_conv_bn_eval(self.conv, self.bn)
        self.bn = nn.Identity()


class Residual(nn.Module):  # type: ignore[misc]
    """Two dense 3x3 convolutions and an addition: the block that int8 likes best."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvUnit(channels, channels, 3, 1, relu=True)
        self.second = ConvUnit(channels, channels, 3, 1, relu=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same shape."""
        return self.act(x + self.second(self.first(x)))


def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    """A (strided) 3x3 convolution and then `blocks` residual blocks."""
    residuals = [Residual(outputs) for _ in range(blocks)]
    return nn.Sequential(ConvUnit(inputs, outputs, 3, stride, relu=True), *residuals)


def _upsample() -> nn.Upsample:
    return nn.Upsample(scale_factor=2, mode="nearest")


class EdgeSeg(nn.Module):  # type: ignore[misc]
    """Dense ReLU segmenter with logits at stride 4.

    Args:
        width: Channels at stride 4: 32 is the small net (about 1.3 M weights), 56 the wide one.
        classes: Number of classes.

    Input is (N, 3, H, W) RGB or BGR on 0..255 scaled by the caller, H and W multiples of 32;
    output is (N, classes, H / 4, W / 4) logits. Labels are published at stride 4: a float
    bilinear resize in the graph costs more than the network.
    """

    def __init__(self, width: int = 32, classes: int = 11) -> None:
        super().__init__()
        w = width
        self.stem = ConvUnit(3, w, 4, 4, relu=True)
        self.stage4 = _stage(w, w, 1, 1)
        self.stage8 = _stage(w, 2 * w, 2, 2)
        self.stage16 = _stage(2 * w, 3 * w, 2, 2)
        self.stage32 = _stage(3 * w, 4 * w, 2, 1)
        self.lateral32 = ConvUnit(4 * w, 3 * w, 1, 1, relu=True)
        self.lateral16 = ConvUnit(3 * w, 2 * w, 3, 1, relu=True)
        self.lateral8 = ConvUnit(2 * w, w, 3, 1, relu=True)
        self.refine = ConvUnit(w, w, 3, 1, relu=True)
        self.head = nn.Conv2d(w, classes, 1)
        self.up = _upsample()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to logits (N, classes, H / 4, W / 4)."""
        s4 = self.stage4(self.stem(x))
        s8 = self.stage8(s4)
        s16 = self.stage16(s8)
        s32 = self.stage32(s16)
        d16 = s16 + self.up(self.lateral32(s32))
        d8 = s8 + self.up(self.lateral16(d16))
        d4 = s4 + self.up(self.lateral8(d8))
        return self.head(self.refine(d4))


class EdgeDet(nn.Module):  # type: ignore[misc]
    """Dense ReLU anchor-free detector with strides 8, 16 and 32.

    Args:
        width: Multiplier of every channel count: 1.0 is the small net (about 1.2 M weights,
            int8 file under 2 MB), 1.75 the wide one. Channels are rounded to a multiple of 8.
        classes: Number of classes.

    Input is (N, 3, H, W) on 0..255 scaled by the caller, H and W multiples of 32. Output is one
    raw map per stride, (N, 4 + classes, H / s, W / s): channels 0..3 are the logarithms of the
    distances from the cell's centre to the box's left, top, right and bottom edge in units of
    the stride (FCOS, Tian et al. 2019), the rest class logits (independent sigmoids).
    """

    def __init__(self, width: float = 1.0, classes: int = 3) -> None:
        super().__init__()
        c4, c8, c16, c32, neck = (_round8(c * width) for c in (32, 64, 96, 128, 64))
        self.classes = classes
        self.stem = ConvUnit(3, c4, 4, 4, relu=True)
        self.stage4 = ConvUnit(c4, c4, 3, 1, relu=True)
        self.stage8 = _stage(c4, c8, 2, 2)
        self.stage16 = _stage(c8, c16, 2, 2)
        self.stage32 = _stage(c16, c32, 2, 1)
        self.lateral = nn.ModuleList(ConvUnit(c, neck, 1, 1, relu=True) for c in (c8, c16, c32))
        self.heads = nn.ModuleList(self._head(neck) for _ in DETECTOR_STRIDES)
        self.up = _upsample()
        self._start_quiet()

    def _head(self, neck: int) -> nn.Sequential:
        return nn.Sequential(
            ConvUnit(neck, neck, 3, 1, relu=True),
            ConvUnit(neck, neck, 3, 1, relu=True),
            nn.Conv2d(neck, 4 + self.classes, 1),
        )

    def _start_quiet(self) -> None:
        """Start every class at probability 0.01, so that background does not drown the loss."""
        for head in self.heads:
            nn.init.zeros_(head[-1].bias)
            nn.init.constant_(head[-1].bias[4:], -4.6)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(N, 3, H, W) to one (N, 4 + classes, H / s, W / s) map per stride."""
        s8 = self.stage8(self.stage4(self.stem(x)))
        s16 = self.stage16(s8)
        s32 = self.stage32(s16)
        p32 = self.lateral[2](s32)
        p16 = self.lateral[1](s16) + self.up(p32)
        p8 = self.lateral[0](s8) + self.up(p16)
        maps = zip(self.heads, (p8, p16, p32), strict=True)
        return tuple(head(level) for head, level in maps)


def _round8(channels: float) -> int:
    """Int8 kernels work on blocks of 8 channels; a ragged block is paid for in full."""
    return max(8, int(channels / 8 + 0.5) * 8)


def cell_centres(height: int, width: int, stride: int) -> torch.Tensor:
    """Centres of the cells of one map, shape (H * W, 2), x then y, in input pixels."""
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (torch.stack((xs.flatten(), ys.flatten()), dim=1).float() + 0.5) * stride


def decode_maps(
    maps: Sequence[torch.Tensor], strides: Sequence[int] = DETECTOR_STRIDES
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes and class logits of every cell, for losses and for checking the folded graph.

    Returns:
        Boxes (N, A, 4) as x0, y0, x1, y1 in input pixels and logits (N, A, classes), cells in
        row-major order, strides in the order given.
    """
    boxes, logits = [], []
    for raw, stride in zip(maps, strides, strict=True):
        flat = raw.flatten(2).transpose(1, 2)
        centre = cell_centres(raw.shape[2], raw.shape[3], stride).to(raw)
        reach = flat[..., :4].clamp(max=MAX_LOG_DISTANCE).exp() * stride
        boxes.append(torch.cat((centre - reach[..., :2], centre + reach[..., 2:]), dim=-1))
        logits.append(flat[..., 4:])
    return torch.cat(boxes, dim=1), torch.cat(logits, dim=1)


def fuse(net: nn.Module) -> nn.Module:
    """Fold every batch norm into its convolution, in place; the net must be in eval mode."""
    for module in list(net.modules()):
        if isinstance(module, ConvUnit) and not isinstance(module.bn, nn.Identity):
            module.fuse()
    return net
