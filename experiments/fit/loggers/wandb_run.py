"""The W&B run of a run: one for all stages, which never asks and never ends them."""

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from callbacks.metrics.table import validation_metrics
from datamodules.whole_files import whole_or_nothing
from experiments.fit.loggers.axis import StageAxis
from experiments.fit.loggers.metrics_csv import read_metrics
from experiments.fit.loggers.offline_parts import (
    logged_from,
    parts_of,
    unsent_parts,
    wait_for_records,
)

SERVER_SECONDS = 3.0
"""How long the W&B server may take to answer before a run goes offline."""

INIT_SECONDS = 20.0
"""How long W&B may take to accept the run before it goes offline."""

BEST = {
    name: "max" if metric.higher_is_better else "min"
    for name, metric in validation_metrics().items()
} | {"loss": "min", "psnr_first8": "max", "psnr_last8": "max", "psnr_drop": "min"}
"""Which value of a figure of validation is its best; of those that have one."""


class StageWandbLogger(StageAxis, WandbLogger):
    """One W&B run for all stages of a run, on the axis ``step``.

    Its summary has the best and the last of each metric of validation, also by rate
    point: ``val/psnr.max``, ``val/qp21/fid.min``.

    Args:
        run_dir: The run's folder; holds the run's id and everything W&B writes.
        online: Whether to try the server; without an answer the run is offline.
        init: Further arguments of ``wandb.init``.
    """

    def __init__(self, run_dir: str | Path, online: bool, **init: Any) -> None:
        super().__init__(save_dir=str(run_dir), **init)
        self.online = online
        self._defined: set[str] = set()
        # Whether it has parts of earlier processes that were not looked at, and what
        # those hold of the steps to come.
        self._goes_on = False
        self._earlier: dict[int, set[str]] = {}

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, opened at first use."""
        if self._experiment is None:
            self._goes_on = bool(parts_of(self.save_dir or ""))
            self._experiment = self._open()
            # Panels draw everything over `step`; W&B's own counter only ever grows,
            # so it would refuse what a resumed run logs again.
            self._experiment.define_metric("step")
            self._experiment.define_metric("*", step_metric="step")
        return self._experiment

    def _open(self) -> Any:
        import wandb

        init = {k: v for k, v in self._wandb_init.items() if v is not None}
        if self.online:
            try:
                settings = wandb.Settings(init_timeout=INIT_SECONDS)
                return wandb.init(**init, mode="online", settings=settings)
            except wandb.Error as error:
                rank_zero_warn(f"W&B refused the run, logging offline: {error}")
                wandb.teardown()
                self.online = False
        # Silent: it would advise on every offline run what `sync_hint` says once.
        settings = wandb.Settings(silent=True)
        return wandb.init(**init, mode="offline", settings=settings)

    @rank_zero_only
    def start_stage(self, stage: str, offset: int, done: int = 0) -> None:
        """Place the coming steps on the axis, and open the run.

        After a kill, steps that come again are not logged twice, and scalars whose end
        of a part was lost are taken from ``metrics.csv``.
        """
        super().start_stage(stage, offset, done)
        self.experiment  # noqa: B018
        if not self._goes_on:
            return
        self._goes_on = False
        begin, sent = offset + done, 0
        earlier = logged_from(self.save_dir or "", begin)
        if self.online:
            # Beyond it, what was written here had not been sent.
            sent = int(self.experiment.summary.get("step") or 0)
            earlier = {s: names for s, names in earlier.items() if s <= sent}
        self._earlier = earlier
        self._log_lost(max((s for s in earlier if s <= begin), default=sent), begin)

    def _log_lost(self, last: int, begin: int) -> None:
        """Log scalars from the last step that W&B has to where the run goes on."""
        rows: dict[tuple[int, str], dict[str, float]] = {}
        if last < begin:
            for step, stage, name, value in read_metrics(
                Path(self.save_dir or "", "metrics.csv")
            ):
                if last <= step <= begin:
                    rows.setdefault((step, stage), {})[name] = value
        for place, values in rows.items():
            self._log(values, *place)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log scalars or media at a step, and which stage it belongs to."""
        self._log(metrics, self.run_step(step), self.stage)

    def _log(self, metrics: Mapping[str, Any], step: int, stage: str) -> None:
        """Log what W&B does not have of a step on the run's axis."""
        known = self._earlier.get(step, set()) | {"epoch"}
        values = {name: value for name, value in metrics.items() if name not in known}
        if not values:
            return
        for name in values.keys() - self._defined:
            self._define(name)
        stages = {"stage": stage} if stage else {}
        self.experiment.log({**values, **stages, "step": step})

    def _define(self, name: str) -> None:
        """Tell W&B once which value of a figure its summary has besides the last."""
        self._defined.add(name)
        split, *_, metric = name.split("/")
        bd_rate = metric.startswith("bd_rate_") and metric.endswith(tuple(BEST))
        if split == "val" and (metric in BEST or bd_rate):
            # By its full name: W&B has no pattern for rate points.
            best = f"{BEST.get(metric, 'min')},last"
            self.experiment.define_metric(name, step_metric="step", summary=best)

    @rank_zero_only
    def finish(self) -> None:
        """Close the run; another one may be opened in this process."""
        if self._experiment is not None:
            written = Path(self._experiment.settings.sync_file)
            self._experiment.finish()
            self._experiment = None
            if not self.online:
                wait_for_records(written)


def sync_hint(run_dir: str | Path) -> str | None:
    """Return the command that uploads a run's offline parts, or None without any.

    A run that went on several times has several parts under one id; ``wandb sync``
    uploads them in order of time.
    """
    unsent = unsent_parts(run_dir)
    return f"wandb sync {' '.join(map(str, unsent))}" if unsent else None


def run_id(run_dir: Path) -> str:
    """Return the run's W&B id, made once and kept in its folder."""
    path = run_dir / "wandb_id.txt"
    if not path.exists():
        import secrets

        run_dir.mkdir(parents=True, exist_ok=True)
        with whole_or_nothing(path) as temporary:
            temporary.write_text(secrets.token_hex(4))
    return path.read_text().strip()


def why_offline() -> str | None:
    """Return why W&B cannot be online: not logged in, or no answer; None if it can."""
    import wandb

    settings = wandb.setup().settings
    key = any(os.environ.get(f"WANDB_{n}") for n in ("API_KEY", "IDENTITY_TOKEN_FILE"))
    files = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    netrc = any(Path(file).expanduser().is_file() for file in files if file)
    if not (key or netrc or settings.api_key):
        return "nobody is logged in (`wandb login`)"
    # Before `login`, which waits several seconds for a server that is not there.
    if not answers(settings.base_url, SERVER_SECONDS):
        return f"{settings.base_url} does not answer"
    try:
        logged_in = wandb.login(prompt=False, verify=False)
    except wandb.Error as error:
        return f"the login is unusable: {error}"
    return None if logged_in else f"nobody is logged in at {settings.base_url}"


def answers(url: str, seconds: float) -> bool:
    """Return whether a server answers at all, through the proxies of the environment.

    Any HTTP status is an answer.
    """
    answered = False
    done = threading.Event()

    def ask() -> None:
        nonlocal answered
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=seconds).close()
            answered = True
        except urllib.error.HTTPError:
            answered = True
        except OSError:
            pass
        done.set()

    # In a thread because no timeout bounds the look-up of a host's name.
    threading.Thread(target=ask, daemon=True).start()
    done.wait(seconds)
    return answered
