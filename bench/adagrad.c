/* The loop of an Adagrad update as anybody writes it: what bench/kernels.py compares ours with. */

#include <math.h>
#include <stddef.h>

void adagrad(float *restrict parameters, const float *restrict gradient, float *restrict squares, float rate,
             size_t size) {
    for (size_t i = 0; i < size; i++) {
        squares[i] += gradient[i] * gradient[i];
        parameters[i] -= rate * gradient[i] / sqrtf(squares[i]);
    }
}
