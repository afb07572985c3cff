"""How a model's bytes lie, one file a format; a directory as diffusers writes it for now."""
