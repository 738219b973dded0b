"""Which directions of z_sem move a regressor's prediction, and whether they are true features."""
