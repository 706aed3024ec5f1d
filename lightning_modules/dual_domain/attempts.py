"""A frame, coded each way that is tried: what training and encoder have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from lightning_modules.dual_domain.network import (
    Coded,
    DualDomainNetwork,
    Mode,
    State,
    latent_shape,
)
from lightning_modules.entropy.ports import Port

P = TypeVar("P", bound=Port)


@dataclass(frozen=True)
class Attempt(Generic[P]):
    """A frame, coded one way.

    Attributes:
        mode: The way.
        port: What took its symbols.
        y: Its latent before quantisation.
        coded: Its symbols.
        seen: The frames that it refers to.
        flow: Decoded, to the newest of them.
    """

    mode: Mode
    port: P
    y: Tensor
    coded: Coded
    seen: State
    flow: Tensor | None


def attempts(
    network: DualDomainNetwork,
    exact: DualDomainNetwork,
    frame: Tensor,
    quality: Tensor,
    state: State,
    modes: list[Mode],
    port: Callable[[], P],
) -> list[Attempt[P]]:
    """Code a frame each way.

    Args:
        network: Gives what to code.
        exact: Codes it: the same network, perhaps in the type that chooses tables.
        frame: (B, 3, H, W), padded, RGB in [0, 1].
        quality: (B,), in the type of ``exact``.
        state: What the frame may refer to.
        modes: The ways.
        port: Makes what takes the symbols of one of them.
    """
    shape, own_quality = latent_shape(frame), quality.float()
    motion = target = None
    if Mode.INTER in modes and network.options.pixel_alignment:
        motion = network.analyse_flow(frame, state[0].x_hat, own_quality)
    if network.options.transform == "unified" or modes == [Mode.INTRA]:
        target = network.analyse(frame, own_quality)
    tried = []
    for mode in modes:
        taker, seen, wanted = port(), state if mode else (), target
        flow = exact.code_motion(mode, motion, quality, shape, taker)
        if wanted is None:
            assert flow is not None
            wanted = network.analyse_inter(frame, seen[0].x_hat, flow, own_quality)
        coded = exact.code(wanted, seen, flow, quality, shape, taker)
        tried.append(Attempt(mode, taker, wanted.y, coded, seen, flow))
    return tried
