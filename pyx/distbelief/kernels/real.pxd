# The float types that every kernel is compiled for: float32 to train, float64 for gradient checks.
ctypedef fused real:
    float
    double

ctypedef unsigned short unsigned_short

# Numbers as they travel, too: unsigned short is bfloat16.
ctypedef fused wire:
    float
    double
    unsigned_short
