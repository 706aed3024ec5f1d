"""Training's figures by rate: of what was drawn near each point of validation."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def nearest_points(
    names: Sequence[str], lmbdas: Tensor, drawn: Tensor, frames: int
) -> dict[str, Tensor]:
    """Return which clips were drawn nearest to each point, on a scale of log lambda.

    Args:
        names: The points'; a codec with a single one has no parts.
        lmbdas: Their Lagrangians, (P,).
        drawn: Those of a batch's clips, (B,).
        frames: Frames of a clip, T.

    Returns:
        By the point's name, bool (B, T).
    """
    if len(names) < 2:
        return {}
    distances = drawn.double().log()[:, None] - lmbdas.double().log()
    nearest = distances.abs().argmin(dim=1)[:, None].expand(-1, frames)
    return {name: nearest == number for number, name in enumerate(names)}


def loss_of_frames(
    frame_terms: Mapping[str, Tensor],
    terms: Mapping[str, Tensor],
    weights: Mapping[str, float],
) -> Tensor:
    """Return each frame's share of the loss, (B, T), whose mean is the loss.

    A term that a batch has as a whole counts alike for each of its frames.

    Args:
        frame_terms: Terms that each frame has its own value of, (B, T).
        terms: All of them, scalars.
        weights: Of each term.
    """
    shares = [weights[n] * frame_terms.get(n, term) for n, term in terms.items()]
    return torch.stack(torch.broadcast_tensors(*shares)).sum(dim=0)
