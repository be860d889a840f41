"""The commands of `dlfa`, a file each. Heavy imports wait inside them, so that help comes at once."""
