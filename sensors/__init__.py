"""sensors: frames from cameras, logs and files, and the true time of every pixel in them."""
