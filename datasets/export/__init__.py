"""A published run in the layouts that other tools read: image folders, Hugging Face's Parquet, FiftyOne, COCO.

Each export copies the published images byte for byte and says of each what the run's table says.
"""
