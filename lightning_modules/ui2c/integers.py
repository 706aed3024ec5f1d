"""UI2C's layers in fixed point: the same numbers on every machine, by construction.

Two things differ between machines, threads and libraries: the order in which a matrix
product adds up, and the last digits of an exponential. Here products add up whole
numbers, which are exact in any order, and sigmoids come from a table. What is left is
elementwise: additions, products, roundings and comparisons of float32, one kernel each,
which IEEE 754 defines to the bit on a CPU and on a GPU. Nothing may fuse them: a
compiler that contracts a product and a sum would round once instead of twice.
"""

from copy import deepcopy
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.clock import uncounted
from lightning_modules.entropy.symbols import OverflowingError
from lightning_modules.ui2c.blocks import WSiLU

Codec = TypeVar("Codec", bound=nn.Module)

ENCODER_ONLY = ("embed", "encoder", "encoder_down", "hyper_encoder")
"""Decoders never run these, so they stay as they are."""
CHOOSES_TABLES = ("fusion", "spatial_prior")
DIGIT = 128
LARGEST = 63.5 * DIGIT
"""Of a number in two digits, each within +-64. Larger ones would be wrong on processors
without VNNI, which add two products of a digit and another one plus 128 in 16 bits."""
MOST_TERMS = 1 << 11  # 2 x 2^12 x 2^11 = 2^24: exact in float32 too.
TAP_LIMIT = 1 << 12  # Of a depthwise input, and of a filter's sum: 2^24 together.
SMALLEST = 1e-30
ROWS = 1024  # Positions at once on a CPU: what they need stays in its cache.
ALIGNED, FEWEST_ROWS = 8, 17  # What CUDA's product of int8 asks for.
STEPS_PER_UNIT, TABLE_REACH = 1024, 4


