"""What a process has to watch: memory, interruption, one batch a GPU at a time."""
