"""The Triton kernels: a stage of the forward or backward pass a file, but all of the `token=i` form in token.py.

Forward: squeeze (a, or u with relu; sums of w) -> pool -> context (g) -> expand (z).
Backward: reduce (ds summed, gradient of the squeeze) -> pool -> context (gradient of p) -> tap_grads (dW_ls at k > 1)
-> input_grads (dx, dy) -> weight_grads.
What stages share is in rows.py (where a program's rows are, loads of states), chunks.py (blocks of H), gate.py and
arithmetic.py.

Names: `*_ptr` points to a tensor; `*_offsets` are element offsets into one, int64 where nothing else is said;
`*_rows` offsets of a tile's rows, int32. `inside*` masks accesses; `real` marks real tokens, `seen` the real ones among
the neighbours that a tap reads, `output_t` and `output_real` in the backward the tokens whose squeeze read this one
through a tap. A block value is called as in the equations of `aif_reference`: x, y, w, a (u before its activation), u,
m, and the gradients dz, ds (before the sigmoid) and da. A `slot` numbers a tile of BLOCK_T consecutive rows of one
sequence, and is also the row of that tile's partial sums; BLOCK_B counts sequences.
`rows` in a shape is B T, or N of packed states. Operands of products over tokens are rounded to the dtype of the
states, or under autocast to the shorter one that autocast computes in; `squeezed` of all tokens has that dtype, too.
Parameters in capitals are compile-time constants, which `launch_plan` fills in by their names; all others are arguments
of the launch.

TARGET says what runs a kernel: "nvidia", where instructions of PTX may be written and products of float32 are three of
TF32; "amd"; or "interpreter", Triton's own, for which bfloat16 is rounded and widened by hand.

Every kernel's docstring says what it reads and writes, and how often all programs together touch each element.
"""
