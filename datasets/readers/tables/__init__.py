"""Tables beside images: their settings, their cells as text, and columns that are joined to a set."""
