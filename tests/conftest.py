"""What all tests share: a loaded machine draws examples slowly, and that is no fault of the code."""

import signal

from hypothesis import HealthCheck, settings

settings.register_profile("ackward", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ackward")

# A shell that starts a test run in the background has Ctrl-C ignored (POSIX), and programs inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
