"""`unlearn --method cleanclip`: clean a text encoder by captioned pictures, no trigger known."""
