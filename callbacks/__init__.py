"""What is watched while a codec trains; nothing here changes the maths."""
