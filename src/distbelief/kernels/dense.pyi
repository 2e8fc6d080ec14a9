import numpy as np

ACTIVATIONS: dict[str, int]
BLOCKS_OF_ANY_SIZE: bool

def dense_forward(w_oi: np.ndarray, b_o: np.ndarray, x_in: np.ndarray, activation: int, y_on: np.ndarray) -> None: ...
def dense_backward(
    w_oi: np.ndarray,
    x_in: np.ndarray,
    y_on: np.ndarray,
    activation: int,
    dy_on: np.ndarray,
    dw_oi: np.ndarray,
    db_o: np.ndarray,
    dx_in: np.ndarray,
) -> None: ...
def dense_accrues(outputs: int, inputs: int, n: int) -> bool: ...
def dense_accrue(
    w_oi: np.ndarray,
    b_o: np.ndarray,
    x_in: np.ndarray,
    y_on: np.ndarray,
    activation: int,
    dy_on: np.ndarray,
    accrued_oi: np.ndarray,
    accrued_o: np.ndarray,
    dx_in: np.ndarray,
    weight: float,
    rate: float,
    fresh: bool,
) -> None: ...
def product(transpose_a: bool, transpose_b: bool, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None: ...
