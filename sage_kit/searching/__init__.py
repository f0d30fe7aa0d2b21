"""A search for good settings: Optuna's trials on dev, in a folder that several processes share and go on with."""
