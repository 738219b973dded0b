"""Diffusion processes: schedules, DDPM denoising, DDIM inversion and decoding."""
