"""The arithmetic of `sparseq_kernels.numerics`, for use inside kernels. It must round as that does, bit for bit.

Scales come as fp32; divisions are `div_rn`, since Triton's `/` is approximate on a GPU. Rounding to even is the
addition of 1.5 * 2^23: the sum's low bits are the integer. That needs |v| < 2^22, and v to be rounded before (see
`scaled`).
"""

import math

import triton
import triton.language as tl

from ... import numerics as rule

MAGIC = tl.constexpr(1.5 * 2.0**23)
ZERO_BELOW = tl.constexpr(rule.ZERO_BELOW)
CLIP_TOLERANCE = tl.constexpr(rule.CLIP_TOLERANCE)
MAGNITUDE = tl.constexpr(0x7FFFFFFF)
INF = tl.constexpr(math.inf)
SQRT_8_OVER_PI = tl.constexpr(math.sqrt(8 / math.pi))


@triton.jit
def magnitude_bits(x):
    """|x| as the bits of its fp32, an int32: these order as |x| does, with Inf and then NaN above all numbers, so that
    a maximum of them loses no NaN."""
    return x.to(tl.float32).to(tl.int32, bitcast=True) & MAGNITUDE


@triton.jit
def scale_from_bits(largest, QMAX: tl.constexpr):
    """The scale max|x| / qmax, from max|x| as `magnitude_bits`; 1 for zeros, NaN for Inf and NaN."""
    value = largest.to(tl.float32, bitcast=True)
    scale = tl.where(value < ZERO_BELOW, 1.0, tl.div_rn(value, QMAX * 1.0))
    # Inf - Inf and NaN - NaN: Triton refuses a NaN among a kernel's constants.
    return tl.where(value < INF, scale, value - value)


@triton.jit
def inverse(scale):
    """1 / scale, rounded correctly."""
    return tl.div_rn(1.0, scale)


@triton.jit
def scaled(x, inverse_scale):
    """x / scale in fp32, rounded once. As fma(x, 1 / scale, 0): Triton 3.6 for sm_100 fuses a plain product with the
    addition that rounds it, even when told not to, and then what is a tie is not seen as one."""
    return tl.fma(x.to(tl.float32), inverse_scale, 0.0)


@triton.jit
def clip(v, QMAX: tl.constexpr):
    """v within [-qmax, qmax], and 0 for NaN."""
    return tl.where(v == v, tl.minimum(tl.maximum(v, -QMAX * 1.0), QMAX * 1.0), 0.0)


@triton.jit
def quantized_bits(x, inverse_scale, QMAX: tl.constexpr, CLIP: tl.constexpr):
    """round(x / scale) in the low 16 bits of an int32. CLIP False is for scales from the maximum, beyond which nothing
    lies; where such a scale is NaN the integers are arbitrary, and whatever they are multiplied into is NaN."""
    v = scaled(x, inverse_scale)
    if CLIP:
        v = clip(v, QMAX)
    return (v + MAGIC).to(tl.int32, bitcast=True)


@triton.jit
def quantized_float(x, inverse_scale, QMAX: tl.constexpr, CLIP: tl.constexpr):
    """round(x / scale) as fp32; CLIP as in `quantized_bits`, except that NaN stays NaN."""
    v = scaled(x, inverse_scale)
    if CLIP:
        v = tl.where(v == v, tl.minimum(tl.maximum(v, -QMAX * 1.0), QMAX * 1.0), v)
    return (v + MAGIC) - MAGIC


@triton.jit
def clip_and_slope(x, inverse_scale, QMAX: tl.constexpr):
    """Whether x is inside the clip range, and d fake_quant / d scale by LSQ: round(v) - v inside, +-qmax outside, for
    v = x / scale (Esser et al. 2020, equation 3)."""
    v = scaled(x, inverse_scale)
    inside = tl.abs(v) <= QMAX * CLIP_TOLERANCE
    clipped = tl.where(v == v, tl.minimum(tl.maximum(v, -QMAX * 1.0), QMAX * 1.0), v)
    rounded = (clipped + MAGIC) - MAGIC
    return inside, tl.where(inside, rounded - v, clipped)


@triton.jit
def gelu(y):
    """y Phi(y), to within 1e-6 max(1, |y|), without a division or an exponential, which take an epilogue longer.

    Phi(y) - 1/2 is y times a function of y^2, here a polynomial of t = 2 y^2 / 25 - 1, which is in [-1, 1] for
    |y| <= 5. Of all of its degree it has the least largest error of y Phi(y) there (found in fp64 by least squares,
    each time with more weight where the error was large). Below -5 the result is that of -5, which is as good as 0.
    """
    above = tl.maximum(y, -5.0)
    inside = tl.minimum(above, 5.0)
    t = tl.fma(inside * inside, 0.08, -1.0)
    q = tl.fma(t, 0.00049297011, -0.00151415449)
    q = tl.fma(t, q, 0.00200185878)
    q = tl.fma(t, q, -0.00291567133)
    q = tl.fma(t, q, 0.00616543181)
    q = tl.fma(t, q, -0.0109732328)
    q = tl.fma(t, q, 0.0164976567)
    q = tl.fma(t, q, -0.0233367309)
    q = tl.fma(t, q, 0.0314262286)
    q = tl.fma(t, q, -0.0404329486)
    q = tl.fma(t, q, 0.0515214205)
    q = tl.fma(t, q, -0.0702966526)
    q = tl.fma(t, q, 0.141363785)
    # -Inf gives NaN, as in torch, and NaN stays NaN.
    return tl.where(y > -INF, above * tl.fma(inside, q, 0.5), y - y)


@triton.jit
def activate(y, ACTIVATION: tl.constexpr):
    """ "none", "relu", "gelu" (by erf) or "gelu_tanh", by (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u))."""
    if ACTIVATION == "relu":
        # NaN stays NaN, as in torch.
        y = tl.where(y < 0, 0.0, y)
    elif ACTIVATION == "gelu":
        y = gelu(y)
    elif ACTIVATION == "gelu_tanh":
        # A constexpr must stand to the right of a tensor: the interpreter loses a product that begins with one.
        y = y / (1.0 + tl.exp((y + 0.044715 * y * y * y) * -SQRT_8_OVER_PI))
    return y
