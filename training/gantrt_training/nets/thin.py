"""Convolutions from and to a picture's few channels, shaped for matrix units, which take channels by the eight.

What they compute is what they are made from, up to rounding; they run and do not learn.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import ResizeConv2d
from .padding import pad

FEW = 4  # channels
_SIDE = 7  # of the kernels next to the picture
# An axis of a transposed 4x4 convolution of stride 2, cropped by one:
#   y[2i] = w3 x[i - 1] + w1 x[i],   y[2i + 1] = w2 x[i] + w0 x[i + 1]
_TAPS = (
    (0, 0, 3),
    (0, 1, 1),
    (1, 1, 2),
    (1, 2, 0),
)  # place in the block, row of its 3x3 kernel, row of the transposed one


def frozen(value: Tensor) -> nn.Parameter:
    """Contiguous, of its own memory, and without a gradient."""
    return nn.Parameter(value.detach().clone(memory_format=torch.contiguous_format), requires_grad=False)


class PaddedConv2d(nn.Module):
    """A convolution of a picture that is reflect-padded before."""

    def __init__(self, conv: nn.Conv2d, border: int) -> None:
        super().__init__()
        self.conv, self.border = conv, border

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(pad(x, (self.border,) * 4, "reflect"))  # type: ignore[no-any-return]


class FirstConv2d(nn.Module):
    """Reflect pad 3 and a 7x7 convolution of few channels: a 7x1 convolution of 8 pixels' channels at once.

    The pixels of a window's row lie side by side in NHWC, so that the rows of all windows are one strided view. The
    eighth pixel, whose weights are zero, makes their channels a multiple of eight. Width at least 5.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        kernel = F.pad(conv.weight.detach(), (0, 1))  # (O, C, 7, 8)
        self.weight = frozen(kernel.permute(0, 3, 1, 2).flatten(1, 2)[..., None])
        self.bias = conv.bias

    @staticmethod
    def takes(conv: nn.Module) -> bool:
        return (
            type(conv) is nn.Conv2d
            and conv.in_channels <= FEW
            and conv.kernel_size == (_SIDE, _SIDE)
            and conv.stride == conv.dilation == (1, 1)
            and conv.padding == (0, 0)
            and conv.groups == 1
        )

    def forward(self, x: Tensor) -> Tensor:
        padded = pad(x, (3, 4, 3, 3), "reflect")
        n, c, h, w = padded.shape
        rows = padded.permute(0, 2, 3, 1).reshape(n, h, w * c).unfold(2, 8 * c, c).contiguous()  # (N, H + 6, W, 8 C)
        return F.conv2d(rows.permute(0, 3, 1, 2), self.weight, self.bias)


class LastConv2d(nn.Module):
    """A convolution to few channels, and tanh: two by two pixels at once, as channels of a picture of half the size.

    Made from a convolution of stride 1 to a picture of even sides, a transposed 4x4 convolution to twice the size, or a
    ResizeConv2d. The channels are filled up to a multiple of eight; what tanh writes is NHWC.
    """

    def __init__(self, conv: nn.Module, *, tanh: bool = True) -> None:
        super().__init__()
        assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
        self.channels, self.tanh = conv.out_channels, tanh
        self.replicate = isinstance(conv, ResizeConv2d)
        kernel = conv.weight.detach()
        if isinstance(conv, nn.ConvTranspose2d) or self.replicate:
            kernel = (transposed_kernel(conv) if isinstance(conv, ResizeConv2d) else kernel).transpose(0, 1)
            blocks = kernel.new_zeros(2, 2, *kernel.shape[:2], 3, 3)
            for (a, top, row), (b, left, column) in itertools.product(_TAPS, _TAPS):
                blocks[a, b, :, :, top, left] = kernel[:, :, row, column]
            self.stride, self.padding = 1, 0 if self.replicate else 1
        else:
            h, w = kernel.shape[2:]
            blocks = kernel.new_zeros(2, 2, *kernel.shape[:2], h + 1, w + 1)
            for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
                blocks[a, b, :, :, a : a + h, b : b + w] = kernel
            self.stride, self.padding = 2, 0
        weight = blocks.flatten(0, 2)
        self.weight = frozen(F.pad(weight, (0, 0) * 3 + (0, -len(weight) % 8)))
        self.bias = None if conv.bias is None else frozen(conv.bias)

    @staticmethod
    def takes(conv: nn.Module) -> bool:
        if not isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) or conv.out_channels > FEW:
            return False
        if conv.groups != 1 or conv.dilation != (1, 1) or conv.output_padding != (0, 0):
            return False
        window = (conv.kernel_size, conv.stride, conv.padding)
        if type(conv) is nn.ConvTranspose2d:
            return window == ((4, 4), (2, 2), (1, 1))
        return type(conv) is ResizeConv2d or (type(conv) is nn.Conv2d and window == ((_SIDE, _SIDE), (1, 1), (0, 0)))

    def forward(self, x: Tensor) -> Tensor:
        if self.replicate:
            x = pad(x, (1, 1, 1, 1), "replicate")
        y = F.conv2d(x, self.weight, None, self.stride, self.padding)
        n, _, h, w = y.shape
        c = self.channels
        pixels = y.permute(0, 2, 3, 1)[..., : 4 * c].view(n, h, w, 2, 2, c).permute(0, 1, 3, 2, 4, 5)
        made = y.new_empty(n, h, 2, w, 2, c)
        if self.bias is not None:
            torch.add(pixels, self.bias, out=made)
            made = made.tanh_() if self.tanh else made
        elif self.tanh:
            torch.tanh(pixels, out=made)
        else:
            made.copy_(pixels)
        return made.view(n, 2 * h, 2 * w, c).permute(0, 3, 1, 2)


class ResizedConv2d(nn.Module):
    """ResizeConv2d as a transposed 4x4 convolution of the small picture, whose border is replicated (see
    rewrites/resized_conv.py): 4 products in the place of 9, and no large picture is written to be read again.

    Of a plane of one value it makes four that differ by a rounding, where nearest neighbour makes equal ones.
    """

    def __init__(self, conv: ResizeConv2d) -> None:
        super().__init__()
        self.weight, self.bias = frozen(transposed_kernel(conv)), conv.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(pad(x, (1, 1, 1, 1), "replicate"), self.weight, self.bias, stride=2, padding=3)


def transposed_kernel(conv: ResizeConv2d) -> Tensor:
    """(C, O, 4, 4), by an axis w2, w1 + w2, w0 + w1, w0."""
    w = conv.weight.detach()
    sums = w.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    return torch.einsum("ky,lx,ocyx->cokl", sums, sums, w)
