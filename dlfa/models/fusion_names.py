"""The names of the fusions and of their options, separate from their code, so that reports need no model."""

FUSIONS = ("last", "lower", "sum", "scalar_mix", "residual", "aif")
# They need no lower layer: "last" reads none, "scalar_mix" reads all if none is named.
WITHOUT_LAYER = ("last", "scalar_mix")
OF_ONE_LAYER = ("lower",)  # they do not take several
# The fusions that read an option of DLFAConfig; options of the head, for example, are not listed.
READERS = {
    "fuse": ("aif",),
    "gate_bias": ("aif",),
    "kernel_size": ("aif", "residual"),
    "reduction": ("aif", "residual"),
    "squeeze_dim": ("aif", "residual"),
    "activation": ("aif", "residual"),
    "layer_dropout": ("scalar_mix",),
    "scalar_mix_layer_norm": ("scalar_mix",),
}
