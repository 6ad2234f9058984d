"""Tables and figures from result files: `t2l report`.

merge.py     records of several files and seeds -> one entry a method, with 95 % intervals
sections/    one small function each: entries (or a checkpoint) -> a section, or None where there is nothing to show
document.py  sections -> Markdown, HTML, figures, CSV
"""
