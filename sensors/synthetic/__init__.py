"""A synthetic drive: rendered camera, IMU and GNSS, with truth. See docs/synthetic-drive.md."""
