"""The features that FID and KID compare, of one job, on disk beside its part.

Jobs are done by several processes, and FID is no mean of their values. So each job
leaves the features of its decoded pictures, and those of the source unless another job
has left them; ``experiments.evaluate.pools`` compares them when all are there. The
features of a sample take 8 kB, in memory while the job is done, then on disk.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from callbacks.metrics import distribution
from callbacks.metrics.distribution import SAMPLES, to_8_bit
from callbacks.metrics.table import METRICS, pooled_names
from datamodules.whole_files import whole_or_nothing
from datamodules.yuv import Codes, dequantise, planes_to_rgb
from experiments.evaluate.job import Job
from experiments.evaluate.options import JobOptions
from lightning_modules.perceptual import UnavailableMetricError


class SampleFeatures:
    """Takes source and decoded frames one by one and leaves their features.

    Args:
        job: What is coded.
        options: Say what is a sample, and where the parts are.
        device: Where the network runs.
        scales: How many were decoded; None for all.

    Attributes:
        missing: Metrics for which something is missing on this machine, and what.
        undefined: Metrics that these frames have not, and why.
    """

    def __init__(
        self,
        job: Job,
        options: JobOptions,
        device: str,
        scales: int | None = None,
    ) -> None:
        self.missing: dict[str, str] = {}
        self.undefined: dict[str, str] = {}
        self._colour = options.colour
        self._device = device
        folder = options.output.with_suffix(".parts")
        frames = options.max_frames or "all"
        of_source = f"{job.stem}.{self._colour}.{frames}"
        of_job = job.file.removesuffix(".json")
        if scales is not None:
            of_job += f".scales{scales}"
        # All rates share the source's.
        self._paths = {
            kind: [
                folder / f"{of_job}.{kind}.npy",
                folder / f"{of_source}.source.{kind}.npy",
            ]
            for kind in SAMPLES
            if any(METRICS[name].pooled == kind for name in options.metric_names)
        }
        self._features: dict[Path, list[Tensor]] = {}
        if self._paths:
            self._load()

    def _load(self) -> None:
        try:
            self._extract = distribution.Inception()
        except UnavailableMetricError as error:
            for kind in self._paths:
                self.missing |= dict.fromkeys(pooled_names(kind), str(error))
            self._paths.clear()
        for decoded, source in self._paths.values():
            self._features[decoded] = []
            if not source.is_file():
                self._features[source] = []

    def add(self, source: Codes, decoded: Codes) -> None:
        """Take the next frame, 8-bit planes of both."""
        for kind, paths in list(self._paths.items()):
            for path, codes in zip(paths, (decoded, source), strict=True):
                if path not in self._features:
                    continue
                rgb = planes_to_rgb(dequantise(codes), self._colour)
                try:
                    samples = SAMPLES[kind](to_8_bit(rgb).to(self._device))
                except UnavailableMetricError as error:
                    self.undefined |= dict.fromkeys(pooled_names(kind), str(error))
                    del self._paths[kind]
                    break
                self._features[path].append(self._extract(samples).cpu())

    def save(self) -> dict[str, list[str]]:
        """Write what was gathered, (N, D) float32, each file whole or not at all.

        Returns:
            Names of the decoded and the source's file, by the FID that they serve.

        Raises:
            ValueError: The features of the source that were there are of other frames.
        """
        for kind, paths in self._paths.items():
            counts = []
            for path in paths:
                if path in self._features:
                    features = torch.cat(self._features[path]).numpy()
                    with (
                        whole_or_nothing(path) as temporary,
                        temporary.open("wb") as file,
                    ):
                        np.save(file, features)
                counts.append(len(np.load(path, mmap_mode="r")))
            if counts[0] != counts[1]:
                raise ValueError(
                    f"{paths[1]} holds the features of {counts[1]} {kind}, but "
                    f"{counts[0]} were decoded: the source has changed; remove it"
                )
        return {
            pooled_names(kind)[0]: [path.name for path in paths]
            for kind, paths in self._paths.items()
        }
