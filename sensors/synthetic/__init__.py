"""A synthetic drive: rendered camera, IMU and GNSS with known truth. See docs/synthetic-drive.md."""
