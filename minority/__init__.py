"""How images are made and evaluated: schedules, denoisers, guidance, samplers, training, scores, selection,
classifiers.

Knows torch and numeric libraries; nothing of Prefect and nothing of how files are laid out on disk.
"""
