"""Measurements, each a command `python -m benchmarks.NAME` with its options in `--help`.

Of speed and memory, on a GPU: the suites aif, launch, step, memory, padding, token and schedule. `suite` has their
common code, `all` runs all but schedule, `precompile` compiles what they run, `targets` and `report` read their
results. `ncu` and `sanitize` run NVIDIA's tools; `gpu_session` runs tests, these tools and `all` in two commands. Of
the kernels, without a GPU: `codegen`, `execution` (by `ptx_machine`), `host` (by `host_driver`), `traffic`. Of quality:
`evidence`, which writes RESULTS.md and docs/evidence. `workbench` times training and evaluation.
"""
