"""The self-test of the bypass: programs that talk over TCP and over the bypass, and what each of them sees."""
