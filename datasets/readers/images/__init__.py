"""Image files: opened in folders and archives, decoded, encoded, screened for damage, and known by their pixels."""
