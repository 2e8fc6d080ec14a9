# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Local contrast normalisation: subtractive, then divisive, over a weighted window across all maps.

With B the weighted mean over a window, and m the mean over the C maps of a pixel (Jarrett et al. 2009; Le et al. 2012):

    v = x - B m(x)      s = sqrt(B m(v^2))      y = v / max(floor, s)

B is separable: a row of weights for every row and every column of the image, summing to one, 0 for places outside of
it, so borders need no case of their own. Filtering goes over planes [H, W, N], C times smaller than x.

Arrays are C-contiguous, the batch last: x [R, W, C, N] begins at row `first` of the image and must hold the rows
start - 2r .. stop + 2r - 1 (as far as the image has them), with r = kh // 2, for the rows start .. stop - 1 of y
[stop - start, W, C, N]. For a whole image first = start = 0. Threads share rows.
"""

from cython.parallel cimport prange
from libc.math cimport sqrt, sqrtf

from distbelief.kernels.real cimport real
from distbelief.kernels.threads cimport bands_of

# Planes [R, W, N] of scratch: mean of the maps, its blur, variance and then divisor, a half-blurred one; two backwards.
PLANES = 6


cdef inline real _root(real x) noexcept nogil:
    if real is float:
        return sqrtf(x)
    else:
        return sqrt(x)


cdef void _moments(const real *x, Py_ssize_t width, Py_ssize_t maps, Py_ssize_t n, real *mean,
                   real *variance) noexcept nogil:
    """Mean and variance over the maps of every pixel of a row; two passes over what is in the first-level cache."""
    cdef Py_ssize_t w, c, j
    cdef real share = <real>1 / <real>maps
    for w in range(width):
        for j in range(n):
            mean[j] = 0
            variance[j] = 0
        for c in range(maps):
            for j in range(n):
                mean[j] += x[c * n + j]
        for j in range(n):
            mean[j] *= share
        for c in range(maps):
            for j in range(n):
                variance[j] += (x[c * n + j] - mean[j]) * (x[c * n + j] - mean[j])
        for j in range(n):
            variance[j] *= share
        x += maps * n
        mean += n
        variance += n


cdef void _add_scaled(const real *x, real weight, Py_ssize_t size, real *out) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        out[i] += weight * x[i]


cdef void _clear(real *out, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        out[i] = 0


cdef void _blur_down(const real *plane, const real *weights, Py_ssize_t taps, Py_ssize_t row, Py_ssize_t low,
                     Py_ssize_t high, Py_ssize_t line, real *out) noexcept nogil:
    """out = the weighted sum of the rows around `row`, those in low..high-1 of the image; a row has `line` numbers.

    `plane` is at row 0 of the image, which need not be in memory.
    """
    cdef Py_ssize_t k, r
    _clear(out, line)
    for k in range(taps):
        r = row + k - taps // 2
        if low <= r < high:
            _add_scaled(plane + r * line, weights[row * taps + k], line, out)


cdef void _blur_across(const real *row, const real *weights, Py_ssize_t taps, Py_ssize_t width, Py_ssize_t n,
                       real *out) noexcept nogil:
    """out[w] = the weighted sum of the pixels around w."""
    cdef Py_ssize_t k, w, low, high
    for w in range(width):
        _clear(out + w * n, n)
        low, high = max(0, w - taps // 2), min(width, w + taps // 2 + 1)
        for k in range(low, high):
            _add_scaled(row + k * n, weights[w * taps + k - w + taps // 2], n, out + w * n)


cdef void _spread_down(const real *plane, const real *weights, Py_ssize_t taps, Py_ssize_t row, Py_ssize_t low,
                       Py_ssize_t high, Py_ssize_t line, real *out) noexcept nogil:
    """The transpose of `_blur_down`: what the rows in low..high-1 give to `row`."""
    cdef Py_ssize_t k, r
    _clear(out, line)
    for k in range(taps):
        r = row + k - taps // 2
        if low <= r < high:
            _add_scaled(plane + r * line, weights[r * taps + taps - 1 - k], line, out)


cdef void _spread_across(const real *row, const real *weights, Py_ssize_t taps, Py_ssize_t width, Py_ssize_t n,
                         real *out) noexcept nogil:
    """The transpose of `_blur_across`."""
    cdef Py_ssize_t k, w, low, high
    for w in range(width):
        _clear(out + w * n, n)
        low, high = max(0, w - taps // 2), min(width, w + taps // 2 + 1)
        for k in range(low, high):
            _add_scaled(row + k * n, weights[k * taps + w - k + taps // 2], n, out + w * n)


cdef void _add_square(const real *a, const real *b, Py_ssize_t size, real *out) noexcept nogil:
    """out += (a - b)^2."""
    cdef Py_ssize_t i
    for i in range(size):
        out[i] += (a[i] - b[i]) * (a[i] - b[i])


cdef void _divisor(real floor, Py_ssize_t size, real *d) noexcept nogil:
    """d = max(floor, sqrt(d)); a NaN stays one."""
    cdef Py_ssize_t i
    for i in range(size):
        d[i] = _root(d[i])
    for i in range(size):
        d[i] = floor if d[i] < floor else d[i]


cdef void _normalise(const real *x, const real *mean, const real *d, Py_ssize_t width, Py_ssize_t maps, Py_ssize_t n,
                     real *y) noexcept nogil:
    """y = (x - mean) / d over a row."""
    cdef Py_ssize_t w, c, j
    for w in range(width):
        for c in range(maps):
            for j in range(n):
                y[c * n + j] = (x[c * n + j] - mean[j]) / d[j]
        x += maps * n
        y += maps * n
        mean += n
        d += n


cdef int _check(const Py_ssize_t *x, Py_ssize_t first, const Py_ssize_t *y, Py_ssize_t start, Py_ssize_t height,
                Py_ssize_t kh, const Py_ssize_t *columns, Py_ssize_t scratch) except -1:
    cdef Py_ssize_t halo = 2 * (kh // 2), stop = start + y[0], i
    assert kh % 2 == 1 and columns[1] % 2 == 1 and columns[0] == x[1]
    assert 0 <= first <= max(0, start - halo) and stop <= height and min(height, stop + halo) <= first + x[0] <= height
    for i in range(1, 4):
        assert x[i] == y[i]
    assert scratch >= PLANES * x[0] * x[1] * x[3]
    return 0


def normalise_forward(const real[:, :, :, ::1] x, Py_ssize_t first, const real[:, ::1] rows_hk,
                      const real[:, ::1] columns_wk, double floor, Py_ssize_t start, real[:, :, :, ::1] y,
                      real[::1] scratch):
    """y = (x - B m) / max(floor, sqrt(B m((x - B m)^2))); the backward pass needs what it leaves in `scratch`.

    rows_hk [image's height, kh] and columns_wk [W, kw]: weights of the window around each row and column, kh and kw
    odd. `scratch`: PLANES R W N elements. m(v^2) is computed as the maps' variance + (m - B m)^2: one pass over x
    for all statistics, and nothing cancels.
    """
    cdef Py_ssize_t width = x.shape[1], maps = x.shape[2], n = x.shape[3], height = rows_hk.shape[0]
    cdef Py_ssize_t kh = rows_hk.shape[1], kw = columns_wk.shape[1], line = width * n, plane = x.shape[0] * line
    cdef Py_ssize_t stop = start + y.shape[0], last = first + x.shape[0], r
    # Rows of which the blurred mean is needed: those in the windows of start..stop-1.
    cdef Py_ssize_t low = max(0, start - kh // 2), high = min(height, stop + kh // 2)
    cdef bint threaded = bands_of(10.0 * maps * plane) > 1
    cdef real *m
    cdef real *mean
    cdef real *d
    cdef real *t
    _check(x.shape, first, y.shape, start, height, kh, columns_wk.shape, scratch.shape[0])
    if maps * line == 0 or start == stop:
        return
    # Planes are addressed by the row of the image: their row 0 may lie before the scratch.
    m = &scratch[0] - first * line
    mean, d, t = m + plane, m + 2 * plane, m + 3 * plane
    for r in prange(first, last, schedule="static", nogil=True, use_threads_if=threaded):
        _moments[real](&x[r - first, 0, 0, 0], width, maps, n, m + r * line, d + r * line)
    for r in prange(low, high, schedule="static", nogil=True, use_threads_if=threaded):
        _blur_down[real](m, &rows_hk[0, 0], kh, r, first, last, line, t + r * line)
        _blur_across[real](t + r * line, &columns_wk[0, 0], kw, width, n, mean + r * line)
        _add_square[real](m + r * line, mean + r * line, line, d + r * line)
    for r in prange(start, stop, schedule="static", nogil=True, use_threads_if=threaded):
        _blur_down[real](d, &rows_hk[0, 0], kh, r, low, high, line, t + r * line)
    for r in prange(start, stop, schedule="static", nogil=True, use_threads_if=threaded):
        _blur_across[real](t + r * line, &columns_wk[0, 0], kw, width, n, d + r * line)
        _divisor[real](<real>floor, line, d + r * line)
        _normalise[real](&x[r - first, 0, 0, 0], mean + r * line, d + r * line, width, maps, n, &y[r - start, 0, 0, 0])


cdef void _errors(const real *y, const real *dy, const real *d, real floor, Py_ssize_t width, Py_ssize_t maps,
                  Py_ssize_t n, real *e, real *g) noexcept nogil:
    """Of a row: e = the gradient by s^2, -sum_c(dy y) / (2 d^2), 0 where the floor holds; g = sum_c(dy) / d."""
    cdef Py_ssize_t w, c, j
    for w in range(width):
        for j in range(n):
            e[j] = 0
            g[j] = 0
        for c in range(maps):
            for j in range(n):
                e[j] += dy[c * n + j] * y[c * n + j]
                g[j] += dy[c * n + j]
        for j in range(n):
            e[j] = <real>0 if d[j] <= floor else e[j] / (-2 * d[j] * d[j])
            g[j] = g[j] / d[j]
        y += maps * n
        dy += maps * n
        d += n
        e += n
        g += n


cdef void _mean_error(const real *m, const real *mean, const real *f, Py_ssize_t size, real *g) noexcept nogil:
    """g = -(g + 2 f (m - mean)): the gradient by B m."""
    cdef Py_ssize_t i
    for i in range(size):
        g[i] = -(g[i] + 2 * f[i] * (m[i] - mean[i]))


cdef void _error_below(const real *x, const real *mean, const real *f, const real *g, Py_ssize_t width,
                       Py_ssize_t maps, Py_ssize_t n, bint contrast, real *dx) noexcept nogil:
    """dx = (g + 2 f (x - mean)) / C over a row; without the second term if it has no `contrast`."""
    cdef Py_ssize_t w, c, j
    cdef real share = <real>1 / <real>maps
    for w in range(width):
        for c in range(maps):
            if contrast:
                for j in range(n):
                    dx[c * n + j] = share * (g[j] + 2 * f[j] * (x[c * n + j] - mean[j]))
            else:
                for j in range(n):
                    dx[c * n + j] = share * g[j]
        x += maps * n
        dx += maps * n
        mean += n
        f += n
        g += n


cdef void _add_quotient(const real *dy, const real *d, Py_ssize_t width, Py_ssize_t maps, Py_ssize_t n,
                        real *dx) noexcept nogil:
    """dx += dy / d over a row."""
    cdef Py_ssize_t w, c, j
    for w in range(width):
        for c in range(maps):
            for j in range(n):
                dx[c * n + j] += dy[c * n + j] / d[j]
        dy += maps * n
        dx += maps * n
        d += n


def normalise_backward(const real[:, :, :, ::1] x, Py_ssize_t first, const real[:, ::1] rows_hk,
                       const real[:, ::1] columns_wk, double floor, Py_ssize_t start, const real[:, :, :, ::1] y,
                       const real[:, :, :, ::1] dy, real[:, :, :, ::1] dx, real[::1] scratch):
    """Overwrites dx [R, W, C, N] with the gradient by x, unless it has no rows; `scratch` is what forward left.

    With e the gradient by s^2 and B' the transpose of B: the gradient by v is dv = dy / d + 2 v (B' e) / C, and
    dx = dv - B' sum_c(dv) / C. Where s is not above the floor, e = 0.
    """
    cdef Py_ssize_t width = x.shape[1], maps = x.shape[2], n = x.shape[3], height = rows_hk.shape[0]
    cdef Py_ssize_t kh = rows_hk.shape[1], kw = columns_wk.shape[1], line = width * n, plane = x.shape[0] * line
    cdef Py_ssize_t stop = start + y.shape[0], last = first + x.shape[0], r, i
    cdef Py_ssize_t low = max(0, start - kh // 2), high = min(height, stop + kh // 2)
    cdef bint threaded = bands_of(10.0 * maps * plane) > 1
    cdef real *m
    cdef real *mean
    cdef real *d
    cdef real *t
    cdef real *e
    cdef real *g
    _check(x.shape, first, y.shape, start, height, kh, columns_wk.shape, scratch.shape[0])
    for i in range(4):
        assert dy.shape[i] == y.shape[i] and (dx.shape[0] == 0 or dx.shape[i] == x.shape[i])
    if dx.shape[0] == 0 or maps * line == 0:
        return
    if start == stop:
        dx[:, :, :, :] = 0
        return
    m = &scratch[0] - first * line
    mean, d, t, e, g = m + plane, m + 2 * plane, m + 3 * plane, m + 4 * plane, m + 5 * plane
    for r in prange(start, stop, schedule="static", nogil=True, use_threads_if=threaded):
        _errors[real](&y[r - start, 0, 0, 0], &dy[r - start, 0, 0, 0], d + r * line, <real>floor, width, maps, n,
                      e + r * line, g + r * line)
    for r in prange(low, high, schedule="static", nogil=True, use_threads_if=threaded):
        _spread_down[real](e, &rows_hk[0, 0], kh, r, start, stop, line, t + r * line)
    for r in prange(low, high, schedule="static", nogil=True, use_threads_if=threaded):
        _spread_across[real](t + r * line, &columns_wk[0, 0], kw, width, n, e + r * line)
        if r < start or r >= stop:
            _clear[real](g + r * line, line)
        _mean_error[real](m + r * line, mean + r * line, e + r * line, line, g + r * line)
    for r in prange(first, last, schedule="static", nogil=True, use_threads_if=threaded):
        _spread_down[real](g, &rows_hk[0, 0], kh, r, low, high, line, t + r * line)
    for r in prange(first, last, schedule="static", nogil=True, use_threads_if=threaded):
        _spread_across[real](t + r * line, &columns_wk[0, 0], kw, width, n, g + r * line)
        _error_below[real](&x[r - first, 0, 0, 0], mean + r * line, e + r * line, g + r * line, width, maps, n,
                           low <= r < high, &dx[r - first, 0, 0, 0])
        if start <= r < stop:
            _add_quotient[real](&dy[r - start, 0, 0, 0], d + r * line, width, maps, n, &dx[r - first, 0, 0, 0])
