"""Adapters: cameras, files, recordings, IMU and CAN as streams of stamped samples."""
