"""AIF, attention information fusion of two layers of an encoder, as fused Triton kernels behind one PyTorch module."""

from . import layers as layers
from .functional import fused_aif
from .module import FusedAIF
from .reference import aif_reference

__version__ = "0.1.0"

__all__ = ["FusedAIF", "aif_reference", "fused_aif"]
