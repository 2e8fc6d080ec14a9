import numpy as np

def gather_columns(
    source_nf: np.ndarray, rows_n: np.ndarray, scale: float, shift: float, out_fn: np.ndarray
) -> None: ...
