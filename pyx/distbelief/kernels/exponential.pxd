# cython: cdivision=True
# exp, the logistic function and tanh. In float32 without calls and branches, so that loops over them are vectorised;
# float64, which only checks gradients, has libm's. Infinities, NaNs and denormal results are as they should be.

from libc.math cimport exp, fabs, fabsf, tanh

from distbelief.kernels.real cimport real


ctypedef union Word:
    int bits
    float value


cdef inline float exp32(float x) noexcept nogil:
    """e^x within 1 ulp: 2^k e^r with |r| <= ln(2)/2, e^r by the polynomial of Cephes' expf (Moshier 1992)."""
    cdef Word k, low, high
    cdef float r, p
    cdef float magic = 12582912.0  # 1.5 * 2^23: adding it rounds to an integer, in the lowest bits
    # Beyond these e^x is infinite or 0 all the same. This way round a NaN stays a NaN.
    x = <float>89.0 if x > <float>89.0 else x
    x = <float>-104.0 if x < <float>-104.0 else x
    k.value = x * <float>1.44269504088896341 + magic
    r = k.value - magic
    # ln(2) in two parts, the first of few bits: its product with k is exact.
    r = (x - r * <float>0.693359375) + r * <float>2.12194440e-4
    p = <float>1.9875691500e-4
    p = p * r + <float>1.3981999507e-3
    p = p * r + <float>8.3334519073e-3
    p = p * r + <float>4.1665795894e-2
    p = p * r + <float>1.6666665459e-1
    p = p * r + <float>5.0000001201e-1
    p = p * r * r + r + <float>1.0
    # 2^k in two factors, each a normal number where 2^k may be none.
    k.bits = k.bits - 0x4B400000  # the bits of `magic`
    low.bits = k.bits >> 1
    high.bits = (k.bits - low.bits + 127) << 23
    low.bits = (low.bits + 127) << 23
    return p * low.value * high.value


cdef inline real exponential(real x) noexcept nogil:
    """e^x."""
    if real is float:
        return exp32(x)
    else:
        return exp(x)


cdef inline real logistic(real z) noexcept nogil:
    """1 / (1 + e^-z), from e^-|z|, which does not overflow."""
    cdef real e
    if real is float:
        e = exp32(-fabsf(z))
    else:
        e = exp(-fabs(z))
    return (e if z < 0 else <real>1) / (<real>1 + e)


cdef inline real hyperbolic_tangent(real z) noexcept nogil:
    """tanh z: near 0 by the polynomial of Cephes' tanhf, elsewhere sign(z) (1 - 2 / (e^2|z| + 1))."""
    cdef float a, s, near, far
    if real is float:
        a = fabsf(z)
        s = z * z
        near = <float>-5.70498872745e-3
        near = near * s + <float>2.06390887954e-2
        near = near * s - <float>5.37397155531e-2
        near = near * s + <float>1.33314422036e-1
        near = near * s - <float>3.33332819422e-1
        near = near * s * z + z
        far = <float>1.0 - <float>2.0 / (exp32(a + a) + <float>1.0)
        far = -far if z < 0 else far
        return near if a < <float>0.625 else far
    else:
        return tanh(z)
