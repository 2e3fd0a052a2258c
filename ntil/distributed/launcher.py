"""What a launcher tells the workers that it starts."""

LAUNCHER = "NTIL_LAUNCHER"  # set to the launcher's process id in the environment of the workers it starts
