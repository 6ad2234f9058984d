"""The evidence as a list of commands, and what runs them: see docs/reproduce.md. Imports neither torch nor ray."""
