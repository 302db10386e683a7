"""Any fsspec URL as a store, and the names of files in it."""
