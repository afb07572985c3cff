"""What more than one verb needs: insertion, probing, signals and effects, controls, estimates, envelopes."""
