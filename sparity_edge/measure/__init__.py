"""What speed is measured with: rounds, ceilings, the machine. Knows no model by name."""
