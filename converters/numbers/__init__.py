"""Numbers: floats to quantised integers, and both to packed bytes and back."""
