"""What a run and a registry tell of themselves, and how it is served."""
