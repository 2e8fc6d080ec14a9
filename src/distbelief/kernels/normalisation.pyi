import numpy as np

PLANES: int

def normalise_forward(
    x: np.ndarray,
    first: int,
    rows_hk: np.ndarray,
    columns_wk: np.ndarray,
    floor: float,
    start: int,
    y: np.ndarray,
    scratch: np.ndarray,
) -> None: ...
def normalise_backward(
    x: np.ndarray,
    first: int,
    rows_hk: np.ndarray,
    columns_wk: np.ndarray,
    floor: float,
    start: int,
    y: np.ndarray,
    dy: np.ndarray,
    dx: np.ndarray,
    scratch: np.ndarray,
) -> None: ...