class IntegerLinear(nn.Module):
    """A matrix product of whole numbers, and a bias.

    Each row of the input, and of the weights, is scaled so that its largest magnitude
    is ``LARGEST``, rounded, and split into a high and a low digit. Of the four products
    of digits, that of the low ones is left out: it is below the others' rounding.

    Args:
        weight: (N, K).
        bias: (N,).

    Raises:
        OverflowingError: A weight is not finite.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.outputs, self.inputs = weight.shape
        assert self.inputs <= MOST_TERMS, "sums must be exact"
        if bias is None:
            bias = weight.new_zeros(self.outputs)
        if not bool(weight.isfinite().all() and bias.isfinite().all()):
            raise OverflowingError("weights hold NaN or infinity: they are damaged")
        padding = (0, -self.inputs % ALIGNED, 0, -self.outputs % ALIGNED)
        rows = F.pad(weight.double(), padding)
        largest = rows.abs().amax(1, keepdim=True).clamp_min(SMALLEST)
        high, low = _digits(rows * (LARGEST / DIGIT / largest))
        unit = largest[: self.outputs, 0] * (DIGIT / LARGEST**2)
        mixed = torch.cat([low, high], dim=1)
        # A row for each output: CUDA's product of int8 wants each in one piece.
        self.register_buffer("high", high.to(torch.int8))
        self.register_buffer("mixed", mixed.to(torch.int8))
        self.register_buffer("unit", unit.float())
        self.register_buffer("bias", bias.float())
        self.high: Tensor
        self.mixed: Tensor
        self.unit: Tensor
        self.bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Map (P, K) to (P, N), both float32.

        Raises:
            OverflowingError: An element is not finite, or close to that.
        """
        y = x.new_empty(len(x), self.outputs)
        # Of one size: oneDNN compiles its product for each that it meets.
        blocks = 1 if x.is_cuda else -(-len(x) // ROWS)
        rows = -(-len(x) // blocks)
        for first in range(0, len(x), rows):
            part = slice(first, first + rows)
            self._multiply(x[part], y[part], max(rows, FEWEST_ROWS))
        return y

    def _multiply(self, x: Tensor, y: Tensor, rows: int) -> None:
        largest = torch.maximum(x.amax(1, keepdim=True), -x.amin(1, keepdim=True))
        if not float(largest.max()) < 1 / SMALLEST:
            raise OverflowingError(
                "the networks overflow: the weights are untrained or damaged"
            )
        largest = largest.clamp_min_(SMALLEST)
        inputs = self.high.shape[1]
        digits = x.new_zeros(rows, 2 * inputs, dtype=torch.int8)
        high, low = _digits(x * (LARGEST / DIGIT / largest))
        digits[: len(x), : self.inputs] = high
        digits[: len(x), inputs : inputs + self.inputs] = low
        total = _product(digits, self.mixed.t())
        total.add_(_product(digits[:, :inputs], self.high.t()), alpha=DIGIT)
        y.copy_(total[: len(x), : self.outputs])
        y.mul_(largest).mul_(self.unit).add_(self.bias)


def _digits(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split what is within +-63.5 into whole numbers and 128ths, each within +-64."""
    high = x.round()
    return high, x.sub_(high).mul_(DIGIT).round_()


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Return the product of two int8 matrices in int32."""
    if not a.is_cpu or torch.backends.mkldnn.enabled:
        return torch._int_mm(a, b)
    # What torch has without oneDNN takes 30 times as long as float32, this thrice.
    return (a.float() @ b.float()).to(torch.int32)


class IntegerConv(nn.Module):
    """A convolution over all channels, as a product with each position's patch.

    Args:
        conv: What it stands for.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        self.padding = int(conv.padding[0])
        weight = conv.weight.permute(0, 2, 3, 1).flatten(1)
        self.linear = IntegerLinear(weight, conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, N, H', W'), channels last in memory."""
        x = x.float().permute(0, 2, 3, 1)
        if self.kernel > 1:
            sides = (self.padding,) * 4
            x = F.pad(x, (0, 0, *sides))
            for side in (1, 2):
                x = x.unfold(side, self.kernel, self.stride)
            x = x.permute(0, 1, 2, 4, 5, 3).flatten(3)
        rows: Tensor = self.linear(x.reshape(-1, x.shape[-1]))
        return rows.unflatten(0, x.shape[:3]).permute(0, 3, 1, 2)


class IntegerDepthwise(nn.Module):
    """A 3 x 3 convolution of each channel, in whole numbers that float32 holds.

    Args:
        conv: What it stands for.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        weight = conv.weight.double()
        # One by one: a sum over them has no order of its own.
        total = sum(tap.abs() for tap in weight.flatten(1).unbind(1))
        assert isinstance(total, Tensor)
        total = total.clamp_min(SMALLEST)
        # Nine roundings add 4.5 at most.
        most = TAP_LIMIT - 5
        taps = (weight * (most / total)[:, None, None, None]).round()
        assert conv.bias is not None
        self.register_buffer("taps", taps.float())
        self.register_buffer("unit", (total * (1 / (most * TAP_LIMIT))).float())
        self.register_buffer("bias", conv.bias.float())
        self.taps: Tensor
        self.unit: Tensor
        self.bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        largest = torch.maximum(rows.amax(0), -rows.amin(0)).clamp_min_(SMALLEST)
        whole = (rows * (TAP_LIMIT / largest)).round_()
        x = whole.view(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2)
        y = self._on_cpu(x) if x.is_cpu else self._tap_by_tap(x)
        y.permute(0, 2, 3, 1).mul_(largest * self.unit).add_(self.bias)
        return y

    def _on_cpu(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.taps, padding=1, groups=len(self.taps))

    def _tap_by_tap(self, x: Tensor) -> Tensor:
        """Compute the same with no library that might transform its input."""
        height, width = x.shape[-2:]
        padded = F.pad(x, (1, 1, 1, 1))
        y = torch.zeros_like(x)
        for place in range(9):
            row, column = divmod(place, 3)
            seen = padded[..., row : row + height, column : column + width]
            y.addcmul_(seen, self.taps[:, :, row, column, None])
        return y


@lru_cache(maxsize=1)
def _sigmoid_table() -> tuple[float, ...]:
    """Return sigmoid(4 x) for x from -4 to 4.

    In decimals, whose exponential is correctly rounded everywhere.
    """
    reach = STEPS_PER_UNIT * TABLE_REACH
    # Whatever context the process has.
    with localcontext(Context(prec=28)):
        steps = (Decimal(4 * i) / STEPS_PER_UNIT for i in range(-reach, reach + 1))
        return tuple(float(1 / (1 + (-x).exp())) for x in steps)


class TabulatedSigmoid(nn.Module):
    """The nearest entry of a table of sigmoids.

    Args:
        steepness: What its argument is multiplied by, 4 at most.
    """

    def __init__(self, steepness: int = 1) -> None:
        super().__init__()
        self.steps = STEPS_PER_UNIT * steepness / 4
        table = torch.tensor(_sigmoid_table(), dtype=torch.float32)
        self.register_buffer("table", table)
        self.table: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Apply elementwise."""
        last = len(self.table) - 1
        place = (x * self.steps).add_(last / 2 + 0.5).clamp_(0.5, last + 0.5)
        found = self.table.index_select(0, place.to(torch.int32).flatten())
        return found.view(x.shape)


class TabulatedWSiLU(TabulatedSigmoid):
    """:class:`~lightning_modules.ui2c.blocks.WSiLU` of a tabulated sigmoid."""

    def __init__(self) -> None:
        super().__init__(steepness=4)

    def forward(self, x: Tensor) -> Tensor:
        """Apply elementwise."""
        rows = x.permute(0, 2, 3, 1).flatten(0, 2)
        y = torch.empty_like(rows)
        step = len(rows) if x.is_cuda else ROWS
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            torch.mul(part, super().forward(part), out=y[first : first + step])
        return y.view(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2)


class Widened(nn.Module):
    """Gives float64, for what is neither a sum of whole numbers nor elementwise IEEE.

    Its logarithm chooses the same table everywhere: no float32 number lies as near to
    the edge between two tables as logarithms of float64 may be off. Colour conversion
    is off by as little, which the rounding of shown frames removes.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convert, exactly."""
        return x.double()


class Twin(Generic[Codec]):
    """A codec's copy whose networks decode to the same bits everywhere.

    It is made when first asked for, and then kept. No child of the codec may hold it,
    for it repeats its weights.
    """

    def __init__(self) -> None:
        self._made: Codec | None = None

    def of(self, codec: Codec, **pixels: str) -> Codec:
        """Return the copy of a codec, on its device.

        Args:
            codec: Always the same one, with the same weights.
            pixels: Of each of its networks, the name of the layer whose output becomes
                frames.

        Raises:
            ValueError: The weights are not in float32, or not finite.
        """
        like = next(codec.parameters())
        if like.dtype != torch.float32:
            raise ValueError(
                f"arithmetic integer is not possible with dtype {like.dtype}: use "
                "float32"
            )
        if self._made is None or next(self._made.parameters()).device != like.device:
            self._made = None
            with uncounted():
                self._made = _copy(codec, pixels)
        return self._made


def _copy(codec: Codec, pixels: dict[str, str]) -> Codec:
    device = next(codec.parameters()).device
    # On a CPU, wherever it is used: CUDA divides by constants otherwise.
    copy = deepcopy(codec).cpu().requires_grad_(False)
    for name, last in pixels.items():
        network = getattr(copy, name)
        if network is None:
            continue
        _convert(network)
        for each in (*CHOOSES_TABLES, last):
            widened = nn.Sequential(network.get_submodule(each), Widened())
            setattr(network, each, widened)
    return copy.to(device)


def _convert(module: nn.Module) -> None:
    for name, child in module.named_children():
        if name in ENCODER_ONLY:
            continue
        if isinstance(child, nn.Conv2d):
            kind = IntegerConv if child.groups == 1 else IntegerDepthwise
            setattr(module, name, kind(child))
        elif isinstance(child, WSiLU):
            setattr(module, name, TabulatedWSiLU())
        elif isinstance(child, nn.Sigmoid):
            setattr(module, name, TabulatedSigmoid())
        else:
            _convert(child)
