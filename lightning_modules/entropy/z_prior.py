"""The distribution that a network's hyper-latent has, by name."""

from typing import Literal, get_args

from lightning_modules.entropy.priors import FactorisedPrior, HyperPrior

PriorForm = Literal["bottleneck", "scalar"]


def build_prior(form: PriorForm, channels: int) -> HyperPrior:
    """Return an untrained prior of one row.

    Args:
        form: ``bottleneck`` (CompressAI's, three units between its layers) or
            ``scalar`` (one unit).
        channels: Channels of z.

    Raises:
        ValueError: There is no such form.
    """
    if form not in get_args(PriorForm):
        raise ValueError(f"z_prior {form!r}: it is one of {get_args(PriorForm)}")
    if form == "scalar":
        return FactorisedPrior(1, channels)
    # It imports CompressAI, which takes seconds.
    from lightning_modules.entropy.bottleneck import BottleneckPrior

    return BottleneckPrior(channels)
