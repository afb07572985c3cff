"""Bytes that may be hostile: what a loader would open, checked before anything is loaded. Knows no torch."""
