"""Images that a biased model gets wrong: hidden groups, looked for without attribute labels."""
