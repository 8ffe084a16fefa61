"""The packed folder: where each byte of a packed matrix stands, how it is read and written."""
