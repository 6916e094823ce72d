"""Pure models: what TCP will do, without a kernel. Layer: beside diagnosis and report; never imports the kernel."""
