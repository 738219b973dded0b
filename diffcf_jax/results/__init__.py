"""Results on disk: images, log, summary and the folder that holds them."""
