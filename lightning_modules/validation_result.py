"""What a validation step gives to those who measure and show it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class ValidationResult:
    """One clip at one rate point.

    Attributes:
        name: The clip's name.
        point: The rate point as a log key, for example ``qp21``.
        rate: The rate point.
        clip: (B, T, 3, H, W), RGB in [0, 1].
        x_hat: Its reconstruction.
        bits: (B, T), estimated.
        decoded: Whether ``x_hat`` and ``bits`` are a decoder's; otherwise nothing but
            pictures is made of them.
    """

    name: str
    point: str
    rate: float
    clip: Tensor
    x_hat: Tensor
    bits: Tensor
    decoded: bool = True
