"""The commands of `dlfa`, one file each. They import heavy modules when called, so that help is fast."""
