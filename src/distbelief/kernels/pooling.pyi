import numpy as np

POOLINGS: dict[str, int]

def pool_forward(x: np.ndarray, kh: int, kw: int, stride: int, function: int, y: np.ndarray) -> None: ...
def pool_backward(
    x: np.ndarray, y: np.ndarray, kh: int, kw: int, stride: int, function: int, dy: np.ndarray, dx: np.ndarray
) -> None: ...
