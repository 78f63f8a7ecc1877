"""Records, configuration, errors and files: what every stage shares and none owns."""
