"""Matrix products, sums, rounding, activations and their derivatives."""

import triton
import triton.language as tl


@triton.jit
def tf32_part(value):
    """Return a float32 block with the mantissa's lower 13 bits cleared, as a tensor core reads it for TF32."""
    return (value.to(tl.uint32, bitcast=True) & 0xFFFFE000).to(tl.float32, bitcast=True)


@triton.jit
def dot(a, b, accumulator, TARGET: tl.constexpr):
    """Return accumulator + a b in float32.

    On NVIDIA float32 operands are split into their TF32 part and the rest, and the product of the two rests is omitted,
    as in CUTLASS's fast accurate GEMM. All products use one accumulator, the small ones first: Triton's own option
    "tf32x3" moves a second one between registers in every product. An infinite operand gives NaN.
    """
    if TARGET == "interpreter":  # the interpreter treats the bits of bfloat16 as integers
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    if a.dtype == tl.float32 and TARGET == "nvidia":
        a_part = tf32_part(a)
        b_part = tf32_part(b)
        accumulator = tl.dot(a - a_part, b_part, accumulator, input_precision="tf32")
        accumulator = tl.dot(a_part, b - b_part, accumulator, input_precision="tf32")
        return tl.dot(a_part, b_part, accumulator, input_precision="tf32")
    return tl.dot(a, b, accumulator, input_precision="ieee", out_dtype=tl.float32)


@triton.jit
def round_to(value, dtype: tl.constexpr, TARGET: tl.constexpr):
    """Return a block in `dtype`, rounded to nearest even."""
    if TARGET == "interpreter":
        if (value.dtype == tl.float32) & (dtype == tl.bfloat16):  # the interpreter only truncates
            bits = value.to(tl.uint32, bitcast=True)
            value = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).to(tl.float32, bitcast=True)
    return value.to(dtype)


@triton.jit
def weight_dot(weight, rows, accumulator, PARTS: tl.constexpr, TARGET: tl.constexpr):
    """Return accumulator + weight rows. PARTS = 0: in float32; else `rows` is bfloat16.

    The weight is then a sum of PARTS bfloat16 numbers: one represents a bfloat16 weight exactly, two a float16 one.
    """
    if PARTS == 0:
        return dot(weight.to(tl.float32), rows, accumulator, TARGET)
    else:
        upper = round_to(weight, tl.bfloat16, TARGET)
        if PARTS == 2:
            lower = round_to(weight.to(tl.float32) - upper.to(tl.float32), tl.bfloat16, TARGET)
            accumulator = dot(lower, rows, accumulator, TARGET)
        return dot(upper, rows, accumulator, TARGET)


@triton.jit
def row_dot(weight, rows, accumulator, PARTS: tl.constexpr, TARGET: tl.constexpr):
    """Return accumulator + weight rows, where `rows` is float32; for PARTS > 0 as a sum of two bfloat16 numbers.

    These keep 16 bits, more than TF32, and the range of float32, which float16 would not.
    """
    if PARTS == 0:
        return weight_dot(weight, rows, accumulator, PARTS, TARGET)
    else:
        upper = round_to(rows, tl.bfloat16, TARGET)
        lower = round_to(rows - upper.to(tl.float32), tl.bfloat16, TARGET)
        accumulator = weight_dot(weight, lower, accumulator, PARTS, TARGET)
        return weight_dot(weight, upper, accumulator, PARTS, TARGET)


@triton.jit
def store_column_sums(ptr, values, columns, inside, TARGET: tl.constexpr):
    """Store the sums over the rows of a block, in float32, to ptr[columns].

    16-bit values are summed by a product with 16 rows of ones, each of which gives the sums: that takes a tenth of the
    instructions of shuffles.
    """
    if values.dtype.primitive_bitwidth == 16:
        # Triton 3.6's interpreter cannot create a bfloat16 constant, but can round one to bfloat16.
        ones = tl.full((16, values.shape[0]), 1.0, dtype=tl.float32).to(values.dtype)
        sums = dot(ones, values, tl.zeros((16, values.shape[1]), dtype=tl.float32), TARGET)
        row = tl.arange(0, 16)[:, None]
        tl.store(ptr + row * 0 + columns[None, :], sums, mask=(row == 0) & inside[None, :])
    else:
        tl.store(ptr + columns, tl.sum(values, axis=0), mask=inside)


@triton.jit
def add_part(pointers, part, inside, ADD: tl.constexpr):
    """Store the first group's part of a sum; with ADD, add a later group's part to the stored value."""
    if ADD:
        part += tl.load(pointers, mask=inside, other=0.0)
    tl.store(pointers, part, mask=inside)


@triton.jit
def activate(a, ACTIVATION: tl.constexpr):
    """Return phi(a) of a float32 block; NaN stays NaN."""
    if ACTIVATION == "relu":
        return tl.where(a < 0, 0.0, a)
    elif ACTIVATION == "gelu":
        return 0.5 * a * (1 + tl.math.erf(a * 0.7071067811865476))
    else:
        tl.static_assert(ACTIVATION == "silu")
        return a * tl.sigmoid(a)


@triton.jit
def activation_slope(a, ACTIVATION: tl.constexpr):
    """Return phi'(a) of a float32 block; relu's is 0 at 0, as in torch."""
    if ACTIVATION == "relu":
        return tl.where(a > 0, 1.0, 0.0)
    elif ACTIVATION == "gelu":
        return 0.5 * (1 + tl.math.erf(a * 0.7071067811865476)) + a * tl.exp(-0.5 * a * a) * 0.3989422804014327
    else:
        tl.static_assert(ACTIVATION == "silu")
        sigmoid = tl.sigmoid(a)
        return sigmoid * (1 + a * (1 - sigmoid))
