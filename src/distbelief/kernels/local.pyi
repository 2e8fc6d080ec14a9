import numpy as np

def local_scratch(height: int, width: int, channels: int, n: int, kh: int) -> int: ...
def local_forward(w: np.ndarray, b: np.ndarray, x: np.ndarray, stride: int, activation: int, y: np.ndarray) -> None: ...
def local_backward(
    w: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    stride: int,
    activation: int,
    dy: np.ndarray,
    dw: np.ndarray,
    db: np.ndarray,
    dx: np.ndarray,
    scratch: np.ndarray,
) -> None: ...
def local_backward_to_weights(
    x: np.ndarray,
    y: np.ndarray,
    stride: int,
    activation: int,
    dy: np.ndarray,
    dw: np.ndarray,
    db: np.ndarray,
    scratch: np.ndarray,
) -> None: ...
