"""Whether a candidate is kept: filters, and the choice under quotas."""
