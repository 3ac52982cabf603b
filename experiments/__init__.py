"""A chapter a paper, a file a figure. `python -m experiments` runs them all, `python -m experiments razor/em` one."""

CHAPTERS = ("geometry", "retaining", "razor", "generalization", "regularizers", "practice")
