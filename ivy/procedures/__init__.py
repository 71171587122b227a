"""What a node does with its sensors: one module with one `run(config, logger)` for each procedure."""
