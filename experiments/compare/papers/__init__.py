"""Tables that papers printed, as data, with the conditions they state."""
