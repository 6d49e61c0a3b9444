"""Inside the hospital: everything that touches notes."""
