"""bdaudit: audit text-to-image diffusion checkpoints for backdoors, remove them, prove them gone."""

__version__ = "0.1.0"
