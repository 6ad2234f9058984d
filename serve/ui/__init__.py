"""The chat page, `python -m serve.ui`.

page lays it out, client asks the API over HTTP, session holds what a visitor has, cards and style.css are its looks.
"""
