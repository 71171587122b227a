"""What crosses between the parts of ivy: config, messages, state. No behaviour beyond loading and dumping."""
