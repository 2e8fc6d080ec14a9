import numpy as np

def local_bfloat16_scratch(maps: int, kh: int, kw: int, channels: int) -> int: ...
def local_bfloat16_forward(
    w: np.ndarray,
    b: np.ndarray,
    x: np.ndarray,
    stride: int,
    activation: int,
    y: np.ndarray,
    scratch: np.ndarray,
) -> None: ...
def local_bfloat16_backward_to_inputs(
    w: np.ndarray, dz: np.ndarray, stride: int, dx: np.ndarray, scratch: np.ndarray
) -> None: ...
