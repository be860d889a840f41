"""The DLFA models: an encoder, a fusion of its last layer with lower ones, a task head.

configuration -> encoder and its states (`encoder_states`) -> fusion -> heads; `pretrained` holds what all models share,
`modeling` has the classes and registers them.
"""
