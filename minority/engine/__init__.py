"""How a network is run fast: CUDA graphs, static shapes, checkpointing."""
