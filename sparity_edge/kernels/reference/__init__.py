"""The NumPy twin of every operation and of every packed format."""
