"""Models that are elsewhere: what their names mean, and how they come to this machine."""
