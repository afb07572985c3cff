"""A loaded model, whatever its family: what a text encodes to, what it predicts, where it looks, how it is drawn and saved."""
