"""What the final encoder knows by heart: canaries that the site planted, and identifiers in its notes."""
