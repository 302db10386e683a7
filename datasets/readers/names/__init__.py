"""Names of classes, files and columns: which of them mean the same, and their order."""
