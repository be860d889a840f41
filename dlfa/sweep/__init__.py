"""A sweep: one run for every combination of fusion mode, lower layer and seed, each kept as soon as it is there.

DIR/cells/<mode>[-layer<N>]-seed<S>/ are ordinary run directories, a failed one with the reason in error.txt;
DIR/sweep.json holds the sweep's configuration, hashes of its data and encoder, the state of every cell, and the summary
over seeds.
"""
