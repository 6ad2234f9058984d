"""One file a section; each gives None where the results have nothing for it."""
