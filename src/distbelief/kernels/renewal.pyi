import numpy as np

def renew(
    values: np.ndarray, out: np.ndarray, gradient: np.ndarray | None = None, rate: float = 0.0, past: bool = False
) -> None: ...
