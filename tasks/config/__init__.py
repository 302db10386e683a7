"""The config tree, its presets, and the places it names."""
