"""Sweeps: one run for every combination of fusion mode, lower layer and seed, each saved as soon as it is complete.

DIR/cells/<mode>[-layer<N>]-seed<S>/ are ordinary run directories; failed runs have the reason in error.txt.
DIR/sweep.json contains the sweep's configuration, hashes of its data and encoder, the state of every cell, and the
summary over seeds.
"""
