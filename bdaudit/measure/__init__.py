"""What more than one verb needs: insertion, signals, the null and its p-values, envelopes."""
