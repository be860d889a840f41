"""The Triton kernels: one file a stage of the forward or backward pass, except the `token=i` form, all in token.py.

Forward: squeeze (a, or u with relu; sums of w) -> pool -> context (g) -> expand (z).
Backward: reduce (ds summed, gradient of the squeeze) -> pool -> context (gradient of p) -> tap_grads (dW_ls at k > 1)
-> input_grads (dx, dy) -> weight_grads.
Shared code is in rows.py (locating a program's rows, loads of states), chunks.py (blocks of H), gate.py and
arithmetic.py.

Names: `*_ptr` points to a tensor; `*_offsets` are element offsets into one, int64 unless stated otherwise; `*_rows` are
int32 offsets of a tile's rows. `inside*` masks accesses. `real` marks real tokens, and `seen` the real ones among the
neighbours that a tap reads; in the backward, `output_t` and `output_real` are the tokens whose squeeze read this one
through a tap. Block values have the names of `aif_reference`'s equations: x, y, w, a (u before its activation), u, m,
and the gradients dz, ds (before the sigmoid) and da. A `slot` is the number of a tile of BLOCK_T consecutive rows of
one sequence, and the row of that tile's partial sums. BLOCK_B counts sequences.
`rows` in a shape is B T, or N of packed states. Operands of products over tokens are rounded to the dtype of the
states, or under autocast to its shorter dtype; `squeezed` of all tokens has that dtype too.
Parameters in capitals are compile-time constants, which `launch_plan` fills in by name; all others are arguments of the
launch.

TARGET is the platform of a kernel: "nvidia", with inline PTX and float32 products as three of TF32; "amd"; or
"interpreter", Triton's own, for which bfloat16 is rounded and widened explicitly.

Every kernel's docstring lists its reads and writes, and how often all programs together access each element.
"""
