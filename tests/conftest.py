"""What all tests share: a loaded machine draws examples slowly, and that is no fault of the code."""

from hypothesis import HealthCheck, settings

settings.register_profile("ackward", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ackward")
