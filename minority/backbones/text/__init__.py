"""Text-to-image pipelines as class-conditional backbones: labels are rows of a table of prompts."""
