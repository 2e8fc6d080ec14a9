import numpy as np

def logistic_loss(
    z_kn: np.ndarray, labels_n: np.ndarray, scale: float, scratch_2n: np.ndarray, dz_kn: np.ndarray | None = None
) -> float: ...
