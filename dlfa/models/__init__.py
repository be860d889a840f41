"""The DLFA models: an encoder, a fusion of its last layer with lower ones, and a task head.

configuration -> encoder and its states (`encoder_states`) -> fusion -> heads. `pretrained` has the base class of all
models; `modeling` registers them.
"""
