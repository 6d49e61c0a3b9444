"""A hospital's notes: read, checked, split, compared, and tokenised once into a memory-mapped cache."""
