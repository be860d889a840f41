"""Execute PTX that Triton compiles for NVIDIA GPUs on a machine without one: a simulator for tests.

Triton's interpreter runs the kernels' Python; this runs the compiled code, including matrix instructions, asynchronous
copies and barriers, and detects errors that a GPU might not report:

* an access outside the tensors of a launch or outside its shared memory, and a misaligned one;
* a matrix or warp instruction that not all threads reach, and a barrier that some never reach;
* a result that is used before it is waited for: the target of an asynchronous copy or product holds NaN until then;
* a missing barrier: warps, or warpgroups if there is wgmma, run one after another from barrier to barrier, in
  alternating order, and shared memory and registers hold NaN until they are written.

It supports the instructions that these kernels compile to on sm_80 and sm_90, and raises `Fault` for any other.

    formats     bfloat16, float16, TF32 and pairs of them in the bits of registers
    program     PTX text -> instructions
    operands    registers, constants and addresses of an instruction
    arithmetic, memory, matrices    effects of the instructions
    machine     threads, programs, grids
    launching   compiles and runs a `dlfa_kernels.launches.Launch`
"""
