"""Parameters, operations, memory and time of a codec."""
