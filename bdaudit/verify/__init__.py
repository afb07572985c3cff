"""`verify`: attack success, quality, and a verdict against bounds."""
