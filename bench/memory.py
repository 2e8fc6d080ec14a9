"""What processes take of the machine's memory while they work."""

import threading

# Seconds between two looks.
INTERVAL = 0.25


def proportional() -> int:
    """Bytes resident for this process; what several processes share is divided among them (PSS)."""
    with open("/proc/self/smaps_rollup") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


class Peak:
    """The most that this process had resident within a `with`, looked at now and then by a thread of its own."""

    def __init__(self):
        self.nbytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(INTERVAL):
            self.nbytes = max(self.nbytes, proportional())
