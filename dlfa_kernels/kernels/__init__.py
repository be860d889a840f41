"""The Triton kernels, one stage of the forward or backward pass a file.

Forward: squeeze (u before its activation, sums of w) -> pool -> context (g) -> expand (z).
Backward: reduce (ds summed, gradient of the squeeze) -> pool -> context (gradient of p) -> inputs (dx, dy) -> weights.

Names: `*_ptr` points to a tensor, `*_offsets` are int64 element offsets into one, `*_inside` masks accesses; a block
value is called as in the equations of `aif_reference`: x, y, w, u, s, m, dz, ds. A `slot` numbers a tile of BLOCK_T
consecutive rows of one sequence; it is also the row of that tile's partial sums. Operands of products over tokens are
rounded to the dtype of `squeezed`, which is that of the states, or under autocast a shorter one than theirs.
"""
