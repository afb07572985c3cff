"""Merging fine-tunes of one base: closed forms, and masks that keep a contributor's backdoor out."""
