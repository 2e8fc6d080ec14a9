import numpy as np

CACHED: int

def renew(
    values: np.ndarray, out: np.ndarray, gradient: np.ndarray | None = None, rate: float = 0.0, past: bool = False
) -> None: ...
def copy_past(values: np.ndarray, out: np.ndarray) -> None: ...
