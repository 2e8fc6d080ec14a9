"""Compiled loops over float buffers (sources below pyx/): no MPI, no policy, no Python objects.

Each takes C-contiguous arrays of one float type, float32 or float64 (on the wire also bfloat16, as uint16), and
releases the GIL.
"""

from distbelief.kernels.batch import gather_columns
from distbelief.kernels.bfloat16 import narrow, narrow_carrying, widen
from distbelief.kernels.blas import kernels16, use_gemm16, use_kernels16, use_sgemm
from distbelief.kernels.convolution import convolution_backward, convolution_forward, convolution_scratch
from distbelief.kernels.dense import (
    ACTIVATIONS,
    BLOCKS_OF_ANY_SIZE,
    dense_accrue,
    dense_accrues,
    dense_backward,
    dense_forward,
    product,
)
from distbelief.kernels.dense_bfloat16 import (
    dense_bfloat16_accrue,
    dense_bfloat16_accrues,
    dense_bfloat16_backward,
    dense_bfloat16_forward,
    dense_bfloat16_scratch,
)
from distbelief.kernels.finite import all_finite, largest
from distbelief.kernels.local import local_backward, local_backward_to_weights, local_forward, local_scratch
from distbelief.kernels.local_bfloat16 import (
    local_bfloat16_backward_to_inputs,
    local_bfloat16_forward,
    local_bfloat16_scratch,
)
from distbelief.kernels.logistic import logistic_loss
from distbelief.kernels.normalisation import PLANES, normalise_backward, normalise_forward
from distbelief.kernels.penalty import l2_penalty
from distbelief.kernels.pooling import POOLINGS, pool_backward, pool_forward
from distbelief.kernels.renewal import CACHED, copy_past, renew
from distbelief.kernels.softmax import softmax_cross_entropy, softmax_score
from distbelief.kernels.softmax_band import softmax_band, softmax_band_gradient, softmax_band_score
from distbelief.kernels.squared import count_right, squared_error, squared_error_of_classes
from distbelief.kernels.threads import use_threads, used_threads
from distbelief.kernels.update import accrue, adagrad, add, compensate, momentum, sgd, weigh
from distbelief.kernels.vectors import combine, gram

__all__ = [
    "ACTIVATIONS",
    "BLOCKS_OF_ANY_SIZE",
    "CACHED",
    "PLANES",
    "POOLINGS",
    "accrue",
    "add",
    "adagrad",
    "all_finite",
    "combine",
    "compensate",
    "convolution_backward",
    "convolution_forward",
    "convolution_scratch",
    "copy_past",
    "count_right",
    "dense_accrue",
    "dense_accrues",
    "dense_backward",
    "dense_bfloat16_accrue",
    "dense_bfloat16_accrues",
    "dense_bfloat16_backward",
    "dense_bfloat16_forward",
    "dense_bfloat16_scratch",
    "dense_forward",
    "gather_columns",
    "gram",
    "kernels16",
    "l2_penalty",
    "largest",
    "local_backward",
    "local_backward_to_weights",
    "local_bfloat16_backward_to_inputs",
    "local_bfloat16_forward",
    "local_bfloat16_scratch",
    "local_forward",
    "local_scratch",
    "logistic_loss",
    "momentum",
    "narrow",
    "narrow_carrying",
    "normalise_backward",
    "normalise_forward",
    "pool_backward",
    "pool_forward",
    "product",
    "renew",
    "sgd",
    "softmax_band",
    "softmax_band_gradient",
    "softmax_band_score",
    "softmax_cross_entropy",
    "softmax_score",
    "squared_error",
    "squared_error_of_classes",
    "use_gemm16",
    "use_kernels16",
    "use_sgemm",
    "use_threads",
    "used_threads",
    "weigh",
    "widen",
]
