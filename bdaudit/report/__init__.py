"""What comes out of a run: records, JSON, tables, pages. Knows no torch."""
