"""Public material from the package registries."""
