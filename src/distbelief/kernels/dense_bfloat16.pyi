import numpy as np

def dense_bfloat16_scratch(outputs: int, inputs: int, n: int) -> int: ...
def dense_bfloat16_forward(
    w_oi: np.ndarray,
    b_o: np.ndarray,
    x_in: np.ndarray,
    activation: int,
    y_on: np.ndarray,
    scratch: np.ndarray,
) -> None: ...
def dense_bfloat16_backward(
    w_oi: np.ndarray,
    x_in: np.ndarray,
    y_on: np.ndarray,
    activation: int,
    dy_on: np.ndarray,
    dw_oi: np.ndarray,
    db_o: np.ndarray,
    dx_in: np.ndarray,
    scratch: np.ndarray,
) -> None: ...
def dense_bfloat16_accrues(outputs: int, inputs: int, n: int) -> bool: ...
def dense_bfloat16_accrue(
    w_oi: np.ndarray,
    x_in: np.ndarray,
    y_on: np.ndarray,
    activation: int,
    dy_on: np.ndarray,
    accrued_oi: np.ndarray,
    accrued_o: np.ndarray,
    dx_in: np.ndarray,
    scratch: np.ndarray,
    weight: float,
    rate: float,
    fresh: bool,
    master_oi: np.ndarray | None = None,
    master_o: np.ndarray | None = None,
    held_oi: np.ndarray | None = None,
    held_o: np.ndarray | None = None,
) -> None: ...
