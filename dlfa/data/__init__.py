"""Reading of task data: files in XTREME's layout, data sets of the Hub, words cut into sub-words."""
