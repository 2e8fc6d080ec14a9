"""What the coordinator knows of the replicas: the latest report of each."""

import math

import numpy as np

from distbelief.algorithms.coordination import FAULT, FINISHED, REPORT_RECORD


class Ledger:
    """The latest report of each replica, and when it came. Local."""

    def __init__(self, replicas: int):
        self._reports = np.zeros(replicas, REPORT_RECORD)
        self._heard = np.full(replicas, math.inf)  # a replica that has not been started owes no report

    def started(self, replicas: list[int], now: float) -> None:
        """Expect reports of `replicas` from `now` on."""
        self._heard[replicas] = now

    def enter(self, report: np.void, now: float) -> None:
        """Take in a report (one element of REPORT_RECORD)."""
        self._reports[report["replica"]] = report
        self._heard[report["replica"]] = now

    def heard(self, replica: int, now: float) -> None:
        """A replica lives."""
        self._heard[replica] = now

    def accounts(self, seconds: float) -> dict:
        """What an Evaluation says of the replicas. `seconds`: since training began."""
        return {
            "time": seconds,
            "step": self.total("step"),
            "examples": self.total("examples"),
            "train_loss": self.train_loss(),
            "examples_per_s": self.total("examples") / max(seconds, 1e-9),
            "bytes_fetched": self.total("bytes_fetched"),
            "bytes_pushed": self.total("bytes_pushed"),
            "seconds_fetching": self.total("seconds_fetching"),
            "seconds_pushing": self.total("seconds_pushing"),
            "replica_examples_per_s": self.examples_per_s(),
        }

    def __getitem__(self, replica: int) -> np.void:
        return self._reports[replica]

    def total(self, field: str):
        """The sum of one field over all replicas, as a Python number."""
        return self._reports[field].sum().item()

    def examples_per_s(self) -> list[float]:
        """Of each replica, since it was started; 0 before its first report."""
        return (self._reports["examples"] / np.maximum(self._reports["seconds"], 1e-9)).tolist()

    def train_loss(self) -> float | None:
        """The mean loss of the replicas' latest minibatches; None before the first."""
        losses = self._reports["loss"][self._reports["step"] > 0]
        return float(losses.mean()) if losses.size else None

    def all_through(self) -> bool:
        """No replica trains any more."""
        return bool(self._through().all())

    def most_silent(self, now: float) -> tuple[int, float]:
        """The replica in training that has been silent longest, and for how many seconds."""
        silence = np.where(self._through(), 0.0, np.maximum(now - self._heard, 0.0))
        replica = int(silence.argmax())
        return replica, float(silence[replica])

    def _through(self) -> np.ndarray:
        return (self._reports["kind"] == FAULT) | (self._reports["kind"] == FINISHED)
