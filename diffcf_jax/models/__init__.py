"""Networks as linen modules."""
