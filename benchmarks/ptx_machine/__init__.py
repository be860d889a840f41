"""Executes what Triton compiles, PTX for NVIDIA GPUs, on a machine without one: a stand-in for the GPU in tests.

Triton's interpreter runs the kernels' Python; this runs the code that the compiler made of it, matrix instructions,
asynchronous copies and barriers included, and refuses what a GPU might let pass:

* an access outside the tensors of a launch or outside its shared memory, and a misaligned one;
* a matrix or warp instruction that not all threads reach, and a barrier that some never reach;
* a result that is used before it is waited for: what an asynchronous copy or product will write holds NaN until then;
* a missing barrier: warps, or warpgroups where they multiply, run one after the other from barrier to barrier, in
  alternating order, and shared memory and registers hold NaN until they are written.

It takes the instructions that these kernels compile to on sm_80 and sm_90, and raises `Fault` at any other.

    formats     bfloat16, float16, TF32 and pairs of them in the bits of registers
    program     PTX text -> instructions
    operands    registers, constants and addresses of an instruction
    arithmetic, memory, matrices    what the instructions do
    machine     threads, programs, grids
    launching   a `dlfa_kernels.launches.Launch` compiled and run
"""
