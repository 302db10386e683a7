"""The study of where synthetic images pay, with training draws as the unit."""
