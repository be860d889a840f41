"""The names of the fusions, apart from the code that makes them: reports need no model."""

FUSIONS = ("last", "lower", "sum", "scalar_mix", "residual", "aif")
