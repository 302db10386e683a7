"""WebDataset tars: walked by their headers, found by a pattern, surveyed for what they hold."""
