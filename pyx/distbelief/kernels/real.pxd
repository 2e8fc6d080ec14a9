# The float types that every kernel is compiled for: float32 to train, float64 for gradient checks.
ctypedef fused real:
    float
    double
