"""Commands that print tables: see README.md in this folder."""
