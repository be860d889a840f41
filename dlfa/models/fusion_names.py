"""The names of the fusions, separate from their code, so that reports need no model."""

FUSIONS = ("last", "lower", "sum", "scalar_mix", "residual", "aif")
