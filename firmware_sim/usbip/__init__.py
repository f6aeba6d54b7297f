"""The simulated device on a (virtual) bus: USB descriptors and rules, and a USB/IP server that exports them."""
