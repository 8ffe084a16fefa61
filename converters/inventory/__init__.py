"""What is kept of models on this machine: fetched files and packs, listed and removed."""
