"""A copy of the denoiser in memory that has unlearned what captions say, and what is left of each text's effect in it."""
